//! Roots after random diffs equal those that alloy computes from scratch, whatever the threads, the
//! sizes and the order of operations.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

mod common;

use alloy_primitives::{B256, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, MemoryState, SlotChange, StateDiff,
};
use blockraft_trie::StateTrie;
use common::{
    Mix, address, expected_root, expected_storage_root, inverse, random_account, random_diff, rng,
};
use rand::{Rng, rngs::SmallRng};

fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

/// Applies random diffs of these sizes and compares each root.
fn check(seed: u64, mix: Mix, sizes: impl Fn(&mut SmallRng) -> usize, steps: usize) {
    let mut rng = rng(seed);
    let mut state = MemoryState::default();
    let mut trie = StateTrie::new();
    for step in 0..steps {
        let count = sizes(&mut rng);
        let diff = random_diff(&mut rng, &state, &mix, count);
        state.apply(&diff);
        trie.update(&diff);
        assert_eq!(trie.root(), expected_root(&state), "seed {seed} step {step}");
        assert_eq!(trie.account_count(), state.accounts.len());
    }
}

#[test]
fn the_empty_state_has_the_empty_root() {
    assert_eq!(StateTrie::new().root(), EMPTY_ROOT_HASH);
}

#[test]
fn few_accounts_come_and_go() {
    for seed in 0..60 {
        let mix = Mix { accounts: 6, slots: 5, deletions: 45, ..Mix::default() };
        check(seed, mix, |rng| rng.random_range(1..4), 60);
    }
}

#[test]
fn hundreds_of_accounts_come_and_go() {
    for seed in 100..110 {
        check(seed, Mix::default(), |rng| rng.random_range(1..120), 25);
    }
}

#[test]
fn storage_that_is_mostly_cleared_collapses() {
    for seed in 200..210 {
        let mix =
            Mix { accounts: 3, slots: 60, slots_at_once: 40, deletions: 3, wipes: 3, zeros: 70 };
        check(seed, mix, |rng| rng.random_range(1..3), 60);
    }
}

#[test]
fn batches_of_any_size_on_any_number_of_threads() {
    for (threads, size) in [
        (1, 1),
        (2, 10),
        (4, 100),
        (1, 1_000),
        (2, 1_000),
        (4, 1_000),
        (1, 10_000),
        (2, 50_000),
        (4, 50_000),
    ] {
        let mix = Mix { accounts: 3 * size as u64, slots_at_once: 3, ..Mix::default() };
        let steps = if size < 10_000 { 6 } else { 2 };
        with_threads(threads, || check(7 + size as u64, mix, |_| size, steps));
    }
}

#[test]
fn a_large_contract_is_split_and_still_right() {
    for (threads, seed) in [(1, 300), (2, 301), (4, 302)] {
        with_threads(threads, || {
            let mix = Mix {
                accounts: 2,
                slots: 60_000,
                slots_at_once: 12_000,
                deletions: 0,
                wipes: 5,
                zeros: 30,
            };
            check(seed, mix, |_| 2, 12);
        });
    }
}

#[test]
fn a_large_contract_can_shrink_to_nothing() {
    let slots = |value: u64, range: std::ops::Range<u64>| -> Vec<SlotChange> {
        range.map(|n| SlotChange { slot: U256::from(n), value: U256::from(value) }).collect()
    };
    let change = |storage| StateDiff {
        accounts: vec![AccountDiff {
            address: address(1),
            change: AccountChange::Set(Account { nonce: 1, ..Account::default() }),
            storage_wiped: false,
            storage,
        }],
        codes: Vec::new(),
    };
    let mut state = MemoryState::default();
    let mut trie = StateTrie::new();
    for diff in [slots(7, 0..20_000), slots(0, 2..19_999), slots(0, 0..1), slots(0, 1..20_000)] {
        let diff = change(diff);
        state.apply(&diff);
        trie.update(&diff);
        assert_eq!(trie.root(), expected_root(&state));
        assert_eq!(trie.storage_root(address(1)), Some(expected_storage_root(&state, address(1))));
    }
    assert_eq!(trie.storage_root(address(1)), Some(EMPTY_ROOT_HASH));
}

#[test]
fn write_sets_streamed_one_by_one_equal_one_diff() {
    let mut rng = rng(400);
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    for _ in 0..20 {
        for _ in 0..50 {
            let diff = random_diff(&mut rng, &state, &Mix::default(), 3);
            state.apply(&diff);
            trie.update(&diff);
        }
        assert_eq!(trie.root(), expected_root(&state));
    }
}

#[test]
fn a_diff_twice_changes_nothing_and_its_inverse_restores_the_root() {
    for seed in 500..510 {
        let mut rng = rng(seed);
        let mut before = MemoryState::default();
        let mut trie = StateTrie::new();
        for _ in 0..20 {
            let diff = random_diff(&mut rng, &before, &Mix::default(), 60);
            let mut after = before.clone();
            after.apply(&diff);
            let old_root = trie.root();
            trie.update(&diff);
            let root = trie.root();
            trie.update(&diff);
            assert_eq!(trie.root(), root);
            trie.update(&inverse(&diff, &before, &after));
            assert_eq!(trie.root(), old_root);
            trie.update(&diff);
            assert_eq!(trie.root(), root);
            before = after;
        }
    }
}

#[test]
fn an_account_destroyed_and_recreated_in_one_diff_keeps_no_old_slot() {
    let slot = |n: u64, value: u64| SlotChange { slot: U256::from(n), value: U256::from(value) };
    let contract = Account { nonce: 1, code_hash: B256::repeat_byte(3), ..Account::default() };
    let diff = |storage_wiped, storage| StateDiff {
        accounts: vec![AccountDiff {
            address: address(9),
            change: AccountChange::Set(contract),
            storage_wiped,
            storage,
        }],
        codes: Vec::new(),
    };
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    for diff in [
        diff(false, (0..9).map(|n| slot(n, n + 1)).collect()),
        diff(true, vec![slot(2, 8), slot(50, 1), slot(51, 0)]),
        diff(true, Vec::new()),
    ] {
        state.apply(&diff);
        trie.update(&diff);
        assert_eq!(trie.root(), expected_root(&state));
        for n in 0..60 {
            let slots = state.storage.get(&address(9));
            let expected = slots.and_then(|slots| slots.get::<U256>(&U256::from(n)));
            assert_eq!(
                trie.storage(address(9), U256::from(n)),
                expected.copied().unwrap_or_default()
            );
        }
    }
}

#[test]
fn reading_gives_back_what_was_written() {
    let mut rng = rng(600);
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    for _ in 0..30 {
        let diff = random_diff(&mut rng, &state, &Mix::default(), 50);
        state.apply(&diff);
        trie.update(&diff);
    }
    for n in 0..300 {
        assert_eq!(trie.account(address(n)), state.accounts.get(&address(n)).copied());
        let storage_root = trie.storage_root(address(n));
        let expected = expected_storage_root(&state, address(n));
        assert_eq!(storage_root, state.accounts.contains_key(&address(n)).then_some(expected));
    }
    let slots = state.accounts.keys().filter_map(|a| state.storage.get(a)).map(|s| s.len());
    assert_eq!(trie.slot_count(), slots.sum::<usize>());
}

#[test]
fn threads_do_not_change_the_root() {
    let root = |threads| {
        with_threads(threads, || {
            let mut rng = rng(700);
            let accounts = (0..5_000).map(|n| AccountDiff {
                address: address(n),
                change: AccountChange::Set(random_account(&mut rng)),
                storage_wiped: false,
                storage: Vec::new(),
            });
            let mut accounts: Vec<_> = accounts.collect();
            accounts.sort_by_key(|a| a.address);
            let mut trie = StateTrie::new();
            trie.update(&StateDiff { accounts, codes: Vec::new() });
            trie.root()
        })
    };
    assert_eq!([root(2), root(4)], [root(1); 2]);
}
