//! Why a block was not imported.

use alloy_primitives::B256;
use blockraft_execution::{ConsensusError, ExecutionError};
use blockraft_primitives::GenesisError;

/// A block that does not join the chain, or a chain that cannot take one.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not the RLP of a block.
    #[error("block does not decode: {0}")]
    Decode(#[from] alloy_rlp::Error),
    /// It decodes, but another encoding of the same content is the right one.
    #[error("block is not encoded canonically")]
    NotCanonical,
    /// Not the bytes of a transaction.
    #[error("transaction does not decode: {0}")]
    Transaction(#[from] alloy_eips::eip2718::Eip2718Error),
    /// The block before it is not there.
    #[error("parent {parent} is unknown")]
    UnknownParent {
        /// What the header names.
        parent: B256,
    },
    /// A rule that holds without executing the block.
    #[error(transparent)]
    Rule(#[from] ConsensusError),
    /// A rule that execution found broken.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// The state after the block is not what its header says.
    #[error("state root {got}, expected {expected}")]
    StateRoot {
        /// In the header.
        got: B256,
        /// From execution.
        expected: B256,
    },
    /// The genesis fits no rules.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}
