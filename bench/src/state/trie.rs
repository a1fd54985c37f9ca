//! The trie: keccak in batches, updates and roots on one core and two, bytes of memory.

use super::{FREE, Report, at_least, at_most, cpu, least, seconds};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, TrieAccount};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, PartitionSet, SlotChange, StateDiff,
};
use blockraft_trie::{StateTrie, SubtrieBuilder, TrieError, hash_all};
use nix::time::ClockId;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::hint::black_box;

/// Changed accounts, and slots of one contract, of the rows that compare cores.
const CHANGED_ACCOUNTS: usize = 10_000;
const CHANGED_SLOTS: usize = 50_000;
/// Blocks after which subtries of other owners are brought up to date.
const LAG_BLOCKS: usize = 5;

/// Adds the trie's rows, over a state of so many accounts.
pub(super) fn measure(accounts: usize, report: &mut Report) -> anyhow::Result<()> {
    for len in [136, 532] {
        keccak(len, report);
    }
    let pools = (
        ThreadPoolBuilder::new().num_threads(1).build()?,
        ThreadPoolBuilder::new().num_threads(2).build()?,
    );
    update_accounts(accounts, &pools, report)?;
    update_hot_contract(accounts, &pools, report);
    Ok(())
}

fn keccak(len: usize, report: &mut Report) {
    let messages: Vec<Vec<u8>> = (0..1000usize).map(|n| vec![n as u8; len]).collect();
    let one_by_one = cpu(15, || {
        for message in &messages {
            black_box(keccak256(black_box(message)));
        }
    });
    let together = cpu(15, || {
        black_box(hash_all(&messages, |message, out| out.extend_from_slice(message)));
    });
    let nanos = |seconds: f64| seconds * 1e9 / messages.len() as f64;
    report.add(
        format!("batched keccak against one by one, {len} bytes"),
        (one_by_one / together, "x"),
        format!("{:.0} ns to {:.0} ns", nanos(one_by_one), nanos(together)),
        at_least(1.6, 1.9),
    );
}

fn address(n: usize) -> Address {
    Address::left_padding_from(&(n as u64).to_be_bytes())
}

fn account(rng: &mut SmallRng) -> Account {
    let balance = U256::from(rng.random::<u64>());
    Account { nonce: rng.random_range(0..1000), balance, ..Account::default() }
}

/// Sets these accounts to random values.
fn set_accounts(rng: &mut SmallRng, mut picks: Vec<usize>) -> StateDiff {
    picks.sort_unstable();
    let accounts = picks.into_iter().map(|n| AccountDiff {
        address: address(n),
        change: AccountChange::Set(account(rng)),
        storage_wiped: false,
        storage: Vec::new(),
    });
    StateDiff { accounts: accounts.collect(), codes: Vec::new() }
}

/// Sets so many random accounts of `total`.
fn random_diff(rng: &mut SmallRng, total: usize, count: usize) -> StateDiff {
    let picks = rand::seq::index::sample(rng, total, count.min(total)).into_vec();
    set_accounts(rng, picks)
}

fn update_accounts(
    total: usize,
    pools: &(ThreadPool, ThreadPool),
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut flat: Vec<(B256, Account)> =
        (0..total).map(|n| (keccak256(address(n)), account(&mut rng))).collect();
    flat.sort_unstable_by_key(|(key, _)| *key);
    let (full, full_root) = rebuild_with_hash_builder(&flat);

    let (mut trie, build_seconds) = pools.0.install(|| {
        let start = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
        build(&flat).map(|trie| (trie, seconds(ClockId::CLOCK_THREAD_CPUTIME_ID) - start))
    })?;
    anyhow::ensure!(trie.root() == full_root, "the built root is not alloy's");
    report.add(
        format!("build {total} accounts from flat state and hash, one core, against HashBuilder"),
        (full / build_seconds, "x"),
        format!("{:.0} ns a leaf", build_seconds * 1e9 / total as f64),
        FREE,
    );
    let bytes_each = |trie: &StateTrie| (trie.memory_bytes() as f64 / total as f64, " B");
    let bounds = at_most(220.0, 150.0);
    report.add("trie memory per account", bytes_each(&trie), "just built", bounds);

    for count in [1_000, CHANGED_ACCOUNTS, 50_000] {
        let runs = if count <= CHANGED_ACCOUNTS { 40 } else { 9 };
        let diffs: Vec<_> = (0..runs).map(|_| random_diff(&mut rng, total, count)).collect();
        let one_core = pools.0.install(|| {
            let mut next = diffs.iter();
            cpu(diffs.len(), || {
                trie.update(next.next().expect("one for each run"));
                black_box(trie.root());
            })
        });
        report.add(
            format!("update {count} random of {total} accounts and root, one core, against a full HashBuilder rebuild"),
            (full / one_core, "x"),
            format!("{:.0} ms to {:.2} ms", full * 1e3, one_core * 1e3),
            if count == CHANGED_ACCOUNTS { at_least(30.0, 60.0) } else { FREE },
        );
    }
    let diffs: Vec<_> = (0..60).map(|_| random_diff(&mut rng, total, CHANGED_ACCOUNTS)).collect();
    let (ratio, detail) = two_cores(&mut trie, &diffs, pools);
    let what = format!("the same ({CHANGED_ACCOUNTS}) on two cores against one");
    report.add(what, (ratio, "x"), detail, at_least(1.7, 1.9));
    pools.0.install(|| share_out(&mut trie, &diffs, report));
    drop(trie);

    // Every account through the update path in random order, from nothing.
    let mut order: Vec<usize> = (0..total).collect();
    order.shuffle(&mut rng);
    let mut grown = StateTrie::new();
    for chunk in order.chunks(5_000) {
        grown.update(&set_accounts(&mut rng, chunk.to_vec()));
    }
    grown.root();
    report.add("trie memory per account", bytes_each(&grown), "grown by 5,000 at a time", bounds);
    Ok(())
}

/// Least CPU seconds of alloy's root from sorted leaves, and the root.
fn rebuild_with_hash_builder(flat: &[(B256, Account)]) -> (f64, B256) {
    let leaf = |(key, account): &(B256, Account)| {
        let Account { nonce, balance, code_hash } = *account;
        let mut rlp = Vec::new();
        TrieAccount { nonce, balance, storage_root: EMPTY_ROOT_HASH, code_hash }.encode(&mut rlp);
        (Nibbles::unpack(key), rlp)
    };
    let leaves: Vec<(Nibbles, Vec<u8>)> = flat.iter().map(leaf).collect();
    let mut root = B256::ZERO;
    let least = cpu(3, || {
        let mut builder = HashBuilder::default();
        for (path, value) in &leaves {
            builder.add_leaf(*path, value);
        }
        root = builder.root();
    });
    (least, root)
}

fn build(flat: &[(B256, Account)]) -> Result<StateTrie, TrieError> {
    StateTrie::build(|prefix, builder: &mut SubtrieBuilder| {
        let from = flat.partition_point(|(key, _)| key.0[0] < prefix);
        let of_prefix = flat[from..].iter().take_while(|(key, _)| key.0[0] == prefix);
        for (key, account) in of_prefix {
            builder.add_account(*key, account, [])?;
        }
        Ok(())
    })
}

/// Best wall time of update and root on one thread over that on two, which take turns.
fn two_cores(
    trie: &mut StateTrie,
    diffs: &[StateDiff],
    pools: &(ThreadPool, ThreadPool),
) -> (f64, String) {
    let mut best = [f64::MAX; 2];
    for (run, diff) in diffs.iter().enumerate() {
        let pool = if run % 2 == 0 { &pools.0 } else { &pools.1 };
        let seconds = pool.install(|| {
            least(ClockId::CLOCK_MONOTONIC, 1, &mut || {
                trie.update(diff);
                black_box(trie.root());
            })
        });
        best[run % 2] = best[run % 2].min(seconds);
    }
    (best[0] / best[1], format!("{:.2} ms to {:.2} ms", best[0] * 1e3, best[1] * 1e3))
}

/// What a member of three spends on blocks of which each hashes a third at once and the rest later, together,
/// against hashing all of every block (decision 0018).
fn share_out(trie: &mut StateTrie, diffs: &[StateDiff], report: &mut Report) {
    let own: PartitionSet = (0..=u8::MAX).filter(|partition| partition.is_multiple_of(3)).collect();
    let (mut whole, mut shared, mut first) = (f64::MAX, f64::MAX, f64::MAX);
    for (turn, blocks) in diffs.chunks_exact(LAG_BLOCKS).enumerate() {
        let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
        let start = seconds(clock);
        if turn % 2 == 0 {
            for diff in blocks {
                trie.update(diff);
                black_box(trie.root());
            }
            whole = whole.min(seconds(clock) - start);
            continue;
        }
        let owned = |trie: &mut StateTrie, diff| {
            trie.push_to(diff, &own).expect("a trie without a memory limit reads nothing");
            black_box(trie.subtrie_roots(&own));
        };
        owned(trie, &blocks[0]);
        first = first.min(seconds(clock) - start);
        blocks[1..].iter().for_each(|diff| owned(trie, diff));
        for diff in blocks {
            trie.push_to(diff, &own.others()).expect("a trie without a memory limit reads nothing");
        }
        black_box(trie.root());
        shared = shared.min(seconds(clock) - start);
    }
    let whole_block = whole / LAG_BLOCKS as f64;
    report.add(
        format!(
            "CPU of {LAG_BLOCKS} such blocks: own third at once, the rest later, against all at once"
        ),
        (shared / whole, "x"),
        format!("{:.1} ms to {:.1} ms", whole * 1e3, shared * 1e3),
        FREE,
    );
    report.add(
        "until a block's own third is hashed, against all of it",
        (first / whole_block, "x"),
        format!("{:.2} ms to {:.2} ms", whole_block * 1e3, first * 1e3),
        FREE,
    );
}

fn update_hot_contract(total: usize, pools: &(ThreadPool, ThreadPool), report: &mut Report) {
    let mut rng = SmallRng::seed_from_u64(2);
    let contract = Account { nonce: 1, code_hash: B256::repeat_byte(1), ..Account::default() };
    let mut change = |slots: Vec<usize>| {
        let storage = slots.into_iter().map(|n| SlotChange {
            slot: U256::from(n),
            value: U256::from(rng.random::<u64>() | 1),
        });
        let account = AccountDiff {
            address: address(1),
            change: AccountChange::Set(contract),
            storage_wiped: false,
            storage: storage.collect(),
        };
        StateDiff { accounts: vec![account], codes: Vec::new() }
    };
    let mut trie = StateTrie::new();
    for chunk in 0..20 {
        trie.update(&change((chunk * total / 20..(chunk + 1) * total / 20).collect()));
    }
    trie.root();
    let bytes = trie.memory_bytes() as f64 / total as f64;
    report.add("trie memory per slot", (bytes, " B"), "grown in 20 steps", FREE);
    let mut pick = SmallRng::seed_from_u64(3);
    let diffs: Vec<_> = (0..40)
        .map(|_| {
            let picks = rand::seq::index::sample(&mut pick, total, CHANGED_SLOTS.min(total));
            let mut slots = picks.into_vec();
            slots.sort_unstable();
            change(slots)
        })
        .collect();
    let (ratio, detail) = two_cores(&mut trie, &diffs, pools);
    report.add(
        format!(
            "root of {CHANGED_SLOTS} dirty of {total} slots of one contract, two cores against one"
        ),
        (ratio, "x"),
        detail,
        at_least(1.6, 1.85),
    );
}
