//! The Raft log.

use crate::{LogBounds, LogRecord, StorageError};
use std::ops::Range;

/// The Raft log of a data directory. A handle: clones share one log.
#[derive(Clone, Debug)]
pub struct RaftLog {}

#[expect(unused_variables, reason = "signatures first")]
impl RaftLog {
    /// Appends entries; they are on disk when this returns. Errors with [`StorageError::LogGap`] when
    /// they do not follow the log.
    pub fn append(&self, entries: &[LogRecord]) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// Entries of a range of indices, as many as there are and as fit in `bytes_max`, but at least one
    /// if there is one.
    pub fn read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        unimplemented!()
    }
    /// First and last index.
    pub fn bounds(&self) -> Result<LogBounds, StorageError> {
        unimplemented!()
    }
    /// Deletes `index` and everything after it, durably.
    pub fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// Deletes everything up to and including `index`, and remembers `purged`, the id of that entry.
    pub fn purge_to(&self, index: u64, purged: &[u8]) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// The id that the last [`Self::purge_to`] was given.
    pub fn purged(&self) -> Option<Vec<u8>> {
        unimplemented!()
    }
    /// Stores the vote, durably.
    pub fn save_vote(&self, vote: &[u8]) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// The vote last stored.
    pub fn read_vote(&self) -> Option<Vec<u8>> {
        unimplemented!()
    }
    /// Remembers the committed id; it reaches the disk with the next append.
    pub fn save_committed(&self, committed: &[u8]) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// The committed id last remembered.
    pub fn read_committed(&self) -> Option<Vec<u8>> {
        unimplemented!()
    }
}
