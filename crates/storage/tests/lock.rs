//! Whose a data directory is while processes are being started. A file of its own: it starts many.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use blockraft_storage::{StorageError, Store, init};
use common::{Chain, IDENTITY, options};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;

/// Between fork and exec a child holds a copy of every open file, the lock among them.
#[test]
fn a_child_that_is_just_being_started_does_not_keep_a_directory_locked() {
    let dir = TempDir::new().unwrap();
    let chain = Chain::new(80, 1);
    chain.init(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("/bin/true").output().unwrap();
                }
            });
        }
        let reopened = (0..300).try_for_each(|_| {
            let store = Store::open_with(dir.path(), options(8))?;
            let second = Store::open_with(dir.path(), options(8));
            if !matches!(second, Err(StorageError::Locked { .. })) {
                return Err(StorageError::Injected { point: "opened twice" });
            }
            drop(store);
            init(dir.path(), &chain.genesis, &IDENTITY)
        });
        // Before any panic: the scope waits for the threads above.
        done.store(true, Ordering::Relaxed);
        reopened.unwrap();
    });
}
