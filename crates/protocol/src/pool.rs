//! The replicated pool: which transactions the cluster has taken on, and in which order it offers them.
//!
//! It is part of the replicated state machine. [`Pool::admit`] and [`Pool::include`] are called when
//! a log entry is applied, on every node, and are functions of the pool, the entry and the state that
//! the log has led to; everything else only reads. [`Pool::restore`] makes the same pool from what storage kept.
//!
//! **Terms**: a transaction is *executable* when the sender's state nonce and all nonces up to its own
//! are in the pool, else *queued*; *live* when it may still be offered, *retired* when it was replaced,
//! or its sender can no longer pay for it. A retired transaction keeps its id until no block that was
//! cut before can come any more (`BlockEntry::pool_index`), because such a block may contain it.
//!
//! **Invariants**: one live transaction a sender and nonce; live nonces are never below the state's;
//! what is offered has no nonce gap; counts and bytes never pass the limits.

mod admit;
mod include;
mod offer;
mod payload;
mod sender;
#[cfg(test)]
mod tests;

pub use admit::{Admitted, Sifted};
pub use include::{IncludeError, Included};
pub use offer::InFlight;

use alloy_consensus::Transaction as _;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{
    Address, B256,
    map::{AddressMap, B256Map},
};
use blockraft_primitives::{Account, AdmissionId, PoolChange, PoolRecord, Transaction};
use offer::Offers;
use sender::{Sender, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// The transactions that were admitted and not yet included.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    next_id: AdmissionId,
    records: BTreeMap<AdmissionId, Held>,
    /// Of live transactions.
    by_hash: B256Map<AdmissionId>,
    /// Senders of live transactions.
    senders: AddressMap<Sender>,
    /// When each retired transaction was retired: the index of the log entry that did it.
    retired: BTreeSet<(u64, AdmissionId)>,
    /// What may be offered next, derived from `senders`.
    offers: Offers,
    executable: usize,
    bytes: usize,
}

/// A record and the length of its transaction.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    record: PoolRecord,
    bytes: usize,
}

/// A sender's live transactions, in nonce order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SenderContent {
    /// From the state nonce on, without a gap.
    pub executable: Vec<Transaction>,
    /// Behind a gap.
    pub queued: Vec<Transaction>,
}

impl Pool {
    /// An empty pool that has never admitted anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pool that has these records, when the next transaction gets `next_id` and `account_of` reads
    /// the state that the records belong to.
    pub fn restore(
        records: Vec<PoolRecord>,
        next_id: AdmissionId,
        mut account_of: impl FnMut(Address) -> Account,
    ) -> Self {
        let mut pool = Self { next_id, ..Self::default() };
        for record in records {
            if record.replaced_at.is_none() {
                let sender = record.transaction.signer();
                let nonce = pool.senders.get(&sender).map(|s| s.nonce);
                let nonce = nonce.unwrap_or_else(|| account_of(sender).nonce);
                pool.put_live(record.id, &record.transaction, nonce);
            }
            pool.put_record(record);
        }
        pool
    }

    /// The live transaction with this hash.
    pub fn by_hash(&self, hash: &B256) -> Option<(AdmissionId, &Transaction)> {
        let id = *self.by_hash.get(hash)?;
        Some((id, self.by_id(id)?))
    }

    /// The transaction with this id, live or retired.
    pub fn by_id(&self, id: AdmissionId) -> Option<&Transaction> {
        self.records.get(&id).map(|held| &held.record.transaction)
    }

    /// The nonce that the sender's next transaction takes: the first that is neither used in the state
    /// nor executable here. `None` for who has nothing in the pool: the state's nonce is the answer then.
    pub fn next_nonce(&self, sender: Address) -> Option<u64> {
        self.senders.get(&sender).map(|s| s.next)
    }

    /// Executable and queued transactions, counted.
    pub fn status(&self) -> (usize, usize) {
        (self.executable, self.by_hash.len() - self.executable)
    }

    /// All live transactions by sender.
    pub fn content(&self) -> BTreeMap<Address, SenderContent> {
        self.senders.iter().map(|(address, sender)| (*address, sender.content())).collect()
    }

    /// The live transactions of one sender.
    pub fn content_from(&self, sender: Address) -> SenderContent {
        self.senders.get(&sender).map(Sender::content).unwrap_or_default()
    }

    /// Every record, retired ones included, by id: what storage keeps.
    pub fn records(&self) -> impl Iterator<Item = &PoolRecord> {
        self.records.values().map(|held| &held.record)
    }

    /// The id that the next admitted transaction gets.
    pub fn next_id(&self) -> AdmissionId {
        self.next_id
    }

    /// Transactions held, retired ones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the raw transactions held, retired ones included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn put_record(&mut self, record: PoolRecord) {
        let bytes = record.transaction.encode_2718_len();
        if let Some(at) = record.replaced_at {
            self.retired.insert((at, record.id));
        }
        self.next_id = self.next_id.max(AdmissionId(record.id.0 + 1));
        self.bytes += bytes;
        self.records.insert(record.id, Held { record, bytes });
    }

    fn remove_record(&mut self, id: AdmissionId) -> Option<PoolRecord> {
        let held = self.records.remove(&id)?;
        self.bytes -= held.bytes;
        if let Some(at) = held.record.replaced_at {
            self.retired.remove(&(at, id));
        }
        Some(held.record)
    }

    /// Marks a record whose slot was taken out of its sender's queue. `at` is the index of the entry
    /// that is being applied.
    fn retire_record(&mut self, id: AdmissionId, at: u64) -> PoolChange {
        let held = self.records.get_mut(&id).expect("a live transaction has a record");
        held.record.replaced_at = Some(at);
        self.retired.insert((at, id));
        PoolChange::Put(held.record.clone())
    }

    /// Gives the transaction its place in the sender's queue and returns what stood there.
    fn put_live(&mut self, id: AdmissionId, tx: &Transaction, state_nonce: u64) -> Option<Slot> {
        let slot = Slot::new(id, tx.clone());
        self.by_hash.insert(*tx.tx_hash(), id);
        let sender = self.senders.entry(tx.signer()).or_insert_with(|| Sender::new(state_nonce));
        let before = sender.outline();
        let replaced = sender.insert(tx.nonce(), slot);
        self.offers.update(tx.signer(), before, sender.outline());
        self.executable = self.executable + sender.executable() - before.executable;
        if let Some(slot) = &replaced {
            self.by_hash.remove(slot.transaction.tx_hash());
        }
        replaced
    }

    /// Changes a sender's queue, which `edit` answers with the slots that it took out, and keeps what is
    /// derived from it up to date. Records are the caller's business.
    fn edit_sender(
        &mut self,
        address: Address,
        edit: impl FnOnce(&mut Sender) -> Vec<Slot>,
    ) -> Vec<Slot> {
        let Some(sender) = self.senders.get_mut(&address) else { return Vec::new() };
        let before = sender.outline();
        let removed = edit(sender);
        self.offers.update(address, before, sender.outline());
        self.executable = self.executable + sender.executable() - before.executable;
        if sender.is_empty() {
            self.senders.remove(&address);
        }
        for slot in &removed {
            self.by_hash.remove(slot.transaction.tx_hash());
        }
        removed
    }
}

/// Two pools are equal when they will do the same for ever: everything else is derived from this.
impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        self.next_id == other.next_id
            && self.records == other.records
            && self.senders == other.senders
            && self.retired == other.retired
    }
}
