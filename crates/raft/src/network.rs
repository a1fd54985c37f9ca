//! Raft's own messages over the [`Transport`](crate::Transport): [`client`] sends them, [`handler`]
//! answers them, [`snapshot`] is the transfer of a snapshot.

mod client;
mod handler;
mod message;
mod snapshot;

pub(crate) use client::NetworkFactory;
pub(crate) use handler::RaftHandler;
pub(crate) use snapshot::Receiver;
