//! The thread that writes applied blocks behind: many in one MDBX transaction per shard.

use crate::error::NodeError;
use blockraft_primitives::limits::{OVERLAY_BLOCK_COUNT_MAX, OVERLAY_KEY_COUNT_MAX};
use blockraft_storage::Store;
use parking_lot::{Condvar, Mutex};
use std::time::Duration;

/// How long applied blocks gather before they are written.
const INTERVAL: Duration = Duration::from_millis(500);
/// Rounds without a block after which what waits in the pool is written all the same: until then the next block
/// would mostly have it deleted again, and the log has it.
const ROUNDS_WITHOUT_BLOCK_MAX: u32 = 10;
/// How long a full disk is left alone before the next attempt.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(2);

/// Threads that write shards at once.
const WRITER_COUNT_MAX: usize = 4;

/// What the persister and those who wait for it say to each other.
#[derive(Debug, Default)]
pub(crate) struct Persistence {
    state: Mutex<State>,
    /// Wakes the persister.
    wanted: Condvar,
    /// Wakes those who wait for room.
    persisted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hurry: bool,
    stop: bool,
}

impl Persistence {
    /// Persists every half second, or when hurried, until stopped; then once more. A full disk stops
    /// persisting, and with it applying, until there is room.
    pub(crate) fn run(&self, store: &Store) -> Result<(), NodeError> {
        // Of its own: a thread that waits for the disk must not be one that executes blocks.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(store.genesis().options.shards).min(WRITER_COUNT_MAX))
            .thread_name(|n| format!("persister-{n}"))
            .build()
            .map_err(|error| NodeError::Thread(std::io::Error::other(error)))?;
        let mut rounds = 0;
        loop {
            let stopping = self.wait(INTERVAL);
            let everything = stopping || rounds >= ROUNDS_WITHOUT_BLOCK_MAX;
            let persist = || if everything { store.persist() } else { store.persist_blocks() };
            match pool.install(persist) {
                Ok(persisted) if everything || persisted.blocks > 0 => rounds = 0,
                Ok(_) => rounds += 1,
                Err(error) if error.is_full() && !stopping => {
                    tracing::error!(%error, "cannot persist: make room; applying waits");
                    metrics::gauge!("blockraft_storage_full").set(1.0);
                    self.wait(FULL_DISK_PAUSE);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            metrics::gauge!("blockraft_storage_full").set(0.0);
            metrics::gauge!("blockraft_storage_backlog_blocks").set(store.backlog().blocks as f64);
            self.persisted.notify_all();
            if stopping {
                return Ok(());
            }
        }
    }

    fn wait(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        if !state.hurry && !state.stop {
            self.wanted.wait_for(&mut state, timeout);
        }
        state.hurry = false;
        state.stop
    }

    /// Persist soon.
    pub(crate) fn hurry(&self) {
        self.state.lock().hurry = true;
        self.wanted.notify_one();
    }

    /// Persist a last time, then end.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.wanted.notify_one();
        self.persisted.notify_all();
    }

    /// Blocks while more is applied and not persisted than may be.
    pub(crate) fn wait_for_room(&self, store: &Store) {
        let full = || {
            let backlog = store.backlog();
            backlog.blocks >= OVERLAY_BLOCK_COUNT_MAX || backlog.keys >= OVERLAY_KEY_COUNT_MAX
        };
        while full() {
            let mut state = self.state.lock();
            if state.stop {
                return;
            }
            state.hurry = true;
            self.wanted.notify_one();
            self.persisted.wait_for(&mut state, INTERVAL);
        }
    }
}
