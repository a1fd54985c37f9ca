//! Who runs what when.
//!
//! Threads claim transactions in block order and run them on whatever the memory shows at their place,
//! finished or not. The *frontier* is the first transaction that is not final. Whoever finishes a
//! transaction tries to move it: everything before it is final, so an outcome whose reads still hold there
//! is final too, and one whose reads do not is run again on the spot, once, with a final result. No thread
//! ever waits for another: if one is at the frontier, the rest go on running ahead.
//!
//! When every second transaction has to run again, running ahead is a waste (one hot contract, one chain
//! of payments): threads stop claiming and the frontier runs the rest of the block alone, untraced.

use super::{
    executor::Executor,
    memory::{Memory, Place},
    outcome::{Outcome, Ran, Verdict, Writes},
    stream::Stream,
};
use crate::{
    DatabaseError, ExecutionError, build::Selection, late::Patience, runner::Refusal,
    watchdog::Watchdog,
};
use alloy_consensus::{Eip658Value, Transaction as _};
use alloy_evm::EvmEnv;
use blockraft_primitives::{Receipt, StateReader, Transaction};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
};

/// Nobody has taken it.
const IDLE: u8 = 0;
/// Some thread runs it.
const RUNNING: u8 = 1;
/// Its outcome lies ready.
const EXECUTED: u8 = 2;

/// Transactions over which conflicts are counted.
const WINDOW: usize = 64;

/// The transactions of one block, underway.
pub(crate) struct Schedule<'a, 's, S: StateReader> {
    memory: &'a Memory<S>,
    env: &'a EvmEnv,
    watchdog: Option<Watchdog>,
    transactions: &'a [Transaction],
    /// Place of the first transaction.
    first: Place,
    entries: Vec<Entry>,
    next: AtomicUsize,
    /// No more running ahead.
    alone: AtomicBool,
    frontier: Mutex<Frontier<'s>>,
    /// Copies of the frontier's, to look at without its lock.
    finished: AtomicBool,
}

#[derive(Debug, Default)]
struct Entry {
    status: AtomicU8,
    outcome: Mutex<Option<Outcome>>,
}

/// What is final.
#[derive(Debug, Default)]
pub(crate) struct Frontier<'a> {
    index: usize,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) gas_used: u64,
    pub(crate) blob_gas_used: u64,
    /// Set where transactions may be left out; in a given block a refusal is a failure.
    pub(crate) selection: Option<Selection>,
    pub(crate) failure: Option<ExecutionError>,
    /// Hands on what is final.
    pub(crate) stream: Option<Stream<'a>>,
    pub(crate) seeds_kept: usize,
    pub(crate) executed_again: usize,
    seeded: Vec<bool>,
    conflicts: usize,
}

/// The frontier's transaction at the moment of judgement.
struct Candidate<'a> {
    index: usize,
    tx: &'a Transaction,
    place: Place,
    /// What was published of it.
    outcome: Option<Outcome>,
}

/// What a schedule starts with, beside its transactions.
#[derive(Debug, Default)]
pub(crate) struct Start<'a> {
    pub(crate) selection: Option<Selection>,
    pub(crate) seeds: Vec<(usize, Outcome)>,
    pub(crate) stream: Option<Stream<'a>>,
    pub(crate) watchdog: Option<Watchdog>,
}

impl<'a, 's, S: StateReader> Schedule<'a, 's, S> {
    /// Seeds enter as first incarnations: published now, judged when the frontier comes.
    pub(crate) fn new(
        memory: &'a Memory<S>,
        env: &'a EvmEnv,
        transactions: &'a [Transaction],
        first: Place,
        Start { selection, seeds, stream, watchdog }: Start<'s>,
    ) -> Self {
        let count = transactions.len();
        let entries: Vec<Entry> = std::iter::repeat_with(Entry::default).take(count).collect();
        let mut seeded = vec![false; count];
        for (index, seed) in seeds {
            // Beyond the block, or a second answer for the same transaction: not needed.
            let Some(entry) = entries.get(index) else { continue };
            if std::mem::replace(&mut seeded[index], true) {
                continue;
            }
            memory.publish(first + index as Place, &seed.writes);
            *entry.outcome.lock().expect(UNPOISONED) = Some(seed);
            entry.status.store(EXECUTED, SeqCst);
        }
        let receipts = Vec::with_capacity(count);
        let frontier = Frontier { receipts, seeded, selection, stream, ..Frontier::default() };
        Self {
            memory,
            env,
            watchdog,
            transactions,
            first,
            entries,
            next: AtomicUsize::new(0),
            alone: AtomicBool::new(false),
            frontier: Mutex::new(frontier),
            finished: AtomicBool::new(false),
        }
    }

    /// One thread's work: returns when nothing is left to claim.
    pub(crate) fn work(&self) {
        let mut executor = Executor::new(self.memory, self.env.clone(), self.watchdog.clone());
        self.advance(&mut executor);
        while !self.alone.load(SeqCst) && !self.finished.load(SeqCst) {
            let index = self.next.fetch_add(1, SeqCst);
            let Some(entry) = self.entries.get(index) else { break };
            if !entry.claim() {
                continue;
            }
            let place = self.first + index as Place;
            let outcome = executor.run(&self.transactions[index], place, true, Patience::Try);
            self.memory.publish(place, &outcome.writes);
            *entry.outcome.lock().expect(UNPOISONED) = Some(outcome);
            entry.status.store(EXECUTED, SeqCst);
            self.advance(&mut executor);
        }
        self.advance(&mut executor);
    }

    /// What came of the block, once all threads are done.
    pub(crate) fn into_frontier(self) -> Frontier<'s> {
        let frontier = self.frontier.into_inner().expect(UNPOISONED);
        let complete = frontier.index == self.transactions.len() || frontier.failure.is_some();
        assert!(complete, "the frontier stopped at {}", frontier.index);
        frontier
    }

    /// Moves the frontier as far as it goes. If another thread is at it, that one will see what this one
    /// has just finished: it looks again after it lets go.
    fn advance(&self, executor: &mut Executor<'a, S>) {
        loop {
            let Ok(mut frontier) = self.frontier.try_lock() else { return };
            while let Some(outcome) = self.take(frontier.index) {
                self.settle(&mut frontier, executor, outcome);
            }
            let index = frontier.index;
            drop(frontier);
            if self.finished.load(SeqCst) || !self.is_ready(index) {
                return;
            }
        }
    }

    fn is_ready(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(|entry| match entry.status.load(SeqCst) {
            EXECUTED => true,
            IDLE => self.alone.load(SeqCst),
            _ => false,
        })
    }

    /// The frontier's transaction, if it can be settled: `Some(None)` is one that nobody has run.
    fn take(&self, index: usize) -> Option<Option<Outcome>> {
        if self.finished.load(SeqCst) {
            return None;
        }
        let entry = self.entries.get(index)?;
        match entry.status.load(SeqCst) {
            EXECUTED => Some(entry.outcome.lock().expect(UNPOISONED).take()),
            IDLE if self.alone.load(SeqCst) && entry.claim() => Some(None),
            _ => None,
        }
    }

    fn settle(
        &self,
        frontier: &mut Frontier<'s>,
        executor: &mut Executor<'a, S>,
        outcome: Option<Outcome>,
    ) {
        let index = frontier.index;
        let tx = &self.transactions[index];
        let candidate = Candidate { index, tx, place: self.first + index as Place, outcome };
        let available = self.env.block_env.gas_limit - frontier.gas_used;
        let admitted = frontier
            .selection
            .as_ref()
            .is_none_or(|selection| selection.admits(available, frontier.blob_gas_used, tx));
        if !admitted {
            self.retract(&candidate);
            frontier.selection.iter_mut().for_each(|s| s.skip(index, tx.signer()));
        } else if tx.gas_limit() > available {
            self.retract(&candidate);
            self.refuse(frontier, &candidate, Refusal::Gas { available });
        } else {
            match self.verdict(frontier, executor, &candidate) {
                Verdict::Ran(ran) => frontier.include(&candidate, ran),
                Verdict::Refused(refusal) => self.refuse(frontier, &candidate, refusal),
            }
        }
        self.step(frontier);
    }

    /// The final verdict: the outcome's if it holds, else that of running again now.
    fn verdict(
        &self,
        frontier: &mut Frontier<'s>,
        executor: &mut Executor<'a, S>,
        candidate: &Candidate<'_>,
    ) -> Verdict {
        let Candidate { index, tx, place, outcome } = candidate;
        if let Some(outcome) = outcome {
            match self.holds(executor, outcome, *place) {
                Ok(true) => {
                    frontier.seeds_kept += usize::from(frontier.seeded[*index]);
                    self.stream(frontier, *place, &outcome.writes);
                    return outcome.verdict.clone();
                }
                Ok(false) => {
                    frontier.executed_again += 1;
                    frontier.conflicts += 1;
                    self.retract(candidate);
                }
                Err(error) => return Verdict::Refused(Refusal::State(error)),
            }
        }
        let outcome = executor.run(tx, *place, false, Patience::Wait);
        self.memory.publish(*place, &outcome.writes);
        self.stream(frontier, *place, &outcome.writes);
        outcome.verdict
    }

    fn stream(&self, frontier: &mut Frontier<'s>, place: Place, writes: &Writes) {
        if let Some(stream) = &mut frontier.stream {
            stream.add(self.memory, place, writes);
        }
    }

    fn holds(
        &self,
        executor: &Executor<'a, S>,
        outcome: &Outcome,
        place: Place,
    ) -> Result<bool, DatabaseError> {
        // What failed on a state that may never have been is tried again on one that is.
        let sound =
            matches!(outcome.verdict, Verdict::Ran(_) | Verdict::Refused(Refusal::Invalid(_)));
        Ok(sound && executor.holds(&outcome.reads, place)?)
    }

    fn retract(&self, candidate: &Candidate<'_>) {
        if let Some(outcome) = &candidate.outcome {
            self.memory.retract(candidate.place, &outcome.writes);
        }
    }

    /// Leaves a transaction out, or fails the block where that may not be.
    fn refuse(&self, frontier: &mut Frontier<'s>, candidate: &Candidate<'_>, refusal: Refusal) {
        let Candidate { index, tx, .. } = *candidate;
        match &mut frontier.selection {
            Some(selection) if !matches!(refusal, Refusal::State(_)) => {
                selection.leave_out(index, tx, refusal);
            }
            _ => frontier.failure = Some(refusal.of_given(index, tx)),
        }
    }

    fn step(&self, frontier: &mut Frontier<'s>) {
        if frontier.failure.is_none() {
            frontier.index += 1;
        }
        if frontier.failure.is_some() || frontier.index == self.transactions.len() {
            self.finished.store(true, SeqCst);
        }
        if frontier.index.is_multiple_of(WINDOW) {
            if frontier.conflicts * 2 > WINDOW {
                self.alone.store(true, SeqCst);
            }
            frontier.conflicts = 0;
        }
    }
}

impl Frontier<'_> {
    fn include(&mut self, candidate: &Candidate<'_>, ran: Ran) {
        self.gas_used += ran.gas_used;
        self.blob_gas_used += candidate.tx.blob_gas_used().unwrap_or_default();
        self.receipts.push(Receipt {
            status: Eip658Value::Eip658(ran.success),
            cumulative_gas_used: self.gas_used,
            logs: ran.logs,
        });
        if let Some(selection) = &mut self.selection {
            selection.include(candidate.index, candidate.tx);
        }
    }
}

/// Panics of the EVM and of the parent state's reader are caught in the executor.
const UNPOISONED: &str = "nothing panics under this lock";

impl Entry {
    fn claim(&self) -> bool {
        self.status.compare_exchange(IDLE, RUNNING, SeqCst, SeqCst).is_ok()
    }
}
