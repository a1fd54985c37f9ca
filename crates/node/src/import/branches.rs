//! Valid blocks beside the chain: what they change, so that more can be built on them.

use super::{ImportError, rules::Tip};
use alloy_primitives::{Address, B256, Bytes, U256, map::B256Map};
use blockraft_primitives::{
    Account, CommittedBlock, DiffIndex, StateError, StateReader,
    limits::{IMPORT_SIDE_BLOCK_COUNT_MAX, IMPORT_SIDE_KEY_COUNT_MAX},
};
use blockraft_storage::{StateView, Store};
use std::{collections::VecDeque, sync::Arc};

/// A valid block that is not in the chain.
#[derive(Debug)]
pub(super) struct SideBlock {
    pub(super) tip: Tip,
    pub(super) committed: CommittedBlock,
    index: DiffIndex,
}

impl SideBlock {
    pub(super) fn new(tip: Tip, committed: CommittedBlock) -> Self {
        let index = DiffIndex::new(&committed.diff);
        Self { tip, committed, index }
    }

    fn parent(&self) -> B256 {
        self.tip.header.parent_hash
    }
}

/// The blocks beside the chain; the oldest are forgotten beyond a limit.
#[derive(Debug, Default)]
pub(super) struct SideBlocks {
    blocks: B256Map<Arc<SideBlock>>,
    order: VecDeque<B256>,
    keys: usize,
}

impl SideBlocks {
    pub(super) fn contains(&self, hash: &B256) -> bool {
        self.blocks.contains_key(hash)
    }

    pub(super) fn insert(&mut self, block: SideBlock) {
        let hash = block.tip.header.hash();
        self.keys += block.committed.diff.key_count();
        self.blocks.insert(hash, Arc::new(block));
        self.order.push_back(hash);
        while self.blocks.len() > IMPORT_SIDE_BLOCK_COUNT_MAX
            || self.keys > IMPORT_SIDE_KEY_COUNT_MAX
        {
            let Some(oldest) = self.order.front().copied() else { return };
            self.remove(&oldest);
        }
    }

    /// For a block that joins the chain.
    pub(super) fn remove(&mut self, hash: &B256) {
        if let Some(gone) = self.blocks.remove(hash) {
            self.order.retain(|known| known != hash);
            self.keys -= gone.committed.diff.key_count();
        }
    }

    /// The way from the chain to the block with this hash.
    pub(super) fn branch(&self, store: &Store, hash: B256) -> Result<Branch, ImportError> {
        let mut blocks = Vec::new();
        let mut at = hash;
        loop {
            if let Some(number) = store.number_of(&at)? {
                blocks.reverse();
                return Ok(Branch { ancestor: number, blocks });
            }
            let block = self.blocks.get(&at).ok_or(ImportError::UnknownParent { parent: hash })?;
            at = block.parent();
            blocks.push(block.clone());
        }
    }
}

/// Blocks beside the chain, each on the one before.
#[derive(Debug)]
pub(super) struct Branch {
    /// The block of the chain that the first builds on.
    pub(super) ancestor: u64,
    /// Oldest first.
    pub(super) blocks: Vec<Arc<SideBlock>>,
}

/// The state at the end of a branch: the ancestor's, read through what the branch changed.
#[derive(Debug)]
pub(super) struct BranchState<'a> {
    pub(super) base: StateView,
    pub(super) branch: &'a Branch,
}

impl BranchState<'_> {
    fn newest<T>(&self, read: impl Fn(&DiffIndex) -> Option<T>) -> Option<T> {
        self.branch.blocks.iter().rev().find_map(|block| read(&block.index))
    }
}

impl StateReader for BranchState<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        let known = self.newest(|index| index.account(&address));
        known.map_or_else(|| self.base.account(address), Ok)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        let known = self.newest(|index| index.storage(&address, &slot));
        known.map_or_else(|| self.base.storage(address, slot), Ok)
    }

    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        let known = self.newest(|index| index.has_storage(&address));
        known.map_or_else(|| self.base.has_storage(address), Ok)
    }

    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        let known = self.newest(|index| index.code(&code_hash).cloned());
        known.map_or_else(|| self.base.code(code_hash), Ok)
    }

    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        let block = self.branch.blocks.iter().find(|block| block.tip.header.number == number);
        block.map_or_else(|| self.base.block_hash(number), |block| Ok(block.tip.header.hash()))
    }
}
