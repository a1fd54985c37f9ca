//! When a transaction passed the stages of its way (`blockraft_txTimeline`).

use crate::{api::Api, args::Args, errors::RpcResult, registry::Registry};
use alloy_primitives::B256;
use blockraft_primitives::NodeId;
use blockraft_storage::StorageError;
use serde::{Deserialize, Serialize};

/// Microseconds after the first stage that the node saw; `None` where it did not look on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageTimes {
    /// A client's request with it was taken up: by the node that it was sent to.
    pub received: Option<u64>,
    /// Its `Admit` entry was applied.
    pub admitted: Option<u64>,
    /// Its block was begun: this and the next four by the node that built the block.
    pub begun: Option<u64>,
    /// It was taken from the pool.
    pub in_block: Option<u64>,
    /// The block's transactions had run.
    pub executed: Option<u64>,
    /// The block's state root was known.
    pub rooted: Option<u64>,
    /// The block was given to Raft.
    pub proposed: Option<u64>,
    /// The node learnt that the block is committed.
    pub committed: Option<u64>,
    /// The block became visible.
    pub applied: Option<u64>,
}

/// The answer of `blockraft_txTimeline`: what one node saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TxTimeline {
    /// The transaction.
    pub transaction_hash: B256,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: B256,
    /// Its place in the block.
    pub transaction_index: u64,
    /// The node that says this.
    pub node_id: NodeId,
    /// The node that built the block, which knows how it was made.
    pub builder_id: Option<NodeId>,
    /// What the stages are counted from: microseconds since 1970 on the node's clock.
    pub start_unix_micros: u64,
    /// The stages.
    pub stages: StageTimes,
}

/// A transaction's hash to what the node saw of it.
pub type TimelineSource = dyn Fn(B256) -> Result<Option<TxTimeline>, StorageError> + Send + Sync;

pub(crate) fn register(registry: &mut Registry) {
    registry.read("blockraft_txTimeline", 1, timeline);
}

fn timeline(api: &Api, args: &Args) -> RpcResult<Option<TxTimeline>> {
    Ok((api.timelines)(args.required::<B256>(0)?)?)
}
