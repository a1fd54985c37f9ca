//! A process that dies while blocks are being taken back. Alone in its process: crash points are global.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use blockraft_primitives::{Applied, LogPosition};
use blockraft_storage::{StorageError, Store};
use common::{Chain, options};

#[test]
fn opening_finishes_what_a_crash_left_half_done() {
    for point in ["unwind-chain-written", "unwind-shard-written"] {
        let mut chain = Chain::new(11, 4);
        let datadir = tempfile::tempdir().unwrap();
        chain.init(datadir.path());
        let store = Store::open_with(datadir.path(), options(20)).unwrap();
        for _ in 0..8 {
            store.apply(chain.extend());
        }
        let position = Some(LogPosition { term: 4, leader: 1, index: 500 });
        let applied = Applied { position, ..Applied::default() };
        fail::cfg(point, "return").unwrap();
        let died = store.unwind(3, applied.clone(), Vec::new());
        assert!(matches!(died, Err(StorageError::Injected { .. })), "{point}: {died:?}");
        fail::remove(point);
        drop(store);

        chain.steps.truncate(3);
        chain.states.truncate(4);
        chain.blocks.truncate(4);
        let store = Store::open_with(datadir.path(), options(20)).unwrap();
        assert_eq!(store.applied(), applied, "{point}");
        chain.check_store(&store, 0);
        chain.check_flat_state(&store, 3);
    }
}
