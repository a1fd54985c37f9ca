//! Which transactions a block is cut from.

use super::{
    Pool,
    sender::{Outline, Sender, Slot},
};
use alloy_consensus::Transaction as _;
use alloy_primitives::{
    Address,
    map::{AddressMap, AddressSet},
};
use blockraft_primitives::{AdmissionId, Transaction};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, BinaryHeap, btree_map},
};

/// No transaction is cheaper: a block with less gas left is full.
const TX_GAS_MIN: u64 = 21_000;
/// How many transactions that do not fit into the gas that is left are passed over before a block
/// counts as full.
const MISFIT_COUNT_MAX: usize = 256;

/// Each sender's first executable transaction, by age and by fee.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    by_age: BTreeMap<AdmissionId, Head>,
    by_fee: BTreeSet<(u128, AdmissionId)>,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    sender: Address,
    fee_cap: u128,
}

impl Offers {
    pub(super) fn update(&mut self, sender: Address, before: Outline, after: Outline) {
        if before.head == after.head {
            return;
        }
        if let Some((id, fee_cap)) = before.head {
            self.by_age.remove(&id);
            self.by_fee.remove(&(fee_cap, id));
        }
        if let Some((id, fee_cap)) = after.head {
            self.by_age.insert(id, Head { sender, fee_cap });
            self.by_fee.insert((fee_cap, id));
        }
    }
}

/// What is in blocks that were cut and are not applied yet: from which nonce on each of their senders
/// may be offered. The pool stays as it is until such a block is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    next_nonces: AddressMap<u64>,
    /// Senders of dropped transactions.
    held: AddressSet,
}

impl InFlight {
    /// Nothing is on its way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block that was cut.
    pub fn add<'a>(&mut self, transactions: impl IntoIterator<Item = &'a Transaction>) {
        for tx in transactions {
            let next = self.next_nonces.entry(tx.signer()).or_default();
            *next = (*next).max(tx.nonce() + 1);
        }
    }

    /// Adds what a block drops. Their senders are not offered at all until that block is applied: what
    /// they have left is behind a gap then.
    pub fn add_dropped<'a>(&mut self, transactions: impl IntoIterator<Item = &'a Transaction>) {
        self.held.extend(transactions.into_iter().map(|tx| tx.signer()));
    }

    /// The sender's nonce behind its transactions in these blocks.
    pub fn next_nonce(&self, sender: Address) -> Option<u64> {
        self.next_nonces.get(&sender).copied()
    }
}

impl Pool {
    /// Whether a block with this base fee would have anything to run.
    pub fn has_executable(&self, base_fee: u128) -> bool {
        self.offers.by_fee.last().is_some_and(|(fee_cap, _)| *fee_cap >= base_fee)
    }

    /// What the next block is cut from when no other is on its way: [`Self::candidates_after`].
    pub fn candidates(
        &self,
        base_fee: u128,
        count_max: usize,
        gas_max: u64,
    ) -> Vec<(AdmissionId, Transaction)> {
        self.candidates_after(&InFlight::default(), base_fee, count_max, gas_max)
    }

    /// Executable transactions in the order of their admission, each sender's in nonce order without a
    /// gap, up to `count_max` of them and `gas_max` of their gas limits. A sender whose next one does not
    /// pay `base_fee`, or does not fit into the gas left, is passed over. A transaction that asks for
    /// more than `gas_max` by itself counts for nothing: the engine refuses it, and it is dropped on record.
    ///
    /// Takes time for what it returns and for the senders it passes over, not for what the pool holds.
    pub fn candidates_after(
        &self,
        in_flight: &InFlight,
        base_fee: u128,
        count_max: usize,
        gas_max: u64,
    ) -> Vec<(AdmissionId, Transaction)> {
        let mut heads = self.offers.by_age.iter().peekable();
        let mut runs = BinaryHeap::<Run<'_>>::new();
        let mut chosen = Vec::new();
        let (mut gas_left, mut misfits) = (gas_max, 0);
        while chosen.len() < count_max && gas_left >= TX_GAS_MIN && misfits < MISFIT_COUNT_MAX {
            // A head enters when it is older than every run: then the oldest run is the oldest of all.
            while let Some(&(id, head)) = heads.peek()
                && runs.peek().is_none_or(|run| *id < run.slot.id)
            {
                heads.next();
                if in_flight.held.contains(&head.sender) {
                    continue;
                }
                let nonce = in_flight.next_nonce(head.sender);
                if nonce.is_some() || head.fee_cap >= base_fee {
                    runs.extend(self.senders.get(&head.sender).and_then(|s| Run::new(s, nonce)));
                }
            }
            let Some(run) = runs.pop() else { break };
            let tx = &run.slot.transaction;
            let gas = if tx.gas_limit() > gas_max { 0 } else { tx.gas_limit() };
            if tx.max_fee_per_gas() < base_fee {
                continue;
            }
            if gas > gas_left {
                misfits += 1;
                continue;
            }
            gas_left -= gas;
            chosen.push((run.slot.id, tx.clone()));
            runs.extend(run.advance());
        }
        chosen
    }
}

/// A sender's executable transactions from one nonce on; the greatest is the one that was admitted first.
struct Run<'a> {
    nonce: u64,
    slot: &'a Slot,
    later: btree_map::Range<'a, u64, Slot>,
}

impl<'a> Run<'a> {
    fn new(sender: &'a Sender, in_flight_nonce: Option<u64>) -> Option<Self> {
        let nonce = in_flight_nonce.unwrap_or(0).max(sender.nonce);
        Self::from_range(nonce, sender.by_nonce.range(nonce..))
    }

    fn advance(self) -> Option<Self> {
        Self::from_range(self.nonce + 1, self.later)
    }

    fn from_range(nonce: u64, mut later: btree_map::Range<'a, u64, Slot>) -> Option<Self> {
        let (found, slot) = later.next()?;
        (*found == nonce).then_some(Self { nonce, slot, later })
    }
}

impl Ord for Run<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.slot.id.cmp(&self.slot.id)
    }
}

impl PartialOrd for Run<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.slot.id == other.slot.id
    }
}

impl Eq for Run<'_> {}
