//! A process that dies at each named point, then opens the directory twice and goes on: it must end
//! where one that never died ends.
//!
//! The dying is real: this test binary starts itself as a child, which aborts inside the store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use blockraft_primitives::Applied;
use blockraft_storage::{LogRecord, StorageError, Store};
use bytes::Bytes;
use common::{Chain, options};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};
use tempfile::TempDir;

const SEED: u64 = 77;
const SHARDS: u8 = 4;
const HISTORY: u64 = 6;
/// How far a node comes by itself, and how far a snapshot then takes it.
const BLOCKS: u64 = 20;
const SNAPSHOT_BLOCKS: u64 = 25;

const POINT: &str = "BLOCKRAFT_CRASH_POINT";
const HIT: &str = "BLOCKRAFT_CRASH_HIT";
const DIR: &str = "BLOCKRAFT_CRASH_DIR";
const SNAPSHOT: &str = "BLOCKRAFT_CRASH_SNAPSHOT";

fn chain() -> Chain {
    let mut chain = Chain::new(SEED, SHARDS);
    for _ in 0..SNAPSHOT_BLOCKS {
        chain.extend();
    }
    chain
}

/// What a node does: init, then log, apply, persist and snapshot its blocks; at last it installs a
/// snapshot from elsewhere. Goes on from whatever is there.
fn run(datadir: &Path, snapshot: &Path) {
    let chain = chain();
    chain.init(datadir);
    let store = Store::open_with(datadir, options(HISTORY)).unwrap();
    for number in store.head().number + 1..=BLOCKS {
        let log = store.raft_log();
        if log.bounds().unwrap().last.is_none_or(|last| last < number) {
            let bytes = Bytes::from(format!("block {number}"));
            log.append(&[LogRecord { index: number, bytes }]).unwrap();
        }
        store.apply(chain.steps[number as usize - 1].clone());
        if number % 4 == 0 {
            store.persist().unwrap();
        }
        if number % 8 == 0 {
            store.write_snapshot().unwrap();
        }
    }
    if store.head().number < SNAPSHOT_BLOCKS {
        store.install_snapshot(snapshot).unwrap();
    }
}

/// Not a test of its own: what the tests below start.
#[test]
fn child() {
    let Ok(datadir) = env::var(DIR) else { return };
    if let Ok(point) = env::var(POINT) {
        let hit: usize = env::var(HIT).unwrap().parse().unwrap();
        let hits = AtomicUsize::new(0);
        let die = move || {
            if hits.fetch_add(1, Ordering::Relaxed) + 1 == hit {
                std::process::abort();
            }
        };
        fail::cfg_callback(point, die).unwrap();
    }
    run(Path::new(&datadir), Path::new(&env::var(SNAPSHOT).unwrap()));
}

/// Runs a node in a process of its own; says whether it lived.
fn spawn(datadir: &Path, snapshot: &Path, crash: Option<(&str, usize)>) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(DIR, datadir).env(SNAPSHOT, snapshot);
    if let Some((point, hit)) = crash {
        command.env(POINT, point).env(HIT, hit.to_string());
    }
    let output = command.output().unwrap();
    let aborted = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6);
    assert!(
        output.status.success() || (aborted && crash.is_some()),
        "{crash:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    output.status.success()
}

fn snapshot_from_elsewhere(dir: &TempDir) -> PathBuf {
    let chain = chain();
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(HISTORY)).unwrap();
    for step in &chain.steps {
        store.apply(step.clone());
    }
    store.persist().unwrap();
    store.write_snapshot().unwrap().path
}

/// A directory must be whole, at a block that was applied, with what was logged. Returns its position.
fn check_whole(chain: &Chain, datadir: &Path) -> Applied {
    let store = Store::open_with(datadir, options(HISTORY)).unwrap();
    let head = store.head().number;
    chain.check_store(&store, store.oldest_state());
    chain.check_flat_state(&store, head);
    assert_eq!(store.pool_records().unwrap(), chain.pools[head as usize]);
    let applied =
        if head == 0 { Applied::default() } else { chain.steps[head as usize - 1].applied.clone() };
    assert_eq!(store.applied(), applied);
    let log = store.raft_log().read(0..u64::MAX, usize::MAX).unwrap();
    assert!(log.iter().enumerate().all(|(i, record)| record.index == i as u64 + 1));
    assert!(log.len() as u64 >= head.min(BLOCKS), "every block that is on disk was logged before");
    if let Some(snapshot) = store.latest_snapshot().unwrap() {
        assert_eq!(snapshot.head.1, chain.blocks[snapshot.head.0 as usize].hash());
    }
    let leftovers: Vec<_> = fs::read_dir(datadir.join("snapshots"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    assert!(leftovers.iter().all(|path: &PathBuf| path.extension().unwrap() == "snapshot"));
    store.applied()
}

/// Dies at the first few passes of a point, each in a directory of its own.
fn check(point: &str, hits: &[usize]) {
    let elsewhere = TempDir::new().unwrap();
    let snapshot = snapshot_from_elsewhere(&elsewhere);
    let chain = chain();
    for &hit in hits {
        let dir = TempDir::new().unwrap();
        let lived = spawn(dir.path(), &snapshot, Some((point, hit)));
        assert!(!lived, "{point} is passed at least {hit} times");
        if dir.path().join("genesis.json").exists() {
            let first = check_whole(&chain, dir.path());
            assert_eq!(check_whole(&chain, dir.path()), first, "opening again changes nothing");
        }
        assert!(spawn(dir.path(), &snapshot, None));
        let end = check_whole(&chain, dir.path());
        assert_eq!(end, chain.steps[SNAPSHOT_BLOCKS as usize - 1].applied, "{point} {hit}");
    }
}

#[test]
fn death_in_init() {
    check("init-built", &[1]);
    check("init-moved", &[1, 2, 4, 7]);
}

#[test]
fn death_in_append() {
    check("log-append-before-commit", &[1, 5]);
}

#[test]
fn death_in_a_shard() {
    // The first four passes of the first point are those of init.
    check("persist-shard-before-commit", &[1, 5, 6, 12]);
    check("persist-shard-written", &[1, 2, 3, 4, 10]);
}

#[test]
fn death_between_shards_and_chain() {
    check("persist-shards-synced", &[1, 2, 4]);
    check("persist-chain-before-commit", &[1, 2, 3]);
    check("persist-chain-written", &[1, 3]);
}

#[test]
fn death_in_a_snapshot() {
    check("snapshot-written", &[1, 2]);
    check("install-loaded", &[1]);
    check("install-before-switch", &[1]);
    check("install-switched", &[1]);
}

#[test]
fn a_shard_that_fell_behind_is_reported() {
    let dir = TempDir::new().unwrap();
    let chain = chain();
    chain.init(dir.path());
    let shard = dir.path().join("state-02");
    let kept = dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let copy = |from: &Path, to: &Path| {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    };
    copy(&shard, &kept);
    let store = Store::open_with(dir.path(), options(HISTORY)).unwrap();
    store.apply(chain.steps[0].clone());
    store.persist().unwrap();
    drop(store);
    copy(&kept, &shard);
    let refused = Store::open_with(dir.path(), options(HISTORY));
    assert!(
        matches!(refused, Err(StorageError::ShardBehind { shard: 2, got: 0, expected: 1 })),
        "{refused:?}"
    );
}
