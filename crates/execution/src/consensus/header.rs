//! A header against its parent's.

use super::{ConsensusError, next_difficulty};
use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, Header, Sealed};
use alloy_eips::{
    eip1559::{BaseFeeParams, INITIAL_BASE_FEE},
    eip4844::DATA_GAS_PER_BLOB,
};
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{B64, U256};
use blockraft_primitives::ChainSpec;

/// Where a cluster's own chain departs from Ethereum's rules about headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Blocks less than a second apart have the same timestamp.
    pub equal_timestamps: bool,
    /// The base fee is zero for ever.
    pub gasless: bool,
}

const EXTRA_DATA_LEN_MAX: usize = 32;
const GAS_LIMIT_MIN: u64 = 5000;
const GAS_LIMIT_MAX: u64 = i64::MAX as u64;
const GAS_LIMIT_STEP_DIVISOR: u64 = 1024;
const DAO_EXTRA_DATA: &[u8] = b"dao-hard-fork";
const DAO_EXTRA_DATA_BLOCKS: u64 = 10;

/// Whether `header` may follow `parent`. Seals are not checked.
pub fn check_header(
    spec: &ChainSpec,
    rules: HeaderRules,
    parent: &Sealed<Header>,
    header: &Header,
) -> Result<(), ConsensusError> {
    check_place(rules, parent, header)?;
    check_extra_data(spec, header)?;
    check_gas(spec, parent, header)?;
    check_base_fee(spec, rules, parent, header)?;
    check_difficulty(spec, parent, header)?;
    check_fields(spec, header)?;
    check_blob_gas(spec, parent, header)
}

fn check_place(
    rules: HeaderRules,
    parent: &Sealed<Header>,
    header: &Header,
) -> Result<(), ConsensusError> {
    if header.parent_hash != parent.hash() {
        let got = header.parent_hash;
        return Err(ConsensusError::ParentHash { got, expected: parent.hash() });
    }
    if Some(header.number) != parent.number.checked_add(1) {
        let expected = parent.number.saturating_add(1);
        return Err(ConsensusError::Number { got: header.number, expected });
    }
    let first = parent.timestamp.saturating_add(u64::from(!rules.equal_timestamps));
    if header.timestamp < first {
        let got = header.timestamp;
        return Err(ConsensusError::Timestamp { got, parent: parent.timestamp });
    }
    Ok(())
}

fn check_extra_data(spec: &ChainSpec, header: &Header) -> Result<(), ConsensusError> {
    if header.extra_data.len() > EXTRA_DATA_LEN_MAX {
        return Err(ConsensusError::ExtraData { got: header.extra_data.len() });
    }
    if let ForkCondition::Block(dao) = spec.ethereum_fork_activation(EthereumHardfork::Dao)
        && (dao..dao + DAO_EXTRA_DATA_BLOCKS).contains(&header.number)
        && *header.extra_data != *DAO_EXTRA_DATA
    {
        return Err(ConsensusError::DaoExtraData);
    }
    Ok(())
}

fn check_gas(spec: &ChainSpec, parent: &Header, header: &Header) -> Result<(), ConsensusError> {
    let got = header.gas_limit;
    if !(GAS_LIMIT_MIN..=GAS_LIMIT_MAX).contains(&got) {
        return Err(ConsensusError::GasLimitRange { got });
    }
    if header.gas_used > got {
        return Err(ConsensusError::GasUsed { got: header.gas_used, limit: got });
    }
    let london = spec.is_london_active_at_block(header.number);
    let from = if london && !spec.is_london_active_at_block(parent.number) {
        let elasticity = BaseFeeParams::ethereum().elasticity_multiplier as u64;
        parent.gas_limit.saturating_mul(elasticity)
    } else {
        parent.gas_limit
    };
    if got.abs_diff(from) >= from / GAS_LIMIT_STEP_DIVISOR {
        return Err(ConsensusError::GasLimitStep { got, parent: from });
    }
    Ok(())
}

fn check_base_fee(
    spec: &ChainSpec,
    rules: HeaderRules,
    parent: &Header,
    header: &Header,
) -> Result<(), ConsensusError> {
    let expected = if !spec.is_london_active_at_block(header.number) {
        None
    } else if rules.gasless {
        Some(0)
    } else if !spec.is_london_active_at_block(parent.number) {
        Some(INITIAL_BASE_FEE)
    } else {
        parent.next_block_base_fee(BaseFeeParams::ethereum())
    };
    if header.base_fee_per_gas != expected {
        return Err(ConsensusError::BaseFee { got: header.base_fee_per_gas, expected });
    }
    Ok(())
}

fn check_difficulty(
    spec: &ChainSpec,
    parent: &Header,
    header: &Header,
) -> Result<(), ConsensusError> {
    let merged = spec.is_paris_active_at_block(header.number);
    let expected =
        if merged { U256::ZERO } else { next_difficulty(spec, parent, header.timestamp) };
    if header.difficulty != expected {
        return Err(ConsensusError::Difficulty { got: header.difficulty, expected });
    }
    if merged && header.nonce != B64::ZERO {
        return Err(ConsensusError::Nonce);
    }
    if merged && header.ommers_hash != EMPTY_OMMER_ROOT_HASH {
        return Err(ConsensusError::OmmersAfterMerge);
    }
    Ok(())
}

/// A field is there exactly in the forks that have it.
fn check_fields(spec: &ChainSpec, header: &Header) -> Result<(), ConsensusError> {
    let time = header.timestamp;
    let shanghai = spec.is_shanghai_active_at_timestamp(time);
    let cancun = spec.is_cancun_active_at_timestamp(time);
    let prague = spec.is_prague_active_at_timestamp(time);
    let amsterdam = spec.is_amsterdam_active_at_timestamp(time);
    let fields = [
        ("withdrawalsRoot", header.withdrawals_root.is_some(), shanghai),
        ("blobGasUsed", header.blob_gas_used.is_some(), cancun),
        ("excessBlobGas", header.excess_blob_gas.is_some(), cancun),
        ("parentBeaconBlockRoot", header.parent_beacon_block_root.is_some(), cancun),
        ("requestsHash", header.requests_hash.is_some(), prague),
        ("blockAccessListHash", header.block_access_list_hash.is_some(), amsterdam),
        ("slotNumber", header.slot_number.is_some(), amsterdam),
    ];
    match fields.into_iter().find(|(_, present, known)| present != known) {
        Some((field, present, _)) => Err(ConsensusError::Field { field, present }),
        None => Ok(()),
    }
}

fn check_blob_gas(
    spec: &ChainSpec,
    parent: &Header,
    header: &Header,
) -> Result<(), ConsensusError> {
    let Some(params) = spec.blob_params(header.timestamp) else { return Ok(()) };
    let expected = parent.next_block_excess_blob_gas(params).unwrap_or_default();
    let got = header.excess_blob_gas.unwrap_or_default();
    if got != expected {
        return Err(ConsensusError::ExcessBlobGas { got, expected });
    }
    let used = header.blob_gas_used.unwrap_or_default();
    let limit = params.max_blob_count * DATA_GAS_PER_BLOB;
    if used > limit || !used.is_multiple_of(DATA_GAS_PER_BLOB) {
        return Err(ConsensusError::BlobGasRange { got: used, limit });
    }
    Ok(())
}
