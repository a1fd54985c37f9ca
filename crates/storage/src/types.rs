//! The values of this crate's door.

use alloy_primitives::{Address, B256, U256};
use blockraft_primitives::{
    Account, AdmissionId, Applied, CommittedBlock, NodeId, PoolChange, PoolRecord, limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who this data directory belongs to. Written once by [`crate::init`], never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster: a node of another cluster is refused by its peers.
    pub cluster_id: B256,
    /// This node within it.
    pub node_id: NodeId,
}

/// What an operator may choose about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// How many blocks below the head keep a readable state; `u64::MAX` keeps all of them.
    pub history_blocks: u64,
    /// Address space, and so the largest size, of each MDBX environment, bytes.
    pub map_bytes_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            history_blocks: limits::HISTORY_BLOCK_COUNT_DEFAULT,
            map_bytes_max: limits::MDBX_MAP_BYTES_MAX,
        }
    }
}

/// One step of the replicated state machine: what one or more applied log entries came to.
#[derive(Clone, Debug)]
pub struct AppliedStep {
    /// How far the state machine has come with this step.
    pub applied: Applied,
    /// The block that joined the chain, if one did: its number is the head's plus one.
    pub block: Option<CommittedBlock>,
    /// What happens to the stored pool, in order.
    pub pool: Vec<PoolChange>,
}

/// What was applied and is not yet on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Blocks.
    pub blocks: usize,
    /// Changed accounts and slots in them.
    pub keys: usize,
}

/// What one [`crate::Store::persist`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// How far the disk has come.
    pub applied: Applied,
    /// Blocks written by this call.
    pub blocks: usize,
    /// Changed accounts and slots in them, before coalescing.
    pub keys: usize,
}

/// Where a transaction is in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionLocation {
    /// Block number.
    pub block: u64,
    /// Place within the block, from 0.
    pub index: usize,
}

/// What `eth_getLogs` asks for. An empty list means anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// First block.
    pub from: u64,
    /// Last block, inclusive.
    pub to: u64,
    /// The log's address is one of these.
    pub addresses: Vec<Address>,
    /// The topic at each position is one of these.
    pub topics: [Vec<B256>; 4],
}

/// What [`crate::Store::for_each_account`] calls: hashed address, account, and its slots as hashed slot
/// and value, in order.
pub type AccountVisitor<'f> = dyn FnMut(B256, Account, &mut dyn Iterator<Item = (B256, U256)>) + 'f;

/// A snapshot on disk: chain, state and pool at one applied position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The state machine's position.
    pub applied: Applied,
    /// Number and hash of the last block in it.
    pub head: (u64, B256),
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// keccak256 of all of it but its last 32 bytes, which are this hash.
    pub hash: B256,
}

/// One entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Log index.
    pub index: u64,
    /// The entry, opaque here.
    pub bytes: Bytes,
}

/// Which entries the Raft log holds; both `None` when it holds none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBounds {
    /// Lowest index.
    pub first: Option<u64>,
    /// Highest index.
    pub last: Option<u64>,
}

/// The net effect of many [`PoolChange`]s on one stored record.
pub(crate) type PoolEffect<'a> = (AdmissionId, Option<&'a PoolRecord>);
