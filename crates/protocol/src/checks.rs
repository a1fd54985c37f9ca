//! What a gateway decides about a raw transaction without looking at the state.
//!
//! [`decode`] does it all; [`parse`] and [`recover`] are its cheap and its expensive half (a microsecond
//! and fifty), for shells that spread the second over worker threads.

mod blobs;
mod wide;

pub(crate) use blobs::blob_cost;
pub use wide::{Unpayable, unpayable};

use crate::{
    PoolError,
    intrinsic::{IntrinsicInput, IntrinsicRules, floor_gas, intrinsic_gas},
};
use alloy_consensus::Header;
use alloy_consensus::{
    Signed, Transaction as _, TxEnvelope, TxLegacy, TxType, Typed2718,
    transaction::{Recovered, SignerRecoverable},
};
use alloy_eips::{
    eip2718::{Decodable2718, Eip2718Error, Encodable2718},
    eip7825::MAX_TX_GAS_LIMIT_OSAKA,
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, U256, keccak256};
use blockraft_primitives::{ChainSpec, ClusterOptions, Transaction, limits};
use std::sync::Arc;

/// Bytes of init code that a creation may have (EIP-3860, from Shanghai).
const INIT_CODE_SIZE_MAX: usize = 49_152;

/// The rules that a transaction must meet to enter the pool on top of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionRules {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Gas of a block.
    pub block_gas_limit: u64,
    /// What the node that takes the transaction asks beyond the chain's rules.
    pub submission: SubmissionRules,
    forks: Forks,
}

/// What a node asks of the transactions that clients send to it; not a rule of the chain. Each node may
/// have its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmissionRules {
    /// Wei that a transaction's gas may cost at most; `None`: no limit.
    pub fee_cap: Option<U256>,
    /// Whether legacy transactions without a chain id are taken (EIP-155).
    pub unprotected: bool,
}

impl Default for SubmissionRules {
    /// As geth: one ether, and only what is protected.
    fn default() -> Self {
        Self { fee_cap: Some(U256::from(WEI_PER_ETHER)), unprotected: false }
    }
}

/// Wei of one ether.
const WEI_PER_ETHER: u128 = 1_000_000_000_000_000_000;

/// Forks that change what is admitted. Each stands for the first one that has the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Forks {
    homestead: bool,
    spurious_dragon: bool,
    istanbul: bool,
    berlin: bool,
    london: bool,
    shanghai: bool,
    cancun: bool,
    prague: bool,
    osaka: bool,
    /// Amsterdam prices gas anew (EIP-2780, EIP-8037, EIP-7954): from there on the block engine alone
    /// decides whether a transaction brings too little or asks for too much gas.
    amsterdam: bool,
}

impl AdmissionRules {
    /// The rules on top of the block `head`.
    pub fn at(spec: &ChainSpec, head: &Header, options: &ClusterOptions) -> Self {
        let (number, time) = (head.number + 1, head.timestamp);
        Self {
            chain_id: spec.chain_id,
            block_gas_limit: options.gas_limit.unwrap_or(head.gas_limit),
            submission: SubmissionRules::default(),
            forks: Forks {
                homestead: spec.is_homestead_active_at_block(number),
                spurious_dragon: spec.is_spurious_dragon_active_at_block(number),
                istanbul: spec.is_istanbul_active_at_block(number),
                berlin: spec.is_berlin_active_at_block(number),
                london: spec.is_london_active_at_block(number),
                shanghai: spec.is_shanghai_active_at_timestamp(time),
                cancun: spec.is_cancun_active_at_timestamp(time),
                prague: spec.is_prague_active_at_timestamp(time),
                osaka: spec.is_osaka_active_at_timestamp(time),
                amsterdam: spec.is_amsterdam_active_at_timestamp(time),
            },
        }
    }
}

/// Decodes and checks a raw transaction and recovers its sender.
pub fn decode(raw: &[u8], rules: &AdmissionRules) -> Result<Transaction, PoolError> {
    recover(parse(raw, rules)?, rules)
}

/// Decodes a raw transaction and checks all but its signature and its blobs.
pub fn parse(raw: &[u8], rules: &AdmissionRules) -> Result<TxEnvelope, PoolError> {
    let tx = match decode_envelope(raw) {
        Ok(tx) => tx,
        Err(error) => return Err(wide::refusal(raw, rules).unwrap_or(error)),
    };
    // What geth's RPC looks at before its pool does, in the same order.
    let fee = U256::from(tx.max_fee_per_gas()).saturating_mul(U256::from(tx.gas_limit()));
    check_fee_cap(fee, rules.submission)?;
    check_unprotected(&tx, rules.submission)?;
    check_type(&tx, rules)?;
    check_chain_id(&tx, rules)?;
    check_limits(&tx, rules)?;
    check_gas(&tx, rules)?;
    Ok(tx)
}

/// Recovers the sender (from Homestead on a high s is no signature, EIP-2), computes the hash, and checks
/// the proofs of blobs.
pub fn recover(tx: TxEnvelope, rules: &AdmissionRules) -> Result<Transaction, PoolError> {
    let sender =
        if rules.forks.homestead { tx.recover_signer() } else { tx.recover_signer_unchecked() };
    let sender = sender.map_err(|_| PoolError::Signature)?;
    with_sender(tx, sender, rules)
}

/// What [`recover`] does besides recovering: for a sender that somebody else has recovered.
pub fn with_sender(
    tx: TxEnvelope,
    sender: Address,
    rules: &AdmissionRules,
) -> Result<Transaction, PoolError> {
    if let TxEnvelope::Eip4844(signed) = &tx {
        blobs::check(signed.tx(), rules.forks.osaka)?;
    }
    // Computed here once, on the caller's thread, and kept in the envelope.
    tx.tx_hash();
    Ok(Arc::new(Recovered::new_unchecked(tx, sender)))
}

/// Whether a high s is no signature.
pub(crate) const fn is_strict(rules: &AdmissionRules) -> bool {
    rules.forks.homestead
}

/// The hash of a raw transaction. That of a blob transaction does not cover its blobs; bytes that are no
/// transaction have the hash of bytes.
pub fn hash_of(raw: &[u8]) -> B256 {
    if raw.first() == Some(&(TxType::Eip4844 as u8))
        && let Ok(tx) = TxEnvelope::decode_2718(&mut &*raw)
    {
        return *tx.tx_hash();
    }
    keccak256(raw)
}

/// The bytes must be the one encoding of what they say: the hash that a client computes over what it
/// sent is then the hash that the chain knows.
fn decode_envelope(raw: &[u8]) -> Result<TxEnvelope, PoolError> {
    let blobs = raw.first() == Some(&(TxType::Eip4844 as u8));
    let limit = if blobs { limits::BLOB_TX_SIZE_MAX } else { limits::TX_SIZE_MAX };
    if raw.len() > limit {
        let (size, limit) = (raw.len() as u64, limit as u64);
        return Err(PoolError::Oversized { size, limit });
    }
    let mut rest = raw;
    let decoded = match raw {
        [] | [0..=0x7f] => return Err(PoolError::TooShort),
        [tx_type @ 0..=0x7f, ..] => {
            if *tx_type == 0 || TxType::try_from(*tx_type).is_err() {
                return Err(PoolError::UnknownType);
            }
            TxEnvelope::decode_2718(&mut rest)
        }
        // The envelope's own fallback hides which error the legacy decoder met.
        _ => Signed::<TxLegacy>::fallback_decode(&mut rest).map(TxEnvelope::Legacy),
    };
    let tx = decoded.map_err(rlp_error)?;
    if !rest.is_empty() {
        return Err(PoolError::Rlp("input contains more than one value".to_owned()));
    }
    if tx.encoded_2718() != raw {
        return Err(PoolError::Rlp("non-canonical transaction encoding".to_owned()));
    }
    Ok(tx)
}

/// geth's words where its decoder has the same case.
fn rlp_error(error: Eip2718Error) -> PoolError {
    use alloy_rlp::Error as E;
    let error = match error {
        Eip2718Error::RlpError(error) => error,
        _ => return PoolError::UnknownType,
    };
    let text = match error {
        E::Overflow => "input string too long for integer".to_owned(),
        E::LeadingZero => "non-canonical integer (leading zero bytes)".to_owned(),
        E::InputTooShort => "value size exceeds available input length".to_owned(),
        E::NonCanonicalSingleByte | E::NonCanonicalSize => {
            "non-canonical size information".to_owned()
        }
        E::UnexpectedString => "expected input list".to_owned(),
        E::UnexpectedList => "expected input string or byte".to_owned(),
        other => other.to_string(),
    };
    PoolError::Rlp(text)
}

fn check_type(tx: &TxEnvelope, rules: &AdmissionRules) -> Result<(), PoolError> {
    let forks = &rules.forks;
    let missing_fork = match tx.tx_type() {
        TxType::Legacy => None,
        TxType::Eip2930 => (!forks.berlin).then_some("Berlin"),
        TxType::Eip1559 => (!forks.london).then_some("London"),
        TxType::Eip4844 => (!forks.cancun).then_some("Cancun"),
        TxType::Eip7702 => (!forks.prague).then_some("Prague"),
    };
    missing_fork.map_or(Ok(()), |fork| {
        Err(PoolError::TypeBeforeFork { tx_type: tx.ty(), fork: fork.to_owned() })
    })
}

fn check_fee_cap(fee: U256, rules: SubmissionRules) -> Result<(), PoolError> {
    match rules.fee_cap {
        Some(cap) if fee > cap => Err(PoolError::FeeCap { fee, cap }),
        _ => Ok(()),
    }
}

fn check_unprotected(tx: &TxEnvelope, rules: SubmissionRules) -> Result<(), PoolError> {
    let bare = tx.is_legacy() && tx.chain_id().is_none();
    if bare && !rules.unprotected { Err(PoolError::Unprotected) } else { Ok(()) }
}

fn check_chain_id(tx: &TxEnvelope, rules: &AdmissionRules) -> Result<(), PoolError> {
    let want = rules.chain_id;
    match tx.chain_id() {
        Some(have) if have != want => Err(PoolError::ChainId { have, want }),
        Some(_) if tx.is_legacy() && !rules.forks.spurious_dragon => Err(PoolError::Signature),
        _ => Ok(()),
    }
}

fn check_limits(tx: &TxEnvelope, rules: &AdmissionRules) -> Result<(), PoolError> {
    let size = tx.input().len();
    if tx.is_create() && rules.forks.shanghai && !rules.forks.amsterdam && size > INIT_CODE_SIZE_MAX
    {
        let limit = INIT_CODE_SIZE_MAX as u64;
        return Err(PoolError::InitCode { size: size as u64, limit });
    }
    if tx.max_priority_fee_per_gas().is_some_and(|tip| tip > tx.max_fee_per_gas()) {
        return Err(PoolError::TipAboveFeeCap);
    }
    if tx.nonce() == u64::MAX {
        return Err(PoolError::NonceMax);
    }
    if tx.authorization_list().is_some_and(<[_]>::is_empty) {
        return Err(PoolError::NoAuthorization);
    }
    Ok(())
}

fn check_gas(tx: &TxEnvelope, rules: &AdmissionRules) -> Result<(), PoolError> {
    let (gas, forks) = (tx.gas_limit(), &rules.forks);
    if forks.osaka && !forks.amsterdam && gas > MAX_TX_GAS_LIMIT_OSAKA {
        return Err(PoolError::GasCap { cap: MAX_TX_GAS_LIMIT_OSAKA, gas });
    }
    check_block_gas(tx, rules)?;
    if forks.amsterdam {
        return Ok(());
    }
    let input = IntrinsicInput {
        data: tx.input(),
        create: tx.is_create(),
        access_list: tx.access_list(),
        authorizations: tx.authorization_count().unwrap_or(0),
    };
    let priced = IntrinsicRules {
        homestead: forks.homestead,
        istanbul: forks.istanbul,
        shanghai: forks.shanghai,
    };
    let needed = intrinsic_gas(input, priced);
    if gas < needed {
        return Err(PoolError::IntrinsicGas { gas, needed });
    }
    let needed = floor_gas(tx.input());
    if forks.prague && gas < needed {
        return Err(PoolError::FloorGas { gas, needed });
    }
    Ok(())
}

/// Asked again when the transaction enters the pool: the limit may have changed on the way.
pub(crate) fn check_block_gas(tx: &TxEnvelope, rules: &AdmissionRules) -> Result<(), PoolError> {
    if tx.gas_limit() > rules.block_gas_limit { Err(PoolError::BlockGasLimit) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
