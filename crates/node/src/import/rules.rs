//! The rules in force at a block, where they depend on the blocks before it.

use super::ImportError;
use alloy_consensus::{Header, Sealed};
use alloy_primitives::U256;
use blockraft_execution::{Ancestor, HeaderRules, OMMER_DEPTH_MAX};
use blockraft_primitives::{ChainSpec, ClusterGenesis};
use std::sync::{Arc, OnceLock};

/// The rules of one chain.
#[derive(Clone, Debug)]
pub(super) struct ChainRules {
    spec: Arc<ChainSpec>,
    /// The total difficulty that ends proof of work, where the height at which that happens is not known
    /// beforehand.
    terminal: Option<U256>,
    /// The rules from the merge on, and its height; nearly always the only one.
    merged: Arc<OnceLock<(u64, Arc<ChainSpec>)>>,
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
    pub(super) merge_block: Option<u64>,
    /// The last blocks, youngest first, this one among them.
    pub(super) ancestors: Vec<Ancestor>,
}

impl ChainRules {
    pub(super) fn new(genesis: &ClusterGenesis) -> Result<Self, ImportError> {
        let terminal = genesis.spec.terminal_total_difficulty();
        let spec = match terminal {
            Some(_) => genesis.spec.merged_at(None)?,
            None => genesis.spec.clone(),
        };
        let cluster = genesis.genesis.config.extra_fields.contains_key("blockraft");
        Ok(Self {
            spec: Arc::new(spec),
            terminal,
            merged: Arc::default(),
            headers: HeaderRules { equal_timestamps: cluster, gasless: genesis.options.gasless },
            system_contracts: !cluster,
        })
    }

    /// The rules that do not depend on where the merge is.
    pub(super) fn spec(&self) -> &Arc<ChainSpec> {
        &self.spec
    }

    /// The rules of the block after `tip`.
    pub(super) fn spec_after(&self, tip: &Tip) -> Result<Arc<ChainSpec>, ImportError> {
        let Some(merge_block) = tip.merge_block else { return Ok(self.spec.clone()) };
        match self.merged.get() {
            Some((at, spec)) if *at == merge_block => Ok(spec.clone()),
            known => {
                let spec = Arc::new(self.spec.merged_at(Some(merge_block))?);
                if known.is_none() {
                    // Another thread may have been quicker, which is as good.
                    let _ = self.merged.set((merge_block, spec.clone()));
                }
                Ok(spec)
            }
        }
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

    /// Whether a branch that ends in `tip` is better than one that ends in `head`: the greater total
    /// difficulty before the merge, the first of equals; from the merge on, where another layer makes that
    /// choice, the last valid block.
    pub(super) fn prefers(&self, tip: &Tip, head: &Tip) -> bool {
        let merged = tip.header.difficulty.is_zero();
        merged || tip.total_difficulty > head.total_difficulty
    }

    /// Whether a branch of this total difficulty goes on without proof of work, where that is what decides.
    pub(super) fn is_terminal(&self, total_difficulty: U256) -> bool {
        self.terminal.is_some_and(|terminal| total_difficulty >= terminal)
    }

    fn note_merge(&self, tip: &mut Tip) {
        if self.is_terminal(tip.total_difficulty) && tip.merge_block.is_none() {
            tip.merge_block = Some(tip.header.number + 1);
        }
    }
}
