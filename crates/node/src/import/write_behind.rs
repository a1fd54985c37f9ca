//! Writing imported blocks to disk in large batches, beside the import.

use blockraft_primitives::limits::{
    IMPORT_WRITE_BLOCK_COUNT, IMPORT_WRITE_KEY_COUNT, IMPORT_WRITE_QUEUE_LEN_MAX,
};
use blockraft_storage::{Backlog, StorageError, Store};
use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// How long less than a batch may wait.
const INTERVAL: Duration = Duration::from_secs(2);

/// What the import and the thread that writes say to each other.
#[derive(Debug, Default)]
pub(super) struct WriteBehind {
    state: Mutex<State>,
    wanted: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hurry: bool,
    stop: bool,
    /// Why nothing is written any more.
    failure: Option<StorageError>,
}

impl WriteBehind {
    /// Writes when there is a batch, or something for a while, until stopped; then the rest.
    pub(super) fn run(&self, store: &Store) {
        loop {
            let stopping = {
                let mut state = self.state.lock();
                if !state.hurry && !state.stop {
                    self.wanted.wait_for(&mut state, INTERVAL);
                }
                state.hurry = false;
                state.stop
            };
            let written = store.persist();
            let failed = written.is_err();
            self.state.lock().failure = written.err();
            self.written.notify_all();
            if failed || stopping && store.backlog().blocks == 0 {
                return;
            }
        }
    }

    /// After a block was applied: asks for a write when there is a batch, and waits while there are too many.
    pub(super) fn applied(&self, store: &Store) -> Result<(), StorageError> {
        if batches(store.backlog()) < 1 {
            return Ok(());
        }
        let mut state = self.state.lock();
        state.hurry = true;
        self.wanted.notify_one();
        while state.failure.is_none() && batches(store.backlog()) >= IMPORT_WRITE_QUEUE_LEN_MAX {
            state.hurry = true;
            self.wanted.notify_one();
            self.written.wait_for(&mut state, INTERVAL);
        }
        state.failure.take().map_or(Ok(()), Err)
    }

    /// Writes what is left, then ends.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wanted.notify_one();
    }

    /// After [`Self::run`] has ended.
    pub(super) fn result(self) -> Result<(), StorageError> {
        self.state.into_inner().failure.map_or(Ok(()), Err)
    }
}

fn batches(backlog: Backlog) -> usize {
    (backlog.blocks / IMPORT_WRITE_BLOCK_COUNT).max(backlog.keys / IMPORT_WRITE_KEY_COUNT)
}
