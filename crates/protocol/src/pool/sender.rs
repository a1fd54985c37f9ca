//! One sender's live transactions.

use super::SenderContent;
use crate::checks::blob_cost;
use alloy_consensus::Transaction as _;
use alloy_primitives::U256;
use blockraft_primitives::{AdmissionId, Transaction};
use std::collections::BTreeMap;

/// A live transaction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slot {
    pub(super) id: AdmissionId,
    pub(super) transaction: Transaction,
    pub(super) cost: U256,
}

/// A sender's queue. `next` and `cost` are derived from `by_nonce`.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// In the state.
    pub(super) nonce: u64,
    /// The first nonce, from `nonce` on, that is not here.
    pub(super) next: u64,
    pub(super) by_nonce: BTreeMap<u64, Slot>,
    /// Of all slots, wei. It cannot overflow: it never passes the balance that was there at admission.
    pub(super) cost: U256,
    /// No slot costs more. It only spares a scan, so it is not lowered when the dearest leaves.
    cost_bound: U256,
}

/// What the pool derives from a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Id and fee cap of the transaction with the state nonce.
    pub(super) head: Option<(AdmissionId, u128)>,
    pub(super) executable: usize,
}

/// Gas limit times fee cap, the same for blob gas, and the value, wei; the greatest number where that does
/// not fit.
pub(super) fn cost_of(tx: &Transaction) -> U256 {
    let gas = U256::from(tx.gas_limit()) * U256::from(tx.max_fee_per_gas());
    let blobs = tx.blob_versioned_hashes().map_or(0, <[_]>::len);
    let blobs = blob_cost(blobs, tx.max_fee_per_blob_gas().unwrap_or_default());
    gas.saturating_add(blobs).saturating_add(tx.value())
}

impl Slot {
    pub(super) fn new(id: AdmissionId, transaction: Transaction) -> Self {
        let cost = cost_of(&transaction);
        Self { id, transaction, cost }
    }
}

impl Sender {
    pub(super) fn new(nonce: u64) -> Self {
        Self {
            nonce,
            next: nonce,
            by_nonce: BTreeMap::new(),
            cost: U256::ZERO,
            cost_bound: U256::ZERO,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_nonce.is_empty()
    }

    pub(super) fn executable(&self) -> usize {
        (self.next - self.nonce) as usize
    }

    pub(super) fn outline(&self) -> Outline {
        let head = self.by_nonce.get(&self.nonce);
        let head = head.map(|slot| (slot.id, slot.transaction.max_fee_per_gas()));
        Outline { head, executable: self.executable() }
    }

    pub(super) fn insert(&mut self, nonce: u64, slot: Slot) -> Option<Slot> {
        self.cost += slot.cost;
        self.cost_bound = self.cost_bound.max(slot.cost);
        let replaced = self.by_nonce.insert(nonce, slot);
        if let Some(old) = &replaced {
            self.cost -= old.cost;
        }
        self.advance();
        replaced
    }

    pub(super) fn remove(&mut self, nonce: u64) -> Option<Slot> {
        let slot = self.by_nonce.remove(&nonce)?;
        self.cost -= slot.cost;
        self.next = self.next.min(nonce);
        Some(slot)
    }

    /// The state nonce is now `nonce`: takes out what is below.
    pub(super) fn set_nonce(&mut self, nonce: u64) -> Vec<Slot> {
        let kept = self.by_nonce.split_off(&nonce);
        let stale = std::mem::replace(&mut self.by_nonce, kept);
        let stale: Vec<Slot> = stale.into_values().collect();
        self.cost -= stale.iter().map(|slot| slot.cost).sum::<U256>();
        // A nonce can fall too: an account that was destroyed and funded again starts at zero.
        self.next = if nonce < self.nonce { nonce } else { self.next.max(nonce) };
        self.nonce = nonce;
        self.advance();
        stale
    }

    /// Takes out what costs more than `balance` by itself.
    pub(super) fn remove_unaffordable(&mut self, balance: U256) -> Vec<Slot> {
        if self.cost_bound <= balance {
            return Vec::new();
        }
        self.cost_bound = balance;
        let dear = |(nonce, slot): (&u64, &Slot)| (slot.cost > balance).then_some(*nonce);
        let nonces: Vec<u64> = self.by_nonce.iter().filter_map(dear).collect();
        nonces.into_iter().filter_map(|nonce| self.remove(nonce)).collect()
    }

    pub(super) fn content(&self) -> SenderContent {
        let transactions = |range: std::ops::Range<u64>| {
            self.by_nonce.range(range).map(|(_, slot)| slot.transaction.clone()).collect()
        };
        SenderContent {
            executable: transactions(self.nonce..self.next),
            queued: transactions(self.next..u64::MAX),
        }
    }

    fn advance(&mut self) {
        if !self.by_nonce.contains_key(&self.next) {
            return;
        }
        for nonce in self.by_nonce.range(self.next..).map(|(nonce, _)| *nonce) {
            if nonce != self.next {
                break;
            }
            self.next += 1;
        }
    }
}

/// The bound is left out: it changes no result.
impl PartialEq for Sender {
    fn eq(&self, other: &Self) -> bool {
        self.nonce == other.nonce && self.by_nonce == other.by_nonce
    }
}
