//! The log store: openraft's storage contract over a [`LogDevice`].
//!
//! [`store::LogStore`] is what openraft's core writes to, [`writer`] is the one thread that touches
//! the device, [`tail::Tail`] is the recent part of the log in memory, and [`reader::LogReader`] is
//! what replication and apply read.

mod device;
mod reader;
mod store;
mod tail;
mod writer;

pub use device::LogDevice;
pub(crate) use store::LogStore;
