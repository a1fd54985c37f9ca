//! The rows on made workloads.

use super::{
    report::{FREE, Report, Spread},
    workload::{Workload, World},
};
use crate::state::{at_least, at_most, seconds};
use alloy_eips::{eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7928::BlockAccessList};
use alloy_evm::EvmEnv;
use alloy_primitives::{Address, B256, Bytes, U256};
use anyhow::{Context, ensure};
use blockraft_execution::{
    Basis, BlockResult, Means, Outcome, PlainBlock, PlainState, encode_outcomes, execute_block,
    execute_share, execute_with, receipts_root_and_bloom,
};
use blockraft_primitives::{Account, MemoryState, Receipt, StateError, StateReader};
use nix::time::ClockId;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// CPU time of this thread.
const THREAD: ClockId = ClockId::CLOCK_THREAD_CPUTIME_ID;

/// Executors whose outcomes a leader gets.
const EXECUTORS: usize = 4;

/// What one run took, seconds.
fn timed<T>(clock: ClockId, run: impl FnOnce() -> T) -> (f64, T) {
    let start = seconds(clock);
    let result = run();
    (seconds(clock) - start, result)
}

fn cpu<T>(run: impl FnOnce() -> T) -> (f64, T) {
    timed(ClockId::CLOCK_THREAD_CPUTIME_ID, run)
}

/// Seconds of several runs of one thing.
#[derive(Debug, Default)]
struct Times(Vec<f64>);

impl Times {
    fn over(&self, other: &Self) -> Spread {
        Spread::of(self.0.iter().zip(&other.0).map(|(mine, other)| mine / other))
    }

    /// Median, microseconds a transaction.
    fn micros_each(&self, workload: &Workload) -> f64 {
        Spread::of(self.0.iter().copied()).median * 1e6 / workload.len() as f64
    }
}

/// A workload and what both sides need beside it.
struct Bench {
    workload: Workload,
    database: PlainState,
    env: EvmEnv,
}

impl Bench {
    fn new(workload: Workload) -> Self {
        let (database, env) = (PlainState::new(&workload.state), workload.env());
        Self { workload, database, env }
    }

    /// The plain loop on a fresh database.
    fn plain(&self, clock: ClockId) -> anyhow::Result<f64> {
        let Workload { transactions, receipts: expected, .. } = &self.workload;
        let mut database = self.database.clone();
        let (time, result) = timed(clock, || database.run(&self.env, transactions));
        ensure!(&result? == expected, "the plain loop gives other receipts");
        Ok(time)
    }

    /// The plain loop with what every node needs of a block after running it: receipts root, bloom and
    /// net change. On the caller's pool, as the engine.
    fn plain_block(&self, clock: ClockId) -> anyhow::Result<f64> {
        let Workload { transactions, receipts: expected, header, .. } = &self.workload;
        let mut database = self.database.clone();
        let (time, result) = timed(clock, || {
            let block = database.run_block(&self.env, transactions)?;
            let roots = receipts_root_and_bloom(transactions, &block.receipts);
            anyhow::Ok((block, roots))
        });
        let (PlainBlock { receipts, accounts, slots }, (root, _)) = result?;
        ensure!(&receipts == expected, "the plain loop gives other receipts");
        ensure!(root == header.receipts_root, "another root");
        ensure!(accounts.len() + slots.len() > transactions.len(), "too little has changed");
        Ok(time)
    }

    /// The plain loop twice at once, each on its half of the block and knowing nothing of the other: no way to
    /// run a block, but what two threads of this machine come to at the very most.
    fn plain_halves(&self) -> anyhow::Result<f64> {
        let Workload { transactions, receipts, .. } = &self.workload;
        let halves = transactions.split_at(self.workload.len() / 2);
        let mut databases = [self.database.clone(), self.database.clone()];
        let [first, second] = &mut databases;
        let (time, ((one, other), _)) = timed(ClockId::CLOCK_MONOTONIC, || {
            let ran = rayon::join(
                || first.run_block(&self.env, halves.0),
                || second.run_block(&self.env, halves.1),
            );
            (ran, receipts_root_and_bloom(transactions, receipts))
        });
        let count = one?.receipts.len() + other?.receipts.len();
        ensure!(count == receipts.len(), "{count} ran");
        Ok(time)
    }

    fn engine(
        &self,
        seeds: Vec<(usize, Outcome)>,
        threads: usize,
        clock: ClockId,
    ) -> anyhow::Result<(f64, BlockResult)> {
        let (input, state) = (self.workload.input(), &self.workload.state);
        let means = Means { seeds, basis: Basis::Parent, ..Means::threads(threads) };
        let (time, result) = timed(clock, || execute_with(&input, state, means));
        Ok((time, result?))
    }

    /// CPU seconds of the engine on one thread until all seeds are merged, and of the whole block.
    fn merged(&self, seeds: Vec<(usize, Outcome)>) -> anyhow::Result<(f64, f64)> {
        let count = seeds.len();
        let state = Watched { state: &self.workload.state, after: OnceLock::new() };
        // Who wants accesses gets an empty block from the engine as well, not from the serial loop.
        let mut accesses = BlockAccessList::new();
        let access_list = seeds.is_empty().then_some(&mut accesses);
        let means = Means { seeds, basis: Basis::Parent, access_list, ..Means::threads(1) };
        let start = seconds(THREAD);
        let result = execute_with(&self.workload.input(), &state, means)?;
        let whole = seconds(THREAD) - start;
        ensure!(result.seeds_kept == count, "{} kept", result.seeds_kept);
        ensure!(result.block.receipts == self.workload.receipts, "the engine differs");
        let after = state.after.get().context("no system call came after the transactions")?;
        Ok((after - start, whole))
    }

    /// Outcomes of executors that have these shares of the block.
    fn seeds(&self, shares: &[Vec<usize>]) -> anyhow::Result<Vec<(usize, Outcome)>> {
        let (input, state) = (self.workload.input(), &self.workload.state);
        let mut seeds = Vec::new();
        for share in shares {
            seeds.extend(execute_share(&input, state, share)?);
        }
        Ok(seeds)
    }

    /// Transactions dealt out one by one: the worst way to share conflicting ones.
    fn dealt(&self) -> Vec<Vec<usize>> {
        let mine = |executor| (executor..self.workload.len()).step_by(EXECUTORS).collect();
        (0..EXECUTORS).map(mine).collect()
    }
}

/// A state that notes when the system calls after the transactions begin: nothing before them asks for the
/// contract of EIP-7002.
struct Watched<'a> {
    state: &'a MemoryState,
    after: OnceLock<f64>,
}

impl StateReader for Watched<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        if address == WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS {
            self.after.get_or_init(|| seconds(THREAD));
        }
        self.state.account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.state.storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.state.has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.state.code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        self.state.block_hash(number)
    }
}

fn pool(threads: usize) -> anyhow::Result<ThreadPool> {
    Ok(ThreadPoolBuilder::new().num_threads(threads).build()?)
}

/// One thread that notes reads and writes, as an executor does, against the plain loop.
pub(super) fn traced(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    // A pool of one: what its one thread does not do is in no figure.
    pool(1)?.install(|| traced_on_one_thread(repeats, report))
}

fn traced_on_one_thread(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    let world = World::new()?;
    let kinds = [
        (world.clone().transfers()?, at_most(1.5, 1.0)),
        (world.clone().token_transfers()?, at_most(1.1, 1.04)),
        (world.swaps()?, at_most(1.25, 1.1)),
    ];
    for (workload, bounds) in kinds {
        let bench = Bench::new(workload);
        let workload = &bench.workload;
        let (input, state) = (workload.input(), &workload.state);
        let all: Vec<usize> = (0..workload.len()).collect();
        let [mut plain, mut traced, mut encoded] = [const { Times(Vec::new()) }; 3];
        let [mut with_roots, mut whole, mut serial] = [const { Times(Vec::new()) }; 3];
        for turn in 0..=repeats {
            let times = [
                bench.plain(ClockId::CLOCK_THREAD_CPUTIME_ID)?,
                {
                    let (time, outcomes) = cpu(|| execute_share(&input, state, &all));
                    let (encoding, bytes) = cpu(|| encode_outcomes(&outcomes.unwrap_or_default()));
                    ensure!(bytes.len() > workload.len(), "the share has no outcomes");
                    encoded.0.push(time + encoding);
                    time
                },
                bench.plain_block(ClockId::CLOCK_THREAD_CPUTIME_ID)?,
                bench.engine(Vec::new(), 1, ClockId::CLOCK_THREAD_CPUTIME_ID)?.0,
                {
                    let header = &workload.header;
                    let txs = &workload.transactions;
                    let (time, block) =
                        cpu(|| execute_block(&workload.spec, state, header, txs, &[], &[]));
                    ensure!(block?.receipts == workload.receipts, "the oracle differs");
                    time
                },
            ];
            if turn == 0 {
                // Warms caches and allocator.
                encoded.0.clear();
                continue;
            }
            let sinks = [&mut plain, &mut traced, &mut with_roots, &mut whole, &mut serial];
            sinks.into_iter().zip(times).for_each(|(sink, time)| sink.0.push(time));
        }
        let name = workload.name;
        let gas = workload.header.gas_used as usize / workload.len();
        let us = |times: &Times| format!("{:.2} µs", times.micros_each(workload));
        let detail = format!("{} to {}, {gas} gas", us(&plain), us(&traced));
        report.add(
            format!("1 thread, traced, CPU against plain loop: {name}"),
            (traced.over(&plain), "x"),
            detail,
            bounds,
        );
        let detail = format!("{} to {}", us(&plain), us(&encoded));
        let what = format!("the same with outcomes encoded: {name}");
        report.add(what, (encoded.over(&plain), "x"), detail, FREE);
        let detail = format!("{} to {}", us(&with_roots), us(&whole));
        let what = format!("whole block by the engine, 1 thread, CPU against plain loop: {name}");
        report.add(what, (whole.over(&with_roots), "x"), detail, FREE);
        let detail = format!("{} to {}", us(&with_roots), us(&serial));
        let what = format!("whole block by the serial oracle, CPU against plain loop: {name}");
        report.add(what, (serial.over(&with_roots), "x"), detail, FREE);
    }
    Ok(())
}

/// Wall time of the plain loop over that of the engine, turn by turn.
fn speed_up(
    bench: &Bench,
    repeats: usize,
    threads: usize,
    seeds: &[(usize, Outcome)],
) -> anyhow::Result<(Spread, String, usize)> {
    let pool = pool(threads)?;
    let [mut plain, mut engine] = [const { Times(Vec::new()) }; 2];
    let mut again = 0;
    for turn in 0..=repeats {
        let one = pool.install(|| bench.plain_block(ClockId::CLOCK_MONOTONIC))?;
        let seeds = seeds.to_vec();
        let (other, result) =
            pool.install(|| bench.engine(seeds, threads, ClockId::CLOCK_MONOTONIC))?;
        ensure!(result.block.receipts == bench.workload.receipts, "the engine differs");
        if turn > 0 {
            plain.0.push(one);
            engine.0.push(other);
            again += result.executed_again;
        }
    }
    let us = |times: &Times| format!("{:.2} µs", times.micros_each(&bench.workload));
    let again = again / repeats;
    let detail = format!("{} to {}, {again} run again", us(&plain), us(&engine));
    Ok((plain.over(&engine), detail, again))
}

/// Two threads on work that does not conflict.
pub(super) fn threads(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    let world = World::new()?;
    let kinds = [
        (world.clone().token_transfers()?, at_least(1.6, 1.85)),
        (world.clone().swaps()?, at_least(1.6, 1.85)),
        (world.transfers()?, FREE),
    ];
    for (workload, bounds) in kinds {
        let bench = Bench::new(workload);
        let (spread, detail, _) = speed_up(&bench, repeats, 2, &[])?;
        let what = format!(
            "2 threads, independent, wall, plain loop over engine: {}",
            bench.workload.name
        );
        report.add(what, (spread, "x"), detail, bounds);
        let [mut plain, mut halves] = [const { Times(Vec::new()) }; 2];
        let pool = pool(2)?;
        for turn in 0..=repeats {
            let one = pool.install(|| bench.plain_block(ClockId::CLOCK_MONOTONIC))?;
            let other = pool.install(|| bench.plain_halves())?;
            if turn > 0 {
                plain.0.push(one);
                halves.0.push(other);
            }
        }
        let us = |times: &Times| format!("{:.2} µs", times.micros_each(&bench.workload));
        let what = format!(
            "2 threads, wall, plain loop over two plain loops with half a block each: {}",
            bench.workload.name
        );
        let detail = format!("{} to {}", us(&plain), us(&halves));
        report.add(what, (plain.over(&halves), "x"), detail, FREE);
    }
    Ok(())
}

/// One hot contract: nothing to gain, nothing to lose.
pub(super) fn hot(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    let bench = Bench::new(World::new()?.hot_swaps()?);
    for threads in [1, 2, 4] {
        let (spread, detail, _) = speed_up(&bench, repeats, threads, &[])?;
        let what = format!("one hot pool, {threads} threads, wall, plain loop over engine");
        report.add(what, (spread, "x"), detail, at_least(0.95, 1.0));
    }
    let seeds = bench.seeds(&bench.dealt())?;
    let (spread, detail, _) = speed_up(&bench, repeats, 2, &seeds)?;
    let what = format!("one hot pool, dealt to {EXECUTORS} executors, the leader's wall");
    report.add(what, (spread, "x"), detail, at_least(0.95, 1.0));
    Ok(())
}

/// What a leader has to do with outcomes that hold, in two rows. Validation and merge: all of the engine's work up
/// to the system calls after the transactions, with the memory's setting up and the receipts, less the same
/// of an empty block. Then what follows of a block however it was run: the net change drawn up and sorted,
/// and the memory let go; what the roots of receipts take is taken off that.
pub(super) fn seeds(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    pool(1)?.install(|| seeds_on_one_thread(repeats, report))
}

fn seeds_on_one_thread(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    let world = World::new()?;
    let empty = Bench::new(world.clone().empty()?);
    let kinds = [
        (world.clone().transfers()?, at_most(0.3, 0.1)),
        (world.clone().token_transfers()?, at_most(0.3, 0.1)),
        (world.swaps()?, at_most(0.8, 0.3)),
    ];
    for (workload, bounds) in kinds {
        let bench = Bench::new(workload);
        let workload = &bench.workload;
        let seeds = bench.seeds(&bench.dealt())?;
        let [mut merging, mut drawing] = [const { Vec::new() }; 2];
        let [mut all, mut roots, mut system] = [const { Times(Vec::new()) }; 3];
        for turn in 0..=repeats {
            let (merged, whole) = bench.merged(seeds.clone())?;
            let receipts: &[Receipt] = &workload.receipts;
            let (hashing, _) = cpu(|| receipts_root_and_bloom(&workload.transactions, receipts));
            let (calls, calls_whole) = empty.merged(Vec::new())?;
            if turn > 0 {
                let each = |seconds: f64| seconds * 1e6 / workload.len() as f64;
                merging.push(each(merged - calls));
                drawing.push(each(whole - merged - hashing - (calls_whole - calls)));
                all.0.push(whole);
                roots.0.push(hashing);
                system.0.push(calls_whole);
            }
        }
        let us = |times: &Times| times.micros_each(workload);
        let detail = format!(
            "{:.2} the whole block, {:.2} of it receipts root, {:.2} system calls",
            us(&all),
            us(&roots),
            us(&system)
        );
        let what = format!("validation and merge of seeds, per transaction: {}", workload.name);
        report.add(what, (Spread::of(merging), " µs"), detail, bounds);
        let what = format!("the net change drawn up after that: {}", workload.name);
        report.add(what, (Spread::of(drawing), " µs"), String::new(), FREE);
    }
    Ok(())
}

/// How often transactions run twice where three of ten meet in one contract.
pub(super) fn mix(repeats: usize, report: &mut Report) -> anyhow::Result<()> {
    let bench = Bench::new(World::new()?.mix()?);
    let count = bench.workload.len() as f64;
    let pool = pool(2)?;
    let mut again = Vec::new();
    for _ in 0..repeats {
        let (_, result) = pool.install(|| bench.engine(Vec::new(), 2, ClockId::CLOCK_MONOTONIC))?;
        again.push(result.executed_again as f64 * 100.0 / count);
    }
    let detail = format!("of {count} transactions");
    let spread = (Spread::of(again), " %");
    report.add("run more than once, 30 % hot mix, 2 threads", spread, detail, at_most(5.0, 2.0));
    let shares = bench.workload.shares(EXECUTORS);
    let largest = shares.iter().map(Vec::len).max().unwrap_or_default();
    let seeds = bench.seeds(&shares)?;
    let (_, _, again) = speed_up(&bench, 1, 2, &seeds)?;
    let what = format!("run more than once, 30 % hot mix, {EXECUTORS} executors by anchor");
    let spread = Spread::of([again as f64 * 100.0 / count]);
    let detail = format!("the largest share is {largest}");
    report.add(what, (spread, " %"), detail, at_most(5.0, 2.0));
    let (spread, detail, _) = speed_up(&bench, repeats, 2, &[])?;
    report.add(
        "30 % hot mix, 2 threads, wall, plain loop over engine",
        (spread, "x"),
        detail,
        FREE,
    );
    Ok(())
}
