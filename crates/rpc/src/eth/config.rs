//! Which forks are in force and which one comes next (EIP-7910).

use crate::{api::Api, registry::Registry};
use alloy_consensus::Header;
use alloy_eips::{eip2124::ForkHash, eip7910::SystemContract};
use alloy_hardforks::{EthereumHardfork as Fork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, Bytes, U64};
use blockraft_execution::evm_env;
use blockraft_primitives::ChainSpec;
use revm::precompile::{PrecompileSpecId, Precompiles};
use serde::Serialize;
use std::collections::BTreeMap;

/// Forks that begin at a time.
const BY_TIME: [Fork; 10] = [
    Fork::Shanghai,
    Fork::Cancun,
    Fork::Prague,
    Fork::Osaka,
    Fork::Bpo1,
    Fork::Bpo2,
    Fork::Bpo3,
    Fork::Bpo4,
    Fork::Bpo5,
    Fork::Amsterdam,
];

/// The answer of `eth_config`.
#[derive(Debug, Serialize)]
struct Config {
    /// `None` where no fork that begins at a time has come.
    current: Option<ForkConfig>,
    next: Option<ForkConfig>,
    /// Only where there is a next one.
    last: Option<ForkConfig>,
}

/// The rules from a time on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ForkConfig {
    activation_time: u64,
    blob_schedule: Option<BlobSchedule>,
    chain_id: U64,
    fork_id: Bytes,
    precompiles: BTreeMap<String, Address>,
    system_contracts: BTreeMap<String, Address>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlobSchedule {
    target: u64,
    max: u64,
    base_fee_update_fraction: u64,
}

pub(crate) fn register(registry: &mut Registry) {
    registry.quick("eth_config", 0, |api, _| Ok(config(api)));
}

fn config(api: &Api) -> Config {
    let (spec, now) = (api.spec(), api.store.head().timestamp);
    let times = times(spec);
    let at = |time: Option<&u64>| time.map(|time| fork_config(api, *time));
    let next = times.iter().find(|time| **time > now);
    Config {
        current: at(times.iter().rfind(|time| **time <= now)),
        last: at(times.last().filter(|_| next.is_some())),
        next: at(next),
    }
}

/// When forks begin, ascending.
fn times(spec: &ChainSpec) -> Vec<u64> {
    let time = |fork| match spec.ethereum_fork_activation(fork) {
        ForkCondition::Timestamp(time) => Some(time),
        _ => None,
    };
    let mut times: Vec<u64> = BY_TIME.into_iter().filter_map(time).collect();
    times.sort_unstable();
    times.dedup();
    times
}

fn fork_config(api: &Api, time: u64) -> ForkConfig {
    let (spec, genesis) = (api.spec(), api.store.genesis());
    let begins_with_genesis = time <= genesis.header.timestamp;
    let blobs = spec.blob_params(time).map(|params| BlobSchedule {
        target: params.target_blob_count,
        max: params.max_blob_count,
        base_fee_update_fraction: params.update_fraction.try_into().unwrap_or(u64::MAX),
    });
    let header = Header { number: api.store.head().number, timestamp: time, ..Header::default() };
    let rules = evm_env(spec, &header).cfg_env.spec;
    let precompiles = Precompiles::new(PrecompileSpecId::from_spec_id(rules));
    let precompiles = precompiles.inner().iter();
    ForkConfig {
        activation_time: if begins_with_genesis { 0 } else { time },
        blob_schedule: blobs,
        chain_id: U64::from(spec.chain_id),
        fork_id: fork_id(api, time),
        precompiles: precompiles.map(|(at, code)| (code.id().name().to_owned(), *at)).collect(),
        system_contracts: system_contracts(spec, time),
    }
}

fn system_contracts(spec: &ChainSpec, time: u64) -> BTreeMap<String, Address> {
    let mut contracts = Vec::new();
    if spec.is_cancun_active_at_timestamp(time) {
        contracts.extend(SystemContract::cancun());
    }
    if spec.is_prague_active_at_timestamp(time) {
        contracts.extend(SystemContract::prague(spec.config().deposit_contract_address));
    }
    if spec.is_amsterdam_active_at_timestamp(time) {
        contracts.extend(SystemContract::amsterdam());
    }
    contracts.into_iter().map(|(contract, address)| (contract.to_string(), address)).collect()
}

/// EIP-6122: the hash over the genesis block and every fork up to a time, each once.
fn fork_id(api: &Api, time: u64) -> Bytes {
    let (genesis, config) = (api.store.genesis(), api.spec().config());
    let mut blocks: Vec<u64> = [
        config.homestead_block,
        config.dao_fork_block,
        config.eip150_block,
        config.eip155_block,
        config.eip158_block,
        config.byzantium_block,
        config.constantinople_block,
        config.petersburg_block,
        config.istanbul_block,
        config.muir_glacier_block,
        config.berlin_block,
        config.london_block,
        config.arrow_glacier_block,
        config.gray_glacier_block,
        config.merge_netsplit_block,
    ]
    .into_iter()
    .flatten()
    .filter(|block| *block > 0)
    .collect();
    blocks.sort_unstable();
    blocks.dedup();
    let later = |at: &u64| *at > genesis.header.timestamp && *at <= time;
    let mut hash = ForkHash::from(genesis.hash());
    for fork in blocks.into_iter().chain(times(api.spec()).into_iter().filter(later)) {
        hash += fork;
    }
    Bytes::copy_from_slice(&hash.0)
}
