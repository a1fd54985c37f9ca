//! From memory to disk: what a changed key costs, against a bare table.

use super::{
    Report, at_most,
    chain::{BenchChain, address},
    seconds, spread,
};
use alloy_primitives::{B256, U256, keccak256};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, SlotChange, StateDiff, limits::MDBX_MAP_BYTES_MAX,
};
use blockraft_storage::PlainTables;
use nix::time::ClockId;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rayon::ThreadPoolBuilder;
use std::{collections::BTreeMap, path::Path};

/// Changed keys of a batch: half of them accounts, half slots.
const BATCH_KEYS: usize = 50_000;
/// Blocks that a batch is of.
const BATCH_BLOCKS: usize = 50;
const BATCHES: usize = 12;
/// Contracts that the slots belong to.
const CONTRACTS: usize = 200;

/// Adds the row of persistence, over a state of so many keys.
pub(super) fn measure(dir: &Path, keys: usize, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut chain = BenchChain::new(&dir.path().join("store"))?;
    let plain = PlainTables::open(&dir.path().join("plain"), MDBX_MAP_BYTES_MAX)?;
    // All work in one thread: what is compared is CPU time, of the whole process.
    let pool = ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut rng = SmallRng::seed_from_u64(4);
    let mut batch = |picks: Vec<usize>, blocks: usize| -> anyhow::Result<(f64, f64)> {
        let diffs: Vec<StateDiff> =
            picks.chunks(picks.len().div_ceil(blocks)).map(|picks| diff(&mut rng, picks)).collect();
        let (accounts, slots) = plain_records(&diffs);
        for diff in diffs {
            chain.apply(diff, Vec::new());
        }
        let store = &chain.store;
        let ours = timed(|| pool.install(|| while_queued(store)))?;
        let bare = timed(|| Ok(plain.upsert(&accounts, &slots)?))?;
        Ok((ours, bare))
    };
    // A key is an account or a slot, whatever comes: odd numbers are slots.
    for start in (0..keys).step_by(BATCH_KEYS) {
        batch((start..(start + BATCH_KEYS).min(keys)).collect(), 1)?;
    }
    let mut pick = SmallRng::seed_from_u64(5);
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        let count = BATCH_KEYS.min(keys);
        times.push((
            batch(rand::seq::index::sample(&mut pick, keys, count).into_vec(), BATCH_BLOCKS)?,
            count,
        ));
    }
    let ratios = times.iter().map(|((ours, bare), _)| ours / bare).collect();
    let (median, least, greatest) = spread(ratios);
    let micros = |of: fn(&((f64, f64), usize)) -> f64| {
        spread(times.iter().map(|t| of(t) * 1e6 / t.1 as f64).collect()).0
    };
    report.add(
        format!("persistence CPU per changed key, batches of {BATCH_KEYS} of {keys} keys, against plain sorted MDBX upserts"),
        (median, "x"),
        format!(
            "{least:.2} to {greatest:.2} in {BATCHES} batches; {:.2} us against {:.2} us a key",
            micros(|((ours, _), _)| *ours),
            micros(|((_, bare), _)| *bare)
        ),
        at_most(1.3, 1.1),
    );
    Ok(())
}

fn timed(run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    run()?;
    Ok(seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID) - start)
}

fn while_queued(store: &blockraft_storage::Store) -> anyhow::Result<()> {
    while store.backlog().blocks > 0 {
        store.persist()?;
    }
    Ok(())
}

/// Sets these keys to random values.
fn diff(rng: &mut SmallRng, picks: &[usize]) -> StateDiff {
    let mut accounts = BTreeMap::new();
    let unchanged = |n| AccountDiff {
        address: address(n),
        change: AccountChange::Unchanged,
        storage_wiped: false,
        storage: Vec::new(),
    };
    for &key in picks {
        let n = CONTRACTS + key;
        if key % 2 == 0 {
            let balance = U256::from(rng.random::<u64>());
            let account =
                Account { nonce: rng.random_range(0..1000), balance, ..Account::default() };
            accounts.entry(n).or_insert_with(|| unchanged(n)).change = AccountChange::Set(account);
        } else {
            let contract = key / 2 % CONTRACTS;
            let value = U256::from(rng.random::<u64>() | 1);
            let slot = keccak256(n.to_be_bytes()).into();
            let change = SlotChange { slot, value };
            accounts.entry(contract).or_insert_with(|| unchanged(contract)).storage.push(change);
        }
    }
    let mut accounts: Vec<AccountDiff> = accounts.into_values().collect();
    accounts.sort_unstable_by_key(|account| account.address);
    for account in &mut accounts {
        account.storage.sort_unstable_by_key(|change| change.slot);
    }
    StateDiff { accounts, codes: Vec::new() }
}

/// Sorted accounts, and sorted slots.
type Records = (Vec<(B256, Vec<u8>)>, Vec<(Vec<u8>, Vec<u8>)>);

/// The same keys and values as a table without history would hold them, in order.
fn plain_records(diffs: &[StateDiff]) -> Records {
    let (mut accounts, mut slots) = (BTreeMap::new(), BTreeMap::new());
    for account in diffs.iter().flat_map(|diff| &diff.accounts) {
        let hashed = keccak256(account.address);
        if account.change != AccountChange::Unchanged {
            let value = [account.address.to_vec(), alloy_rlp::encode(account.change)].concat();
            accounts.insert(hashed, value);
        }
        for change in &account.storage {
            let key = [hashed, keccak256(B256::from(change.slot))].concat();
            let slot = change.slot.to_be_bytes_trimmed_vec();
            let value = change.value.to_be_bytes_trimmed_vec();
            slots.insert(key, [vec![slot.len() as u8], slot, value].concat());
        }
    }
    (accounts.into_iter().collect(), slots.into_iter().collect())
}
