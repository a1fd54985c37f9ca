//! What a member tells of itself.

use crate::{Member, types::TypeConfig};
use blockraft_primitives::NodeId;
use openraft::{RaftMetrics, ServerState};

/// A member's view of the cluster, published whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub id: NodeId,
    /// Its part in the present term.
    pub role: Role,
    /// The present term.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last entry in this node's log.
    pub last_log_index: Option<u64>,
    /// The last entry that this node knows to be committed.
    pub committed_index: Option<u64>,
    /// The last entry that was applied here.
    pub applied_index: Option<u64>,
    /// The last entry that the current snapshot covers.
    pub snapshot_index: Option<u64>,
    /// The last entry dropped from the log.
    pub purged_index: Option<u64>,
    /// All members, ordered by id.
    pub members: Vec<MemberStatus>,
    /// Why Raft stopped, if it did.
    pub stopped: Option<String>,
}

/// A node's part in the present term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Receives the log and does not vote.
    #[default]
    Learner,
    /// Receives the log and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped.
    Stopped,
}

/// One member, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Its addresses.
    pub member: Member,
    /// Whether it votes.
    pub voter: bool,
    /// The last entry known to be durable on it. Only the leader knows.
    pub matched_index: Option<u64>,
}

impl RaftStatus {
    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    pub(crate) fn from_metrics(metrics: &RaftMetrics<TypeConfig>) -> Self {
        let index = |id: &Option<crate::types::LogId>| id.as_ref().map(|id| id.index);
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let leads = metrics.state == ServerState::Leader;
        let members = membership
            .nodes()
            .map(|(id, member)| MemberStatus {
                id: *id,
                member: member.clone(),
                voter: voters.contains(id),
                matched_index: match &metrics.replication {
                    Some(_) if leads && *id == metrics.id => metrics.last_log_index,
                    Some(progress) => progress.get(id).and_then(index),
                    None => None,
                },
            })
            .collect();
        Self {
            id: metrics.id,
            role: Role::from(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log_index: metrics.last_log_index,
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            members,
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }
}

impl From<ServerState> for Role {
    fn from(state: ServerState) -> Self {
        match state {
            ServerState::Learner => Self::Learner,
            ServerState::Follower => Self::Follower,
            ServerState::Candidate => Self::Candidate,
            ServerState::Leader => Self::Leader,
            ServerState::Shutdown => Self::Stopped,
        }
    }
}
