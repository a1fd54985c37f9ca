//! An open data directory: the door of this crate.

use crate::{
    AccountVisitor, AppliedStep, Backlog, Damage, Identity, LogQuery, Persisted, RaftLog,
    SnapshotFile, StateView, StorageError, StoreOptions, TransactionLocation,
    database::Database,
    datadir::{DataDir, DirLock, write_file},
    shard::{hash_address, shard_of},
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, U256};
use blockraft_primitives::{
    Account, Applied, ClusterGenesis, PoolChange, PoolRecord, SealedBlock, StateDiff, StateError,
};
use parking_lot::RwLock;
use std::{collections::BTreeSet, path::Path, sync::Arc};

/// Makes a data directory: block 0 and its state. Does nothing when it is there already with the same
/// genesis; the identity written first stays (compare [`Store::identity`]).
///
/// # Errors
/// [`StorageError::AnotherGenesis`] when the directory holds another chain, [`StorageError::Locked`]
/// when a process has it open.
pub fn init(
    datadir: &Path,
    genesis: &ClusterGenesis,
    identity: &Identity,
) -> Result<(), StorageError> {
    let _lock = DirLock::take(datadir)?;
    let dir = DataDir::new(datadir);
    if let Some(there) = dir.read_genesis()? {
        return match there.hash() == genesis.hash() {
            true => Ok(()),
            false => Err(dir.another_genesis(there.hash(), genesis.hash())),
        };
    }
    let built = dir.begin_init()?;
    Database::create(&built.generation(0), genesis, StoreOptions::default())?;
    built.write_identity(identity)?;
    built.write_genesis(genesis)?;
    // What is stored must be what was given, or the directory could never be opened.
    if built.read_genesis()?.is_none_or(|stored| stored.hash() != genesis.hash()) {
        return Err(StorageError::corrupt("genesis.json", "does not read back as it was given"));
    }
    fail::fail_point!("init-built", |_| Err(StorageError::Injected { point: "init-built" }));
    dir.adopt_init()
}

/// The genesis of the chain that a directory holds; `None` where there is no chain. Takes no lock.
pub fn read_genesis(datadir: &Path) -> Result<Option<ClusterGenesis>, StorageError> {
    DataDir::new(datadir).read_genesis()
}

/// An open data directory. A handle: clones share one store. All methods may be called from any
/// thread; [`Self::apply`] and [`Self::install_snapshot`] only by the one that runs the state machine.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dir: DataDir,
    pub(crate) genesis: Arc<ClusterGenesis>,
    identity: Identity,
    options: StoreOptions,
    log: RaftLog,
    /// Replaced when a snapshot is installed.
    database: RwLock<Arc<Database>>,
    lock: Arc<DirLock>,
}

impl Store {
    /// Opens with default options.
    pub fn open(datadir: &Path) -> Result<Self, StorageError> {
        Self::open_with(datadir, StoreOptions::default())
    }

    /// Takes the directory's lock and recovers from whatever the last process left.
    ///
    /// # Errors
    /// [`StorageError::Locked`] while another process (or another store of this one) has it open.
    pub fn open_with(datadir: &Path, options: StoreOptions) -> Result<Self, StorageError> {
        let dir = DataDir::new(datadir);
        if !datadir.exists() {
            return Err(dir.not_initialised());
        }
        let lock = Arc::new(DirLock::take(datadir)?);
        let genesis = Arc::new(dir.read_genesis()?.ok_or_else(|| dir.not_initialised())?);
        let identity = dir.read_identity()?;
        let current = dir.current()?;
        dir.remove_leftovers(current.number)?;
        let log = RaftLog::open(&dir.log(), options.map_bytes_max, lock.clone())?;
        let database = Database::open(current, genesis.clone(), options, lock.clone())?;
        let genesis = knowing_its_merge(genesis, &database)?;
        let database = RwLock::new(Arc::new(database));
        Ok(Self { inner: Arc::new(Inner { dir, genesis, identity, options, log, database, lock }) })
    }

    /// The chain's genesis. Its rules know the first block after proof of work, if it was there at the start.
    pub fn genesis(&self) -> &ClusterGenesis {
        &self.inner.genesis
    }

    /// Whose directory this is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The Raft log.
    pub fn raft_log(&self) -> RaftLog {
        self.inner.log.clone()
    }

    /// How far the state machine has come, in memory.
    pub fn applied(&self) -> Applied {
        self.database().live.read().applied.clone()
    }

    /// The stored pool as of [`Self::persisted`], sorted by id. For the start.
    pub fn pool_records(&self) -> Result<Vec<PoolRecord>, StorageError> {
        self.database().chain.pool()
    }

    /// Moves the state machine: visible at once, on disk with a later [`Self::persist`].
    ///
    /// # Panics
    /// When the block does not follow the head, or its diff is not sorted.
    pub fn apply(&self, step: AppliedStep) {
        self.database().apply(step);
    }

    /// Takes back every block above `to`, with all that speaks of them, and changes the pool: visible at
    /// once, and on disk when this returns. By the thread that calls [`Self::apply`] alone. Views of
    /// blocks that are no more answer [`StateError::UnknownBlock`] from then on.
    ///
    /// # Errors
    /// [`StorageError::Unwind`] when the history does not reach so far, or there is no such block.
    pub fn unwind(
        &self,
        to: u64,
        applied: Applied,
        pool: Vec<PoolChange>,
    ) -> Result<(), StorageError> {
        self.database().unwind(to, applied, pool)
    }

    /// What is applied and not yet on disk. It is for the caller to stop applying when this grows
    /// beyond [`blockraft_primitives::limits::OVERLAY_BLOCK_COUNT_MAX`].
    pub fn backlog(&self) -> Backlog {
        self.database().live.read().backlog
    }

    /// Writes what is queued, up to a bound: call it again while [`Self::backlog`] is not empty.
    /// On an error nothing is lost: it stays queued, and where [`StorageError::is_full`] the call may
    /// be repeated.
    pub fn persist(&self) -> Result<Persisted, StorageError> {
        self.database().persist()
    }

    /// As [`Self::persist`], but leaves what came behind the last block: what the pool took on there is mostly
    /// in the next block, and would be written only to be deleted again. Does nothing where no block waits.
    pub fn persist_blocks(&self) -> Result<Persisted, StorageError> {
        self.database().persist_blocks()
    }

    /// How far the disk has come, synced. The Raft log may be purged up to here at most.
    pub fn persisted(&self) -> Applied {
        self.database().durable.read().applied.clone()
    }

    /// The last block.
    pub fn head(&self) -> Sealed<Header> {
        self.database().live.read().head.clone()
    }

    /// The oldest block whose state can be read.
    pub fn oldest_state(&self) -> u64 {
        self.database().oldest_state()
    }

    /// The state at a block.
    ///
    /// # Errors
    /// [`StateError::UnknownBlock`] above the head, [`StateError::Pruned`] below the history.
    pub fn view(&self, number: u64) -> Result<StateView, StateError> {
        StateView::new(self.database(), number)
    }

    /// A block's header.
    pub fn header(&self, number: u64) -> Result<Option<Sealed<Header>>, StorageError> {
        self.database().header(number)
    }

    /// The number of the block with a hash.
    pub fn number_of(&self, hash: &B256) -> Result<Option<u64>, StorageError> {
        self.database().number_of(hash)
    }

    /// A whole block.
    pub fn block(&self, number: u64) -> Result<Option<Arc<SealedBlock>>, StorageError> {
        self.database().block(number)
    }

    /// Where a transaction is.
    pub fn transaction(&self, hash: &B256) -> Result<Option<TransactionLocation>, StorageError> {
        self.database().transaction(hash)
    }

    /// Blocks that may hold logs that a query asks for, ascending. All that do are among them. A
    /// block that meets the query's parts with different logs is among them too.
    pub fn blocks_with_logs(&self, query: &LogQuery) -> Result<Vec<u64>, StorageError> {
        self.database().blocks_with_logs(query)
    }

    /// The values at `number` of all that changed after it: on top of the head's state they give the
    /// state at `number`. More than `key_limit` changed keys count as pruned.
    pub fn changes_since(&self, number: u64, key_limit: usize) -> Result<StateDiff, StateError> {
        self.database().changes_since(number, key_limit)
    }

    /// What undoes one block that is on disk: what it changed, as it was before.
    ///
    /// # Errors
    /// [`StateError::Pruned`] below the history, and above what is on disk.
    pub fn reverse_diff(&self, number: u64) -> Result<StateDiff, StateError> {
        self.database().reverse_diff(number)
    }

    /// Walks the persisted state of one partition (first byte of the hashed address) in order of
    /// hashed keys, to build a trie of it. For the start, while nothing is queued; partitions may be
    /// walked by many threads at once.
    pub fn for_each_account(
        &self,
        partition: u8,
        visit: &mut AccountVisitor<'_>,
    ) -> Result<(), StorageError> {
        let database = self.database();
        let mut hashed = B256::ZERO;
        hashed[0] = partition;
        database.shard(&hashed).for_each_account(partition, visit)
    }

    /// As [`Self::for_each_account`], of the state after an earlier block, which must be on disk. May run
    /// beside everything else.
    ///
    /// # Errors
    /// [`StateError::Pruned`] below the history.
    pub fn for_each_account_at(
        &self,
        partition: u8,
        number: u64,
        visit: &mut AccountVisitor<'_>,
    ) -> Result<(), StateError> {
        let database = self.database();
        let mut hashed = B256::ZERO;
        hashed[0] = partition;
        database.shard(&hashed).for_each_account_at(partition, number, visit)
    }

    /// The persisted accounts with hashed addresses from `from` to `to`, inclusive, in order. Both lie in
    /// one partition.
    pub fn accounts_between(
        &self,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, Account),
    ) -> Result<(), StorageError> {
        self.database().shard(&from).accounts_between(&from, &to, visit)
    }

    /// The persisted slots of an account with hashes from `from` to `to`, inclusive, in order.
    pub fn slots_between(
        &self,
        account: B256,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, U256),
    ) -> Result<(), StorageError> {
        self.database().shard(&account).slots_between(&account, &from, &to, visit)
    }

    /// Records of one partition of the flat state that cannot be what was written, as far as one record by
    /// itself tells.
    pub fn damaged_records(&self, partition: u8) -> Vec<Damage> {
        let database = self.database();
        let mut damage = Vec::new();
        let shard = &database.shards[self.shard_of(partition)];
        shard.scan_partition(partition, &mut |_, _, _| {}, &mut damage);
        damage
    }

    /// The shard that holds a partition.
    pub fn shard_of(&self, partition: u8) -> usize {
        let mut hashed = B256::ZERO;
        hashed[0] = partition;
        shard_of(&hashed, self.database().shards.len())
    }

    /// The hashed addresses of accounts that changed and are not on disk as they are in memory; perhaps
    /// some more.
    pub fn unpersisted_accounts(&self) -> BTreeSet<B256> {
        let steps: Vec<_> = self.database().live.read().queue.iter().cloned().collect();
        let blocks = steps.iter().filter_map(|step| step.block.as_ref());
        blocks.flat_map(|b| &b.diff.accounts).map(|a| hash_address(&a.address)).collect()
    }

    pub(crate) fn dir(&self) -> &DataDir {
        &self.inner.dir
    }

    /// Keeps what a stopping node leaves of its state trie, in the place of an earlier one.
    pub fn write_trie_checkpoint(&self, bytes: &[u8]) -> Result<(), StorageError> {
        write_file(&self.inner.dir.trie_checkpoint(), bytes)
    }

    /// What was kept last. It may be damaged, and of any block.
    pub fn read_trie_checkpoint(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.inner.dir.trie_checkpoint();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::io(&path, error)),
        }
    }

    /// The last block that is on disk.
    pub fn persisted_head(&self) -> u64 {
        self.database().durable.read().head.0
    }

    /// Writes a snapshot of what is persisted, finishing first what an earlier failure left undone.
    pub fn write_snapshot(&self) -> Result<SnapshotFile, StorageError> {
        crate::snapshot::write(&self.inner.dir, &self.database())
    }

    /// The newest snapshot.
    pub fn latest_snapshot(&self) -> Result<Option<SnapshotFile>, StorageError> {
        crate::snapshot::latest(&self.inner.dir)
    }

    /// A piece of the newest snapshot, for one who fetches it: up to `len` bytes from `offset`.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the newest snapshot is not the one with this hash any more.
    pub fn read_snapshot(
        &self,
        hash: &B256,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, StorageError> {
        crate::snapshot::read_piece(&self.inner.dir, hash, offset, len)
    }

    /// Replaces chain, state and pool by a snapshot's, wherever the file lies, and keeps it as the
    /// latest snapshot. All or nothing, whenever the process dies. Views taken before keep working.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when the file is not whole, [`StorageError::AnotherSnapshotGenesis`]
    /// when it is of another chain; nothing has changed then.
    pub fn install_snapshot(&self, file: &Path) -> Result<Applied, StorageError> {
        let inner = &self.inner;
        let old = self.database();
        // Nothing of the old generation is written from here on.
        let _writer = old.writer.lock();
        let new = crate::snapshot::install(&inner.dir, &old, file, inner.options, &inner.lock)?;
        let applied = new.durable.read().applied.clone();
        *inner.database.write() = Arc::new(new);
        // A persist that waits for the lock above finds nothing to do.
        old.live.write().queue.clear();
        // Nothing depends on this: opening removes what is left.
        if let Err(error) = old.generation.remove(old.shards.len()) {
            tracing::warn!(%error, "could not remove what the snapshot replaced");
        }
        Ok(applied)
    }

    fn database(&self) -> Arc<Database> {
        self.inner.database.read().clone()
    }
}

/// Where proof of work ends at a total difficulty, the chain knows at which height that was.
fn knowing_its_merge(
    genesis: Arc<ClusterGenesis>,
    database: &Database,
) -> Result<Arc<ClusterGenesis>, StorageError> {
    if genesis.spec.terminal_total_difficulty().is_none() {
        return Ok(genesis);
    }
    let Some(block) = database.merge_block()? else { return Ok(genesis) };
    let spec = genesis.spec.merged_at(Some(block));
    let spec = spec.map_err(|error| StorageError::corrupt("genesis.json", error.to_string()))?;
    Ok(Arc::new(ClusterGenesis { spec, ..ClusterGenesis::clone(&genesis) }))
}
