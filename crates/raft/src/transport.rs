//! Node-to-node transport: framed TCP with many requests in flight.
//!
//! A connection serves one [`Plane`] in one direction: who dials sends requests, who accepts
//! answers them. It opens with a [`hello`] each way, then carries [`frame`]s. [`link`] is the dialling
//! side (one task for each peer and plane, connects on demand), [`server`] the accepting side.
//! [`secure`] is the one place where TLS goes in.

mod client;
mod frame;
mod hello;
mod link;
mod secure;
mod server;

pub use client::{Transport, TransportConfig, TransportError};
pub use hello::{PROTOCOL_VERSION, Plane, Rejection};
pub use server::{Handler, Refused};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where this crate's tasks and threads run: the node owns them and waits for them.
#[derive(Clone, Debug, Default)]
pub struct Spawner {
    /// Every task and blocking thread is spawned on it, from within the runtime.
    pub tasks: TaskTracker,
    /// Cancelled when the node stops: connections close, the transport's tasks end.
    pub stop: CancellationToken,
}
