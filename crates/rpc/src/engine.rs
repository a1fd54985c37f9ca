//! The Engine API: the port at which a consensus client drives the chain.
//!
//! This module decodes and checks calls; what they do to the chain is the node's business, which takes
//! them as [`EngineCall`]s, in order. The port serves the `eth` namespace too, as the specification asks.
//!
//! **Terms**: a *payload* is a block as the consensus client names it; *forkchoice* is its word on which
//! block is the head, and which are safe and final.

mod auth;
mod blobs;
mod bodies;
mod calls;
mod errors;
mod jwt;
mod methods;
mod payload;
mod rules;

pub use alloy_rpc_types_engine::{
    ForkchoiceState, ForkchoiceUpdated, PayloadId, PayloadStatus, PayloadStatusEnum,
};
pub use auth::{EngineConfig, UnixClock};
pub use calls::{BuiltPayload, EngineCall, EngineReply, PayloadRequest};
pub use errors::EngineError;
pub use jwt::{JwtSecret, JwtSecretError};

pub(crate) use auth::TokenCheck;
pub(crate) use methods::register;
