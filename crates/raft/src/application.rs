//! What the node implements: the replicated state machine behind Raft.

use alloy_primitives::B256;
use blockraft_primitives::{Applied, LogPosition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The replicated state machine. Everything here may block: `apply` and `install_snapshot` are
/// called on one worker thread, one after the other; the rest on threads for blocking work, at any
/// time, also while `apply` runs.
pub trait Application: Send + Sync + 'static {
    /// What survived the last stop. Entries after it are applied again after a restart, and while
    /// the node runs it never runs ahead of what [`Self::apply`] was given. It is the application
    /// that keeps [`Applied::membership`]: the bytes of the last [`Payload::Membership`], or those
    /// of the installed snapshot.
    fn applied(&self) -> Applied;

    /// Applies committed entries: contiguous, in log order, one response for each.
    fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<ApplyResponse>, ApplicationError>;

    /// Makes a snapshot of what is applied (or of an earlier, consistent point of it) and keeps it
    /// as the current one. Older snapshots may be deleted: one that is being sent stays readable
    /// through its open file.
    fn build_snapshot(&self) -> Result<SnapshotHandle, ApplicationError>;

    /// The current snapshot, if there is one. It survives a restart.
    fn current_snapshot(&self) -> Result<Option<SnapshotHandle>, ApplicationError>;

    /// Where the snapshot that is coming in is written. The same path may be given every time: one
    /// snapshot comes in at a time, and the file is truncated first.
    fn receive_snapshot_path(&self) -> Result<PathBuf, ApplicationError>;

    /// Replaces the whole state by the snapshot in `file`, durably, and makes it the current
    /// snapshot. The file's bytes are complete and match the sender's hash. The caller does not
    /// touch the file again.
    fn install_snapshot(&self, file: &Path) -> Result<Applied, ApplicationError>;
}

/// A committed entry on its way to the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Where in the log. `leader` is 0: with one leader a term, the term names it.
    pub position: LogPosition,
    /// What it carries.
    pub payload: Payload,
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A new leader's first entry. Only the position moves.
    Blank,
    /// The cluster's members changed: the bytes to keep as [`Applied::membership`].
    Membership(Vec<u8>),
    /// The bytes that were proposed.
    Entry(Bytes),
}

/// What applying an entry answers to its proposer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyResponse {
    /// Nothing: blank and membership entries.
    #[default]
    None,
    /// The pool's verdicts on an `Admit` batch, encoded by the application.
    Admit(Bytes),
    /// A `Block` entry.
    Block {
        /// False when the block did not fit the chain (its proposer was not up to date).
        accepted: bool,
    },
}

/// A snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHandle {
    /// The state it holds.
    pub applied: Applied,
    /// One file.
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// keccak256 of the file but for its last 32 bytes, which are this hash. The receiver checks both
    /// before it installs.
    pub hash: B256,
}

/// The state machine failed. Always fatal: the node stops and another one leads.
#[derive(Debug, thiserror::Error)]
#[error("state machine failed while it was to {action}")]
pub struct ApplicationError {
    /// What it was doing ("apply", "build a snapshot", ..).
    pub action: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl ApplicationError {
    /// Wraps the application's own error.
    pub fn new(
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { action, source: source.into() }
    }
}
