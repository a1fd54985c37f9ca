//! Members that contradicted each other (`blockraft_evidence`).

use crate::registry::Registry;
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::NodeId;
use serde::{Deserialize, Serialize};

/// Two different answers to one unit of work: one of two members computes or stores wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disagreement {
    /// Who led, and kept both answers.
    pub leader: NodeId,
    /// In this term.
    pub term: u64,
    /// Number of the block that was being built.
    pub block_number: u64,
    /// Hash of the block before it.
    pub parent_hash: B256,
    /// Hashes of the transactions that were run.
    pub transactions: Vec<B256>,
    /// The two answers.
    pub answers: Vec<DisagreementAnswer>,
}

/// What a member said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DisagreementAnswer {
    /// The member.
    pub node: NodeId,
    /// The outcomes as it encoded them.
    pub outcomes: Bytes,
}

/// The disagreements that this node has found as leader since it started, the latest last.
pub type EvidenceSource = dyn Fn() -> Vec<Disagreement> + Send + Sync;

pub(crate) fn register(registry: &mut Registry) {
    registry.quick("blockraft_evidence", 0, |api, _| Ok((api.evidence)()));
}
