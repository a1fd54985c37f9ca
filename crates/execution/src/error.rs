//! Why a block could not be built or is not valid.

use crate::DatabaseError;
use alloy_consensus::Header;
use alloy_evm::block::BlockExecutionError;
use alloy_primitives::{B256, Bloom};
use revm::context_interface::result::InvalidTransaction;

/// No block came of it.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// The parent state could not be read; says nothing about the block.
    #[error(transparent)]
    State(#[from] DatabaseError),
    /// A transaction of a given block may not run where it stands.
    #[error("transaction {index} ({hash}) is invalid: {error}")]
    Transaction {
        /// Place in the block.
        index: usize,
        /// Transaction hash.
        hash: B256,
        /// The rule that it breaks.
        error: InvalidTransaction,
    },
    /// A transaction asks for more gas than the block has left.
    #[error(
        "transaction {index} ({hash}) does not fit: gas limit {gas_limit}, the block has {available} left"
    )]
    GasLimit {
        /// Place in the block.
        index: usize,
        /// Transaction hash.
        hash: B256,
        /// Gas that it asks for.
        gas_limit: u64,
        /// Gas that was left.
        available: u64,
    },
    /// The EVM itself failed on a transaction of a given block.
    #[error("transaction {index} ({hash}) made the executor fail: {reason}")]
    Poison {
        /// Place in the block.
        index: usize,
        /// Transaction hash.
        hash: B256,
        /// What the EVM said, or "panic".
        reason: String,
    },
    /// A system call or a deposit log that the fork's rules reject.
    #[error("block processing failed: {0}")]
    System(#[source] BlockExecutionError),
    /// The header does not say what execution gave.
    #[error("block {number}: {mismatch}")]
    Header {
        /// Block height.
        number: u64,
        /// The first field that differs.
        mismatch: HeaderMismatch,
    },
    /// EIP-1559's chain of headers is seconds; a block may not lie before its parent.
    #[error("timestamp {got} is below the parent's {parent}")]
    Timestamp {
        /// The timestamp asked for.
        got: u64,
        /// The parent's.
        parent: u64,
    },
    /// Headers carry at most 32 bytes of extra data.
    #[error("extra data of {got} bytes, at most 32 are allowed")]
    ExtraData {
        /// Its length.
        got: usize,
    },
}

/// A header field that execution contradicts: `got` stands in the header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderMismatch {
    /// Sum of the transactions' gas.
    #[error("gas used {got}, expected {expected}")]
    GasUsed {
        /// In the header.
        got: u64,
        /// From execution.
        expected: u64,
    },
    /// Root of the receipt trie.
    #[error("receipts root {got}, expected {expected}")]
    ReceiptsRoot {
        /// In the header.
        got: B256,
        /// From execution.
        expected: B256,
    },
    /// Bloom of all logs.
    #[error("logs bloom {got}, expected {expected}")]
    LogsBloom {
        /// In the header.
        got: Box<Bloom>,
        /// From execution.
        expected: Box<Bloom>,
    },
    /// EIP-4844; absent before Cancun.
    #[error("blob gas used {got:?}, expected {expected:?}")]
    BlobGasUsed {
        /// In the header.
        got: Option<u64>,
        /// From execution.
        expected: Option<u64>,
    },
    /// EIP-7685; absent before Prague.
    #[error("requests hash {got:?}, expected {expected:?}")]
    RequestsHash {
        /// In the header.
        got: Option<B256>,
        /// From execution.
        expected: Option<B256>,
    },
}

impl HeaderMismatch {
    pub(crate) fn at(self, header: &Header) -> ExecutionError {
        ExecutionError::Header { number: header.number, mismatch: self }
    }
}
