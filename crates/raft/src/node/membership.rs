//! Who belongs to the cluster.

use super::RaftNode;
use crate::{Member, MembershipChangeError, types::TypeConfig};
use blockraft_primitives::NodeId;
use openraft::{
    ChangeMembers,
    errors::{ChangeMembershipError, ClientWriteError, RaftError as OpenraftError},
};
use std::collections::{BTreeMap, BTreeSet};

impl RaftNode {
    /// Adds a member that receives the log and does not vote. Does not wait until it has caught up:
    /// see [`crate::MemberStatus::matched_index`].
    pub async fn add_learner(
        &self,
        id: NodeId,
        member: Member,
    ) -> Result<(), MembershipChangeError> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, member)]))).await
    }

    /// Makes a learner a voter. Call it when the learner has caught up, or commits wait for it.
    pub async fn promote(&self, id: NodeId) -> Result<(), MembershipChangeError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Takes a member out. A leader that is taken out hands over and then is no member.
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipChangeError> {
        let status = self.status.borrow().clone();
        let Some(member) = status.members.iter().find(|member| member.id == id) else {
            return Err(MembershipChangeError::UnknownMember(id));
        };
        let ids = BTreeSet::from([id]);
        if member.voter {
            self.change(ChangeMembers::RemoveVoters(ids)).await
        } else {
            self.change(ChangeMembers::RemoveNodes(ids)).await
        }
    }

    async fn change(
        &self,
        change: ChangeMembers<NodeId, Member>,
    ) -> Result<(), MembershipChangeError> {
        // Not retained: a voter that is removed does not stay on as a learner.
        let changed = self.raft.change_membership(change, false).await;
        changed.map(|_| ()).map_err(|error| match error {
            OpenraftError::APIError(error) => refusal(error),
            OpenraftError::Fatal(_) => MembershipChangeError::Fatal,
        })
    }
}

fn refusal(error: ClientWriteError<TypeConfig>) -> MembershipChangeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            MembershipChangeError::NotLeader { leader: forward.leader_id }
        }
        ClientWriteError::LogEntryDiscarded(_) => MembershipChangeError::Unknown,
        ClientWriteError::ChangeMembershipError(error) => match error {
            ChangeMembershipError::InProgress(_) => MembershipChangeError::InProgress,
            ChangeMembershipError::EmptyMembership(_) => MembershipChangeError::NoVoters,
            ChangeMembershipError::LearnerNotFound(missing) => {
                MembershipChangeError::UnknownMember(missing.node_id)
            }
            ChangeMembershipError::UncommittedLeaderLog(_) => MembershipChangeError::InProgress,
            // Both belong to a way of changing the membership that is not used here.
            ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::NodeMetadataChanged(_) => MembershipChangeError::Unsupported,
        },
        ClientWriteError::PreconditionFailed(_) => {
            unreachable!("membership changes are made without preconditions")
        }
    }
}
