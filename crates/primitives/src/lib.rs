//! The values that cross a crate border, and their encodings.
//!
//! **Door**: everything is re-exported here; nothing below knows a clock, a file or a socket.
//!
//! **Invariants**: same value, same bytes, on every node; bytes that reach a disk or a wire carry a
//! version and are frozen by golden files in `testdata/`.
//!
//! **Terms**: an *entry* is in the Raft log, a *block* is sealed, a *diff* is what a block changes in
//! the state, an *admission id* is the place of a transaction among all that the cluster ever admitted.

mod account;
mod block;
mod chain_spec;
mod compact;
mod diff;
mod entry;
mod genesis;
mod id;
pub mod limits;
mod network;
mod partition_set;
mod payload_entry;
mod pool_record;
mod state;

pub use account::Account;
pub use block::{
    CommittedBlock, Receipt, SealedBlock, Transaction, bloom_of, receipts_root, transactions_root,
    without_sidecar,
};
pub use chain_spec::ChainSpec;
pub use diff::{AccountChange, AccountDiff, SlotChange, StateDiff};
pub use entry::{
    AdmitBatch, BlockEntry, DropReason, DroppedTransaction, ENTRY_VERSION, EntryError, LogEntry,
    decode_diff, decode_receipts, decode_transactions, encode_diff, encode_receipts,
    encode_transactions,
};
pub use genesis::{ClusterGenesis, ClusterOptions, GenesisError};
pub use id::{AdmissionId, Applied, LogPosition, NodeId, Tick};
pub use network::{UnknownNetwork, network};
pub use partition_set::PartitionSet;
pub use payload_entry::{ForkchoiceEntry, PayloadEntry};
pub use pool_record::{PoolChange, PoolRecord};
pub use state::{DiffIndex, DiffLayer, MemoryState, StateError, StateReader, WithDiffs};
