//! How Raft is tuned.

use crate::RaftError;
use blockraft_primitives::limits;
use std::{sync::Arc, time::Duration};

/// Bytes of entries that one replication request carries, unless a single entry is longer.
pub(crate) const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of entries handed to the state machine at a time, unless a single entry is longer.
pub(crate) const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries handed to the state machine at a time.
pub(crate) const APPLY_ENTRY_COUNT_MAX: usize = 256;
/// Replication requests on their way to one follower.
pub(crate) const APPEND_PIPELINE_LEN: usize = 8;
/// Bytes of recent entries kept in memory beyond those not yet durable.
pub(crate) const LOG_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Writes waiting for the log writer.
pub(crate) const LOG_WRITE_QUEUE_LEN_MAX: usize = 4096;
/// Bytes that one durable write of the log merges, unless a single append is longer.
pub(crate) const LOG_WRITE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Sending one chunk of a snapshot.
pub(crate) const SNAPSHOT_CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Checking and installing a snapshot that has arrived.
pub(crate) const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Proposals and messages of other members that wait for Raft's core.
const PROPOSAL_QUEUE_LEN_MAX: u64 = 8192;

/// Timers and thresholds of one member. All members should agree on the timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftConfig {
    /// A leader's heartbeat, milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest election timeout, milliseconds.
    pub election_min_ms: u64,
    /// Longest election timeout, and the leader's lease, milliseconds.
    pub election_max_ms: u64,
    /// Entries between two snapshots.
    pub snapshot_entry_interval: u64,
    /// Entries that stay in the log behind a snapshot.
    pub log_entries_kept: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 300,
            election_max_ms: 600,
            snapshot_entry_interval: limits::SNAPSHOT_ENTRY_INTERVAL,
            log_entries_kept: limits::LOG_ENTRIES_KEPT,
        }
    }
}

impl RaftConfig {
    /// How long a replication request may take before the connection counts as stuck. Longer than
    /// openraft's own budget (one heartbeat), which a single slow fsync would overrun.
    pub(crate) fn append_timeout(&self) -> Duration {
        Duration::from_millis(2 * self.election_max_ms)
    }

    pub(crate) fn to_openraft(&self) -> Result<Arc<openraft::Config>, RaftError> {
        let config = openraft::Config {
            cluster_name: "blockraft".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            install_snapshot_timeout: SNAPSHOT_INSTALL_TIMEOUT.as_millis() as u64,
            max_payload_entries: limits::APPEND_ENTRY_COUNT_MAX,
            replication_lag_threshold: self.snapshot_entry_interval + self.log_entries_kept,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_entry_interval),
            snapshot_max_chunk_size: limits::SNAPSHOT_CHUNK_BYTES as u64,
            max_in_snapshot_log_to_keep: self.log_entries_kept,
            // A purge is a write to the log: not one for every entry.
            purge_batch_size: self.log_entries_kept.clamp(1, 256),
            api_channel_size: Some(PROPOSAL_QUEUE_LEN_MAX),
            enable_pre_vote: Some(true),
            // The state machine writes behind, so a restarted leader must be elected anew before
            // it may answer for what it had applied.
            enable_leader_restore: Some(false),
            backoff: "50ms 100ms 200ms ...1s".to_owned(),
            ..openraft::Config::default()
        };
        Ok(Arc::new(config.validate()?))
    }
}
