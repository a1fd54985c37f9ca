//! Readiness: whether a balancer should send clients here, and why not.

use crate::{Role, api::Api};
use serde::Serialize;

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
    let reasons = cluster.unready_reasons();
    Health {
        ready: reasons.is_empty(),
        reasons,
        node_id: cluster.node_id,
        role: cluster.role,
        term: cluster.term,
        leader: cluster.leader,
        applied_lag: cluster.applied_lag(),
        block: api.store.head().number,
    }
}
