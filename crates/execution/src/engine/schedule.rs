//! Who runs what when.
//!
//! Threads claim transactions, nearly in block order (see [`claims`](super::claims)), and run them on whatever
//! the memory shows at their place, finished or not. The *frontier* is the first transaction that is not final.
//! Whoever finishes a transaction tries to move it: everything before it is final, so an outcome whose reads
//! still hold there is final too, and one whose reads do not is run again on the spot, once, with a final
//! result. A transaction that is claimed when it is at the frontier already runs with a final result at
//! once, and nothing is noted of what it reads: one hot contract runs as fast as a plain loop.
//!
//! No thread ever waits for another: one that finds nothing to run goes back to the pool, and one that finds
//! more than it can run itself calls another.

use super::{
    Basis,
    access_list::AccessList,
    claims::{Claim, Claims},
    executor::{Executor, Way},
    memory::{Memory, Place},
    merge::Merged,
    outcome::{Outcome, Ran, Read, Verdict},
    stream::Stream,
    sync::{
        Mutex, MutexGuard,
        atomic::{
            AtomicBool, AtomicU8, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};
use crate::{DatabaseError, ExecutionError, build::Selection, runner::Refusal, watchdog::Watchdog};
use alloy_consensus::{Eip658Value, Transaction as _};
use alloy_evm::EvmEnv;
use blockraft_primitives::{Receipt, StateReader, Transaction};
use rayon::Scope;
use std::collections::VecDeque;

/// Nobody has taken it.
const IDLE: u8 = 0;
/// Some thread runs it.
const RUNNING: u8 = 1;
/// Its outcome lies ready.
const EXECUTED: u8 = 2;

/// The transactions of one block, underway.
pub(crate) struct Schedule<'a, 's, S: StateReader> {
    memory: &'a Memory<S>,
    env: &'a EvmEnv,
    watchdog: Option<Watchdog>,
    /// Whether somebody wants to know what was read.
    listed: bool,
    /// What seeds were computed on.
    basis: Basis,
    transactions: &'a [Transaction],
    /// Place of the first transaction.
    first: Place,
    entries: Vec<Entry>,
    claims: Mutex<Claims>,
    frontier: Mutex<Frontier<'s>>,
    /// Copies of the frontier's, to look at without its lock.
    reached: AtomicUsize,
    finished: AtomicBool,
    /// No transaction fits into the block any more.
    full: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    status: AtomicU8,
    outcome: Mutex<Option<Outcome>>,
}

/// What is final.
#[derive(Debug, Default)]
pub(crate) struct Frontier<'a> {
    pub(super) index: usize,
    gas_limit: u64,
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) gas_used: u64,
    pub(crate) blob_gas_used: u64,
    /// Set where transactions may be left out; in a given block a refusal is a failure.
    pub(crate) selection: Option<Selection>,
    pub(crate) failure: Option<ExecutionError>,
    /// Hands on what is final.
    pub(crate) stream: Option<Stream<'a>>,
    /// Gathers what is final.
    pub(crate) access_list: Option<AccessList>,
    pub(crate) seeds_kept: usize,
    pub(crate) executed_again: usize,
    /// Of which transactions there were seeds.
    pub(super) seeded: Vec<bool>,
}

/// The frontier's transaction at the moment of judgement.
struct Candidate<'a> {
    index: usize,
    tx: &'a Transaction,
    place: Place,
    /// What was published of it.
    outcome: Option<Outcome>,
}

impl<'a, 's, S: StateReader> Schedule<'a, 's, S> {
    /// Seeds enter as first incarnations: published now, judged when the frontier comes.
    pub(crate) fn new(
        memory: &'a Memory<S>,
        env: &'a EvmEnv,
        transactions: &'a [Transaction],
        first: Place,
        Merged { frontier, seeds, basis, watchdog, threads }: Merged<'s>,
    ) -> Self {
        for (place, seed) in (first..).zip(&seeds) {
            if let Some(seed) = seed {
                memory.publish(place, &seed.writes);
            }
        }
        let entry = |(seeded, seed): (&bool, Option<Outcome>)| Entry {
            status: AtomicU8::new(if *seeded { EXECUTED } else { IDLE }),
            outcome: Mutex::new(seed),
        };
        let entries = frontier.seeded.iter().zip(seeds).map(entry).collect();
        let finished = frontier.failure.is_some() || frontier.index == transactions.len();
        Self {
            memory,
            env,
            watchdog,
            listed: frontier.access_list.is_some(),
            basis,
            transactions,
            first,
            entries,
            claims: Mutex::new(Claims::new(transactions, &frontier.seeded, threads)),
            reached: AtomicUsize::new(frontier.index),
            finished: AtomicBool::new(finished),
            full: AtomicBool::new(frontier.is_full()),
            frontier: Mutex::new(frontier),
        }
    }

    /// Runs all of it, on this thread and, with a scope, on others that it finds work for.
    pub(crate) fn work<'scope>(&'scope self, scope: Option<&Scope<'scope>>) {
        self.work_calling(&|| {
            if let Some(scope) = scope {
                scope.spawn(|scope| self.work(Some(scope)));
            }
        });
    }

    /// [`Self::work`], where `call` makes another thread do the same.
    fn work_calling(&self, call: &dyn Fn()) {
        let mut executor = Executor::new(self.memory, self.env.clone(), self.watchdog.clone());
        let mut mine = VecDeque::new();
        loop {
            self.advance(&mut executor);
            self.let_go(&mut mine);
            if self.is_over() {
                return;
            }
            // Last of all, this thread says that it goes: whoever changes what may run after that looks
            // for work itself.
            let Some(Claim { index, calls_help }) = self.claims().claim() else { return };
            if calls_help {
                call();
            }
            if self.entries[index].claim() {
                self.execute(&mut executor, index);
                mine.push_back(index);
            }
            self.claims().finish(index);
        }
    }

    fn execute(&self, executor: &mut Executor<'a, Memory<S>>, index: usize) {
        let place = self.first + index as Place;
        let is_final = self.reached.load(Acquire) == index;
        let way = if is_final { self.final_way() } else { Way::Ahead };
        let outcome = executor.run(&self.transactions[index], place, way);
        self.memory.publish(place, &outcome.writes);
        let entry = &self.entries[index];
        *entry.outcome.lock().expect(UNPOISONED) = Some(outcome);
        entry.status.store(EXECUTED, Release);
    }

    /// Frees outcomes of this thread that are settled: for another one that would be more work, and who
    /// moves the frontier has enough to do.
    fn let_go(&self, mine: &mut VecDeque<usize>) {
        let reached = self.reached.load(Acquire);
        while let Some(index) = mine.pop_front_if(|index| *index < reached) {
            drop(self.entries[index].outcome.lock().expect(UNPOISONED).take());
        }
    }

    fn is_over(&self) -> bool {
        self.full.load(Relaxed) || self.finished.load(Acquire)
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().expect(UNPOISONED)
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
    fn advance(&self, executor: &mut Executor<'a, Memory<S>>) {
        loop {
            // Either this thread gets the lock, or who holds it sees what this one has finished: without
            // the fences (the other is below) both could miss.
            fence(SeqCst);
            let Ok(mut frontier) = self.frontier.try_lock() else { return };
            while let Some(outcome) = self.take(frontier.index) {
                self.settle(&mut frontier, executor, outcome);
            }
            let index = frontier.index;
            drop(frontier);
            fence(SeqCst);
            if self.finished.load(Acquire) || !self.is_ready(index) {
                return;
            }
        }
    }

    fn is_ready(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(|entry| match entry.status.load(Acquire) {
            EXECUTED => true,
            IDLE => self.full.load(Relaxed),
            _ => false,
        })
    }

    /// The frontier's transaction, if it can be settled: `Some(None)` is one that nobody will run.
    fn take(&self, index: usize) -> Option<Option<Outcome>> {
        if self.finished.load(Relaxed) {
            return None;
        }
        let entry = self.entries.get(index)?;
        match entry.status.load(Acquire) {
            EXECUTED => Some(entry.outcome.lock().expect(UNPOISONED).take()),
            IDLE if self.full.load(Relaxed) && entry.claim() => Some(None),
            _ => None,
        }
    }

    fn settle(
        &self,
        frontier: &mut Frontier<'s>,
        executor: &mut Executor<'a, Memory<S>>,
        outcome: Option<Outcome>,
    ) {
        let index = frontier.index;
        let tx = &self.transactions[index];
        let mut candidate = Candidate { index, tx, place: self.first + index as Place, outcome };
        let available = frontier.gas_left();
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
            match self.verdict(frontier, executor, &mut candidate) {
                Verdict::Ran(ran) => frontier.include(index, tx, ran),
                Verdict::Refused(refusal) => self.refuse(frontier, &candidate, refusal),
            }
        }
        self.step(frontier);
    }

    /// The final verdict: the outcome's if it holds, else that of running again now.
    fn verdict(
        &self,
        frontier: &mut Frontier<'s>,
        executor: &mut Executor<'a, Memory<S>>,
        candidate: &mut Candidate<'_>,
    ) -> Verdict {
        let Candidate { index, tx, place, .. } = *candidate;
        if let Some(outcome) = &candidate.outcome {
            let is_seed = frontier.seeded[index];
            match self.judge(outcome, place, is_seed) {
                Ok(Judgement::Holds) => {
                    frontier.seeds_kept += usize::from(is_seed);
                    let outcome = candidate.outcome.take().expect("it was there above");
                    return self.hand_on(frontier, place, outcome);
                }
                Ok(Judgement::Stale(writer)) => {
                    frontier.executed_again += 1;
                    let mut claims = self.claims();
                    claims.conflict(index, writer);
                    claims.start(index);
                    drop(claims);
                    self.retract(candidate);
                }
                Err(error) => return Verdict::Refused(Refusal::State(error)),
            }
        }
        let outcome = executor.run(tx, place, self.final_way());
        self.memory.publish(place, &outcome.writes);
        self.claims().finish(index);
        self.hand_on(frontier, place, outcome)
    }

    /// How to run what will not run again.
    fn final_way(&self) -> Way {
        if self.listed { Way::Share } else { Way::Final }
    }

    /// Hands a final outcome on to whoever takes more of it than its verdict, and leaves the rest to the
    /// thread that ran it.
    fn hand_on(&self, frontier: &mut Frontier<'s>, place: Place, mut outcome: Outcome) -> Verdict {
        if let Err(error) = frontier.note(self.memory, place, &outcome) {
            return Verdict::Refused(Refusal::State(error));
        }
        let verdict = outcome.take_verdict();
        // Nobody here has run a seed.
        if !frontier.seeded[frontier.index] {
            *self.entries[frontier.index].outcome.lock().expect(UNPOISONED) = Some(outcome);
        }
        verdict
    }

    fn judge(
        &self,
        outcome: &Outcome,
        place: Place,
        is_seed: bool,
    ) -> Result<Judgement, DatabaseError> {
        if outcome.is_final {
            return Ok(Judgement::Holds);
        }
        let stale = if is_seed {
            self.memory.stale_seed(outcome, place, self.basis)?
        } else {
            self.memory.stale(outcome, place)?
        };
        if let Some(read) = stale {
            return Ok(Judgement::Stale(self.writer(read, place)));
        }
        if is_seed {
            self.memory.load_credited(&outcome.writes.differences)?;
        }
        // What failed on a state that may never have been is tried again on one that is.
        let sound =
            matches!(outcome.verdict, Verdict::Ran(_) | Verdict::Refused(Refusal::Invalid(_)));
        Ok(if sound { Judgement::Holds } else { Judgement::Stale(None) })
    }

    /// The transaction that changed what was read.
    fn writer(&self, read: &Read, place: Place) -> Option<usize> {
        let writer = match read {
            Read::Slot(address, slot, _) => self.memory.slot_writer(*address, *slot, place),
            Read::Account(address, _)
            | Read::Shape(address, ..)
            | Read::Codeless(address)
            | Read::HasStorage(address, _) => self.memory.account_writer(*address, place),
        };
        writer?.checked_sub(self.first).map(|index| index as usize)
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
            self.reached.store(frontier.index, Release);
        }
        if frontier.is_full() {
            self.full.store(true, Relaxed);
        }
        if frontier.failure.is_some() || frontier.index == self.transactions.len() {
            self.finished.store(true, Release);
        }
    }
}

/// Whether an outcome may stay.
enum Judgement {
    Holds,
    /// And who changed what it read, if that is known.
    Stale(Option<usize>),
}

impl<'a> Frontier<'a> {
    pub(super) fn new(
        gas_limit: u64,
        count: usize,
        selection: Option<Selection>,
        stream: Option<Stream<'a>>,
        access_list: Option<AccessList>,
    ) -> Self {
        let (receipts, seeded) = (Vec::with_capacity(count), vec![false; count]);
        Self { gas_limit, receipts, seeded, selection, stream, access_list, ..Self::default() }
    }

    pub(super) fn gas_left(&self) -> u64 {
        self.gas_limit - self.gas_used
    }

    /// Hands a final outcome on to whoever takes more of it than its verdict.
    pub(super) fn note<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
        outcome: &Outcome,
    ) -> Result<(), DatabaseError> {
        if let Some(stream) = &mut self.stream {
            stream.add(memory, place, &outcome.writes);
        }
        match &mut self.access_list {
            Some(list) if matches!(outcome.verdict, Verdict::Ran(_)) => {
                list.add_transaction(memory, place, self.receipts.len(), outcome)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn include(&mut self, index: usize, tx: &Transaction, ran: Ran) {
        self.gas_used += ran.gas_used;
        self.blob_gas_used += tx.blob_gas_used().unwrap_or_default();
        self.receipts.push(Receipt {
            status: Eip658Value::Eip658(ran.success),
            cumulative_gas_used: self.gas_used,
            logs: ran.logs,
        });
        if let Some(selection) = &mut self.selection {
            selection.include(index, tx);
        }
    }
}

/// Panics of the EVM and of the parent state's reader are caught in the executor.
const UNPOISONED: &str = "nothing panics under this lock";

impl Entry {
    fn claim(&self) -> bool {
        self.status.compare_exchange(IDLE, RUNNING, AcqRel, Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests;
