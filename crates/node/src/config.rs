//! What a member is told when it starts.

use crate::Member;
use alloy_primitives::Address;
use blockraft_primitives::NodeId;
use blockraft_protocol::{Distribution, RecoverAt, SubmissionRules};
use blockraft_rpc::JwtSecret;
use std::{net::SocketAddr, path::PathBuf};

/// Milliseconds between Raft heartbeats unless configured.
pub const RAFT_HEARTBEAT_MS: u64 = 50;
/// Shortest Raft election timeout unless configured, milliseconds; the longest is twice that.
pub const RAFT_ELECTION_MS: u64 = 300;

/// Where a consensus client reaches this node.
#[derive(Clone, Debug)]
pub struct EngineApiConfig {
    /// The port for the Engine API.
    pub listen: SocketAddr,
    /// What node and consensus client share.
    pub secret: JwtSecret,
    /// Host names that requests may name beside loopback's.
    pub virtual_hosts: Vec<String>,
}

/// A member's configuration.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Must be the data directory's own when given.
    pub node_id: Option<NodeId>,
    /// An initialised data directory.
    pub datadir: PathBuf,
    /// Where other members reach this one.
    pub raft_addr: SocketAddr,
    /// Where clients reach it.
    pub rpc_addr: SocketAddr,
    /// The members that the cluster starts with.
    pub members: Vec<(NodeId, Member)>,
    /// Form the cluster of `members` if this node's log is empty.
    pub bootstrap: bool,
    /// Milliseconds between the blocks that this node builds; the genesis file's when absent.
    pub block_time_ms: Option<u64>,
    /// Receives the priority fees of the blocks that this node builds; the genesis file's when absent.
    pub fee_recipient: Option<Address>,
    /// Whether other members run parts of the blocks that this node builds.
    pub distribution: Distribution,
    /// Whether other members hash parts of the state after this one's blocks (decision 0018).
    pub root_sharing: Distribution,
    /// Which member recovers the senders of what comes in here.
    pub recover_at: RecoverAt,
    /// What this node asks of transactions beyond the chain's rules.
    pub submission: SubmissionRules,
    /// Browser origins that may call (CORS).
    pub cors_domains: Vec<String>,
    /// Host names that requests may name beside loopback's.
    pub virtual_hosts: Vec<String>,
    /// Serves the Engine API. The chain is then one whose blocks come from a consensus client, as if the
    /// genesis file said so.
    pub engine_api: Option<EngineApiConfig>,
    /// Milliseconds between Raft heartbeats.
    pub raft_heartbeat_ms: u64,
    /// Shortest Raft election timeout, milliseconds.
    pub raft_election_ms: u64,
    /// Applied log entries between two snapshots.
    pub snapshot_entry_interval: u64,
    /// Log entries that stay behind a snapshot, for members that lag a little.
    pub log_entries_kept: u64,
    /// Blocks whose state can be read back.
    pub history_blocks: Option<u64>,
    /// Memory that the state trie may hold, bytes; all of it is kept in memory when absent. What was left
    /// alone longest is dropped first and read from disk on need.
    pub trie_memory_bytes: Option<usize>,
    /// Leave a checkpoint of the state trie when the node stops, and start from it.
    pub trie_checkpoint: bool,
    /// Threads that execute blocks and compute their roots; as many as there are cores when absent.
    pub threads: Option<usize>,
}
