//! Raft's view of the cluster, as RPC clients see it.

use blockraft_raft::RaftStatus;
use blockraft_rpc::{ClusterStatus, MemberStatus, Role};

/// Raft's status, and what is wrong with this node, in the words of `blockraft_status`.
pub(crate) fn cluster_status(raft: &RaftStatus, fault: Option<String>) -> ClusterStatus {
    ClusterStatus {
        node_id: raft.id,
        role: role(raft.role),
        term: raft.term,
        leader: raft.leader,
        last_log_index: raft.last_log_index.unwrap_or(0),
        committed_index: raft.committed_index.unwrap_or(0),
        applied_index: raft.applied_index.unwrap_or(0),
        members: raft
            .members
            .iter()
            .map(|m| MemberStatus {
                id: m.id,
                raft_addr: m.member.raft_addr.clone(),
                rpc_addr: m.member.rpc_addr.clone(),
                voter: m.voter,
                matched: m.matched_index,
            })
            .collect(),
        fault,
    }
}

fn role(role: blockraft_raft::Role) -> Role {
    match role {
        blockraft_raft::Role::Leader => Role::Leader,
        blockraft_raft::Role::Candidate => Role::Candidate,
        blockraft_raft::Role::Learner => Role::Learner,
        blockraft_raft::Role::Follower | blockraft_raft::Role::Stopped => Role::Follower,
    }
}
