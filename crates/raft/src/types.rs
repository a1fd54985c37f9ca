//! The types openraft is instantiated with.

use blockraft_primitives::{LogPosition, NodeId};
use bytes::Bytes;
use openraft::vote::leader_id_std;
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::ApplyResponse;

openraft::declare_raft_types!(
    /// openraft as BlockRaFT uses it: one leader a term, opaque entries.
    pub(crate) TypeConfig:
        D = EntryData,
        R = ApplyResponse,
        NodeId = NodeId,
        Node = Member,
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
);

pub(crate) type CommittedLeaderId = leader_id_std::CommittedLeaderId<u64>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type EntryPayload = openraft::EntryPayload<EntryData, NodeId, Member>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
pub(crate) type Vote = openraft::Vote<leader_id_std::LeaderId<u64, NodeId>>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Member>;
pub(crate) type Snapshot =
    openraft::Snapshot<CommittedLeaderId, NodeId, Member, crate::state_machine::SnapshotFile>;

/// How the other members and clients reach a member. Part of the replicated membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` of the node-to-node listener.
    pub raft_addr: String,
    /// `host:port` of the JSON-RPC listener, for forwarding and for people.
    pub rpc_addr: String,
}

/// The bytes of one application entry: opaque here, encoded once by the proposer.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryData(pub(crate) Bytes);

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryData({} bytes)", self.0.len())
    }
}

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A log id as the rest of the system knows it. With one leader a term the term alone names the
/// leader, and openraft keeps nothing else: `leader` is 0 in every position, on every node alike.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: **id.committed_leader_id(), leader: 0, index: id.index }
}

/// The inverse of [`position`].
pub(crate) fn log_id(position: &LogPosition) -> LogId {
    LogId::new(CommittedLeaderId::new(position.term), position.index)
}
