//! The `net`, `web3`, `rpc` and `blockraft` namespaces.

use crate::{NodeStatus, api::Api, registry::Registry};
use alloy_primitives::{Bytes, U64, keccak256};
use serde_json::{json, value::RawValue};

/// The description of every method, served as it is.
pub(crate) const OPENRPC: &str = include_str!("../../../rpc-spec/openrpc.json");

pub(crate) fn register(registry: &mut Registry) {
    registry.quick("net_version", 0, |api, _| Ok(api.spec().chain_id.to_string()));
    registry.quick("net_listening", 0, |_, _| Ok(true));
    // The other members of the cluster.
    registry.quick("net_peerCount", 0, |api, _| {
        Ok(U64::from(api.cluster.borrow().members.len().saturating_sub(1)))
    });
    registry.quick("web3_clientVersion", 0, |api, _| Ok(api.client_version.clone()));
    registry.quick("web3_sha3", 1, |_, args| Ok(keccak256(args.required::<Bytes>(0)?)));
    registry.quick("rpc_modules", 0, |_, _| {
        Ok(json!({
            "blockraft": "1.0",
            "debug": "1.0",
            "eth": "1.0",
            "net": "1.0",
            "rpc": "1.0",
            "txpool": "1.0",
            "web3": "1.0",
        }))
    });
    registry.quick("rpc.discover", 0, |_, _| {
        Ok(RawValue::from_string(OPENRPC.trim().to_owned()).expect("a test parses the document"))
    });
    registry.quick("blockraft_status", 0, |api, _| Ok(status(api)));
}

fn status(api: &Api) -> NodeStatus {
    let head = api.store.head();
    let (pool_pending, pool_queued) = api.pool.read().status();
    NodeStatus {
        cluster: api.cluster.borrow().clone(),
        block_number: head.number,
        block_hash: head.hash(),
        pool_pending: pool_pending as u64,
        pool_queued: pool_queued as u64,
        client_version: api.client_version.clone(),
    }
}
