//! How transactions leave the pool.

use super::Pool;
use alloy_consensus::Transaction as _;
use alloy_primitives::Address;
use blockraft_primitives::{
    Account, AccountChange, AdmissionId, BlockEntry, PoolChange, StateDiff, Transaction,
    without_sidecar,
};

/// What an applied `Block` entry came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Included {
    /// The block's transactions, in block order.
    pub transactions: Vec<Transaction>,
    /// What storage writes.
    pub changes: Vec<PoolChange>,
}

/// A block that does not fit the pool: its proposer has broken the protocol, or this node's pool is not
/// the cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncludeError {
    /// Names a transaction that the pool does not hold.
    #[error("block {number} includes transaction {id}, which the pool does not hold")]
    Unknown {
        /// Height.
        number: u64,
        /// The transaction.
        id: AdmissionId,
    },
    /// The state does not say that a transaction ran.
    #[error("block {number} includes transaction {id} and leaves its nonce unused")]
    NonceUnused {
        /// Height.
        number: u64,
        /// The transaction.
        id: AdmissionId,
    },
}

impl Pool {
    /// Applies the `Block` entry at log index `index`: what it includes or drops leaves, and with it what
    /// it makes stale. Changes nothing when it fails.
    pub fn include(&mut self, index: u64, entry: &BlockEntry) -> Result<Included, IncludeError> {
        let transactions = self.resolve(entry)?;
        let mut changes = Vec::with_capacity(entry.transactions.len() + entry.dropped.len());
        for &id in &entry.transactions {
            self.remove_record(id);
            changes.push(PoolChange::Remove(id));
        }
        for dropped in &entry.dropped {
            self.drop_one(dropped.id, &mut changes);
        }
        self.settle_all(index, &entry.diff, &mut changes);
        self.forget_retired(entry.pool_index, &mut changes);
        Ok(Included { transactions, changes })
    }

    /// The state has changed by `diff`.
    pub(super) fn settle_all(
        &mut self,
        index: u64,
        diff: &StateDiff,
        changes: &mut Vec<PoolChange>,
    ) {
        for diff in &diff.accounts {
            match diff.change {
                AccountChange::Unchanged => {}
                AccountChange::Deleted => {
                    self.settle(index, diff.address, Account::default(), changes);
                }
                AccountChange::Set(account) => {
                    self.settle(index, diff.address, account, changes);
                }
            }
        }
    }

    fn resolve(&self, entry: &BlockEntry) -> Result<Vec<Transaction>, IncludeError> {
        let number = entry.header.number;
        let resolve = |&id: &AdmissionId| {
            let tx = self.by_id(id).ok_or(IncludeError::Unknown { number, id })?;
            match nonce_after(&entry.diff, tx.signer()) {
                Some(next) if next > tx.nonce() => Ok(without_sidecar(tx)),
                _ => Err(IncludeError::NonceUnused { number, id }),
            }
        };
        entry.transactions.iter().map(resolve).collect()
    }

    /// An id that is not here was made stale before: nothing to do.
    fn drop_one(&mut self, id: AdmissionId, changes: &mut Vec<PoolChange>) {
        let Some(record) = self.remove_record(id) else { return };
        changes.push(PoolChange::Remove(id));
        if record.replaced_at.is_none() {
            let nonce = record.transaction.nonce();
            self.edit_sender(record.transaction.signer(), |sender| {
                sender.remove(nonce).into_iter().collect()
            });
        }
    }

    /// A sender's account now reads `account`. Transactions with used nonces go at once: no block can
    /// contain them any more. Those that it cannot pay for are retired, because a block that was cut
    /// before this one was applied may fund the sender first.
    fn settle(
        &mut self,
        index: u64,
        address: Address,
        account: Account,
        changes: &mut Vec<PoolChange>,
    ) {
        let mut stale_count = 0;
        let removed = self.edit_sender(address, |sender| {
            let mut removed = sender.set_nonce(account.nonce);
            stale_count = removed.len();
            removed.extend(sender.remove_unaffordable(account.balance));
            removed
        });
        for (at, slot) in removed.into_iter().enumerate() {
            if at >= stale_count {
                changes.push(self.retire_record(slot.id, index));
            } else if self.remove_record(slot.id).is_some() {
                changes.push(PoolChange::Remove(slot.id));
            }
        }
    }

    /// Every block from now on was cut when the leader's pool had applied `pool_index` at least.
    pub(super) fn forget_retired(&mut self, pool_index: u64, changes: &mut Vec<PoolChange>) {
        while let Some(&(at, id)) = self.retired.first()
            && at <= pool_index
        {
            self.remove_record(id);
            changes.push(PoolChange::Remove(id));
        }
    }
}

fn nonce_after(diff: &StateDiff, address: Address) -> Option<u64> {
    let at = diff.accounts.binary_search_by_key(&address, |a| a.address).ok()?;
    match diff.accounts[at].change {
        AccountChange::Set(account) => Some(account.nonce),
        AccountChange::Unchanged | AccountChange::Deleted => None,
    }
}
