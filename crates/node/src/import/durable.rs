//! The chain of a data directory, growing by blocks that come from elsewhere.
//!
//! It holds the best branch; valid blocks beside it are kept in memory, with what they change. When one of
//! them makes a better branch, the chain goes back to where the branch begins, by the stored history, and
//! on along it. Blocks that it left are side blocks from then on.

use super::{
    ImportError,
    branches::{Branch, BranchState, SideBlock, SideBlocks},
    prepare::Prepared,
    rules::{ChainRules, Tip},
    shares::Workers,
    verify::{Verified, verify},
};
use crate::{chain::values_at, trie_start};
use alloy_consensus::{Header, Sealed};
use alloy_eips::eip4895::Withdrawals;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, U256};
use blockraft_execution::{Ancestor, OMMER_DEPTH_MAX};
use blockraft_primitives::{
    ClusterGenesis, CommittedBlock, SealedBlock, StateError, limits::IMPORT_REORG_BLOCK_COUNT_MAX,
};
use blockraft_storage::{AppliedStep, StorageError, Store};
use blockraft_trie::StateTrie;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct StoredChain {
    store: Store,
    rules: ChainRules,
    workers: Workers,
    head: Tip,
    /// Of the head; `None` after a block that was refused, which may have left something in it.
    trie: Option<StateTrie>,
    side: SideBlocks,
    /// The trie at the end of the branch that was worked on last.
    branch: Option<(B256, StateTrie)>,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was there already.
    Known,
    /// It is valid.
    Imported { gas_used: u64, transactions: usize },
}

impl StoredChain {
    /// The chain of an open data directory. `genesis` is what the caller takes it for.
    ///
    /// # Errors
    /// [`ImportError::OtherRules`] when the directory was made with other rules, [`ImportError::ClusterChain`]
    /// when its blocks come from a cluster.
    pub fn open(
        store: Store,
        genesis: &ClusterGenesis,
        workers: Workers,
    ) -> Result<Self, ImportError> {
        // Block 0 may be the same while a fork begins elsewhere.
        if store.genesis().genesis.config != genesis.genesis.config {
            return Err(ImportError::OtherRules);
        }
        let cluster = genesis.genesis.config.extra_fields.contains_key("blockraft");
        if cluster && store.applied().position.is_some() {
            return Err(ImportError::ClusterChain);
        }
        let rules = ChainRules::new(genesis)?;
        let trie = trie_start::rebuild(&store, None).map_err(Box::new)?;
        let number = store.head().number;
        let total_difficulty = total_difficulty(&store, &rules, number)?;
        let head = tip_at(&store, &rules, number, total_difficulty)?;
        let side = SideBlocks::default();
        Ok(Self { store, rules, workers, head, trie: Some(trie), side, branch: None })
    }

    pub(super) fn rules(&self) -> &ChainRules {
        &self.rules
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The last block of the best branch.
    pub fn head(&self) -> &Sealed<Header> {
        &self.head.header
    }

    /// Checks, executes and keeps a block; a refused one changes nothing. Returns its hash. It is for the caller
    /// to have the store write.
    pub fn import(&mut self, bytes: &[u8]) -> Result<B256, ImportError> {
        let block = Prepared::decode(self.rules.spec(), bytes)?;
        let hash = block.header.hash();
        self.import_prepared(block)?;
        Ok(hash)
    }

    pub(super) fn import_prepared(&mut self, block: Prepared) -> Result<Fate, ImportError> {
        let hash = block.header.hash();
        if block.header.number == 0 {
            let expected = self.store.genesis().hash();
            return match hash == expected {
                true => Ok(Fate::Known),
                false => Err(ImportError::AnotherGenesis { expected }),
            };
        }
        if self.store.number_of(&hash)?.is_some() || self.side.contains(&hash) {
            return Ok(Fate::Known);
        }
        let (gas_used, transactions) = (block.header.gas_used, block.block.body.transactions.len());
        if block.header.parent_hash == self.head.header.hash() {
            self.extend(block)?;
        } else {
            self.branch_off(block)?;
        }
        Ok(Fate::Imported { gas_used, transactions })
    }

    /// A block on the head.
    fn extend(&mut self, mut block: Prepared) -> Result<(), ImportError> {
        let state = self.store.view(self.head.header.number)?;
        let mut trie = self.take_trie()?;
        let verified = verify(&self.rules, &self.head, &mut block, state, &mut trie, self.workers)?;
        let tip = self.tip_of(&self.head, &verified, &block)?;
        self.trie = Some(trie);
        self.head = tip;
        self.apply(committed(verified, block));
        Ok(())
    }

    /// A block on another one.
    fn branch_off(&mut self, mut block: Prepared) -> Result<(), ImportError> {
        let parent = block.header.parent_hash;
        let branch = self.side.branch(&self.store, parent)?;
        self.check_depth(branch.ancestor)?;
        let parent_tip = match branch.blocks.last() {
            Some(block) => block.tip.clone(),
            None => self.tip_of_ancestor(branch.ancestor)?,
        };
        let mut trie = match self.branch.take() {
            Some((hash, trie)) if hash == parent => trie,
            _ => self.trie_of(&branch)?,
        };
        let state = BranchState { base: self.store.view(branch.ancestor)?, branch: &branch };
        let verified =
            verify(&self.rules, &parent_tip, &mut block, state, &mut trie, self.workers)?;
        let tip = self.tip_of(&parent_tip, &verified, &block)?;
        let side = SideBlock::new(tip, committed(verified, block));
        if self.rules.prefers(&side.tip, &self.head) {
            return self.switch(branch, side, trie);
        }
        self.branch = Some((side.tip.header.hash(), trie));
        self.side.insert(side);
        Ok(())
    }

    /// Goes over to a branch and the block at its end, whose trie this is.
    fn switch(
        &mut self,
        branch: Branch,
        last: SideBlock,
        trie: StateTrie,
    ) -> Result<(), ImportError> {
        let (from, to) = (self.head.header.number, branch.ancestor);
        tracing::info!(from, back_to = to, to = last.tip.header.number, "a better branch");
        self.flush()?;
        let left = self.leave(to)?;
        self.store.unwind(to, self.store.applied(), Vec::new())?;
        left.into_iter().for_each(|block| self.side.insert(block));
        for block in &branch.blocks {
            self.side.remove(&block.tip.header.hash());
            self.apply(block.committed.clone());
        }
        self.apply(last.committed);
        self.head = last.tip;
        self.trie = Some(trie);
        Ok(())
    }

    /// The blocks above `to` as side blocks.
    fn leave(&self, to: u64) -> Result<Vec<SideBlock>, ImportError> {
        let mut tip = self.tip_of_ancestor(to)?;
        let mut left = Vec::new();
        for number in to + 1..=self.head.header.number {
            let block = self.store.block(number)?.ok_or(StateError::UnknownBlock(number))?;
            tip = self.rules.extend(&tip, block.header.clone(), &block.ommers);
            let diff = values_at(&self.store.view(number)?, &self.store.reverse_diff(number)?)?;
            let committed = CommittedBlock { block, diff: Arc::new(diff) };
            left.push(SideBlock::new(tip.clone(), committed));
        }
        Ok(left)
    }

    fn check_depth(&self, ancestor: u64) -> Result<(), ImportError> {
        let head = self.head.header.number;
        let reach = head.saturating_sub(IMPORT_REORG_BLOCK_COUNT_MAX);
        let oldest = self.store.oldest_state().max(reach);
        if ancestor < oldest {
            return Err(ImportError::TooDeep { ancestor, head, oldest });
        }
        Ok(())
    }

    fn apply(&self, block: CommittedBlock) {
        let applied = self.store.applied();
        self.store.apply(AppliedStep { applied, block: Some(block), pool: Vec::new() });
    }

    fn flush(&self) -> Result<(), StorageError> {
        while self.store.backlog().blocks > 0 {
            self.store.persist()?;
        }
        Ok(())
    }

    /// The head's trie, until the block that it was taken for turns out to be valid.
    fn take_trie(&mut self) -> Result<StateTrie, ImportError> {
        match self.trie.take() {
            Some(trie) => Ok(trie),
            None => {
                self.flush()?;
                Ok(trie_start::rebuild(&self.store, None).map_err(Box::new)?)
            }
        }
    }

    fn trie_of(&mut self, branch: &Branch) -> Result<StateTrie, ImportError> {
        let at_head = self.take_trie()?;
        let mut trie = at_head.clone();
        self.trie = Some(at_head);
        if branch.ancestor < self.head.header.number {
            trie.update(&self.store.changes_since(branch.ancestor, usize::MAX)?);
        }
        for block in &branch.blocks {
            trie.update(&block.committed.diff);
        }
        Ok(trie)
    }

    fn tip_of(
        &self,
        parent: &Tip,
        verified: &Verified,
        block: &Prepared,
    ) -> Result<Tip, ImportError> {
        let ommers = &block.block.body.ommers;
        let tip = self.rules.extend(parent, verified.header.clone(), ommers);
        match block.total_difficulty {
            Some(got) if got != tip.total_difficulty => {
                Err(ImportError::TotalDifficulty { got, expected: tip.total_difficulty })
            }
            _ => Ok(tip),
        }
    }

    fn tip_of_ancestor(&self, number: u64) -> Result<Tip, ImportError> {
        let mut total_difficulty = self.head.total_difficulty;
        for number in number + 1..=self.head.header.number {
            let header = self.store.header(number)?.ok_or(StateError::UnknownBlock(number))?;
            total_difficulty -= header.difficulty;
        }
        tip_at(&self.store, &self.rules, number, total_difficulty)
    }
}

fn committed(verified: Verified, block: Prepared) -> CommittedBlock {
    let Verified { header, transactions, executed } = verified;
    let body = block.block.body;
    let block = SealedBlock {
        header,
        transactions,
        receipts: executed.receipts,
        ommers: body.ommers,
        withdrawals: body.withdrawals.map(|list| Withdrawals::new(list.into_inner())),
    };
    CommittedBlock { block: Arc::new(block), diff: Arc::new(executed.diff) }
}

/// The sum of the difficulties up to a block. From the merge on they are zero.
fn total_difficulty(store: &Store, rules: &ChainRules, number: u64) -> Result<U256, ImportError> {
    let merged_from_genesis = rules.spec().is_paris_active_at_block(0);
    let mut sum = U256::ZERO;
    for number in 0..=number {
        sum += store.header(number)?.ok_or(StateError::UnknownBlock(number))?.difficulty;
        if merged_from_genesis || rules.is_terminal(sum) {
            break;
        }
    }
    Ok(sum)
}

/// A block of the chain as the end of a branch.
fn tip_at(
    store: &Store,
    rules: &ChainRules,
    number: u64,
    total_difficulty: U256,
) -> Result<Tip, ImportError> {
    let oldest = number.saturating_sub(OMMER_DEPTH_MAX as u64 - 1);
    let mut ancestors = Vec::with_capacity(OMMER_DEPTH_MAX);
    for number in (oldest..=number).rev() {
        let block = store.block(number)?.ok_or(StateError::UnknownBlock(number))?;
        ancestors.push(Ancestor::new(block.header.clone(), &block.ommers));
    }
    let merge_block = match rules.is_terminal(total_difficulty) {
        true => Some(last_proof_of_work(store, number)? + 1),
        false => None,
    };
    let header = ancestors[0].header.clone();
    Ok(Tip { header, total_difficulty, merge_block, ancestors })
}

/// The last block up to `number` that has a difficulty; block 0 where none has.
fn last_proof_of_work(store: &Store, number: u64) -> Result<u64, ImportError> {
    let (mut first, mut end) = (1, number + 1);
    while first < end {
        let middle = first + (end - first) / 2;
        let header = store.header(middle)?.ok_or(StateError::UnknownBlock(middle))?;
        match header.difficulty.is_zero() {
            true => end = middle,
            false => first = middle + 1,
        }
    }
    Ok(first - 1)
}
