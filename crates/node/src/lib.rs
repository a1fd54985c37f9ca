//! One member of a cluster: the shell that runs everything else.
//!
//! **Door**: [`Node`]. Below it every crate decides or stores; here are the tasks, threads, timers and
//! sockets that let them. One task is one file.
//!
//! **Invariants**: only this crate spawns; nothing of a block is visible to a client before its entry
//! is committed; a node whose state is wrong stops.
//!
//! **Terms**: the *chain* is the replicated state machine of this node (state, trie, pool); the
//! *producer* is the task that leads when Raft says so; the *gateway* is the task that takes
//! transactions from clients; the *engine* is the task that a consensus client talks to, on chains whose
//! blocks come from one; the *executor* is the task that runs units of work for whoever leads, and the
//! *distributor* is that leader's way to it; the *data plane* is what nodes say to one another beside Raft;
//! the *scrub* reads the state on disk again, for damage.

mod application;
mod chain;
mod circumstances;
mod clock;
mod config;
mod data_plane;
mod distributor;
mod engine;
mod error;
mod executor;
mod gateway;
mod gathering;
pub mod import;
pub mod maintenance;
mod node;
mod own_entries;
mod past_trie;
mod persister;
mod producer;
mod reading;
mod recovery;
mod root_sharing;
mod scrub;
mod status;
mod telemetry;
mod timeline;
mod trie_start;

pub use blockraft_protocol::{Distribution, RecoverAt, SubmissionRules};
pub use blockraft_raft::Member;
pub use blockraft_rpc::{JwtSecret, JwtSecretError};
pub use config::{EngineApiConfig, NodeConfig, RAFT_ELECTION_MS, RAFT_HEARTBEAT_MS};
pub use error::NodeError;
pub use node::Node;
pub use reading::is_read_only;
