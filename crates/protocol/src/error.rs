//! Why a transaction is not admitted, in geth's words: clients match on these texts.

use crate::BlobError;
use alloy_primitives::{Address, B256, U256};
use blockraft_primitives::NodeId;
use serde::{Deserialize, Serialize};

/// A refusal of one transaction. Every variant's text is what geth answers in the same case
/// (`core/error.go`, `core/txpool/errors.go`, `core/txpool/validation.go`, `core/types/transaction.go`,
/// `internal/ethapi`). Verdicts travel between nodes, so the type is part of the wire format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PoolError {
    // What the bytes say.
    /// The raw transaction is longer than the pool takes.
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized {
        /// Bytes.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// Nothing there, or a type byte and no more.
    #[error("typed transaction too short")]
    TooShort,
    /// Not the RLP of a transaction.
    #[error("rlp: {0}")]
    Rlp(String),
    /// A type that no rule knows (EIP-2718).
    #[error("transaction type not supported")]
    UnknownType,
    /// A type that is known and not taken here.
    #[error("transaction type not supported: tx type {tx_type} not supported by this pool")]
    UnsupportedType {
        /// EIP-2718 type byte.
        tx_type: u8,
    },
    /// A type whose fork has not come.
    #[error("transaction type not supported: type {tx_type} rejected, pool not yet in {fork}")]
    TypeBeforeFork {
        /// EIP-2718 type byte.
        tx_type: u8,
        /// The fork that brings it.
        fork: String,
    },
    /// A legacy transaction without a chain id (EIP-155).
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// Signed for another chain.
    #[error("invalid sender: invalid chain id for signer: have {have} want {want}")]
    ChainId {
        /// The transaction's.
        have: u64,
        /// This chain's.
        want: u64,
    },
    /// The signature is not one, or has a high s (EIP-2).
    #[error("invalid sender: invalid transaction v, r, s values")]
    Signature,

    // What the rules of the fork say.
    /// Init code longer than a creation may have (EIP-3860).
    #[error("max initcode size exceeded: code size {size}, limit {limit}")]
    InitCode {
        /// Bytes.
        size: u64,
        /// Bytes.
        limit: u64,
    },
    /// More gas than one transaction may ask for (EIP-7825).
    #[error("transaction gas limit too high (cap: {cap}, tx: {gas})")]
    GasCap {
        /// The cap.
        cap: u64,
        /// The transaction's gas limit.
        gas: u64,
    },
    /// More gas than a block has.
    #[error("exceeds block gas limit")]
    BlockGasLimit,
    /// A tip above the fee cap (EIP-1559).
    #[error("max priority fee per gas higher than max fee per gas")]
    TipAboveFeeCap,
    /// The nonce cannot be raised any more (EIP-2681).
    #[error("nonce has max value")]
    NonceMax,
    /// Less gas than the transaction costs before anything runs.
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas {
        /// The transaction's gas limit.
        gas: u64,
        /// What it must be at least.
        needed: u64,
    },
    /// Less gas than the transaction's data costs at least (EIP-7623).
    #[error("insufficient gas for floor data gas cost: gas {gas}, minimum needed {needed}")]
    FloorGas {
        /// The transaction's gas limit.
        gas: u64,
        /// What it must be at least.
        needed: u64,
    },
    /// A set-code transaction that sets nothing (EIP-7702).
    #[error("set code tx must have at least one authorization tuple")]
    NoAuthorization,

    // What state and pool say.
    /// In the pool already. A gateway answers this with the hash, as a success.
    #[error("already known")]
    AlreadyKnown,
    /// The nonce is used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// The sender's nonce in the state.
        next: u64,
        /// The transaction's.
        nonce: u64,
    },
    /// Too far beyond the first nonce that the pool does not have.
    #[error("nonce too high: tx nonce {nonce}, gapped nonce {gapped}")]
    NonceTooHigh {
        /// The transaction's.
        nonce: u64,
        /// The first nonce that is missing.
        gapped: u64,
    },
    /// The sender cannot pay for the transaction alone.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {}",
        overshot(.cost, .balance)
    )]
    Funds {
        /// Wei.
        balance: U256,
        /// Gas limit times fee cap plus value, wei.
        cost: U256,
    },
    /// The sender cannot pay for it beside what it has in the pool.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx cost {cost}, overshot {}",
        overshot(&.queued.saturating_add(*.cost), .balance)
    )]
    QueuedFunds {
        /// Wei.
        balance: U256,
        /// Cost of the sender's transactions in the pool, wei.
        queued: U256,
        /// Gas limit times fee cap plus value, wei.
        cost: U256,
    },
    /// The sender cannot pay for the replacement beside what it has in the pool.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx bumped {bump}, overshot {}",
        overshot(&.queued.saturating_add(*.bump), .balance)
    )]
    BumpedFunds {
        /// Wei.
        balance: U256,
        /// Cost of the sender's transactions in the pool, wei.
        queued: U256,
        /// What the replacement costs more, wei.
        bump: U256,
    },
    /// Another transaction has this nonce, and this one does not pay 10 % more.
    #[error("replacement transaction underpriced")]
    ReplacementUnderpriced,
    /// The sender has as many transactions in the pool as one may.
    #[error("account limit exceeded: pooled {pooled} txs")]
    AccountLimit {
        /// Transactions of the sender.
        pooled: u64,
    },
    /// The pool has no room.
    #[error("txpool is full")]
    PoolFull,

    // What the node says that was asked.
    /// More for its gas than the node lets anybody pay.
    #[error("tx fee ({} ether) exceeds the configured cap ({} ether)", ether(.fee), ether(.cap))]
    FeeCap {
        /// Gas limit times fee cap, wei.
        fee: U256,
        /// Wei.
        cap: U256,
    },

    /// The sender is a contract (EIP-3607).
    #[error("sender not an eoa: address {address}, codehash: {code_hash}")]
    SenderNotEoa {
        /// The sender.
        address: Address,
        /// Of its code.
        code_hash: B256,
    },

    // What is special to blobs.
    /// The blobs that came along.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A sender has either blob transactions in the pool or others, as in geth.
    #[error("address already reserved")]
    AddressReserved,

    // What is special to fees that nobody can pay.
    /// A fee cap of more than 256 bits.
    #[error("max fee per gas higher than 2^256-1")]
    FeeVeryHigh,
    /// A tip of more than 256 bits.
    #[error("max priority fee per gas higher than 2^256-1")]
    TipVeryHigh,
    /// More than all ether there is, whoever the sender is.
    #[error("insufficient funds for gas * price + value: tx cost {cost}")]
    Unpayable {
        /// Gas limit times fee cap plus value, wei.
        cost: U256,
    },
}

/// What is missing, wei.
fn overshot(need: &U256, balance: &U256) -> U256 {
    need.saturating_sub(*balance)
}

/// Ether with two places.
fn ether(wei: &U256) -> String {
    const HUNDREDTH: u64 = 10_000_000_000_000_000;
    let hundredths = wei.saturating_add(U256::from(HUNDREDTH / 2)) / U256::from(HUNDREDTH);
    let (whole, part) = hundredths.div_rem(U256::from(100));
    format!("{whole}.{part:02}")
}

/// Why a node does not take a batch of transactions, none of which it has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// Another node leads, or none: nothing was proposed, so the batch may be sent elsewhere at once.
    #[error("this node does not lead")]
    NotLeader {
        /// Who leads, as far as is known here.
        leader: Option<NodeId>,
    },
    /// Too many transactions wait for a verdict: nothing was proposed.
    #[error("too many transactions wait for a verdict")]
    QueueFull,
    /// More than fits into one `Admit` entry: the gateway cuts its batches smaller.
    #[error("the batch is larger than one log entry may be")]
    BatchTooLarge,
    /// The batch was proposed and leadership was lost: it may be committed or not. Sending it again is
    /// safe, because a transaction that is in the pool answers [`PoolError::AlreadyKnown`].
    #[error("the outcome is unknown")]
    OutcomeUnknown,
}
