//! From a genesis file's `config` to the rules in force at a block.

use crate::GenesisError;
use alloy_eips::{eip7840::BlobParams, eip7892::BlobScheduleBlobParams};
use alloy_evm::eth::spec::EthExecutorSpec;
use alloy_genesis::ChainConfig;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, U256};

/// When each fork begins, and the parameters that change with forks.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    /// EIP-155 chain id.
    pub chain_id: u64,
    config: ChainConfig,
    forks: Vec<(EthereumHardfork, ForkCondition)>,
    blobs: BlobScheduleBlobParams,
}

impl ChainSpec {
    /// Reads a chain config. Errors when a fork is set while one that it builds on is not, or when
    /// times run backwards.
    pub fn new(config: &ChainConfig) -> Result<Self, GenesisError> {
        let forks = fork_conditions(config);
        check_order(&forks)?;
        Ok(Self {
            chain_id: config.chain_id,
            config: config.clone(),
            forks,
            blobs: config.blob_schedule_blob_params(),
        })
    }

    /// The config as it was read, unknown keys included.
    pub fn config(&self) -> &ChainConfig {
        &self.config
    }

    /// The total difficulty that ends proof of work, where the height at which that happens follows from the
    /// blocks. `mergeNetsplitBlock` is no such height: it may come later, as on Sepolia.
    pub fn terminal_total_difficulty(&self) -> Option<U256> {
        let terminal = self.config.terminal_total_difficulty?;
        (!merged_from_genesis(&self.config, terminal)).then_some(terminal)
    }

    /// The same rules, with the first block after proof of work at a known height, or at none yet.
    pub fn merged_at(&self, block: Option<u64>) -> Result<Self, GenesisError> {
        let mut config = self.config.clone();
        config.merge_netsplit_block = block;
        config.terminal_total_difficulty_passed = false;
        Self::new(&config)
    }

    /// Blob target, maximum and fee fraction at a time; `None` before Cancun (EIP-7840, EIP-7892).
    pub fn blob_params(&self, timestamp: u64) -> Option<BlobParams> {
        if !self.is_cancun_active_at_timestamp(timestamp) {
            return None;
        }
        if let Some(params) = self.blobs.active_scheduled_params_at_timestamp(timestamp) {
            return Some(*params);
        }
        if self.is_osaka_active_at_timestamp(timestamp) {
            return Some(self.blobs.osaka);
        }
        if self.is_prague_active_at_timestamp(timestamp) {
            return Some(self.blobs.prague);
        }
        Some(self.blobs.cancun)
    }
}

impl EthereumHardforks for ChainSpec {
    fn ethereum_fork_activation(&self, fork: EthereumHardfork) -> ForkCondition {
        self.forks.iter().find(|(f, _)| *f == fork).map_or(ForkCondition::Never, |(_, c)| *c)
    }
}

impl EthExecutorSpec for ChainSpec {
    fn deposit_contract_address(&self) -> Option<Address> {
        self.config.deposit_contract_address
    }
}

fn fork_conditions(config: &ChainConfig) -> Vec<(EthereumHardfork, ForkCondition)> {
    use EthereumHardfork as F;
    let at_block = |block: Option<u64>| block.map_or(ForkCondition::Never, ForkCondition::Block);
    let at_time = |time: Option<u64>| time.map_or(ForkCondition::Never, ForkCondition::Timestamp);
    let dao = config.dao_fork_block.filter(|_| config.dao_fork_support);
    vec![
        (F::Frontier, ForkCondition::Block(0)),
        (F::Homestead, at_block(config.homestead_block)),
        (F::Dao, at_block(dao)),
        (F::Tangerine, at_block(config.eip150_block)),
        (F::SpuriousDragon, at_block(config.eip158_block.or(config.eip155_block))),
        (F::Byzantium, at_block(config.byzantium_block)),
        (F::Constantinople, at_block(config.constantinople_block)),
        // geth: a missing petersburgBlock means it came with Constantinople.
        (F::Petersburg, at_block(config.petersburg_block.or(config.constantinople_block))),
        (F::Istanbul, at_block(config.istanbul_block)),
        (F::MuirGlacier, at_block(config.muir_glacier_block)),
        (F::Berlin, at_block(config.berlin_block)),
        (F::London, at_block(config.london_block)),
        (F::ArrowGlacier, at_block(config.arrow_glacier_block)),
        (F::GrayGlacier, at_block(config.gray_glacier_block)),
        (F::Paris, paris(config)),
        (F::Shanghai, at_time(config.shanghai_time)),
        (F::Cancun, at_time(config.cancun_time)),
        (F::Prague, at_time(config.prague_time)),
        (F::Osaka, at_time(config.osaka_time)),
        (F::Bpo1, at_time(config.bpo1_time)),
        (F::Bpo2, at_time(config.bpo2_time)),
        (F::Bpo3, at_time(config.bpo3_time)),
        (F::Bpo4, at_time(config.bpo4_time)),
        (F::Bpo5, at_time(config.bpo5_time)),
        (F::Amsterdam, at_time(config.amsterdam_time)),
    ]
}

/// A chain merges at block 0 when its terminal total difficulty is zero or known to be passed, else at
/// `mergeNetsplitBlock`.
fn paris(config: &ChainConfig) -> ForkCondition {
    let Some(total_difficulty) = config.terminal_total_difficulty else {
        return ForkCondition::Never;
    };
    let fork_block = match merged_from_genesis(config, total_difficulty) {
        true => Some(0),
        false => config.merge_netsplit_block,
    };
    ForkCondition::TTD {
        activation_block_number: fork_block.unwrap_or(u64::MAX),
        fork_block,
        total_difficulty,
    }
}

fn merged_from_genesis(config: &ChainConfig, terminal: U256) -> bool {
    terminal.is_zero()
        || (config.terminal_total_difficulty_passed && config.merge_netsplit_block.is_none())
}

/// A fork may only be set when those it builds on are, and must not begin before them. Difficulty
/// bombs, the DAO fork and blob-parameter forks are optional.
fn check_order(forks: &[(EthereumHardfork, ForkCondition)]) -> Result<(), GenesisError> {
    use EthereumHardfork as F;
    let mut last = (F::Frontier, ForkCondition::Block(0));
    for &(fork, condition) in forks {
        let optional = matches!(
            fork,
            F::Dao
                | F::MuirGlacier
                | F::ArrowGlacier
                | F::GrayGlacier
                | F::Bpo1
                | F::Bpo2
                | F::Bpo3
                | F::Bpo4
                | F::Bpo5
        );
        if optional {
            continue;
        }
        let backwards = match (last.1, condition) {
            (ForkCondition::Never, later) => !matches!(later, ForkCondition::Never),
            (ForkCondition::Block(a), ForkCondition::Block(b)) => b < a,
            (ForkCondition::Timestamp(a), ForkCondition::Timestamp(b)) => b < a,
            _ => false,
        };
        if backwards {
            return Err(GenesisError::ForkOrder { earlier: last.0, later: fork });
        }
        last = (fork, condition);
    }
    Ok(())
}
