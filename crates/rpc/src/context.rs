//! What the node hands to the RPC server, and what the server asks of the node.

use crate::{EvidenceSource, TimelineSource};
use alloy_primitives::{Address, B256, Bytes, U256};
use blockraft_primitives::{NodeId, SealedBlock, StateError, Transaction};
use blockraft_protocol::{Pool, PoolError};
use blockraft_storage::Store;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// All that the methods read from, and the one way in which they write.
#[derive(Clone)]
pub struct RpcContext {
    /// Blocks and state, as far as they are visible.
    pub store: Store,
    /// The replicated pool; the node is its only writer.
    pub pool: Arc<RwLock<Pool>>,
    /// Where raw transactions go; the node's gateway task holds the other end.
    pub submissions: mpsc::Sender<Submission>,
    /// One message for each block that became visible or was taken back, in order.
    pub heads: broadcast::Sender<HeadChange>,
    /// Transactions that entered the pool, one message for each applied `Admit` entry.
    pub pending: broadcast::Sender<Arc<[Transaction]>>,
    /// This node's view of the cluster.
    pub cluster: watch::Receiver<ClusterStatus>,
    /// Merkle proofs, answered by the node from its trie. Called on a worker thread.
    pub proofs: Arc<ProofSource>,
    /// What this node saw of a transaction. Called on a worker thread.
    pub timelines: Arc<TimelineSource>,
    /// Members that contradicted each other.
    pub evidence: Arc<EvidenceSource>,
    /// Where blocking work runs.
    pub runtime: tokio::runtime::Handle,
}

/// What became of the end of the chain.
#[derive(Clone, Debug)]
pub enum HeadChange {
    /// A block became visible.
    Added(Arc<SealedBlock>),
    /// A consensus client took the last block back.
    Removed(Arc<SealedBlock>),
}

impl fmt::Debug for RpcContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcContext").finish_non_exhaustive()
    }
}

/// `(block, address, slots)` to the account's proof at that block.
pub type ProofSource =
    dyn Fn(u64, Address, Vec<U256>) -> Result<AccountProof, ProofError> + Send + Sync;

/// An account with the trie nodes that prove it (EIP-1186). An absent account is proven absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// Nonce; zero where there is no account.
    pub nonce: u64,
    /// Wei; zero where there is no account.
    pub balance: U256,
    /// Hash of no code where there is no account.
    pub code_hash: B256,
    /// Root of the empty trie where there is no storage.
    pub storage_root: B256,
    /// Nodes from the state root down.
    pub nodes: Vec<Bytes>,
    /// One for each slot asked for, in that order.
    pub slots: Vec<SlotProof>,
}

/// A storage slot with the trie nodes that prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotProof {
    /// The slot's number, not hashed.
    pub slot: U256,
    /// Zero where there is none.
    pub value: U256,
    /// Nodes from the storage root down.
    pub nodes: Vec<Bytes>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The block lies too far back for the trie to be taken back to it.
    #[error("proofs of block {requested} are not available, the oldest is {oldest}")]
    TooOld {
        /// The block asked for.
        requested: u64,
        /// The oldest block that can be proven now.
        oldest: u64,
    },
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Raw transactions on their way to the gateway: those of one request, in its order.
#[derive(Debug)]
pub struct Submission {
    /// As the client sent them: EIP-2718 envelopes, for blobs with the sidecar.
    pub raw: Vec<Bytes>,
    /// One verdict each: the hash once the transaction is in a committed entry. Nobody may wait any more.
    pub reply: oneshot::Sender<Vec<Verdict>>,
}

/// What became of a submitted transaction.
pub type Verdict = Result<B256, SubmitError>;

/// Why a transaction was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Not a transaction of this chain, or the pool refuses it. A transaction that the pool has already
    /// is no refusal: it is answered with its hash.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// No leader within the time that a write waits for one. Nothing was written.
    #[error("no leader")]
    NoLeader {
        /// The term that this node knows.
        term: u64,
        /// Who led last.
        last_leader: Option<NodeId>,
        /// When another attempt makes sense.
        retry_after_ms: u64,
    },
    /// The leader was lost after the transaction had gone to it: it may or may not be in the log.
    /// Sending it again is safe.
    #[error("the leader changed before it answered; send the transaction again")]
    OutcomeUnknown {
        /// The transaction.
        hash: B256,
    },
    /// The node serves a chain that no cluster made.
    #[error("this chain was imported and is served for reading alone: transactions are not taken")]
    ReadOnly,
    /// The node's queue of submissions is full.
    #[error("too many transactions wait for admission")]
    Busy,
    /// The node is going down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Which part a node plays in Raft now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Leader,
    /// Follows and votes.
    #[default]
    Follower,
    /// Seeks votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

impl Role {
    /// As it is printed and put into headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One node's view of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The node that says this.
    pub node_id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its Raft term.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// Last entry in its log.
    pub last_log_index: u64,
    /// Last entry that it knows to be committed.
    pub committed_index: u64,
    /// Last entry that it has applied.
    pub applied_index: u64,
    /// All members, by id.
    pub members: Vec<MemberStatus>,
    /// What is wrong with this node itself, if anything is: it then does not lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Committed entries that a ready node may still have to apply.
const APPLIED_LAG_MAX: u64 = 1_000;

impl ClusterStatus {
    /// Committed entries that this node has not applied yet.
    pub fn applied_lag(&self) -> u64 {
        self.committed_index.saturating_sub(self.applied_index)
    }

    /// Why a balancer should not send clients here; empty when the node is ready (`GET /readyz`).
    pub fn unready_reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.fault.iter().cloned().collect();
        if self.leader.is_none() {
            reasons.push("no leader is known".to_owned());
        }
        if self.applied_lag() > APPLIED_LAG_MAX {
            reasons.push(format!("{} committed entries are not applied yet", self.applied_lag()));
        }
        reasons
    }
}

/// A member as another one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Where it takes Raft traffic.
    pub raft_addr: String,
    /// Where it serves JSON-RPC.
    pub rpc_addr: String,
    /// Whether it votes.
    pub voter: bool,
    /// How far its log agrees with the leader's; only the leader knows.
    pub matched: Option<u64>,
}

/// The answer of `blockraft_status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Raft's side.
    #[serde(flatten)]
    pub cluster: ClusterStatus,
    /// Number of the last visible block.
    pub block_number: u64,
    /// Its hash.
    pub block_hash: B256,
    /// Transactions in the pool that could go into the next block.
    pub pool_pending: u64,
    /// Transactions in the pool that wait for an earlier nonce.
    pub pool_queued: u64,
    /// What `web3_clientVersion` says.
    pub client_version: String,
}
