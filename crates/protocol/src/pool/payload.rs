//! What blocks of a consensus client do to the pool.

use super::Pool;
use crate::AdmissionRules;
use alloy_primitives::Address;
use blockraft_primitives::{Account, AdmitBatch, PoolChange, StateDiff, Transaction};

impl Pool {
    /// Applies the `Payload` entry at log index `index`, whose block changes the state by `diff`: what it
    /// includes leaves, and with it what it makes stale.
    pub fn follow(&mut self, index: u64, diff: &StateDiff) -> Vec<PoolChange> {
        let mut changes = Vec::new();
        self.settle_all(index, diff, &mut changes);
        // No block names transactions by their ids any more.
        self.forget_retired(index, &mut changes);
        changes
    }

    /// Takes blocks back at log index `index`: their transactions, oldest first, are offered to the pool
    /// again. `account_of` and `rules` are those of the block that is the head now.
    ///
    /// Blob transactions are lost: a block does not carry their blobs.
    pub fn take_back(
        &mut self,
        index: u64,
        transactions: Vec<Transaction>,
        mut account_of: impl FnMut(Address) -> Account,
        rules: &AdmissionRules,
    ) -> Vec<PoolChange> {
        let mut changes = Vec::new();
        self.forget_retired(index, &mut changes);
        let kept = self.records().cloned().collect();
        *self = Self::restore(kept, self.next_id(), &mut account_of);
        let transactions = transactions.into_iter().filter(|tx| !tx.is_eip4844()).collect();
        let admitted = self.admit(index, &AdmitBatch { transactions }, account_of, rules);
        changes.extend(admitted.changes);
        changes
    }
}
