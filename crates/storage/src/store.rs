//! An open data directory.

use crate::{
    AppliedStep, Backlog, Identity, LogQuery, Persisted, RaftLog, SnapshotFile, StateView,
    StorageError, StoreOptions, TransactionLocation,
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, U256};
use blockraft_primitives::{
    Account, Applied, ClusterGenesis, PoolRecord, SealedBlock, StateDiff, StateError,
};
use std::{path::Path, sync::Arc};

/// Makes a data directory: block 0 and its state. Does nothing when it is there already with the same
/// genesis (the identity written first stays); errors with [`StorageError::AnotherGenesis`] else.
#[expect(unused_variables, reason = "signatures first")]
pub fn init(
    datadir: &Path,
    genesis: &ClusterGenesis,
    identity: &Identity,
) -> Result<(), StorageError> {
    unimplemented!()
}

/// An open data directory. A handle: clones share one store.
#[derive(Clone, Debug)]
pub struct Store {}

#[expect(unused_variables, reason = "signatures first")]
impl Store {
    /// Opens with default options.
    pub fn open(datadir: &Path) -> Result<Self, StorageError> {
        Self::open_with(datadir, StoreOptions::default())
    }
    /// Takes the directory's lock and recovers from whatever the last process left.
    pub fn open_with(datadir: &Path, options: StoreOptions) -> Result<Self, StorageError> {
        unimplemented!()
    }
    /// The chain's genesis.
    pub fn genesis(&self) -> &ClusterGenesis {
        unimplemented!()
    }
    /// Whose directory this is.
    pub fn identity(&self) -> &Identity {
        unimplemented!()
    }
    /// The Raft log.
    pub fn raft_log(&self) -> RaftLog {
        unimplemented!()
    }
    /// How far the state machine has come, in memory.
    pub fn applied(&self) -> Applied {
        unimplemented!()
    }
    /// The stored pool as of [`Self::persisted`], sorted by id. For the start.
    pub fn pool_records(&self) -> Result<Vec<PoolRecord>, StorageError> {
        unimplemented!()
    }
    /// Moves the state machine: visible at once, on disk with a later [`Self::persist`].
    ///
    /// # Panics
    /// When the block does not follow the head.
    pub fn apply(&self, step: AppliedStep) {
        unimplemented!()
    }
    /// What is applied and not yet on disk.
    pub fn backlog(&self) -> Backlog {
        unimplemented!()
    }
    /// Writes all that is queued. On an error nothing is lost: it stays queued.
    pub fn persist(&self) -> Result<Persisted, StorageError> {
        unimplemented!()
    }
    /// How far the disk has come.
    pub fn persisted(&self) -> Applied {
        unimplemented!()
    }
    /// The last block.
    pub fn head(&self) -> Sealed<Header> {
        unimplemented!()
    }
    /// The oldest block whose state can be read.
    pub fn oldest_state(&self) -> u64 {
        unimplemented!()
    }
    /// The state at a block.
    pub fn view(&self, number: u64) -> Result<StateView, StateError> {
        unimplemented!()
    }
    /// A block's header.
    pub fn header(&self, number: u64) -> Result<Option<Sealed<Header>>, StorageError> {
        unimplemented!()
    }
    /// The number of the block with a hash.
    pub fn number_of(&self, hash: &B256) -> Result<Option<u64>, StorageError> {
        unimplemented!()
    }
    /// A whole block.
    pub fn block(&self, number: u64) -> Result<Option<Arc<SealedBlock>>, StorageError> {
        unimplemented!()
    }
    /// Where a transaction is.
    pub fn transaction(&self, hash: &B256) -> Result<Option<TransactionLocation>, StorageError> {
        unimplemented!()
    }
    /// Blocks that may hold logs that a query asks for, ascending. All that do are among them.
    pub fn blocks_with_logs(&self, query: &LogQuery) -> Result<Vec<u64>, StorageError> {
        unimplemented!()
    }
    /// The values at `number` of all that changed after it: on top of the head's state they give the
    /// state at `number`. More than `key_limit` changed keys count as pruned.
    pub fn changes_since(&self, number: u64, key_limit: usize) -> Result<StateDiff, StateError> {
        unimplemented!()
    }
    /// Walks the persisted state of one partition in order of hashed keys, to build a trie of it.
    pub fn for_each_account(
        &self,
        partition: u8,
        f: &mut dyn FnMut(B256, Account, &mut dyn Iterator<Item = (B256, U256)>),
    ) -> Result<(), StorageError> {
        unimplemented!()
    }
    /// Writes a snapshot of what is persisted.
    pub fn write_snapshot(&self) -> Result<SnapshotFile, StorageError> {
        unimplemented!()
    }
    /// The newest snapshot.
    pub fn latest_snapshot(&self) -> Result<Option<SnapshotFile>, StorageError> {
        unimplemented!()
    }
    /// Replaces chain, state and pool by a snapshot's. Views taken before keep working.
    pub fn install_snapshot(&self, file: &Path) -> Result<Applied, StorageError> {
        unimplemented!()
    }
}
