//! The rules by name.

use alloy_primitives::{Address, B256, U256};

/// A rule about a block that holds without executing it: `got` stands in the block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsensusError {
    /// The block follows another one.
    #[error("parent hash {got}, expected {expected}")]
    ParentHash {
        /// In the header.
        got: B256,
        /// The parent's hash.
        expected: B256,
    },
    /// Heights have no gaps.
    #[error("block number {got}, expected {expected}")]
    Number {
        /// In the header.
        got: u64,
        /// The parent's plus one.
        expected: u64,
    },
    /// Time moves on.
    #[error("timestamp {got} is not above the parent's {parent}")]
    Timestamp {
        /// In the header.
        got: u64,
        /// The parent's.
        parent: u64,
    },
    /// At most 32 bytes.
    #[error("extra data of {got} bytes, at most 32 are allowed")]
    ExtraData {
        /// Its length.
        got: usize,
    },
    /// The first ten blocks of the DAO fork say so in their extra data (EIP-779).
    #[error("extra data of a block at the DAO fork must be `dao-hard-fork`")]
    DaoExtraData,
    /// Gas limits fit 63 bits and are 5000 or more.
    #[error("gas limit {got} is out of range")]
    GasLimitRange {
        /// In the header.
        got: u64,
    },
    /// A gas limit moves by less than 1/1024 of the parent's.
    #[error("gas limit {got} is too far from the parent's {parent}")]
    GasLimitStep {
        /// In the header.
        got: u64,
        /// The parent's, doubled at the London fork.
        parent: u64,
    },
    /// More gas than the block may use.
    #[error("gas used {got} is above the gas limit {limit}")]
    GasUsed {
        /// In the header.
        got: u64,
        /// In the header.
        limit: u64,
    },
    /// EIP-1559.
    #[error("base fee {got:?}, expected {expected:?}")]
    BaseFee {
        /// In the header.
        got: Option<u64>,
        /// From the parent; `None` before London.
        expected: Option<u64>,
    },
    /// The difficulty formula, and zero from the merge on (EIP-3675).
    #[error("difficulty {got}, expected {expected}")]
    Difficulty {
        /// In the header.
        got: U256,
        /// From the parent.
        expected: U256,
    },
    /// Zero from the merge on (EIP-3675).
    #[error("nonce is not zero")]
    Nonce,
    /// A field that its fork does not have, or lacks one that it has.
    #[error("header field {field} is {}", if *.present { "not known in this fork" } else { "missing" })]
    Field {
        /// Its name.
        field: &'static str,
        /// Whether it is there.
        present: bool,
    },
    /// EIP-4844, EIP-7918.
    #[error("excess blob gas {got}, expected {expected}")]
    ExcessBlobGas {
        /// In the header.
        got: u64,
        /// From the parent.
        expected: u64,
    },
    /// Above the fork's maximum, or not of whole blobs (EIP-4844).
    #[error("blob gas used {got} is not possible, the maximum is {limit}")]
    BlobGasRange {
        /// In the header.
        got: u64,
        /// Of this fork.
        limit: u64,
    },
    /// Sum over the transactions (EIP-4844).
    #[error("blob gas used {got}, expected {expected}")]
    BlobGasUsed {
        /// In the header.
        got: u64,
        /// From the transactions.
        expected: u64,
    },
    /// Too many blobs in the block's transactions (EIP-4844).
    #[error("blob gas of transactions {got} is above the maximum of {limit}")]
    TooManyBlobs {
        /// From the transactions.
        got: u64,
        /// Of this fork.
        limit: u64,
    },
    /// Root of the transaction trie.
    #[error("transactions root {got}, expected {expected}")]
    TransactionsRoot {
        /// In the header.
        got: B256,
        /// Of the body.
        expected: B256,
    },
    /// Root of the withdrawal trie (EIP-4895).
    #[error("withdrawals root {got:?}, expected {expected:?}")]
    WithdrawalsRoot {
        /// In the header.
        got: Option<B256>,
        /// Of the body.
        expected: Option<B256>,
    },
    /// Hash of the ommers.
    #[error("ommers hash {got}, expected {expected}")]
    OmmersHash {
        /// In the header.
        got: B256,
        /// Of the body.
        expected: B256,
    },
    /// Blocks have no ommers from the merge on (EIP-3675).
    #[error("a block has no ommers after the merge")]
    OmmersAfterMerge,
    /// At most two.
    #[error("{got} ommers, at most 2 are allowed")]
    OmmerCount {
        /// In the body.
        got: usize,
    },
    /// Included before, twice, or an ancestor itself.
    #[error("ommer {hash} was included before")]
    OmmerKnown {
        /// Its hash.
        hash: B256,
    },
    /// Not a child of one of the last ancestors.
    #[error("ommer {hash} is no sibling of a recent ancestor")]
    OmmerUnrelated {
        /// Its hash.
        hash: B256,
    },
    /// An ommer is a valid header.
    #[error("ommer {hash}: {error}")]
    Ommer {
        /// Its hash.
        hash: B256,
        /// The rule that it breaks.
        error: Box<Self>,
    },
    /// EIP-7934.
    #[error("block of {got} bytes, at most {limit} are allowed")]
    BlockSize {
        /// RLP length.
        got: usize,
        /// Of this fork.
        limit: usize,
    },
    /// Blob transactions travel without their blobs in blocks (EIP-4844).
    #[error("transaction {index} carries blobs")]
    BlobSidecar {
        /// Place in the block.
        index: usize,
    },
    /// A signature that recovers to no address, or one with a high `s` (EIP-2).
    #[error("transaction {index} has an invalid signature")]
    Signature {
        /// Place in the block.
        index: usize,
    },
    /// A replay-protected signature before EIP-155.
    #[error("transaction {index} is replay-protected before EIP-155")]
    ReplayProtection {
        /// Place in the block.
        index: usize,
    },
    /// A contract that blocks of this fork call is not there (EIP-7002, EIP-7251).
    #[error("no code at system contract {address}")]
    SystemContract {
        /// Where it should be.
        address: Address,
    },
}
