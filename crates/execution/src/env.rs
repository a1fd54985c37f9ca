//! What a block tells the EVM about itself.

use crate::constantinople;
use alloy_consensus::{Header, Sealed};
use alloy_eips::{
    eip1559::{BaseFeeParams, INITIAL_BASE_FEE, calculate_block_gas_limit},
    eip4895::Withdrawal,
};
use alloy_evm::EvmEnv;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, Bytes, U256};
use blockraft_primitives::ChainSpec;

/// What the proposer of a block chooses; the rest of the header follows from the parent and the
/// transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockAttributes {
    /// Seconds; not below the parent's.
    pub timestamp: u64,
    /// Receives the priority fees.
    pub fee_recipient: Address,
    /// Wanted gas limit; a block moves towards it by less than 1/1024 of the parent's (EIP-1559).
    pub gas_limit: u64,
    /// PREVRANDAO (EIP-4399).
    pub prev_randao: B256,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// EIP-4788; zero where absent from Cancun on, ignored before.
    pub parent_beacon_block_root: Option<B256>,
    /// EIP-4895; ignored before Shanghai.
    pub withdrawals: Vec<Withdrawal>,
    /// Base fee zero for ever.
    pub gasless: bool,
}

/// The environment of the block with this header: calls, traces and re-execution.
pub fn evm_env(spec: &ChainSpec, header: &Header) -> EvmEnv {
    let blob_params = spec.blob_params(header.timestamp);
    let mut env = EvmEnv::for_eth_block(header, spec, spec.chain_id, blob_params);
    if constantinople::is_in_force(spec, header.number) {
        constantinople::set_prices(&mut env.cfg_env);
    }
    env
}

/// The environment of the block to be built on `parent`.
pub fn next_evm_env(
    spec: &ChainSpec,
    parent: &Sealed<Header>,
    attributes: &BlockAttributes,
) -> EvmEnv {
    evm_env(spec, &next_header(spec, parent, attributes))
}

/// The header of the block to be built on `parent`, as far as it is known before execution: roots, bloom
/// and gas used are still those of nothing. Fields that the fork does not have are absent.
pub fn next_header(
    spec: &ChainSpec,
    parent: &Sealed<Header>,
    attributes: &BlockAttributes,
) -> Header {
    let number = parent.number + 1;
    let time = attributes.timestamp;
    let merged = spec.is_paris_active_at_block(number);
    let shanghai = spec.is_shanghai_active_at_timestamp(time);
    let cancun = spec.is_cancun_active_at_timestamp(time);
    let prague = spec.is_prague_active_at_timestamp(time);
    let excess_blob_gas = spec
        .blob_params(time)
        .map(|params| parent.next_block_excess_blob_gas(params).unwrap_or_default());
    Header {
        parent_hash: parent.hash(),
        beneficiary: attributes.fee_recipient,
        difficulty: if merged { U256::ZERO } else { U256::ONE },
        number,
        gas_limit: next_gas_limit(spec, parent, attributes),
        timestamp: time,
        extra_data: attributes.extra_data.clone(),
        mix_hash: attributes.prev_randao,
        base_fee_per_gas: next_base_fee(spec, parent, attributes.gasless),
        withdrawals_root: shanghai
            .then(|| alloy_consensus::proofs::calculate_withdrawals_root(&attributes.withdrawals)),
        blob_gas_used: cancun.then_some(0),
        excess_blob_gas: if cancun { excess_blob_gas } else { None },
        parent_beacon_block_root: cancun
            .then(|| attributes.parent_beacon_block_root.unwrap_or_default()),
        requests_hash: prague.then_some(alloy_eips::eip7685::EMPTY_REQUESTS_HASH),
        ..Default::default()
    }
}

/// The step that EIP-1559 allows towards the wanted limit. The London fork block doubles the limit that
/// it starts from.
fn next_gas_limit(spec: &ChainSpec, parent: &Header, attributes: &BlockAttributes) -> u64 {
    let london = spec.is_london_active_at_block(parent.number + 1);
    let from = if london && parent.base_fee_per_gas.is_none() {
        parent.gas_limit.saturating_mul(BaseFeeParams::ethereum().elasticity_multiplier as u64)
    } else {
        parent.gas_limit
    };
    calculate_block_gas_limit(from, attributes.gas_limit)
}

fn next_base_fee(spec: &ChainSpec, parent: &Header, gasless: bool) -> Option<u64> {
    if !spec.is_london_active_at_block(parent.number + 1) {
        return None;
    }
    if gasless {
        return Some(0);
    }
    let fee = parent.next_block_base_fee(BaseFeeParams::ethereum());
    Some(fee.unwrap_or(INITIAL_BASE_FEE))
}
