//! Writes that fail are repeated. A file of its own: failures are asked for by name, process-wide.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use blockraft_storage::{StorageError, Store};
use common::{Chain, options};
use tempfile::TempDir;

#[test]
fn a_failed_write_may_be_repeated_and_readers_do_not_notice() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(78, 4);
    (0..15).for_each(|_| drop(chain.extend()));
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
    let points = [
        "persist-shard-before-commit",
        "persist-shard-written",
        "persist-shards-synced",
        "persist-chain-before-commit",
        "persist-chain-written",
    ];
    for (step, (point, let_through)) in
        chain.steps.iter().zip(points.iter().flat_map(|point| [(point, 0), (point, 1), (point, 3)]))
    {
        store.apply(step.clone());
        let before = store.persisted();
        let shards_too = point.contains("persist-shard-");
        let let_through = if shards_too { let_through } else { 0 };
        fail::cfg(*point, &format!("{let_through}*off->1*return->off")).unwrap();
        let failed = store.persist();
        assert!(
            matches!(failed, Err(StorageError::Injected { point: at }) if at == *point),
            "{point} after {let_through}: {failed:?}"
        );
        fail::remove(*point);
        assert_eq!(store.persisted(), before);
        chain.check_store(&store, 0);
        // A snapshot needs all environments at one block, and so finishes the work.
        store.write_snapshot().unwrap();
        chain.check_store(&store, 0);
        store.persist().unwrap();
        assert_eq!(store.persisted(), store.applied());
        chain.check_store(&store, 0);
    }
    drop(store);
    let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
    chain.check_store(&store, 0);
}
