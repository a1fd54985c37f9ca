//! Snapshots: written, carried elsewhere, installed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use blockraft_primitives::Applied;
use blockraft_storage::{StorageError, Store, init};
use common::{Chain, IDENTITY, options};
use std::fs;
use tempfile::TempDir;

fn store_with(chain: &mut Chain, blocks: u64) -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(30)).unwrap();
    for _ in 0..blocks {
        store.apply(chain.extend());
    }
    store.persist().unwrap();
    (dir, store)
}

#[test]
fn a_snapshot_carries_everything_to_another_directory() {
    for shards in [1, 4] {
        let mut chain = Chain::new(u64::from(shards), shards);
        let (_dir, store) = store_with(&mut chain, 50);
        // Applied but not persisted: not part of it.
        store.apply(chain.extend());
        let written = store.write_snapshot().unwrap();
        assert_eq!(written.head, (50, chain.blocks[50].hash()));
        assert_eq!(written.applied, chain.steps[49].applied);
        assert_eq!(written.bytes, fs::metadata(&written.path).unwrap().len());
        assert_eq!(store.latest_snapshot().unwrap(), Some(written.clone()));
        assert_eq!(store.write_snapshot().unwrap(), written, "nothing new to write");

        let target = TempDir::new().unwrap();
        chain.init(target.path());
        let other = Store::open_with(target.path(), options(30)).unwrap();
        let genesis_view = other.view(0).unwrap();
        assert_eq!(other.latest_snapshot().unwrap(), None);
        assert_eq!(other.install_snapshot(&written.path).unwrap(), written.applied);
        let check = |store: &Store| {
            assert_eq!(store.applied(), written.applied);
            assert_eq!(store.persisted(), written.applied);
            assert_eq!(store.head(), chain.blocks[50].header);
            assert_eq!(store.pool_records().unwrap(), chain.pools[50]);
            chain.check_flat_state(store, 50);
        };
        check(&other);
        let latest = other.latest_snapshot().unwrap().unwrap();
        assert_eq!((latest.hash, latest.bytes), (written.hash, written.bytes));
        chain.check_state(&genesis_view, 0);
        drop(genesis_view);

        // It goes on from there.
        other.apply(chain.steps[50].clone());
        other.persist().unwrap();
        drop(other);
        let other = Store::open_with(target.path(), options(30)).unwrap();
        chain.check_store(&other, other.oldest_state());
        assert!(!target.path().join("chain").exists(), "the old generation is gone");
    }
}

#[test]
fn a_snapshot_of_the_own_future_may_be_installed_again_and_again() {
    let mut chain = Chain::new(9, 2);
    let (dir, store) = store_with(&mut chain, 20);
    let first = store.write_snapshot().unwrap();
    for _ in 0..10 {
        store.apply(chain.extend());
    }
    store.persist().unwrap();
    let second = store.write_snapshot().unwrap();
    for snapshot in [&first, &second, &first] {
        store.install_snapshot(&snapshot.path).unwrap();
        assert_eq!(store.head().number, snapshot.head.0);
        chain.check_flat_state(&store, snapshot.head.0);
    }
    for step in &chain.steps[20..] {
        store.apply(step.clone());
    }
    store.persist().unwrap();
    chain.check_store(&store, store.oldest_state());
    drop(store);
    let store = Store::open_with(dir.path(), options(30)).unwrap();
    chain.check_store(&store, store.oldest_state());
}

#[test]
fn only_the_newest_snapshots_stay() {
    let mut chain = Chain::new(10, 1);
    let (dir, store) = store_with(&mut chain, 1);
    let mut last = None;
    for _ in 0..5 {
        store.apply(chain.extend());
        store.persist().unwrap();
        last = Some(store.write_snapshot().unwrap());
    }
    assert_eq!(fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 2);
    assert_eq!(store.latest_snapshot().unwrap(), last);
}

#[test]
fn a_damaged_snapshot_is_refused_and_changes_nothing() {
    let mut chain = Chain::new(11, 2);
    let (_dir, store) = store_with(&mut chain, 12);
    let whole = fs::read(store.write_snapshot().unwrap().path).unwrap();

    let target = TempDir::new().unwrap();
    chain.init(target.path());
    let other = Store::open_with(target.path(), options(30)).unwrap();
    let file = target.path().join("incoming");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        match other.install_snapshot(&file) {
            Err(StorageError::Corrupt { .. } | StorageError::Version { .. }) => {}
            Err(StorageError::AnotherSnapshotGenesis { .. }) => {}
            unexpected => panic!("{what}: {unexpected:?}"),
        }
        assert_eq!(other.applied(), Applied::default());
        assert_eq!(other.head(), chain.genesis.header);
        assert_eq!(other.latest_snapshot().unwrap(), None);
    };
    let step = whole.len() / 30;
    for at in (0..whole.len()).step_by(step) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        refused(&flipped, &format!("bit flipped in byte {at} of {}", whole.len()));
        refused(&whole[..at], &format!("cut at byte {at}"));
    }
    refused(&[&whole[..], &[0]].concat(), "a byte too many");
    chain.check_state(&other.view(0).unwrap(), 0);
    fs::write(&file, &whole).unwrap();
    other.install_snapshot(&file).unwrap();
    chain.check_flat_state(&other, 12);
}

#[test]
fn a_snapshot_of_another_chain_is_refused() {
    let mut chain = Chain::new(12, 2);
    let (_dir, store) = store_with(&mut chain, 3);
    let snapshot = store.write_snapshot().unwrap();
    let mut text = serde_json::to_value(&chain.genesis.genesis).unwrap();
    text["timestamp"] = "0x7".into();
    let another = blockraft_primitives::ClusterGenesis::from_json(&text.to_string()).unwrap();
    let target = TempDir::new().unwrap();
    init(target.path(), &another, &IDENTITY).unwrap();
    let other = Store::open_with(target.path(), options(30)).unwrap();
    let refused = other.install_snapshot(&snapshot.path);
    assert!(
        matches!(&refused, Err(StorageError::AnotherSnapshotGenesis { got, expected })
            if *got == chain.genesis.hash() && *expected == another.hash()),
        "{refused:?}"
    );
}
