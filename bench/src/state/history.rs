//! Reads of earlier blocks: balances, and logs by the index.

use super::{
    Bound, Report, at_least, at_most,
    chain::{BenchChain, address, topic},
    seconds, spread,
};
use alloy_primitives::{Bytes, Log, LogData, U256};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, StateDiff, StateReader, limits::RPC_LOGS_BLOCK_RANGE_MAX,
};
use blockraft_storage::{LogQuery, Store};
use nix::time::ClockId;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{hint::black_box, path::Path};

const ACCOUNTS: usize = 100_000;
/// Accounts that a block changes: over 100,000 blocks each of them twenty times.
const CHANGED_A_BLOCK: usize = 20;
/// An account that every block changes.
const HOT: usize = ACCOUNTS;
const LOGS_A_BLOCK: usize = 8;
/// Contracts that emit logs.
const EMITTERS: usize = 500;
/// Accounts that logs name.
const HOLDERS: usize = 10_000;
const BLOCKS_A_PERSIST: u64 = 1_000;
const READS: usize = 20_000;
const ROUNDS: usize = 11;

/// Adds the rows of the history, over a chain of so many blocks.
pub(super) fn measure(dir: &Path, blocks: u64, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut chain = BenchChain::new(&dir.path().join("store"))?;
    build(&mut chain, blocks)?;
    let store = &chain.store;
    balances(store, blocks, report)?;
    logs(store, blocks, report)
}

fn build(chain: &mut BenchChain, blocks: u64) -> anyhow::Result<()> {
    let mut rng = SmallRng::seed_from_u64(6);
    for number in 1..=blocks {
        let mut picks = rand::seq::index::sample(&mut rng, ACCOUNTS, CHANGED_A_BLOCK).into_vec();
        picks.push(HOT);
        picks.sort_unstable();
        let accounts = picks.into_iter().map(|n| AccountDiff {
            address: address(n),
            change: AccountChange::Set(Account {
                nonce: number,
                balance: U256::from(rng.random::<u64>()),
                ..Account::default()
            }),
            storage_wiped: false,
            storage: Vec::new(),
        });
        let diff = StateDiff { accounts: accounts.collect(), codes: Vec::new() };
        let logs = (0..LOGS_A_BLOCK).map(|_| log(&mut rng)).collect();
        chain.apply(diff, logs);
        if number % BLOCKS_A_PERSIST == 0 || number == blocks {
            chain.store.persist()?;
        }
    }
    anyhow::ensure!(chain.store.backlog().blocks == 0, "all blocks are on disk");
    Ok(())
}

fn log(rng: &mut SmallRng) -> Log {
    let emitter = rng.random_range(0..EMITTERS);
    let topics = vec![topic(emitter % 7), topic(rng.random_range(0..HOLDERS))];
    let data = Bytes::copy_from_slice(&rng.random::<[u8; 32]>());
    Log { address: address(emitter), data: LogData::new_unchecked(topics, data) }
}

fn balances(store: &Store, blocks: u64, report: &mut Report) -> anyhow::Result<()> {
    let mut rng = SmallRng::seed_from_u64(7);
    let random: Vec<(usize, u64)> =
        (0..READS).map(|_| (rng.random_range(0..ACCOUNTS), rng.random_range(0..=blocks))).collect();
    let latest: Vec<_> = random.iter().map(|(account, _)| (*account, blocks)).collect();
    let hot: Vec<_> = random.iter().map(|(_, number)| (HOT, *number)).collect();
    let hot_latest = vec![(HOT, blocks); READS];
    for (what, past, now, bounds) in [
        ("a balance at a random block", &random, &latest, at_most(4.0, 2.0)),
        ("the balance of an account that every block changed", &hot, &hot_latest, super::FREE),
    ] {
        let mut ratios = Vec::new();
        let mut least = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            let (now, past) = (read(store, now)?, read(store, past)?);
            ratios.push(past / now);
            least = (least.0.min(now), least.1.min(past));
        }
        let (median, low, high) = spread(ratios);
        report.add(
            format!("{what} of {blocks} against at the latest, warm, by StateView"),
            (median, "x"),
            format!(
                "{low:.2} to {high:.2}; {:.0} ns against {:.0} ns",
                least.1 * 1e9,
                least.0 * 1e9
            ),
            bounds,
        );
    }
    Ok(())
}

/// Seconds of CPU a read.
fn read(store: &Store, reads: &[(usize, u64)]) -> anyhow::Result<f64> {
    let start = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
    for (account, number) in reads {
        black_box(store.view(*number)?.account(address(*account))?);
    }
    Ok((seconds(ClockId::CLOCK_THREAD_CPUTIME_ID) - start) / reads.len() as f64)
}

/// The index against reading the receipts of every block.
fn logs(store: &Store, blocks: u64, report: &mut Report) -> anyhow::Result<()> {
    let mut rng = SmallRng::seed_from_u64(8);
    let from = (blocks + 1).saturating_sub(RPC_LOGS_BLOCK_RANGE_MAX);
    let whole = |addresses, topics| LogQuery { from, to: blocks, addresses, topics };
    let start = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let sample = (blocks / 50).max(1);
    for number in from..from + sample {
        black_box(store.block(number)?);
    }
    let scan = (seconds(ClockId::CLOCK_THREAD_CPUTIME_ID) - start) * (blocks - from + 1) as f64
        / sample as f64;
    for (what, by_topic) in [("an address", false), ("an account in topic 2", true)] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..ROUNDS {
            let mut topics = <[Vec<_>; 4]>::default();
            let mut addresses = Vec::new();
            match by_topic {
                true => topics[1].push(topic(rng.random_range(0..HOLDERS))),
                false => addresses.push(address(rng.random_range(0..EMITTERS))),
            }
            let query = whole(addresses, topics);
            let start = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
            let candidates = store.blocks_with_logs(&query)?;
            for number in &candidates {
                black_box(store.block(*number)?);
            }
            times.push(seconds(ClockId::CLOCK_THREAD_CPUTIME_ID) - start);
            found = candidates.len();
        }
        let (median, low, high) = spread(times.iter().map(|time| scan / time).collect());
        report.add(
            format!("logs of {what} in {} blocks by the index, against reading all receipts", blocks - from + 1),
            (median, "x"),
            format!(
                "{low:.0} to {high:.0}; {:.2} ms, of which {found} blocks were read, against {:.0} ms",
                spread(times).0 * 1e3,
                scan * 1e3
            ),
            (Some(Bound::AtLeast(10.0)), at_least(10.0, 50.0).1),
        );
    }
    Ok(())
}
