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
    outcome::{Outcome, Ran, Read, Verdict, Writes},
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
use crate::{
    DatabaseError, ExecutionError,
    build::{Selection, TX_GAS_MIN},
    runner::Refusal,
    watchdog::Watchdog,
};
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
    /// Whether seeds are published when they are judged and not before: there is one of each transaction, and
    /// nobody runs ahead.
    in_order: bool,
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
    /// Gathers what is final.
    pub(crate) access_list: Option<AccessList>,
    pub(crate) seeds_kept: usize,
    pub(crate) executed_again: usize,
    seeded: Vec<bool>,
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
    pub(crate) basis: Basis,
    pub(crate) stream: Option<Stream<'a>>,
    pub(crate) access_list: Option<AccessList>,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) threads: usize,
}

impl<'a, 's, S: StateReader> Schedule<'a, 's, S> {
    /// Seeds enter as first incarnations: published now, if anybody may look at them, and judged when the
    /// frontier comes.
    pub(crate) fn new(
        memory: &'a Memory<S>,
        env: &'a EvmEnv,
        transactions: &'a [Transaction],
        first: Place,
        Start { selection, seeds, basis, stream, access_list, watchdog, threads }: Start<'s>,
    ) -> Self {
        let count = transactions.len();
        let entries: Vec<Entry> = std::iter::repeat_with(Entry::default).take(count).collect();
        let mut seeded = vec![false; count];
        for (index, mut seed) in seeds {
            // Beyond the block, or a second answer for the same transaction: not needed.
            let Some(entry) = entries.get(index) else { continue };
            if std::mem::replace(&mut seeded[index], true) {
                continue;
            }
            // Counters are of the memory in which it ran.
            seed.seen.clear();
            seed.is_final = false;
            *entry.outcome.lock().expect(UNPOISONED) = Some(seed);
            entry.status.store(EXECUTED, Relaxed);
        }
        let in_order = seeded.iter().all(|seeded| *seeded);
        if !in_order {
            for (place, entry) in (first..).zip(&entries) {
                if let Some(seed) = &*entry.outcome.lock().expect(UNPOISONED) {
                    memory.publish(place, &seed.writes);
                }
            }
        }
        let claims = Claims::new(transactions, &seeded, threads);
        let listed = access_list.is_some();
        let receipts = Vec::with_capacity(count);
        let frontier =
            Frontier { receipts, seeded, selection, stream, access_list, ..Frontier::default() };
        Self {
            memory,
            env,
            watchdog,
            listed,
            basis,
            in_order,
            transactions,
            first,
            entries,
            claims: Mutex::new(claims),
            frontier: Mutex::new(frontier),
            reached: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
            full: AtomicBool::new(false),
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
            match self.verdict(frontier, executor, &mut candidate) {
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
        executor: &mut Executor<'a, Memory<S>>,
        candidate: &mut Candidate<'_>,
    ) -> Verdict {
        let Candidate { index, tx, place, .. } = *candidate;
        if let Some(outcome) = &candidate.outcome {
            let is_seed = frontier.seeded[index];
            match self.judge(executor, outcome, place, is_seed) {
                Ok(Judgement::Holds) => {
                    frontier.seeds_kept += usize::from(is_seed);
                    let outcome = candidate.outcome.take().expect("it was there above");
                    if self.in_order {
                        self.memory.publish(place, &outcome.writes);
                    }
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
        self.stream(frontier, place, &outcome.writes);
        if let Some(list) = &mut frontier.access_list
            && matches!(outcome.verdict, Verdict::Ran(_))
        {
            let index = frontier.receipts.len();
            if let Err(error) = list.add_transaction(self.memory, place, index, &outcome) {
                return Verdict::Refused(Refusal::State(error));
            }
        }
        let verdict = outcome.take_verdict();
        // Nobody here has run a seed.
        if !frontier.seeded[frontier.index] {
            *self.entries[frontier.index].outcome.lock().expect(UNPOISONED) = Some(outcome);
        }
        verdict
    }

    fn stream(&self, frontier: &mut Frontier<'s>, place: Place, writes: &Writes) {
        if let Some(stream) = &mut frontier.stream {
            stream.add(self.memory, place, writes);
        }
    }

    fn judge(
        &self,
        executor: &Executor<'a, Memory<S>>,
        outcome: &Outcome,
        place: Place,
        is_seed: bool,
    ) -> Result<Judgement, DatabaseError> {
        if outcome.is_final {
            return Ok(Judgement::Holds);
        }
        let stale = if is_seed && self.basis == Basis::Parent {
            executor.stale_on_parent(outcome, place)?
        } else {
            executor.stale(outcome, place)?
        };
        if let Some(read) = stale {
            return Ok(Judgement::Stale(self.writer(read, place)));
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
        if let Some(outcome) = candidate.outcome.as_ref().filter(|_| !self.in_order) {
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
        let gas_left = self.env.block_env.gas_limit - frontier.gas_used;
        if frontier.selection.is_some() && gas_left < TX_GAS_MIN {
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
        self.status.compare_exchange(IDLE, RUNNING, AcqRel, Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests;
