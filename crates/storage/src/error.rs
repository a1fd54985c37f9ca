//! What can go wrong on disk.

use alloy_primitives::B256;
use blockraft_primitives::{GenesisError, StateError};
use std::{
    io,
    path::{Path, PathBuf},
};

/// An error of the store. All but [`Self::is_full`] ones mean that this node must stop.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// MDBX failed.
    #[error("{}: {action}: {source}", path.display())]
    Mdbx {
        /// The environment.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What MDBX said.
        source: signet_libmdbx::MdbxError,
    },
    /// An environment has reached its size limit. What was not written stays queued.
    #[error("{}: the database has reached its size limit", path.display())]
    MapFull {
        /// The environment.
        path: PathBuf,
    },
    /// The file system has no space left. What was not written stays queued.
    #[error("{}: no space left on device", path.display())]
    DiskFull {
        /// The environment or file.
        path: PathBuf,
    },
    /// Another process has the directory open.
    #[error("data directory {} is in use by another process", datadir.display())]
    Locked {
        /// The data directory.
        datadir: PathBuf,
    },
    /// The directory was never initialised.
    #[error("{} is not a data directory: {missing} is missing (run `blockraft init` first)", datadir.display())]
    NotInitialised {
        /// The data directory.
        datadir: PathBuf,
        /// The file that should be there.
        missing: &'static str,
    },
    /// The directory holds another chain.
    #[error("data directory {} belongs to the chain with genesis hash {got}, not {expected}", datadir.display())]
    AnotherGenesis {
        /// The data directory.
        datadir: PathBuf,
        /// Genesis hash of what is there.
        got: B256,
        /// Genesis hash of what was asked for.
        expected: B256,
    },
    /// A snapshot is of another chain.
    #[error("snapshot is of the chain with genesis hash {got}, not {expected}")]
    AnotherSnapshotGenesis {
        /// Genesis hash in the snapshot.
        got: B256,
        /// Genesis hash of this data directory.
        expected: B256,
    },
    /// `genesis.json` cannot be used.
    #[error("{}: {source}", path.display())]
    Genesis {
        /// The file.
        path: PathBuf,
        /// Why.
        source: GenesisError,
    },
    /// Written by another version of this program.
    #[error(
        "{place} has format version {got}, expected {expected}: make the directory again, or use the program that wrote it"
    )]
    Version {
        /// What was read.
        place: String,
        /// The version found.
        got: u32,
        /// The version this program writes.
        expected: u32,
    },
    /// What was read cannot be what was written.
    #[error("{place} is corrupt: {problem}")]
    Corrupt {
        /// File, or table and key.
        place: String,
        /// What is wrong there.
        problem: String,
    },
    /// A shard has lost blocks that the chain has: only a snapshot heals this.
    #[error(
        "state shard {shard} is at block {got}, behind the chain at {expected}: restore a snapshot"
    )]
    ShardBehind {
        /// Which shard.
        shard: usize,
        /// The block that the shard is at.
        got: u64,
        /// The block that the chain is at.
        expected: u64,
    },
    /// The chain cannot go back so far.
    #[error("cannot go back to block {to}: the history begins at {oldest}, the head is {head}")]
    Unwind {
        /// The block to go back to.
        to: u64,
        /// The oldest block whose state is kept.
        oldest: u64,
        /// The last block.
        head: u64,
    },
    /// Entries must be appended without gaps.
    #[error("log entry {got} does not follow the log, expected {expected}")]
    LogGap {
        /// Index of the entry.
        got: u64,
        /// Index that comes next.
        expected: u64,
    },
    /// A key or value beyond what the database takes.
    #[error("{table}: a {what} of {got} bytes is over the limit of {limit}")]
    TooLarge {
        /// The table.
        table: &'static str,
        /// `key` or `value`.
        what: &'static str,
        /// Its length, bytes.
        got: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// A failure that a test asked for.
    #[error("injected failure at {point}")]
    Injected {
        /// The crash point.
        point: &'static str,
    },
}

impl StorageError {
    /// Whether space would heal this: the call may be repeated once there is some.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::MapFull { .. } | Self::DiskFull { .. })
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull { path: path.to_owned() };
        }
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Corrupt { place: place.into(), problem: problem.into() }
    }
}

impl From<StorageError> for StateError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Corrupt { place, problem } => Self::Corrupt { place, problem },
            other => Self::Database(other.to_string()),
        }
    }
}
