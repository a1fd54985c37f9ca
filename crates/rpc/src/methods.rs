//! Which methods there are.

use crate::{api::Api, eth, evidence, filters, net, pubsub, registry::Registry, timeline, txpool};
use jsonrpsee::RpcModule;
use std::sync::Arc;

/// Every method of the server.
pub(crate) fn register(api: Arc<Api>) -> RpcModule<Api> {
    let mut registry = Registry::new(api);
    eth::access_list::register(&mut registry);
    eth::blocks::register(&mut registry);
    eth::call::register(&mut registry);
    eth::chain::register(&mut registry);
    eth::config::register(&mut registry);
    eth::estimate::register(&mut registry);
    eth::fees::register(&mut registry);
    eth::logs::register(&mut registry);
    eth::proof::register(&mut registry);
    eth::state::register(&mut registry);
    eth::submit::register(&mut registry);
    eth::transactions::register(&mut registry);
    filters::register(&mut registry);
    net::register(&mut registry);
    pubsub::register(&mut registry);
    evidence::register(&mut registry);
    timeline::register(&mut registry);
    txpool::register(&mut registry);
    registry.into_module()
}
