//! The log on disk, as this crate needs it.

use blockraft_storage::{LogBounds, LogRecord, RaftLog, StorageError};
use std::ops::Range;

/// The log on disk: [`RaftLog`], or one that fails on purpose. Synchronous; every write but
/// [`Self::save_committed`] is durable when it returns. Indices are contiguous.
pub trait LogDevice: Send + Sync + 'static {
    /// Appends records that follow the last one, or else what was purged.
    fn append(&self, records: &[LogRecord]) -> Result<(), StorageError>;

    /// Records of `range` in order: at least one when the first is there, then as many as fit into
    /// `bytes_max`.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogRecord>, StorageError>;

    /// Index of the first and the last record.
    fn bounds(&self) -> Result<LogBounds, StorageError>;

    /// Drops the record at `index` and all after it.
    fn truncate_from(&self, index: u64) -> Result<(), StorageError>;

    /// Drops the record at `index` and all before it, and keeps `mark` as what [`Self::purged`]
    /// answers. An index beyond the last record empties the log, which goes on after it.
    fn purge_to(&self, index: u64, mark: &[u8]) -> Result<(), StorageError>;

    /// The mark of the last purge.
    fn purged(&self) -> Option<Vec<u8>>;

    /// Replaces the vote.
    fn save_vote(&self, vote: &[u8]) -> Result<(), StorageError>;

    /// The vote.
    fn read_vote(&self) -> Option<Vec<u8>>;

    /// Replaces the commit mark, which reaches the disk with the next append or vote.
    fn save_committed(&self, committed: &[u8]) -> Result<(), StorageError>;

    /// The commit mark.
    fn read_committed(&self) -> Option<Vec<u8>>;
}

impl LogDevice for RaftLog {
    fn append(&self, records: &[LogRecord]) -> Result<(), StorageError> {
        self.append(records)
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogRecord>, StorageError> {
        self.read(range, bytes_max)
    }

    fn bounds(&self) -> Result<LogBounds, StorageError> {
        self.bounds()
    }

    fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        self.truncate_from(index)
    }

    fn purge_to(&self, index: u64, mark: &[u8]) -> Result<(), StorageError> {
        self.purge_to(index, mark)
    }

    fn purged(&self) -> Option<Vec<u8>> {
        self.purged()
    }

    fn save_vote(&self, vote: &[u8]) -> Result<(), StorageError> {
        self.save_vote(vote)
    }

    fn read_vote(&self) -> Option<Vec<u8>> {
        self.read_vote()
    }

    fn save_committed(&self, committed: &[u8]) -> Result<(), StorageError> {
        self.save_committed(committed)
    }

    fn read_committed(&self) -> Option<Vec<u8>> {
        self.read_committed()
    }
}
