//! An application in memory that keeps its promises, and a log device that breaks them on demand.

use crate::{
    Application, ApplicationError, AppliedEntry, ApplyResponse, LogDevice, Payload, SnapshotHandle,
};
use alloy_primitives::{B256, keccak256};
use blockraft_primitives::Applied;
use blockraft_storage::{LogBounds, LogRecord, StorageError};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tempfile::TempDir;

/// How many entries are applied in memory before they reach the "disk".
const WRITE_BEHIND: u64 = 7;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) applied: Applied,
    pub(super) items: Vec<Bytes>,
}

/// What survives a restart.
#[derive(Debug, Default)]
struct Disk {
    state: State,
    snapshot: Option<SnapshotHandle>,
}

/// Keeps all entries in order. Writes behind, like the real one: a restart goes back a little.
#[derive(Debug)]
pub(super) struct MemoryApplication {
    live: Mutex<State>,
    disk: Arc<Mutex<Disk>>,
    dir: Arc<TempDir>,
    /// Snapshots installed since the start.
    pub(super) installed: AtomicU64,
    /// The next apply fails.
    pub(super) broken: AtomicBool,
    /// openraft's suite applies entries with gaps, which the contract rules out otherwise.
    gaps: bool,
}

impl MemoryApplication {
    pub(super) fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::over(Arc::default(), dir)
    }

    pub(super) fn with_gaps() -> Self {
        Self { gaps: true, ..Self::new() }
    }

    fn over(disk: Arc<Mutex<Disk>>, dir: Arc<TempDir>) -> Self {
        let live = Mutex::new(disk.lock().state.clone());
        let (installed, broken) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { live, disk, dir, installed, broken, gaps: false }
    }

    /// The same disk after a crash.
    pub(super) fn restarted(&self) -> Self {
        Self::over(Arc::clone(&self.disk), Arc::clone(&self.dir))
    }

    pub(super) fn items(&self) -> Vec<Bytes> {
        self.live.lock().items.clone()
    }

    pub(super) fn state(&self) -> State {
        self.live.lock().clone()
    }
}

impl Application for MemoryApplication {
    fn applied(&self) -> Applied {
        self.live.lock().applied.clone()
    }

    fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<ApplyResponse>, ApplicationError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(ApplicationError::new("apply", "broken on purpose"));
        }
        let mut live = self.live.lock();
        let mut responses = Vec::new();
        for entry in entries {
            if let Some(before) = live.applied.position.filter(|_| !self.gaps) {
                assert_eq!(entry.position.index, before.index + 1, "entries are contiguous");
            }
            live.applied.position = Some(entry.position);
            responses.push(match entry.payload {
                Payload::Blank => ApplyResponse::None,
                Payload::Membership(bytes) => {
                    live.applied.membership = bytes;
                    ApplyResponse::None
                }
                Payload::Entry(bytes) => {
                    live.items.push(bytes.clone());
                    ApplyResponse::Admit(bytes)
                }
            });
            if entry.position.index % WRITE_BEHIND == 0 {
                self.disk.lock().state = live.clone();
            }
        }
        Ok(responses)
    }

    fn build_snapshot(&self) -> Result<SnapshotHandle, ApplicationError> {
        let state = self.live.lock().clone();
        self.disk.lock().state = state.clone();
        let mut bytes = postcard::to_stdvec(&state).unwrap();
        let hash = keccak256(&bytes);
        bytes.extend_from_slice(hash.as_slice());
        let path = self.dir.path().join(format!("snapshot-{hash}"));
        std::fs::write(&path, &bytes).unwrap();
        let handle =
            SnapshotHandle { applied: state.applied, path, bytes: bytes.len() as u64, hash };
        self.disk.lock().snapshot = Some(handle.clone());
        Ok(handle)
    }

    fn current_snapshot(&self) -> Result<Option<SnapshotHandle>, ApplicationError> {
        Ok(self.disk.lock().snapshot.clone())
    }

    fn receive_snapshot_path(&self) -> Result<PathBuf, ApplicationError> {
        Ok(self.dir.path().join("incoming"))
    }

    fn install_snapshot(&self, file: &Path) -> Result<Applied, ApplicationError> {
        let bytes = std::fs::read(file).unwrap();
        let (body, hash) = bytes.split_at(bytes.len() - 32);
        assert_eq!(keccak256(body), B256::from_slice(hash), "the file is whole");
        let state: State = postcard::from_bytes(body).unwrap();
        let path = self.dir.path().join("installed");
        std::fs::copy(file, &path).unwrap();
        let applied = state.applied.clone();
        let (bytes, hash) = (bytes.len() as u64, B256::from_slice(hash));
        let snapshot = Some(SnapshotHandle { applied: applied.clone(), path, bytes, hash });
        *self.disk.lock() = Disk { state: state.clone(), snapshot };
        *self.live.lock() = state;
        self.installed.fetch_add(1, Ordering::Relaxed);
        Ok(applied)
    }
}

/// A log in memory that notes each write, can be held up, and can fail.
#[derive(Debug, Default)]
pub(super) struct MemoryLog {
    records: Mutex<Vec<LogRecord>>,
    /// What was written, in order, in words.
    pub(super) writes: Mutex<Vec<String>>,
    held: Mutex<bool>,
    released: Condvar,
    /// The next append fails.
    pub(super) broken: AtomicBool,
}

impl MemoryLog {
    /// Writes wait from now on until [`Self::release`].
    pub(super) fn hold(&self) {
        *self.held.lock() = true;
    }

    pub(super) fn release(&self) {
        *self.held.lock() = false;
        self.released.notify_all();
    }

    fn note(&self, write: String) {
        let mut held = self.held.lock();
        self.released.wait_while(&mut held, |held| *held);
        drop(held);
        self.writes.lock().push(write);
    }
}

impl LogDevice for MemoryLog {
    fn append(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        let indices: Vec<u64> = records.iter().map(|record| record.index).collect();
        self.note(format!("append {indices:?}"));
        if self.broken.load(Ordering::Relaxed) {
            return Err(StorageError::Corrupt {
                place: "test log".to_owned(),
                problem: "broken on purpose".to_owned(),
            });
        }
        self.records.lock().extend_from_slice(records);
        Ok(())
    }

    fn read(&self, range: Range<u64>, _bytes_max: usize) -> Result<Vec<LogRecord>, StorageError> {
        let records = self.records.lock();
        Ok(records.iter().filter(|record| range.contains(&record.index)).cloned().collect())
    }

    fn bounds(&self) -> Result<LogBounds, StorageError> {
        let records = self.records.lock();
        let index = |record: &LogRecord| record.index;
        Ok(LogBounds { first: records.first().map(index), last: records.last().map(index) })
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        self.note(format!("truncate from {index}"));
        self.records.lock().retain(|record| record.index < index);
        Ok(())
    }

    fn purge_to(&self, index: u64, _mark: &[u8]) -> Result<(), StorageError> {
        self.note(format!("purge to {index}"));
        self.records.lock().retain(|record| record.index > index);
        Ok(())
    }

    fn purged(&self) -> Option<Vec<u8>> {
        None
    }

    fn save_vote(&self, _vote: &[u8]) -> Result<(), StorageError> {
        self.note("vote".to_owned());
        Ok(())
    }

    fn read_vote(&self) -> Option<Vec<u8>> {
        None
    }

    fn save_committed(&self, _committed: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn read_committed(&self) -> Option<Vec<u8>> {
        None
    }
}
