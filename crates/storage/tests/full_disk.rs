//! A file system that is really full: nothing is lost, readers go on, and room heals it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use blockraft_storage::{StorageError, Store, StoreOptions};
use common::Chain;
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

/// A file system of a few MiB in memory; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(mib: usize) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "blockraft-test"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is left is in memory, and goes with the machine at last.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_room_heals_it() {
    let Some(disk) = SmallDisk::mount(192) else {
        eprintln!(
            "SKIPPED: a_full_disk_loses_nothing_and_room_heals_it needs the right to mount a tmpfs"
        );
        return;
    };
    let mut chain = Chain::new(31, 2);
    let datadir = disk.path().join("data");
    chain.init(&datadir);
    let options = StoreOptions { history_blocks: u64::MAX, map_bytes_max: 1 << 28 };
    let store = Store::open_with(&datadir, options).unwrap();
    for _ in 0..20 {
        store.apply(chain.extend());
    }
    store.persist().unwrap();
    let durable = store.persisted();

    // Somebody else takes all that is left.
    let filler = disk.path().join("filler");
    fill(&filler);
    let full = (0..400).find_map(|_| {
        for _ in 0..20 {
            store.apply(chain.extend());
        }
        store.persist().err()
    });
    let full = full.expect("no page can be written any more");
    assert!(matches!(full, StorageError::DiskFull { .. }), "{full:?}");
    assert!(full.is_full());
    assert!(store.persist().unwrap_err().is_full(), "still full");
    assert!(store.backlog().blocks > 0, "what was not written stays queued");
    let head = store.head().number;
    for number in [0, 10, 20, head / 2, head] {
        chain.check_state(&store.view(number).unwrap(), number);
        chain.check_block(&store, number);
    }
    assert!(store.persisted().position >= durable.position);

    fs::remove_file(&filler).unwrap();
    while store.backlog().blocks > 0 {
        store.persist().unwrap();
    }
    chain.check_store(&store, 0);
    drop(store);
    let store = Store::open_with(&datadir, options).unwrap();
    assert_eq!(store.head().number, head);
    chain.check_flat_state(&store, head);
}

/// Writes until not even one byte more fits.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        let bytes = vec![7; size];
        while file.write_all(&bytes).is_ok() {}
    }
}
