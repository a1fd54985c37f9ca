//! The last blocks, in memory: all that are not on disk yet, and some that are.

use crate::TransactionLocation;
use alloy_primitives::{B256, map::B256Map};
use blockraft_primitives::SealedBlock;
use std::{collections::BTreeMap, sync::Arc};

/// Blocks kept although they are on disk: clients ask for the newest ones most.
const PERSISTED_BLOCKS_KEPT: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecentBlocks {
    blocks: BTreeMap<u64, Arc<SealedBlock>>,
    hashes: B256Map<u64>,
    transactions: B256Map<TransactionLocation>,
}

impl RecentBlocks {
    pub(crate) fn insert(&mut self, block: Arc<SealedBlock>) {
        let number = block.number();
        self.hashes.insert(block.hash(), number);
        for (index, tx) in block.transactions.iter().enumerate() {
            let location = TransactionLocation { block: number, index };
            self.transactions.insert(*tx.tx_hash(), location);
        }
        self.blocks.insert(number, block);
    }

    /// Forgets the oldest of the blocks up to `persisted`, but for a few.
    pub(crate) fn shrink(&mut self, persisted: u64) {
        let on_disk = self.blocks.range(..=persisted).count();
        for _ in PERSISTED_BLOCKS_KEPT..on_disk {
            let Some((_, block)) = self.blocks.pop_first() else { return };
            self.hashes.remove(&block.hash());
            for tx in &block.transactions {
                self.transactions.remove(tx.tx_hash());
            }
        }
    }

    /// Forgets the blocks above `number`, which are no more.
    pub(crate) fn truncate(&mut self, number: u64) {
        for block in self.blocks.split_off(&(number + 1)).into_values() {
            self.hashes.remove(&block.hash());
            for tx in &block.transactions {
                self.transactions.remove(tx.tx_hash());
            }
        }
    }

    pub(crate) fn block(&self, number: u64) -> Option<&Arc<SealedBlock>> {
        self.blocks.get(&number)
    }

    pub(crate) fn number_of(&self, hash: &B256) -> Option<u64> {
        self.hashes.get(hash).copied()
    }

    pub(crate) fn transaction(&self, hash: &B256) -> Option<TransactionLocation> {
        self.transactions.get(hash).copied()
    }
}
