//! Everything BlockRaFT keeps on disk, over MDBX.
//!
//! **Door**: [`init`] makes a data directory, [`Store`] is an open one, [`RaftLog`] its log,
//! [`StateView`] the state at one block. All calls are synchronous: reads take microseconds,
//! [`RaftLog`] writes wait for the disk, [`Store::persist`] and the snapshot calls take as long as
//! they need. This crate starts no thread and reads no clock; shards are written beside one another on
//! the rayon pool in which a call is made.
//!
//! **Invariants**
//! - What [`RaftLog`] took is on disk when the call returns; everything else can be made again from it.
//! - A shard's marker tells the truth: it is written in the MDBX transaction of the data it speaks of.
//! - On disk, every shard is at the chain's head or ahead of it; opening takes back what is ahead.
//! - Applying changes what readers see at once and all at once: a view is of one block, for good.
//! - A snapshot, a generation or a file is there whole or not at all.
//! - MDBX environments are never opened with a writable map.
//!
//! **Terms**: an *environment* is one MDBX file; a *shard* the environment of a range of partitions; a
//! *marker* where a shard stands; the *overlay* what is applied and not on disk; the *history* what
//! keys held before blocks; a *trail* at which blocks a key changed; a *tombstone* the record of a key that
//! is no more and has a history; a *generation* one set of chain and shards, replaced whole by a snapshot.
//! What lies where: `tables.rs` and `datadir.rs`.

mod body;
mod chain;
mod changes;
mod codec;
mod damage;
mod database;
mod datadir;
mod env;
mod error;
mod evidence;
mod log_index;
mod maintenance;
mod overlay;
mod persist;
mod plain;
mod raft_log;
mod recent;
mod reverse;
mod shard;
mod snapshot;
mod store;
mod tables;
mod trail;
mod types;
mod unwind;
mod view;

pub use damage::Damage;
pub use error::StorageError;
pub use maintenance::{EnvironmentSize, Maintenance, TableSizes};
pub use plain::PlainTables;
pub use raft_log::RaftLog;
pub use shard::Scanned;
pub use store::{Store, init, read_genesis};
pub use types::{
    AccountVisitor, AppliedStep, Backlog, Identity, LogBounds, LogQuery, LogRecord, Persisted,
    SnapshotFile, StoreOptions, TransactionLocation,
};
pub use view::StateView;
