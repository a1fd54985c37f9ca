//! The state at every height, against an oracle in memory, whatever is on disk and whatever is not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use alloy_primitives::U256;
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, SlotChange, StateDiff, StateError, StateReader,
};
use blockraft_storage::{Maintenance, Store};
use common::{Chain, addresses, options, slots};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;

/// What is read from a store must not depend on when it was persisted or reopened.
fn check(seed: u64, shards: u8, blocks: u64, history_blocks: u64) {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(seed, shards);
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xff);
    chain.init(dir.path());
    let mut store = Store::open_with(dir.path(), options(history_blocks)).unwrap();
    let mut views = Vec::new();
    let mut applied = 0;
    let mut durable = 0;
    for _ in 0..blocks {
        if applied == chain.head() {
            chain.extend();
        }
        store.apply(chain.steps[applied as usize].clone());
        applied += 1;
        views.push(store.view(applied).unwrap());
        if rng.random_ratio(1, 4) {
            let persisted = store.persist().unwrap();
            assert_eq!(persisted.blocks as u64, applied - durable);
            assert_eq!(persisted.applied, store.applied());
            durable = applied;
        }
        if rng.random_ratio(1, 15) {
            views.clear();
            drop(store);
            store = Store::open_with(dir.path(), options(history_blocks)).unwrap();
            applied = durable;
            assert_eq!(store.head().number, applied);
            assert_eq!(store.pool_records().unwrap(), chain.pools[applied as usize]);
            chain.check_flat_state(&store, applied);
        }
        let number = rng.random_range(store.oldest_state()..=applied);
        chain.check_state(&store.view(number).unwrap(), number);
    }
    let oldest = store.oldest_state();
    chain.check_store(&store, oldest);
    for view in views.iter().filter(|view| view.number() >= oldest) {
        chain.check_state(view, view.number());
    }
    store.persist().unwrap();
    let oldest = store.oldest_state();
    assert_eq!(oldest, applied.saturating_sub(history_blocks).min(oldest));
    chain.check_store(&store, oldest);
    chain.check_flat_state(&store, applied);
    for number in oldest..=applied {
        let diff = store.changes_since(number, usize::MAX).unwrap();
        let mut state = chain.states[applied as usize].clone();
        state.apply(&diff);
        chain.check_same(&state, number);
        chain.check_past_state(&store, number);
    }
    let mut state = chain.states[applied as usize].clone();
    for number in (oldest + 1..=applied).rev() {
        let before = store.reverse_diff(number).unwrap();
        before.assert_sorted();
        state.apply(&before);
        chain.check_same(&state, number - 1);
    }
}

#[test]
fn a_view_reads_what_the_state_was_at_its_block() {
    for seed in 0..12 {
        check(seed, 1 << (seed % 5), 60, u64::MAX);
    }
}

#[test]
fn the_history_window_moves_with_the_chain() {
    for seed in 20..30 {
        check(seed, 4, 80, seed % 8);
    }
}

/// What a key held is found however often it changed; and taking all of it back leaves the genesis.
#[test]
fn keys_that_change_in_every_block_are_read_at_each() {
    const BLOCKS: u64 = 2200;
    let [account, contract] = [addresses()[5], addresses()[1]];
    let slot = slots()[3];
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(8, 1);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
    let held = |number: u64| if number.is_multiple_of(7) { U256::ZERO } else { U256::from(number) };
    for number in 1..=BLOCKS {
        let balance = held(number);
        let change = match balance.is_zero() {
            true => AccountChange::Deleted,
            false => AccountChange::Set(Account { balance, ..Account::default() }),
        };
        let storage = vec![SlotChange { slot, value: held(number) }];
        let mut accounts = vec![
            AccountDiff { address: account, change, storage_wiped: false, storage: vec![] },
            AccountDiff {
                address: contract,
                change: AccountChange::Unchanged,
                storage_wiped: false,
                storage,
            },
        ];
        accounts.sort_by_key(|account| account.address);
        store.apply(chain.extend_with(StateDiff { accounts, codes: vec![] }));
        if number % 90 == 0 {
            store.persist().unwrap();
        }
    }
    store.persist().unwrap();
    let check = |head: u64| {
        for number in 1..=head {
            let view = store.view(number).unwrap();
            let balance = view.account(account).unwrap().map_or(U256::ZERO, |a| a.balance);
            let expected = held(number);
            assert_eq!((balance, view.storage(contract, slot).unwrap()), (expected, expected));
        }
        assert_eq!(store.view(0).unwrap().account(account).unwrap(), None);
    };
    check(BLOCKS);
    for to in [2047, 1024, 33, 32, 3] {
        let applied = store.applied();
        store.unwind(to, applied, Vec::new()).unwrap();
        check(to);
    }
    store.unwind(0, store.applied(), Vec::new()).unwrap();
    drop(store);
    let maintenance = Maintenance::open(dir.path(), options(u64::MAX)).unwrap();
    assert_eq!(
        records(&maintenance),
        [("accounts", 3), ("storage", 2), ("reverse_diffs", 0), ("removals", 0)]
    );
}

/// Records of the tables of all shards that the history has to do with.
fn records(maintenance: &Maintenance) -> [(&'static str, u64); 4] {
    let sizes = maintenance.sizes();
    ["accounts", "storage", "reverse_diffs", "removals"].map(|name| {
        let of_shards = sizes.iter().filter(|size| size.name.starts_with("state-"));
        let tables = of_shards.flat_map(|size| &size.tables).filter(|table| table.name == name);
        (name, tables.map(|table| table.entries).sum())
    })
}

#[test]
fn what_left_the_window_leaves_no_tombstone() {
    for (seed, shards) in [(61, 1), (62, 4)] {
        let dir = TempDir::new().unwrap();
        let mut chain = Chain::new(seed, shards);
        chain.init(dir.path());
        let store = Store::open_with(dir.path(), options(0)).unwrap();
        for _ in 0..60 {
            store.apply(chain.extend());
            store.persist().unwrap();
        }
        // A block that changes nothing lets go of all but its own history.
        for _ in 0..2 {
            store.apply(chain.extend_with(StateDiff::default()));
            store.persist().unwrap();
        }
        chain.check_flat_state(&store, 62);
        drop(store);
        let maintenance = Maintenance::open(dir.path(), options(0)).unwrap();
        let state = chain.states.last().unwrap();
        let slots: usize = state.storage.values().map(|slots| slots.len()).sum();
        let expected = [
            ("accounts", state.accounts.len() as u64),
            ("storage", slots as u64),
            ("reverse_diffs", 0),
            ("removals", 0),
        ];
        assert_eq!(records(&maintenance), expected);
    }
}

#[test]
fn a_directory_of_another_format_is_refused_in_clear_words() {
    let dir = TempDir::new().unwrap();
    let chain = Chain::new(9, 1);
    chain.init(dir.path());
    drop(Store::open_with(dir.path(), options(8)).unwrap());
    // The version in the log: big-endian, behind its name.
    let path = dir.path().join("log/mdbx.dat");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 11).filter(|at| bytes[*at..].starts_with(b"version\0\0\0\x03")).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 10] = 2;
    }
    std::fs::write(&path, bytes).unwrap();
    let refused = Store::open_with(dir.path(), options(8)).unwrap_err().to_string();
    assert!(refused.contains("has format version 2, expected 3"), "{refused}");
    assert!(refused.contains("make the directory again"), "{refused}");
}

#[test]
fn a_view_that_falls_out_of_the_window_says_so() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(1, 2);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(2)).unwrap();
    let view = store.view(0).unwrap();
    for _ in 0..6 {
        store.apply(chain.extend());
        store.persist().unwrap();
    }
    // Pruning stays one persist behind, so that a crash can be taken back.
    assert_eq!(store.oldest_state(), 4);
    let answers: Vec<_> = addresses().into_iter().map(|address| view.account(address)).collect();
    for answer in answers {
        assert!(
            matches!(answer, Err(StateError::Pruned { requested: 0, oldest: 4 })),
            "{answer:?}"
        );
    }
}

#[test]
fn changes_since_sees_wipes_that_are_not_on_disk() {
    for seed in 40..60 {
        let dir = TempDir::new().unwrap();
        let mut chain = Chain::new(seed, 2);
        chain.init(dir.path());
        let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
        for block in 1..=16 {
            store.apply(chain.extend());
            if block == 8 {
                store.persist().unwrap();
            }
        }
        for number in 0..=16 {
            let mut state = chain.states[16].clone();
            state.apply(&store.changes_since(number, usize::MAX).unwrap());
            chain.check_same(&state, number);
        }
    }
}

#[test]
fn too_many_changes_read_as_pruned() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(3, 4);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
    for block in 1..=20 {
        store.apply(chain.extend());
        if block == 10 {
            store.persist().unwrap();
        }
    }
    let all = store.changes_since(0, usize::MAX).unwrap().key_count();
    assert!(store.changes_since(0, all + addresses().len() * slots().len()).is_ok());
    let refused = store.changes_since(0, 10);
    assert!(matches!(refused, Err(StateError::Pruned { requested: 0, .. })), "{refused:?}");
    assert!(store.changes_since(20, 0).unwrap().is_empty());
}

#[test]
fn readers_on_other_threads_never_see_a_block_half_way() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(5, 4);
    for _ in 0..300 {
        chain.extend();
    }
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(40)).unwrap();
    let chain = &chain;
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let store = store.clone();
            scope.spawn(move || {
                let mut rng = SmallRng::seed_from_u64(seed);
                while store.head().number < 300 {
                    let head = store.head().number;
                    let Ok(view) = store.view(rng.random_range(head.saturating_sub(30)..=head))
                    else {
                        continue;
                    };
                    match chain.try_check_state(&view, view.number()) {
                        Ok(()) => {}
                        Err(StateError::Pruned { oldest, .. }) => assert!(oldest > view.number()),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        let persister = store.clone();
        scope.spawn(move || {
            while persister.persisted().position.is_none_or(|at| at.index < 3000) {
                persister.persist().unwrap();
            }
        });
        for step in &chain.steps {
            store.apply(step.clone());
            std::thread::yield_now();
        }
    });
    chain.check_store(&store, store.oldest_state());
}
