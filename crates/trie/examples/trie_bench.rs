//! Measures the trie and prints the ratios it promises: `cargo run --release --example trie_bench`.
//!
//! Comparisons of one core are in CPU time of the thread, so that a busy machine does not distort them;
//! comparisons of one core with two are in wall time, the best of several, and need two quiet cores.

#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, TrieAccount};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange, StateDiff};
use blockraft_trie::{StateTrie, SubtrieBuilder, hash_all};
use nix::time::{ClockId, clock_gettime};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::hint::black_box;

const ACCOUNTS: usize = 1_000_000;
const SLOTS: u64 = 1_000_000;

fn main() {
    println!("| what | got | must | reach for |\n|---|---|---|---|");
    keccak(136);
    keccak(532);
    accounts();
    hot_contract();
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock).expect("the clock exists");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Least CPU seconds of this thread that `run` took in so many runs.
fn cpu(runs: usize, mut run: impl FnMut()) -> f64 {
    least(ClockId::CLOCK_THREAD_CPUTIME_ID, runs, &mut run)
}

fn least(clock: ClockId, runs: usize, run: &mut dyn FnMut()) -> f64 {
    let times = (0..runs).map(|_| {
        let start = seconds(clock);
        run();
        seconds(clock) - start
    });
    times.fold(f64::MAX, f64::min)
}

fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("threads can be started").install(run)
}

fn row(what: &str, got: String, must: &str, reach: &str) {
    println!("| {what} | {got} | {must} | {reach} |");
}

fn keccak(len: usize) {
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
    let got = format!(
        "{:.2}x ({:.0} ns to {:.0} ns)",
        one_by_one / together,
        nanos(one_by_one),
        nanos(together)
    );
    row(&format!("batched keccak, {len} bytes"), got, ">= 1.6x", ">= 1.9x");
}

fn address(n: usize) -> Address {
    Address::left_padding_from(&(n as u64).to_be_bytes())
}

fn account(rng: &mut SmallRng) -> Account {
    let balance = U256::from(rng.random::<u64>());
    Account { nonce: rng.random_range(0..1000), balance, ..Account::default() }
}

/// Sets so many random accounts.
fn random_diff(rng: &mut SmallRng, count: usize) -> StateDiff {
    let mut picks = rand::seq::index::sample(rng, ACCOUNTS, count).into_vec();
    picks.sort_unstable();
    let accounts = picks.into_iter().map(|n| AccountDiff {
        address: address(n),
        change: AccountChange::Set(account(rng)),
        storage_wiped: false,
        storage: Vec::new(),
    });
    StateDiff { accounts: accounts.collect(), codes: Vec::new() }
}

fn accounts() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut flat: Vec<(B256, Account)> =
        (0..ACCOUNTS).map(|n| (keccak256(address(n)), account(&mut rng))).collect();
    flat.sort_unstable_by_key(|(key, _)| *key);

    let leaves: Vec<(Nibbles, Vec<u8>)> = flat
        .iter()
        .map(|(key, account)| {
            let mut rlp = Vec::new();
            let (nonce, balance, code_hash) = (account.nonce, account.balance, account.code_hash);
            TrieAccount { nonce, balance, storage_root: EMPTY_ROOT_HASH, code_hash }
                .encode(&mut rlp);
            (Nibbles::unpack(key), rlp)
        })
        .collect();
    let mut full_root = B256::ZERO;
    let full = cpu(3, || {
        let mut builder = HashBuilder::default();
        for (path, value) in &leaves {
            builder.add_leaf(*path, value);
        }
        full_root = builder.root();
    });
    drop(leaves);

    let build = || {
        StateTrie::build(|prefix, builder: &mut SubtrieBuilder| {
            let from = flat.partition_point(|(key, _)| key.0[0] < prefix);
            let of_prefix = flat[from..].iter().take_while(|(key, _)| key.0[0] == prefix);
            for (key, account) in of_prefix {
                builder.add_account(*key, account, [])?;
            }
            Ok::<(), blockraft_trie::TrieError>(())
        })
        .expect("the flat state is sorted")
    };
    let (mut trie, build_seconds) = with_threads(1, || {
        let start = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let trie = build();
        (trie, seconds(ClockId::CLOCK_THREAD_CPUTIME_ID) - start)
    });
    assert_eq!(trie.root(), full_root, "built root equals alloy's");
    row(
        "build 1M accounts from flat state and hash, one core, against HashBuilder",
        format!("{:.2}x ({:.0} ns a leaf)", full / build_seconds, build_seconds * 1e9 / 1e6),
        "-",
        "-",
    );
    let per_account = |trie: &StateTrie| trie.memory_bytes() as f64 / ACCOUNTS as f64;
    row(
        "bytes per account, just built",
        format!("{:.0} B", per_account(&trie)),
        "<= 220 B",
        "<= 150 B",
    );

    for count in [1_000, 10_000, 50_000, 200_000] {
        let runs = if count <= 10_000 { 40 } else { 9 };
        let diffs: Vec<StateDiff> = (0..runs).map(|_| random_diff(&mut rng, count)).collect();
        let one_core = with_threads(1, || {
            let mut next = diffs.iter();
            cpu(diffs.len(), || {
                trie.update(next.next().expect("one for each run"));
                black_box(trie.root());
            })
        });
        let (must, reach) = if count == 10_000 { (">= 30x", ">= 60x") } else { ("-", "-") };
        let ratio = full / one_core;
        let what = format!(
            "update {count} of 1M accounts and root, one core, against a HashBuilder rebuild of {full:.2} s"
        );
        row(&what, format!("{ratio:.1}x ({:.2} ms)", one_core * 1e3), must, reach);
    }
    let diffs = (0..60).map(|_| random_diff(&mut rng, 10_000)).collect();
    let two = two_cores(&mut trie, diffs);
    row("the same (10,000) on two cores against one", two, ">= 1.7x", ">= 1.9x");

    // Every account through the update path in random order, from nothing.
    let mut order: Vec<usize> = (0..ACCOUNTS).collect();
    order.shuffle(&mut rng);
    let mut grown = StateTrie::new();
    for chunk in order.chunks(5_000) {
        let mut chunk = chunk.to_vec();
        chunk.sort_unstable();
        let accounts = chunk.into_iter().map(|n| AccountDiff {
            address: address(n),
            change: AccountChange::Set(account(&mut rng)),
            storage_wiped: false,
            storage: Vec::new(),
        });
        grown.update(&StateDiff { accounts: accounts.collect(), codes: Vec::new() });
    }
    grown.root();
    row(
        "bytes per account, grown by 5,000 at a time",
        format!("{:.0} B", per_account(&grown)),
        "<= 220 B",
        "<= 150 B",
    );
}

/// Best wall time of update and root on one thread over that on two, which take turns.
fn two_cores(trie: &mut StateTrie, diffs: Vec<StateDiff>) -> String {
    let pools = [1, 2].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads can be started")
    });
    let mut best = [f64::MAX; 2];
    for (run, diff) in diffs.iter().enumerate() {
        let seconds = pools[run % 2].install(|| {
            least(ClockId::CLOCK_MONOTONIC, 1, &mut || {
                trie.update(diff);
                black_box(trie.root());
            })
        });
        best[run % 2] = best[run % 2].min(seconds);
    }
    format!("{:.2}x ({:.2} ms to {:.2} ms)", best[0] / best[1], best[0] * 1e3, best[1] * 1e3)
}

fn hot_contract() {
    let mut rng = SmallRng::seed_from_u64(2);
    let contract = Account { nonce: 1, code_hash: B256::repeat_byte(1), ..Account::default() };
    let mut change = |slots: Vec<u64>| StateDiff {
        accounts: vec![AccountDiff {
            address: address(1),
            change: AccountChange::Set(contract),
            storage_wiped: false,
            storage: slots
                .into_iter()
                .map(|n| SlotChange {
                    slot: U256::from(n),
                    value: U256::from(rng.random::<u64>() | 1),
                })
                .collect(),
        }],
        codes: Vec::new(),
    };
    let mut trie = StateTrie::new();
    for chunk in 0..20 {
        trie.update(&change((chunk * SLOTS / 20..(chunk + 1) * SLOTS / 20).collect()));
    }
    trie.root();
    let bytes = format!("{:.0} B", trie.memory_bytes() as f64 / SLOTS as f64);
    row("bytes per slot, grown by 50,000 at a time", bytes, "-", "-");
    let mut pick = SmallRng::seed_from_u64(3);
    let diffs = (0..40)
        .map(|_| {
            let picks = rand::seq::index::sample(&mut pick, SLOTS as usize, 50_000);
            let mut slots: Vec<u64> = picks.iter().map(|n| n as u64).collect();
            slots.sort_unstable();
            change(slots)
        })
        .collect();
    let two = two_cores(&mut trie, diffs);
    row(
        "root of 50,000 dirty of 1M slots of one contract, two cores against one",
        two,
        ">= 1.6x",
        ">= 1.85x",
    );
}
