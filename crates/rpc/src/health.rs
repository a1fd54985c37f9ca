//! Readiness: whether a balancer should send clients here, and why not.

use crate::{Role, api::Api};
use serde::Serialize;

/// Committed entries that a ready node may still have to apply.
const APPLIED_LAG_MAX: u64 = 1_000;

/// The answer of `GET /readyz`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    pub(crate) ready: bool,
    /// What is wrong; empty when the node is ready.
    reasons: Vec<String>,
    node_id: u64,
    role: Role,
    term: u64,
    leader: Option<u64>,
    applied_lag: u64,
    block: u64,
}

pub(crate) fn check(api: &Api) -> Health {
    let cluster = api.cluster.borrow();
    let applied_lag = cluster.committed_index.saturating_sub(cluster.applied_index);
    let mut reasons = Vec::new();
    if cluster.leader.is_none() {
        reasons.push("no leader is known".to_owned());
    }
    if applied_lag > APPLIED_LAG_MAX {
        reasons.push(format!("{applied_lag} committed entries are not applied yet"));
    }
    Health {
        ready: reasons.is_empty(),
        reasons,
        node_id: cluster.node_id,
        role: cluster.role,
        term: cluster.term,
        leader: cluster.leader,
        applied_lag,
        block: api.store.head().number,
    }
}
