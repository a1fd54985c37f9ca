//! Genesis files: geth's format plus `config.blockraft`.

use crate::{Account, AccountChange, AccountDiff, ChainSpec, StateDiff, diff::SlotChange};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Header, Sealable, Sealed,
    constants::{EMPTY_RECEIPTS, EMPTY_TRANSACTIONS, EMPTY_WITHDRAWALS},
};
use alloy_eips::{eip1559::INITIAL_BASE_FEE, eip7685::EMPTY_REQUESTS_HASH};
use alloy_genesis::{Genesis, GenesisAccount};
use alloy_hardforks::{EthereumHardfork, EthereumHardforks};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::{
    TrieAccount,
    root::{state_root_unhashed, storage_root_unhashed},
};
use serde::{Deserialize, Serialize};

/// A genesis file that was read and checked.
#[derive(Clone, Debug)]
pub struct ClusterGenesis {
    /// The file's content.
    pub genesis: Genesis,
    /// Its rules.
    pub spec: ChainSpec,
    /// Its `config.blockraft`.
    pub options: ClusterOptions,
    /// Block 0.
    pub header: Sealed<Header>,
}

/// `config.blockraft`: what a cluster agrees on beside Ethereum's own rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterOptions {
    /// Milliseconds between blocks; 0 cuts a block as soon as there is a transaction.
    pub block_time_ms: u64,
    /// MDBX environments that the state is divided into: a power of two, 1 to 16.
    pub shards: u8,
    /// Receives priority fees.
    pub fee_recipient: Address,
    /// Gas limit of blocks; the genesis block's own when absent.
    pub gas_limit: Option<u64>,
    /// Base fee zero for ever.
    pub gasless: bool,
    /// Blocks come from a consensus client through the Engine API; the cluster makes none of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub engine: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            block_time_ms: 0,
            shards: 4,
            fee_recipient: Address::ZERO,
            gas_limit: None,
            gasless: false,
            engine: false,
        }
    }
}

/// A genesis file that cannot start a chain.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// Not JSON, or not a genesis.
    #[error("invalid genesis file: {0}")]
    Json(#[from] serde_json::Error),
    /// Forks out of order.
    #[error(
        "unsupported fork ordering: {later:?} is scheduled although {earlier:?} is not, or before it"
    )]
    ForkOrder {
        /// The fork that should come first.
        earlier: EthereumHardfork,
        /// The fork that builds on it.
        later: EthereumHardfork,
    },
    /// `config.blockraft.shards`.
    #[error("config.blockraft.shards must be 1, 2, 4, 8 or 16, got {got}")]
    Shards {
        /// The value found.
        got: u8,
    },
    /// Block 0 must be block 0.
    #[error("genesis number must be 0, got {got}")]
    Number {
        /// The value found.
        got: u64,
    },
}

impl ClusterGenesis {
    /// Reads a genesis file's text.
    pub fn from_json(text: &str) -> Result<Self, GenesisError> {
        Self::new(serde_json::from_str(text)?)
    }

    /// Checks a genesis and derives its block 0.
    pub fn new(genesis: Genesis) -> Result<Self, GenesisError> {
        let spec = ChainSpec::new(&genesis.config)?;
        let options = match genesis.config.extra_fields.get("blockraft") {
            Some(value) => serde_json::from_value(value.clone())?,
            None => ClusterOptions::default(),
        };
        if !options.shards.is_power_of_two() || options.shards > 16 {
            return Err(GenesisError::Shards { got: options.shards });
        }
        if let Some(got) = genesis.number.filter(|number| *number != 0) {
            return Err(GenesisError::Number { got });
        }
        let header = genesis_header(&genesis, &spec, &options).seal_slow();
        Ok(Self { genesis, spec, options, header })
    }

    /// Hash of block 0: what tells one chain from another.
    pub fn hash(&self) -> B256 {
        self.header.hash()
    }

    /// The gas limit of the blocks that the cluster builds.
    pub fn block_gas_limit(&self) -> u64 {
        self.options.gas_limit.unwrap_or(self.genesis.gas_limit)
    }

    /// The allocation as a diff on the empty state.
    pub fn state(&self) -> StateDiff {
        let accounts = self.genesis.alloc.iter().map(|(a, account)| account_diff(*a, account));
        let mut codes: Vec<Bytes> = self
            .genesis
            .alloc
            .values()
            .filter_map(|account| account.code.clone())
            .filter(|code| !code.is_empty())
            .collect();
        codes.sort_by_cached_key(|code| keccak256(code));
        codes.dedup();
        StateDiff { accounts: accounts.collect(), codes }
    }
}

fn account_diff(address: Address, account: &GenesisAccount) -> AccountDiff {
    let storage = nonzero_slots(account).map(|(slot, value)| SlotChange { slot, value }).collect();
    AccountDiff {
        address,
        change: AccountChange::Set(Account {
            nonce: account.nonce.unwrap_or(0),
            balance: account.balance,
            code_hash: code_hash(account),
        }),
        storage_wiped: false,
        storage,
    }
}

fn nonzero_slots(account: &GenesisAccount) -> impl Iterator<Item = (U256, U256)> {
    let slots = account.storage.iter().flatten();
    slots
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .filter(|(_, value): &(U256, U256)| !value.is_zero())
}

fn code_hash(account: &GenesisAccount) -> B256 {
    account.code.as_ref().filter(|code| !code.is_empty()).map_or(KECCAK256_EMPTY, keccak256)
}

fn genesis_state_root(genesis: &Genesis) -> B256 {
    state_root_unhashed(genesis.alloc.iter().map(|(address, account)| {
        let slots = nonzero_slots(account).map(|(slot, value)| (B256::from(slot), value));
        let trie_account = TrieAccount {
            nonce: account.nonce.unwrap_or(0),
            balance: account.balance,
            storage_root: storage_root_unhashed(slots),
            code_hash: code_hash(account),
        };
        (*address, trie_account)
    }))
}

/// Fields that a fork does not have are absent, not zero.
fn genesis_header(genesis: &Genesis, spec: &ChainSpec, options: &ClusterOptions) -> Header {
    let time = genesis.timestamp;
    let london = spec.is_london_active_at_block(0);
    let shanghai = spec.is_shanghai_active_at_timestamp(time);
    let cancun = spec.is_cancun_active_at_timestamp(time);
    let prague = spec.is_prague_active_at_timestamp(time);
    let base_fee = genesis.base_fee_per_gas.map_or(INITIAL_BASE_FEE, |fee| fee as u64);
    Header {
        parent_hash: genesis.parent_hash.unwrap_or_default(),
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: genesis.coinbase,
        state_root: genesis_state_root(genesis),
        transactions_root: EMPTY_TRANSACTIONS,
        receipts_root: EMPTY_RECEIPTS,
        difficulty: genesis.difficulty,
        number: 0,
        gas_limit: genesis.gas_limit,
        timestamp: time,
        extra_data: genesis.extra_data.clone(),
        mix_hash: genesis.mix_hash,
        nonce: genesis.nonce.into(),
        base_fee_per_gas: london.then_some(if options.gasless { 0 } else { base_fee }),
        withdrawals_root: shanghai.then_some(EMPTY_WITHDRAWALS),
        blob_gas_used: cancun.then_some(genesis.blob_gas_used.unwrap_or(0)),
        excess_blob_gas: cancun.then_some(genesis.excess_blob_gas.unwrap_or(0)),
        parent_beacon_block_root: cancun.then_some(B256::ZERO),
        requests_hash: prague.then_some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    }
}
