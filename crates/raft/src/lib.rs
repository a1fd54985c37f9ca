//! Raft for BlockRaFT: openraft behind one door, with its log store, its state machine adapter and
//! the node-to-node transport.
//!
//! # Door
//!
//! [`RaftNode`] is the consensus engine of one member: it is started over a [`LogDevice`] (the log
//! on disk), an [`Application`] (the replicated state machine) and a [`Transport`] (framed TCP to
//! the other members), and then takes proposals, read barriers, membership changes and a transfer
//! of leadership. [`RaftStatus`] is what it tells of itself. No type of openraft leaves this crate.
//!
//! # Invariants
//!
//! - An entry or a vote is answered for only after the log device said that it is durable.
//! - Writes to the log device are made by one thread, in the order in which Raft ordered them; a
//!   vote never overtakes an append.
//! - The application sees each entry once a start, in log order, on one worker thread. After a
//!   restart it sees again what [`Application::applied`] does not cover.
//! - The first failed write to the log device, and the first failed apply, end the node:
//!   [`RaftNode::failed`] resolves, and nothing is acknowledged afterwards.
//! - Votes and heartbeats, log replication, snapshots, the data plane and units of work use separate
//!   connections: bulk traffic cannot delay a heartbeat.
//! - Nothing that arrives from the network is allocated for before its length is checked.
//!
//! # Terms
//!
//! *Entry*: one slot of the Raft log. *Proposal*: bytes on their way to becoming an entry.
//! *Plane*: the purpose of a connection ([`Plane`]). *Barrier*: a read index that was applied here.

mod application;
mod codec;
mod config;
mod error;
mod log;
mod metric;
mod network;
mod node;
mod state_machine;
mod status;
mod transport;
mod types;

pub use application::{
    Application, ApplicationError, AppliedEntry, ApplyResponse, Payload, SnapshotHandle,
};
pub use codec::application_entry;
pub use config::RaftConfig;
pub use error::{BarrierError, MembershipChangeError, ProposeError, RaftError, TransferError};
pub use log::LogDevice;
pub use node::{Proposal, RaftNode};
pub use status::{MemberStatus, RaftStatus, Role};
pub use transport::{
    Handler, PROTOCOL_VERSION, Plane, Refused, Rejection, Spawner, Transport, TransportConfig,
    TransportError,
};
pub use types::Member;

#[cfg(test)]
mod tests;
