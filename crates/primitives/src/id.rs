//! Numbers that must not be mistaken for one another.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A member of the cluster. Never reused: a wiped node gets a new one.
pub type NodeId = u64;

/// The place of a transaction among all that the cluster admitted, counted from 0. Every node counts
/// the same, because admission happens when a log entry is applied.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct AdmissionId(pub u64);

impl fmt::Display for AdmissionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds on a node's own monotonic clock, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick `millis` later.
    pub const fn after(self, millis: u64) -> Self {
        Self(self.0 + millis)
    }
}

/// A Raft log id: who led when the entry was proposed, and its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct LogPosition {
    /// Raft term.
    pub term: u64,
    /// The leader of that term.
    pub leader: NodeId,
    /// Log index.
    pub index: u64,
}

/// How far the replicated state machine has come: written to disk in the same MDBX transaction as
/// what it speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    /// The last entry applied; `None` before the first.
    pub position: Option<LogPosition>,
    /// Raft's stored membership, opaque here (the raft crate encodes and decodes it).
    pub membership: Vec<u8>,
    /// The admission id that the next admitted transaction gets.
    pub next_admission: AdmissionId,
}
