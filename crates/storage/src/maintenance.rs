//! A data directory that may be damaged, while no node runs over it: what `blockraft db` works with.
//!
//! Where [`crate::Store`] stops at the first thing that is wrong, this goes on and says what and where.
//! It rebuilds shards beside the old ones, from a snapshot or the genesis and the blocks since, and
//! puts them in their place.

use crate::{
    Damage, Identity, RaftLog, Scanned, StorageError, StoreOptions,
    chain::{Chain, ChainMeta},
    database::{HashedDiffs, recover},
    datadir::{self, DataDir, DirLock, Generation},
    env::Env,
    shard::{Marker, Shard, shard_of},
    snapshot,
    tables::{CHAIN_TABLES, LOG_TABLES, SHARD_TABLES, Table},
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, U256};
use blockraft_primitives::{Account, Applied, ClusterGenesis, StateDiff};
use serde::Serialize;
use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where shards are rebuilt, within the data directory.
const REBUILT: &str = "repair.tmp";
/// A snapshot from a peer, within the data directory.
const FETCHED: &str = "fetched.snapshot.tmp";
/// What the name of a shard ends with that was replaced.
const REPLACED: &str = ".damaged";
/// Headers whose hashes a quick check computes.
const HEADERS_CHECKED: u64 = 1024;

/// See the module.
#[derive(Debug)]
pub struct Maintenance {
    dir: DataDir,
    genesis: Arc<ClusterGenesis>,
    identity: Identity,
    options: StoreOptions,
    log: RaftLog,
    chain: Chain,
    meta: ChainMeta,
    head: Sealed<Header>,
    generation: Generation,
    /// What cannot be opened is told as its damage.
    shards: Vec<Result<Shard, String>>,
    /// Shards that [`Self::rebuild`] made, in the order of their numbers.
    rebuilt: Vec<Option<Shard>>,
    _lock: Arc<DirLock>,
}

/// Sizes of one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSize {
    /// `log`, `chain` or `state-NN`.
    pub name: String,
    /// Its file on disk.
    pub file_bytes: u64,
    /// Where it stands; `None` for the log and for what cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// The oldest block whose state it can show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_state: Option<u64>,
    /// In the order of `tables.rs`.
    pub tables: Vec<TableSizes>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Sizes of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableSizes {
    /// As in `tables.rs`.
    pub name: &'static str,
    /// Records.
    pub entries: u64,
    /// Bytes of its pages.
    pub bytes: u64,
}

impl Maintenance {
    /// Takes the directory's lock and opens what can be opened.
    ///
    /// # Errors
    /// [`StorageError::Locked`] while a node runs over it; whatever is wrong with the log or the chain,
    /// without which nothing can be said of the shards.
    pub fn open(datadir: &Path, options: StoreOptions) -> Result<Self, StorageError> {
        let dir = DataDir::new(datadir);
        if !datadir.exists() {
            return Err(dir.not_initialised());
        }
        let lock = Arc::new(DirLock::take(datadir)?);
        let genesis = Arc::new(dir.read_genesis()?.ok_or_else(|| dir.not_initialised())?);
        let identity = dir.read_identity()?;
        let generation = dir.current()?;
        datadir::remove_dir(&dir.root().join(REBUILT))?;
        datadir::remove_dir(&dir.root().join(FETCHED))?;
        let log = RaftLog::open(&dir.log(), options.map_bytes_max, lock.clone())?;
        let chain = Chain::open(&generation.chain(), options.map_bytes_max)?;
        let place = || generation.chain().display().to_string();
        let meta =
            chain.meta()?.ok_or_else(|| StorageError::corrupt(place(), "the chain is empty"))?;
        if meta.genesis != genesis.hash() {
            return Err(dir.another_genesis(meta.genesis, genesis.hash()));
        }
        let head = chain.header(meta.head.0)?.filter(|header| header.hash() == meta.head.1);
        let head =
            head.ok_or_else(|| StorageError::corrupt(place(), "the head block is missing"))?;
        let shards = (0..usize::from(meta.shards))
            .map(|index| {
                open_shard(&generation, index, &meta, options).map_err(|error| error.to_string())
            })
            .collect::<Vec<_>>();
        let rebuilt = shards.iter().map(|_| None).collect();
        Ok(Self {
            dir,
            genesis,
            identity,
            options,
            log,
            chain,
            meta,
            head,
            generation,
            shards,
            rebuilt,
            _lock: lock,
        })
    }

    /// The chain's genesis.
    pub fn genesis(&self) -> &ClusterGenesis {
        &self.genesis
    }

    /// Whose directory this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The Raft log.
    pub fn raft_log(&self) -> &RaftLog {
        &self.log
    }

    /// The last block on disk, at which all shards stand.
    pub fn head(&self) -> &Sealed<Header> {
        &self.head
    }

    /// How far the state machine on disk has come.
    pub fn applied(&self) -> &Applied {
        &self.meta.applied
    }

    /// The hash of a block.
    pub fn block_hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        self.chain.hash(number)
    }

    /// State shards of this directory.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a partition.
    pub fn shard_of(&self, partition: u8) -> usize {
        let mut hashed = B256::ZERO;
        hashed[0] = partition;
        shard_of(&hashed, self.shards.len())
    }

    /// Sizes of all environments.
    pub fn sizes(&self) -> Vec<EnvironmentSize> {
        let log = size_of_env("log".to_owned(), &self.dir.log(), self.log.env(), LOG_TABLES);
        let chain = self.generation.chain();
        let mut chain = size_of_env("chain".to_owned(), &chain, self.chain.env(), CHAIN_TABLES);
        chain.block = Some(self.meta.head.0);
        let shards = self.shards.iter().enumerate().map(|(index, shard)| {
            let (name, path) = (format!("state-{index:02}"), self.generation.shard(index));
            match shard {
                Ok(shard) => {
                    let marker = shard.marker().ok().flatten();
                    let size = size_of_env(name, &path, shard.env(), SHARD_TABLES);
                    let block = marker.map(|marker| marker.number);
                    let oldest_state = marker.map(|marker| marker.oldest);
                    EnvironmentSize { block, oldest_state, ..size }
                }
                Err(problem) => EnvironmentSize {
                    name,
                    file_bytes: file_bytes(&path),
                    block: None,
                    oldest_state: None,
                    tables: Vec::new(),
                    problem: Some(problem.clone()),
                },
            }
        });
        [log, chain].into_iter().chain(shards).collect()
    }

    /// What a quick look finds: shards that cannot be opened or stand at another block than the chain, and
    /// headers that are not what they are stored under.
    pub fn check(&self) -> Vec<Damage> {
        let mut damage: Vec<Damage> = self
            .shards
            .iter()
            .enumerate()
            .filter(|(index, _)| self.rebuilt[*index].is_none())
            .filter_map(|(index, shard)| Some((index, shard.as_ref().err()?)))
            .map(|(index, problem)| Damage::of_shard(index, problem))
            .collect();
        let mut child: Option<Sealed<Header>> = None;
        for number in (self.head.number.saturating_sub(HEADERS_CHECKED)..=self.head.number).rev() {
            let wrong = |problem: &str| Damage {
                table: Some("headers"),
                block: Some(number),
                ..Damage::of_chain(problem)
            };
            match self.chain.header(number) {
                Err(error) => damage.push(wrong(&error.to_string())),
                Ok(None) => damage.push(wrong("missing")),
                Ok(Some(header)) => {
                    if header.hash_slow() != header.hash() {
                        damage.push(wrong("is not what its hash says"));
                    }
                    if child.is_some_and(|child| child.parent_hash != header.hash()) {
                        damage.push(wrong("is not the parent of the block after it"));
                    }
                    child = Some(header);
                }
            }
        }
        damage
    }

    /// Reads one partition in distrust: `visit` gets the accounts whose records are whole, with their
    /// slots, in order. Damage of a shard that cannot be opened is told by [`Self::check`].
    pub fn scan_partition(
        &self,
        partition: u8,
        visit: &mut dyn FnMut(B256, Account, Vec<(B256, U256)>),
        damage: &mut Vec<Damage>,
    ) -> Scanned {
        match self.serving(self.shard_of(partition)) {
            Some(shard) => shard.scan_partition(partition, visit, damage),
            None => Scanned::default(),
        }
    }

    /// Checks what of a shard is not flat state; `scanned` is the sum over its partitions.
    pub fn scan_rest(&self, shard: usize, scanned: Scanned) -> Vec<Damage> {
        self.serving(shard).map(|shard| shard.scan_rest(scanned)).unwrap_or_default()
    }

    /// Snapshots of this directory, newest first.
    pub fn snapshots(&self) -> Result<Vec<PathBuf>, StorageError> {
        let mut paths = snapshot::finished(&self.dir)?;
        paths.reverse();
        Ok(paths)
    }

    /// Writes a piece of a snapshot that comes from a peer; the one at 0 begins a new file. Returns where
    /// it lies: it is deleted when the directory is opened again.
    pub fn keep_fetched(&self, offset: u64, bytes: &[u8]) -> Result<PathBuf, StorageError> {
        let path = self.dir.root().join(FETCHED);
        let write = || {
            let mut options = fs::File::options();
            options.write(true).create(true).truncate(offset == 0);
            let mut file = options.open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        };
        write().map_err(|error| StorageError::io(&path, error))?;
        Ok(path)
    }

    /// Builds some shards anew, beside the old ones: as they are in a snapshot, or without one as they
    /// are at genesis. Returns the state machine's position there; from now on scans read these.
    ///
    /// # Errors
    /// The snapshot is damaged or of another chain; nothing has changed then.
    pub fn rebuild(
        &mut self,
        shards: &[usize],
        from: Option<&Path>,
    ) -> Result<Applied, StorageError> {
        self.forget_rebuilt()?;
        let folder = Generation { number: 0, root: self.dir.root().join(REBUILT) };
        let position = match from {
            Some(file) => {
                let expected = (self.genesis.hash(), self.meta.shards);
                let meta = snapshot::load_shards(file, &folder, expected, shards, self.options)?;
                let known = self.chain.hash(meta.head.0)?;
                if known.is_some_and(|known| known != meta.head.1) {
                    let problem = format!("its block {} is not the chain's", meta.head.0);
                    let place = format!("snapshot {}", file.display());
                    return Err(StorageError::corrupt(place, problem));
                }
                meta.applied
            }
            None => {
                self.write_genesis(&folder, shards)?;
                Applied::default()
            }
        };
        for &index in shards {
            let count = self.shards.len();
            let path = folder.shard(index);
            let shard = Shard::open(&path, index, count, self.options.map_bytes_max)?;
            if shard.marker()?.is_some_and(|marker| marker.number > self.head.number) {
                shard.unwind(self.head.number, self.head.hash())?;
            }
            self.rebuilt[index] = Some(shard);
        }
        Ok(position)
    }

    fn write_genesis(&self, folder: &Generation, shards: &[usize]) -> Result<(), StorageError> {
        let state = self.genesis.state();
        let hashed = HashedDiffs::new(vec![(0, &state)]);
        let mut work = hashed.divide(self.shards.len());
        for &index in shards {
            work[index].sort();
            let count = self.shards.len();
            let path = folder.shard(index);
            let shard = Shard::open(&path, index, count, self.options.map_bytes_max)?;
            let marker = Marker { number: 0, hash: self.genesis.hash(), oldest: 0 };
            shard.write(&work[index].changes, &work[index].codes, marker)?;
        }
        Ok(())
    }

    /// The block that every shard made by [`Self::rebuild`] has reached; `None` when there is none.
    pub fn rebuilt_to(&self) -> Result<Option<u64>, StorageError> {
        let mut reached = None;
        for shard in self.rebuilt.iter().flatten() {
            let number = shard.marker()?.map_or(0, |marker| marker.number);
            reached = Some(reached.map_or(number, |reached: u64| reached.min(number)));
        }
        Ok(reached)
    }

    /// Brings rebuilt shards further: `blocks` are numbers, hashes and diffs, in order.
    pub fn roll_forward(&self, blocks: &[(u64, B256, StateDiff)]) -> Result<(), StorageError> {
        let Some(&(number, hash, _)) = blocks.last() else { return Ok(()) };
        let diffs: Vec<(u64, &StateDiff)> = blocks.iter().map(|(n, _, diff)| (*n, diff)).collect();
        let hashed = HashedDiffs::new(diffs);
        for (shard, mut work) in self.rebuilt.iter().zip(hashed.divide(self.shards.len())) {
            let Some(shard) = shard else { continue };
            work.sort();
            let oldest = shard.marker()?.map_or(0, |marker| marker.oldest);
            shard.write(&work.changes, &work.codes, Marker { number, hash, oldest })?;
        }
        Ok(())
    }

    /// Where the flat state of a damaged shard differs from the rebuilt one.
    pub fn compare(&self, shard: usize) -> Vec<Damage> {
        match (&self.shards[shard], &self.rebuilt[shard]) {
            (Ok(damaged), Some(right)) => damaged.compare(right),
            _ => Vec::new(),
        }
    }

    /// Puts the rebuilt shards in the place of the old ones, which are deleted. Whenever the process
    /// dies, each shard is there whole, or missing and so found by [`Self::check`].
    pub fn adopt(&mut self) -> Result<(), StorageError> {
        for index in 0..self.shards.len() {
            let Some(shard) = self.rebuilt[index].take() else { continue };
            shard.env().sync()?;
            let built = shard.env().path().to_owned();
            // Both must be closed before they are moved.
            drop(shard);
            self.shards[index] = Err("is being replaced".to_owned());
            let place = self.generation.shard(index);
            let mut aside = place.as_os_str().to_owned();
            aside.push(REPLACED);
            let aside = PathBuf::from(aside);
            datadir::remove_dir(&aside)?;
            if place.exists() {
                fs::rename(&place, &aside).map_err(|error| StorageError::io(&place, error))?;
            }
            datadir::rename(&built, &place)?;
            datadir::remove_dir(&aside)?;
            let opened = open_shard(&self.generation, index, &self.meta, self.options)?;
            self.shards[index] = Ok(opened);
        }
        self.forget_rebuilt()
    }

    /// Deletes what [`Self::rebuild`] made; scans read the shards in use again.
    pub fn forget_rebuilt(&mut self) -> Result<(), StorageError> {
        self.rebuilt.fill_with(|| None);
        datadir::remove_dir(&self.dir.root().join(REBUILT))
    }

    /// The rebuilt shard if there is one, the one in use if it can be read.
    fn serving(&self, index: usize) -> Option<&Shard> {
        self.rebuilt[index].as_ref().or_else(|| self.shards[index].as_ref().ok())
    }
}

fn open_shard(
    generation: &Generation,
    index: usize,
    meta: &ChainMeta,
    options: StoreOptions,
) -> Result<Shard, StorageError> {
    let path = generation.shard(index);
    if !path.join(DATA_FILE).exists() {
        return Err(StorageError::corrupt(format!("state shard {index}"), "its file is missing"));
    }
    let shard = Shard::open(&path, index, usize::from(meta.shards), options.map_bytes_max)?;
    recover(&shard, index, meta.head)?;
    Ok(shard)
}

/// The file of an MDBX environment.
const DATA_FILE: &str = "mdbx.dat";

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path.join(DATA_FILE)).map_or(0, |data| data.len())
}

fn size_of_env(name: String, path: &Path, env: &Env, tables: &[Table]) -> EnvironmentSize {
    let sizes = || {
        let tx = env.read()?;
        let size = |table: &Table| {
            let size = tx.table_size(*table)?;
            Ok(TableSizes { name: table.name, entries: size.entries, bytes: size.bytes })
        };
        tables.iter().map(size).collect::<Result<Vec<_>, StorageError>>()
    };
    let (tables, problem) = match sizes() {
        Ok(tables) => (tables, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let file_bytes = file_bytes(path);
    EnvironmentSize { name, file_bytes, block: None, oldest_state: None, tables, problem }
}
