//! The rules in force at a block, where they depend on the blocks before it.

use super::ImportError;
use alloy_consensus::{Header, Sealed};
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::U256;
use blockraft_execution::{Ancestor, HeaderRules, OMMER_DEPTH_MAX};
use blockraft_primitives::{ChainSpec, ClusterGenesis};
use std::sync::Arc;

/// The rules of one chain.
#[derive(Clone, Debug)]
pub(super) struct ChainRules {
    spec: Arc<ChainSpec>,
    /// The total difficulty that ends proof of work, where the height at which that happens is not known
    /// beforehand.
    terminal: Option<U256>,
    pub(super) headers: HeaderRules,
    /// Whether blocks without the contracts that they call are invalid; a cluster's own chain may do
    /// without.
    pub(super) system_contracts: bool,
}

/// The end of a branch: what the next block must know of it.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    pub(super) header: Sealed<Header>,
    pub(super) total_difficulty: U256,
    /// First block after the terminal total difficulty was reached.
    merge_block: Option<u64>,
    /// The last blocks, youngest first, this one among them.
    pub(super) ancestors: Vec<Ancestor>,
}

impl ChainRules {
    pub(super) fn new(genesis: &ClusterGenesis) -> Self {
        let paris = genesis.spec.ethereum_fork_activation(EthereumHardfork::Paris);
        let terminal = match paris {
            ForkCondition::TTD { fork_block: None, total_difficulty, .. } => Some(total_difficulty),
            _ => None,
        };
        let cluster = genesis.genesis.config.extra_fields.contains_key("blockraft");
        let headers = HeaderRules { equal_timestamps: cluster, gasless: genesis.options.gasless };
        Self { spec: Arc::new(genesis.spec.clone()), terminal, headers, system_contracts: !cluster }
    }

    /// The rules of the block after `tip`.
    pub(super) fn spec_after(&self, tip: &Tip) -> Result<Arc<ChainSpec>, ImportError> {
        let Some(merge_block) = tip.merge_block else { return Ok(self.spec.clone()) };
        let mut config = self.spec.config().clone();
        config.merge_netsplit_block = Some(merge_block);
        config.terminal_total_difficulty_passed = false;
        Ok(Arc::new(ChainSpec::new(&config)?))
    }

    /// A chain of nothing but its block 0.
    pub(super) fn genesis(&self, header: Sealed<Header>) -> Tip {
        let mut tip = Tip {
            total_difficulty: header.difficulty,
            merge_block: None,
            ancestors: vec![Ancestor::new(header.clone(), &[])],
            header,
        };
        self.note_merge(&mut tip);
        tip
    }

    /// The branch with one more block.
    pub(super) fn extend(&self, tip: &Tip, header: Sealed<Header>, ommers: &[Header]) -> Tip {
        let known = tip.ancestors.iter().take(OMMER_DEPTH_MAX - 1).cloned();
        let mut next = Tip {
            total_difficulty: tip.total_difficulty.saturating_add(header.difficulty),
            merge_block: tip.merge_block,
            ancestors: [Ancestor::new(header.clone(), ommers)].into_iter().chain(known).collect(),
            header,
        };
        self.note_merge(&mut next);
        next
    }

    fn note_merge(&self, tip: &mut Tip) {
        let reached = self.terminal.is_some_and(|terminal| tip.total_difficulty >= terminal);
        if reached && tip.merge_block.is_none() {
            tip.merge_block = Some(tip.header.number + 1);
        }
    }
}
