//! Why a node does not start, or stops.

use alloy_primitives::B256;
use blockraft_primitives::{EntryError, NodeId, StateError};
use std::net::SocketAddr;

/// Why a node does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The database.
    #[error(transparent)]
    Storage(#[from] blockraft_storage::StorageError),
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Execution failed for a reason that is not a transaction's own.
    #[error(transparent)]
    Execution(#[from] blockraft_execution::ExecutionError),
    /// Raft.
    #[error(transparent)]
    Raft(#[from] blockraft_raft::RaftError),
    /// Raft stopped while the node ran.
    #[error("raft failed: {0}")]
    RaftFailed(std::sync::Arc<blockraft_raft::RaftError>),
    /// The cluster could not be formed.
    #[error("cannot form the cluster: {0}")]
    Membership(#[from] blockraft_raft::MembershipChangeError),
    /// Flat state that is out of order.
    #[error(transparent)]
    Trie(#[from] blockraft_trie::TrieError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The RPC server.
    #[error(transparent)]
    Rpc(#[from] blockraft_rpc::RpcServerError),
    /// A committed entry does not decode.
    #[error("committed log entry cannot be applied: {0}")]
    Entry(#[from] EntryError),
    /// A committed block names what the pool does not hold.
    #[error("committed block cannot be applied: {0}")]
    Pool(#[from] blockraft_protocol::IncludeError),
    /// This node's state is not the chain's: it must not serve or lead.
    #[error(
        "state root of block {number} is {got} here, the header says {expected}: this node's state is wrong, it stops"
    )]
    WrongRoot {
        /// Block height.
        number: u64,
        /// What this node computes.
        got: B256,
        /// What the header says.
        expected: B256,
    },
    /// The same of one subtrie.
    #[error(
        "subtrie {partition:#04x} is not what block {number} says: this node's state is wrong, it stops"
    )]
    WrongSubtrie {
        /// Block height.
        number: u64,
        /// First byte of the subtrie's keys.
        partition: u8,
    },
    /// An earlier failure left the trie half way.
    #[error("the state trie is not usable after an earlier failure: this node must start again")]
    TrieLost,
    /// What a running node found out about itself.
    #[error("{0}")]
    Diverged(String),
    /// The head is not what a block was to be built on.
    #[error("the head is {got}, the block was to be built on {expected}")]
    HeadMoved {
        /// The head.
        got: B256,
        /// The parent asked for.
        expected: B256,
    },
    /// The data directory belongs to another member.
    #[error("the data directory is node {got}'s, the configuration says node {expected}")]
    WrongNodeId {
        /// Id in the data directory.
        got: NodeId,
        /// Id in the configuration.
        expected: NodeId,
    },
    /// The genesis fits no rules.
    #[error(transparent)]
    Genesis(#[from] blockraft_primitives::GenesisError),
    /// A chain that a consensus client drives keeps the states that it may go back to.
    #[error(
        "a history of {got} blocks is too little for a chain that a consensus client drives, at least {expected} are needed"
    )]
    ShortHistory {
        /// Blocks configured.
        got: u64,
        /// Blocks needed.
        expected: u64,
    },
    /// What the scrub found, where no other member can lead.
    #[error("the state on disk is damaged: {0}: run `blockraft db repair`")]
    StateDamaged(String),
    /// The address for other nodes.
    #[error("cannot listen for other nodes on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A damaged shard cannot be rebuilt from what there is.
    #[error("cannot rebuild: {0}")]
    NoSource(String),
    /// A log record that is none of ours.
    #[error("log entry {index} cannot be read: {source}")]
    LogRecord {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A peer did not give its snapshot.
    #[error("no snapshot from node {peer}: {problem}")]
    PeerSnapshot {
        /// The peer.
        peer: NodeId,
        /// Why not.
        problem: String,
    },
    /// The metrics registry is taken.
    #[error("metrics: {0}")]
    Metrics(String),
    /// A thread that the node cannot go on without ended.
    #[error("the {0} ended unexpectedly")]
    TaskEnded(&'static str),
    /// The cluster did not come up.
    #[error("no leader was elected within {0} s")]
    NoLeader(u64),
}

impl NodeError {
    /// Whether this node's state is not the chain's: [`crate::maintenance::heal`] may help.
    pub const fn is_wrong_state(&self) -> bool {
        matches!(
            self,
            Self::WrongRoot { .. } | Self::WrongSubtrie { .. } | Self::TrieLost | Self::Diverged(_)
        )
    }
}
