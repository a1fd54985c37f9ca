//! What Prometheus gets to see. Names as etcd has them, with our prefix.

use crate::RaftStatus;
use std::time::Duration;

/// One durable write of the log.
pub(crate) fn log_append(elapsed: Duration, entries: usize, bytes: usize) {
    metrics::histogram!("blockraft_raft_wal_fsync_duration_seconds").record(elapsed);
    metrics::histogram!("blockraft_raft_wal_append_entries").record(entries as f64);
    metrics::counter!("blockraft_raft_wal_bytes_total").increment(bytes as u64);
}

/// A frame goes to another member.
pub(crate) fn sent(bytes: usize) {
    metrics::counter!("blockraft_network_sent_bytes_total").increment(bytes as u64);
}

/// A proposal was answered.
pub(crate) fn proposal(committed: bool) {
    if committed {
        metrics::counter!("blockraft_raft_proposals_committed_total").increment(1);
    } else {
        metrics::counter!("blockraft_raft_proposals_failed_total").increment(1);
    }
}

/// Entries went through the state machine.
pub(crate) fn applied(elapsed: Duration, entries: usize) {
    metrics::histogram!("blockraft_raft_apply_duration_seconds").record(elapsed);
    metrics::counter!("blockraft_raft_proposals_applied_total").increment(entries as u64);
}

/// The view of the cluster changed.
pub(crate) fn status(before: &RaftStatus, now: &RaftStatus) {
    metrics::gauge!("blockraft_raft_has_leader").set(f64::from(u8::from(now.leader.is_some())));
    metrics::gauge!("blockraft_raft_is_leader").set(f64::from(u8::from(now.is_leader())));
    metrics::gauge!("blockraft_raft_term").set(now.term as f64);
    metrics::gauge!("blockraft_raft_commit_index").set(now.committed_index.unwrap_or(0) as f64);
    metrics::gauge!("blockraft_raft_applied_index").set(now.applied_index.unwrap_or(0) as f64);
    if now.leader.is_some() && (now.leader, now.term) != (before.leader, before.term) {
        metrics::counter!("blockraft_raft_leader_changes_seen_total").increment(1);
    }
}

/// A request to another member was answered.
pub(crate) fn round_trip(peer: u64, elapsed: Duration) {
    metrics::histogram!("blockraft_raft_peer_round_trip_time_seconds", "peer" => peer.to_string())
        .record(elapsed);
}
