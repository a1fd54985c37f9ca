//! What the Engine API asks of the node.

use super::EngineError;
use alloy_consensus::{Block, TxEnvelope};
use alloy_eips::eip4895::Withdrawal;
use alloy_eips::{eip7594::BlobTransactionSidecarVariant, eip7685::Requests};
use alloy_primitives::{Address, B256, U256};
use alloy_rpc_types_engine::{ForkchoiceState, ForkchoiceUpdated, PayloadId, PayloadStatus};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Where an answer goes. Nobody may wait any more.
pub type EngineReply<T> = oneshot::Sender<Result<T, EngineError>>;

/// One call. The node takes them one after the other.
#[derive(Debug)]
pub enum EngineCall {
    /// Validate a block, whose header has the hash that the consensus client named.
    NewPayload {
        /// The header's hash.
        hash: B256,
        /// The whole block.
        block: Box<Block<TxEnvelope>>,
        /// The verdict.
        reply: EngineReply<PayloadStatus>,
    },
    /// Move the head.
    Forkchoice {
        /// To where, and what is safe and final.
        state: ForkchoiceState,
        /// Begin to build a block on the new head.
        build: Option<Box<PayloadRequest>>,
        /// The head's status, and the name of what is built.
        reply: EngineReply<ForkchoiceUpdated>,
    },
    /// Give the block that was begun.
    GetPayload {
        /// Its name.
        id: PayloadId,
        /// The block.
        reply: EngineReply<Arc<BuiltPayload>>,
    },
}

/// What the consensus client chooses of a block that the node builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadRequest {
    /// Seconds; above the parent's.
    pub timestamp: u64,
    /// PREVRANDAO.
    pub prev_randao: B256,
    /// Receives the priority fees.
    pub fee_recipient: Address,
    /// EIP-4895; `None` before Shanghai.
    pub withdrawals: Option<Vec<Withdrawal>>,
    /// EIP-4788; `None` before Cancun.
    pub parent_beacon_block_root: Option<B256>,
}

/// A block that the node built for the consensus client.
#[derive(Clone, Debug, PartialEq)]
pub struct BuiltPayload {
    /// Its hash.
    pub hash: B256,
    /// The block; blob transactions without their blobs.
    pub block: Block<TxEnvelope>,
    /// EIP-7685; empty before Prague.
    pub requests: Requests,
    /// The blobs, a sidecar for each blob transaction, in block order.
    pub blobs: Vec<BlobTransactionSidecarVariant>,
    /// What the fee recipient earns, wei.
    pub value: U256,
}
