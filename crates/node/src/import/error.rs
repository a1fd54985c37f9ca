//! Why a block was not imported.

use super::SourceError;
use crate::NodeError;
use alloy_primitives::{B256, U256};
use blockraft_execution::{ConsensusError, ExecutionError};
use blockraft_primitives::{GenesisError, StateError};
use blockraft_storage::StorageError;
use std::fmt;

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
    /// Block 0 of another chain.
    #[error("this is block 0 of another chain, expected {expected}")]
    AnotherGenesis {
        /// Hash of our block 0.
        expected: B256,
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
    /// The file's word on the branch up to a block.
    #[error("total difficulty {got}, expected {expected}")]
    TotalDifficulty {
        /// In the file.
        got: U256,
        /// The sum.
        expected: U256,
    },
    /// A branch that begins further back than can be gone.
    #[error(
        "the branch begins at block {ancestor}, the chain is at {head}: it can go back to {oldest}"
    )]
    TooDeep {
        /// Where the branch begins.
        ancestor: u64,
        /// The chain's last block.
        head: u64,
        /// The lowest block that it can go back to.
        oldest: u64,
    },
    /// A data directory whose blocks come from its log.
    #[error(
        "a node of a cluster has run over this data directory: its blocks come from the cluster alone"
    )]
    ClusterChain,
    /// A data directory of the same block 0 and other rules.
    #[error(
        "the data directory was made from a genesis file with other rules (its `config` differs)"
    )]
    OtherRules,
    /// The genesis fits no rules.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The chain file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state trie.
    #[error(transparent)]
    Trie(#[from] Box<NodeError>),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Where an import ended before the end of its file.
#[derive(Debug)]
pub struct ImportFailure {
    /// The block, as far as it is known.
    pub block: FailedBlock,
    /// Why.
    pub error: ImportError,
}

/// A block that an import ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedBlock {
    /// It has a header.
    Known {
        /// Its number.
        number: u64,
        /// Its hash; `None` where it does not decode as a whole.
        hash: Option<B256>,
    },
    /// What follows a block of the file is none.
    After {
        /// The number of the last block that was read from it; `None` at its beginning.
        number: Option<u64>,
    },
    /// No block's fault.
    None,
}

impl fmt::Display for ImportFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            FailedBlock::Known { number, hash: Some(hash) } => {
                write!(f, "block {number} ({hash}): ")
            }
            FailedBlock::Known { number, hash: None } => write!(f, "block {number}: "),
            FailedBlock::After { number: Some(number) } => write!(f, "after block {number}: "),
            FailedBlock::After { number: None } | FailedBlock::None => Ok(()),
        }?;
        self.error.fmt(f)
    }
}

impl std::error::Error for ImportFailure {}
