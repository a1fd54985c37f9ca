//! Ethereum JSON-RPC over HTTP and WebSocket, on one port.
//!
//! **Door**: [`RpcServer::start`] serves what an [`RpcContext`] gives access to.
//!
//! **Invariants**: nothing here decides: reads come from committed blocks and the replicated pool, writes
//! go to the gateway as a [`Submission`] and are answered when it answers. MDBX and the EVM run on worker
//! threads only, a bounded number at once. Codes and texts of errors are geth's, because client libraries
//! match on them. The methods served are those that `rpc-spec/openrpc.json` describes, neither more nor
//! fewer; those of the Engine API are in `rpc-spec/engine.json`.
//!
//! **Terms**: a *head* is a block that has just become visible; *pending* is the replicated pool on top of
//! the last block; a *submission* is a raw transaction on its way to the leader.

mod api;
mod args;
mod block_id;
mod config;
mod context;
mod convert;
mod engine;
mod errors;
mod eth;
mod evidence;
mod filters;
mod health;
mod http;
mod methods;
mod middleware;
mod net;
mod pubsub;
mod registry;
mod sends;
mod server;
mod timeline;
mod txpool;
mod workers;

pub use config::{Finality, MetricsSource, RpcConfig};
pub use context::{
    AccountProof, ClusterStatus, HeadChange, MemberStatus, NodeStatus, ProofError, ProofSource,
    Role, RpcContext, SlotProof, Submission, SubmitError, Verdict,
};
pub use engine::{
    BuiltPayload, EngineCall, EngineConfig, EngineError, EngineReply, ForkchoiceState,
    ForkchoiceUpdated, JwtSecret, JwtSecretError, PayloadId, PayloadRequest, PayloadStatus,
    PayloadStatusEnum, UnixClock,
};
pub use evidence::{Disagreement, DisagreementAnswer, EvidenceSource};
pub use server::{RpcServer, RpcServerError, RunningRpc};
pub use timeline::{StageTimes, TimelineSource, TxTimeline};
