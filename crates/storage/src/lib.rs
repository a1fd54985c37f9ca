//! Everything BlockRaFT keeps on disk, over MDBX.
//!
//! **Door**: [`init`] makes a data directory, [`Store`] is an open one, [`RaftLog`] its log,
//! [`StateView`] the state at one block. All calls are synchronous; MDBX reads take microseconds,
//! [`RaftLog`] writes a sync to disk, [`Store::persist`] and the snapshot calls as long as they need.

mod error;
mod raft_log;
mod store;
mod types;
mod view;

pub use error::StorageError;
pub use raft_log::RaftLog;
pub use store::{Store, init};
pub use types::{
    AppliedStep, Backlog, Identity, LogBounds, LogQuery, LogRecord, Persisted, SnapshotFile,
    StoreOptions, TransactionLocation,
};
pub use view::StateView;
