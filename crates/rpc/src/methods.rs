//! Which methods there are.

use crate::{api::Api, eth, registry::Registry};
use jsonrpsee::RpcModule;
use std::sync::Arc;

/// Every method of the server.
pub(crate) fn register(api: Arc<Api>) -> RpcModule<Api> {
    let mut registry = Registry::new(api);
    eth::chain::register(&mut registry);
    eth::state::register(&mut registry);
    registry.into_module()
}
