//! What can go wrong at the door.

use crate::ApplicationError;
use blockraft_primitives::NodeId;
use blockraft_storage::StorageError;

/// The node could not start, or has stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The timers or thresholds contradict each other.
    #[error("raft configuration is invalid")]
    Config(#[from] openraft::ConfigError),
    /// The log on disk cannot be read or written.
    #[error("raft log failed")]
    Log(#[from] StorageError),
    /// The state machine failed.
    #[error(transparent)]
    Application(#[from] ApplicationError),
    /// The node was asked to stop.
    #[error("raft was shut down")]
    ShutDown,
    /// openraft stopped by itself; the text is its own.
    #[error("raft stopped: {0}")]
    Stopped(String),
}

/// Why a proposal has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not taken: this node does not lead, or may not take writes at the moment. Safe to retry.
    #[error("this node does not lead, the leader is {leader:?}")]
    NotLeader {
        /// Who leads; `None` while nobody is known to (retry soon).
        leader: Option<NodeId>,
    },
    /// Taken, and then leadership was lost: it may or may not be committed.
    #[error("leadership was lost, the outcome of the proposal is unknown")]
    Unknown,
    /// The node has stopped.
    #[error("raft has stopped")]
    Fatal,
}

/// Why a read barrier was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// Only the leader can confirm a read index.
    #[error("this node does not lead, the leader is {leader:?}")]
    NotLeader {
        /// Who leads; `None` while nobody is known to.
        leader: Option<NodeId>,
    },
    /// A majority did not answer in time.
    #[error("no quorum confirmed the leadership")]
    NoQuorum,
    /// The node has stopped.
    #[error("raft has stopped")]
    Fatal,
}

/// Why leadership was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// There is nothing to hand over.
    #[error("this node does not lead, the leader is {leader:?}")]
    NotLeader {
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// Nobody else may vote.
    #[error("no other voter to hand leadership to")]
    NoTarget,
    /// The target is no voter.
    #[error("node {0} is not a voter")]
    NotVoter(NodeId),
    /// The target did not take over in time.
    #[error("node {0} did not take over in time")]
    Timeout(NodeId),
    /// The node has stopped.
    #[error("raft has stopped")]
    Fatal,
}

/// Why the membership was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipChangeError {
    /// Only the leader changes the membership.
    #[error("this node does not lead, the leader is {leader:?}")]
    NotLeader {
        /// Who leads.
        leader: Option<NodeId>,
    },
    /// Another change is on its way, or the leader is so new that it has committed nothing yet.
    #[error("another membership change is in progress")]
    InProgress,
    /// The node is no member.
    #[error("node {0} is not a member")]
    UnknownMember(NodeId),
    /// Nobody would be left to vote.
    #[error("the change would leave no voters")]
    NoVoters,
    /// A known member would change its address.
    #[error("the change is not supported: remove the member and add it anew")]
    Unsupported,
    /// Leadership was lost on the way: look at the membership before trying again.
    #[error("leadership was lost, the outcome of the change is unknown")]
    Unknown,
    /// The first membership was written for other nodes than this one.
    #[error("this node is not among the first members")]
    NotAmongMembers,
    /// The node has stopped.
    #[error("raft has stopped")]
    Fatal,
}
