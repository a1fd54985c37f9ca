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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, rules, sender, transfer};
    use blockraft_primitives::{AccountChange, AccountDiff, PoolRecord};
    use std::collections::BTreeMap;

    const RICH: u64 = 1_000_000_000_000;

    /// What storage has after these changes.
    fn store(records: &mut BTreeMap<u64, PoolRecord>, changes: Vec<PoolChange>) {
        for change in changes {
            match change {
                PoolChange::Put(record) => drop(records.insert(record.id.0, record)),
                PoolChange::Remove(id) => drop(records.remove(&id.0)),
            }
        }
    }

    /// The state says that the sender's next nonce is this.
    fn nonce_is(nonce: u64) -> StateDiff {
        let change = AccountChange::Set(account(nonce, RICH));
        let storage = Vec::new();
        let diff = AccountDiff { address: sender(1), change, storage_wiped: false, storage };
        StateDiff { accounts: vec![diff], codes: Vec::new() }
    }

    #[test]
    fn blocks_from_outside_come_and_go() {
        let txs: Vec<Transaction> = (0..4).map(|nonce| transfer(1, nonce, 1_000)).collect();
        let mut pool = Pool::new();
        let mut stored = BTreeMap::new();
        let batch = AdmitBatch { transactions: txs[..3].to_vec() };
        let admitted = pool.admit(1, &batch, |_| account(0, RICH), &rules());
        store(&mut stored, admitted.changes);

        // A block with nonces 0 and 1 comes; whether they were in the pool does not matter.
        store(&mut stored, pool.follow(2, &nonce_is(2)));
        assert_eq!(pool.status(), (1, 0));
        assert!(pool.by_hash(txs[1].tx_hash()).is_none());

        // It goes again: its transactions are back, before the one that waited behind them.
        let gone = txs[..2].to_vec();
        store(&mut stored, pool.take_back(3, gone, |_| account(0, RICH), &rules()));
        assert_eq!(pool.status(), (3, 0));
        assert_eq!(pool.content_from(sender(1)).executable, txs[..3].to_vec());
        // A node that starts again has the same pool.
        let records: Vec<PoolRecord> = stored.into_values().collect();
        let restored = Pool::restore(records, pool.next_id(), |_| account(0, RICH));
        assert_eq!(restored, pool);
    }
}
