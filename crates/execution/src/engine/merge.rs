//! Seeds that hold from the block's beginning on: one thread judges and merges them, before there is any other.
//!
//! Where executors have run all of a block and did not meet, that is the whole block. What is left is for a
//! [`Schedule`](super::schedule::Schedule).

use super::{
    Basis,
    access_list::AccessList,
    memory::{Memory, Place},
    outcome::{Outcome, Verdict},
    schedule::Frontier,
    stream::Stream,
};
use crate::{
    build::{Selection, TX_GAS_MIN},
    runner::Refusal,
    watchdog::Watchdog,
};
use alloy_consensus::Transaction as _;
use blockraft_primitives::{StateReader, Transaction};

/// What a block's transactions are run with.
#[derive(Debug, Default)]
pub(crate) struct Start<'a> {
    pub(crate) selection: Option<Selection>,
    pub(crate) seeds: Vec<(usize, Outcome)>,
    pub(crate) basis: Basis,
    pub(crate) stream: Option<Stream<'a>>,
    pub(crate) access_list: Option<AccessList>,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) threads: usize,
}

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Merged<'a> {
    /// Behind what is merged.
    pub(crate) frontier: Frontier<'a>,
    /// By transaction; of those before the frontier there is none.
    pub(crate) seeds: Vec<Option<Outcome>>,
    pub(crate) basis: Basis,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) threads: usize,
}

impl<'a> Start<'a> {
    /// Merges seeds up to the first that is missing or does not hold. `first` is the place of the first
    /// transaction.
    pub(crate) fn merge<S: StateReader>(
        self,
        memory: &mut Memory<S>,
        gas_limit: u64,
        transactions: &[Transaction],
        first: Place,
    ) -> Merged<'a> {
        let Self { selection, seeds: given, basis, stream, access_list, watchdog, threads } = self;
        let count = transactions.len();
        let mut seeds: Vec<Option<Outcome>> = std::iter::repeat_with(|| None).take(count).collect();
        let mut frontier = Frontier::new(gas_limit, count, selection, stream, access_list);
        for (index, mut seed) in given {
            // Beyond the block, or a second answer for the same transaction: not needed.
            let Some(entry) = seeds.get_mut(index).filter(|entry| entry.is_none()) else {
                continue;
            };
            // Counters are of the memory in which it ran.
            seed.seen.clear();
            seed.is_final = false;
            *entry = Some(seed);
            frontier.seeded[index] = true;
        }
        for (index, tx) in transactions.iter().enumerate() {
            let place = first + index as Place;
            let Some(seed) = seeds[index].as_ref() else { break };
            if !frontier.may_merge(tx, seed)
                || !matches!(memory.stale_seed(seed, place, basis), Ok(None))
            {
                break;
            }
            let Some(seed) = seeds[index].take() else { break };
            frontier.merge(memory, index, tx, (place, seed));
            if frontier.failure.is_some() {
                break;
            }
        }
        Merged { frontier, seeds, basis, watchdog, threads }
    }
}

impl Frontier<'_> {
    /// Whether a transaction stands in the block if its outcome holds.
    fn may_merge(&self, tx: &Transaction, seed: &Outcome) -> bool {
        let available = self.gas_left();
        let blob_gas_used = self.blob_gas_used;
        let admits = |selection: &Selection| selection.admits(available, blob_gas_used, tx);
        matches!(seed.verdict, Verdict::Ran(_))
            && tx.gas_limit() <= available
            && self.selection.as_ref().is_none_or(admits)
            && !self.is_full()
    }

    fn merge<S: StateReader>(
        &mut self,
        memory: &mut Memory<S>,
        index: usize,
        tx: &Transaction,
        (place, mut seed): (Place, Outcome),
    ) {
        let noted = memory.merge(place, &seed.writes);
        match noted.and_then(|()| self.note(memory, place, &seed)) {
            Err(error) => self.failure = Some(Refusal::State(error).of_given(index, tx)),
            Ok(()) => {
                let Verdict::Ran(ran) = seed.take_verdict() else { return };
                self.include(index, tx, ran);
                self.seeds_kept += 1;
                self.index += 1;
            }
        }
    }

    /// Whether no transaction fits into a block that is built.
    pub(crate) fn is_full(&self) -> bool {
        self.selection.is_some() && self.gas_left() < TX_GAS_MIN
    }
}
