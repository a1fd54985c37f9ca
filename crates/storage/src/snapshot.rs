//! Snapshots: chain, state, history and pool at one applied position, in one file.
//!
//! ```text
//! magic (8), header length (4), header (`ChainMeta`)
//! for the chain and then each shard, for each of its tables in the order of `tables.rs`:
//!     key length (4), value length (4), key, value   for each record, in key order
//!     0 (4)                                          after the last
//! keccak256 of all of the above (32)
//! ```
//! The file is written beside and renamed, so one with the right name is whole; who gets one from
//! elsewhere finds out by the hash. It is read in key order, so that tables are built by appending.

use crate::{
    SnapshotFile, StorageError, StoreOptions,
    chain::ChainMeta,
    database::Database,
    datadir::{self, DataDir, DirLock, Generation, TEMPORARY},
    env::{Env, ReadTx},
    tables::{CHAIN_TABLES, SHARD_TABLES, Table},
};
use alloy_primitives::{B256, Keccak256};
use signet_libmdbx::SyncMode;
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: [u8; 8] = *b"BRSNAP\0\0";
const EXTENSION: &str = "snapshot";
/// The newest stays for the next follower, the one before for a follower that is reading it.
const SNAPSHOTS_KEPT: usize = 2;
const BUFFER_BYTES: usize = 1 << 20;
/// A longer header is no header.
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// A longer key or value is not one of ours: see `env.rs`.
const FIELD_BYTES_MAX: u32 = 1 << 30;
/// Bytes of records put in one MDBX transaction while loading.
const LOAD_BYTES: usize = 64 << 20;
const HASH_BYTES: u64 = 32;

/// See [`crate::Store::write_snapshot`].
pub(crate) fn write(dir: &DataDir, database: &Database) -> Result<SnapshotFile, StorageError> {
    let writer = database.writer.lock();
    let meta = stand_still(database)?;
    if let Some(latest) = latest(dir)?.filter(|latest| latest.applied == meta.applied) {
        return Ok(latest);
    }
    // From here on these transactions see one position, whatever is persisted meanwhile.
    let chain = database.chain.env().read()?;
    let shards = database.shards.iter().map(|shard| shard.env().read());
    let shards = shards.collect::<Result<Vec<_>, _>>()?;
    drop(writer);

    let folder = dir.snapshots();
    fs::create_dir_all(&folder).map_err(|error| StorageError::io(&folder, error))?;
    let path = folder.join(file_name(&meta));
    let temporary = with_suffix(&path);
    let (hash, bytes) = {
        let mut out = HashingWriter::create(&temporary)?;
        out.write(&MAGIC)?;
        out.field(&meta.encode())?;
        out.tables(&chain, CHAIN_TABLES)?;
        shards.iter().try_for_each(|shard| out.tables(shard, SHARD_TABLES))?;
        out.finish()?
    };
    fail::fail_point!("snapshot-written", |_| Err(StorageError::Injected {
        point: "snapshot-written"
    }));
    datadir::rename(&temporary, &path)?;
    remove_old(dir)?;
    Ok(SnapshotFile { applied: meta.applied, head: meta.head, path, bytes, hash })
}

/// Makes all environments stand at the position on disk: an earlier call may have failed between
/// shards and chain.
fn stand_still(database: &Database) -> Result<ChainMeta, StorageError> {
    let meta = database.durable.read().clone();
    for shard in &database.shards {
        if shard.marker()?.is_none_or(|marker| marker.number != meta.head.0) {
            database.persist_locked()?;
            return Ok(database.durable.read().clone());
        }
    }
    Ok(meta)
}

/// See [`crate::Store::latest_snapshot`].
pub(crate) fn latest(dir: &DataDir) -> Result<Option<SnapshotFile>, StorageError> {
    finished(dir)?.last().map(|path| describe(path)).transpose()
}

/// See [`crate::Store::read_snapshot`].
pub(crate) fn read_piece(
    dir: &DataDir,
    hash: &B256,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, StorageError> {
    let Some(snapshot) = latest(dir)?.filter(|latest| latest.hash == *hash) else {
        return Err(StorageError::corrupt(
            format!("snapshot {hash}"),
            "is not the newest any more",
        ));
    };
    let read = || {
        let mut file = File::open(&snapshot.path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(len as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| StorageError::io(&snapshot.path, error))
}

/// Builds the next generation from a snapshot, and makes it the one that a restart opens.
pub(crate) fn install(
    dir: &DataDir,
    old: &Database,
    file: &Path,
    options: StoreOptions,
    lock: &Arc<DirLock>,
) -> Result<Database, StorageError> {
    let generation = dir.generation(old.generation.number + 1);
    datadir::remove_dir(&generation.root)?;
    let meta = load(file, &generation, old, options)?;
    fail::fail_point!("install-loaded", |_| Err(StorageError::Injected {
        point: "install-loaded"
    }));
    let new = Database::open(generation.clone(), old.genesis.clone(), options, lock.clone())?;
    keep(dir, file, &meta)?;
    datadir::sync_dir(&generation.root)?;
    datadir::sync_dir(dir.root())?;
    fail::fail_point!("install-before-switch", |_| Err(StorageError::Injected {
        point: "install-before-switch"
    }));
    dir.set_current(generation.number)?;
    fail::fail_point!("install-switched", |_| Err(StorageError::Injected {
        point: "install-switched"
    }));
    Ok(new)
}

/// Reads a snapshot into new environments, synced and closed when this returns.
fn load(
    file: &Path,
    generation: &Generation,
    old: &Database,
    options: StoreOptions,
) -> Result<ChainMeta, StorageError> {
    let mut input = HashingReader::open(file)?;
    let meta = input.header()?;
    let expected = old.genesis.hash();
    if meta.genesis != expected {
        return Err(StorageError::AnotherSnapshotGenesis { got: meta.genesis, expected });
    }
    if usize::from(meta.shards) != old.shards.len() {
        let problem = format!("{} state shards, expected {}", meta.shards, old.shards.len());
        return Err(input.corrupt(&problem));
    }
    let open =
        |path: &Path, tables| Env::open(path, tables, SyncMode::SafeNoSync, options.map_bytes_max);
    let chain = open(&generation.chain(), CHAIN_TABLES)?;
    input.tables(&chain, CHAIN_TABLES)?;
    let mut envs = vec![chain];
    for shard in 0..old.shards.len() {
        let env = open(&generation.shard(shard), SHARD_TABLES)?;
        input.tables(&env, SHARD_TABLES)?;
        envs.push(env);
    }
    input.finish()?;
    envs.iter().try_for_each(Env::sync)?;
    Ok(meta)
}

/// Reads some shards of a snapshot into new environments and passes the rest over; the hash over all is
/// checked. `expected` are the genesis hash and the number of shards.
pub(crate) fn load_shards(
    file: &Path,
    folder: &Generation,
    expected: (B256, u8),
    wanted: &[usize],
    options: StoreOptions,
) -> Result<ChainMeta, StorageError> {
    let mut input = HashingReader::open(file)?;
    let meta = input.header()?;
    if meta.genesis != expected.0 {
        return Err(StorageError::AnotherSnapshotGenesis {
            got: meta.genesis,
            expected: expected.0,
        });
    }
    if meta.shards != expected.1 {
        let problem = format!("{} state shards, expected {}", meta.shards, expected.1);
        return Err(input.corrupt(&problem));
    }
    CHAIN_TABLES.iter().try_for_each(|_| input.pass_over())?;
    for shard in 0..usize::from(meta.shards) {
        if !wanted.contains(&shard) {
            SHARD_TABLES.iter().try_for_each(|_| input.pass_over())?;
            continue;
        }
        let path = folder.shard(shard);
        let env = Env::open(&path, SHARD_TABLES, SyncMode::SafeNoSync, options.map_bytes_max)?;
        input.tables(&env, SHARD_TABLES)?;
    }
    input.finish()?;
    Ok(meta)
}

/// Makes an installed file one of this directory's snapshots.
fn keep(dir: &DataDir, file: &Path, meta: &ChainMeta) -> Result<(), StorageError> {
    let folder = dir.snapshots();
    fs::create_dir_all(&folder).map_err(|error| StorageError::io(&folder, error))?;
    let path = folder.join(file_name(meta));
    if path.exists() {
        return Ok(());
    }
    let temporary = with_suffix(&path);
    datadir::remove_dir(&temporary)?;
    if fs::hard_link(file, &temporary).is_err() {
        fs::copy(file, &temporary).map_err(|error| StorageError::io(&temporary, error))?;
    }
    let sync = || File::open(&temporary)?.sync_all();
    sync().map_err(|error| StorageError::io(&temporary, error))?;
    datadir::rename(&temporary, &path)?;
    remove_old(dir)
}

fn describe(path: &Path) -> Result<SnapshotFile, StorageError> {
    let meta = HashingReader::open(path)?.header()?;
    let trailer = || {
        let mut file = File::open(path)?;
        let bytes = file.seek(SeekFrom::End(-(HASH_BYTES as i64)))? + HASH_BYTES;
        let mut hash = [0; HASH_BYTES as usize];
        file.read_exact(&mut hash)?;
        Ok((bytes, B256::from(hash)))
    };
    let (bytes, hash) = trailer().map_err(|error| StorageError::io(path, error))?;
    Ok(SnapshotFile { applied: meta.applied, head: meta.head, path: path.to_owned(), bytes, hash })
}

/// Finished snapshots, oldest first: names sort by log index.
pub(crate) fn finished(dir: &DataDir) -> Result<Vec<PathBuf>, StorageError> {
    let folder = dir.snapshots();
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = datadir::list(&folder)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    Ok(paths)
}

fn remove_old(dir: &DataDir) -> Result<(), StorageError> {
    let paths = finished(dir)?;
    let surplus = paths.len().saturating_sub(SNAPSHOTS_KEPT);
    paths[..surplus].iter().try_for_each(|path| datadir::remove_dir(path))
}

fn file_name(meta: &ChainMeta) -> String {
    let index = meta.applied.position.map_or(0, |position| position.index);
    format!("{index:020}.{EXTENSION}")
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    name.into()
}

struct HashingWriter<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    hasher: Keccak256,
    bytes: u64,
}

impl<'a> HashingWriter<'a> {
    fn create(path: &'a Path) -> Result<Self, StorageError> {
        let file = File::create(path).map_err(|error| StorageError::io(path, error))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, file, hasher: Keccak256::new(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| StorageError::io(self.path, error))
    }

    fn length(&mut self, length: usize) -> Result<(), StorageError> {
        let length = u32::try_from(length).expect("no key or value is longer than 1 GiB");
        self.write(&length.to_be_bytes())
    }

    fn field(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.length(bytes.len())?;
        self.write(bytes)
    }

    fn tables(&mut self, tx: &ReadTx<'_>, tables: &[Table]) -> Result<(), StorageError> {
        for &table in tables {
            let mut cursor = tx.cursor(table)?;
            let mut next = cursor.first()?;
            while let Some((key, value)) = next {
                self.length(key.len())?;
                self.length(value.len())?;
                self.write(&key)?;
                self.write(&value)?;
                next = cursor.next()?;
            }
            self.length(0)?;
        }
        Ok(())
    }

    /// Adds the hash; the file is on disk when this returns.
    fn finish(mut self) -> Result<(B256, u64), StorageError> {
        let hash = self.hasher.finalize();
        let mut end = || {
            self.file.write_all(hash.as_slice())?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        end().map_err(|error| StorageError::io(self.path, error))?;
        Ok((hash, self.bytes + HASH_BYTES))
    }
}

struct HashingReader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    hasher: Keccak256,
}

impl<'a> HashingReader<'a> {
    fn open(path: &'a Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(|error| StorageError::io(path, error))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(Self { path, file, hasher: Keccak256::new() })
    }

    fn corrupt(&self, problem: &str) -> StorageError {
        StorageError::corrupt(format!("snapshot {}", self.path.display()), problem)
    }

    fn read_error(&self, error: io::Error) -> StorageError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.corrupt("it ends too early"),
            _ => StorageError::io(self.path, error),
        }
    }

    fn read(&mut self, length: usize) -> Result<Vec<u8>, StorageError> {
        // By what is there, not by what a damaged length claims.
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(length as u64).read_to_end(&mut bytes);
        read.map_err(|error| self.read_error(error))?;
        if bytes.len() != length {
            return Err(self.corrupt("it ends too early"));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn length(&mut self, limit: u32) -> Result<usize, StorageError> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes).map_err(|error| self.read_error(error))?;
        self.hasher.update(bytes);
        let length = u32::from_be_bytes(bytes);
        if length > limit {
            return Err(self.corrupt("a length is out of bounds"));
        }
        Ok(length as usize)
    }

    fn header(&mut self) -> Result<ChainMeta, StorageError> {
        if self.read(MAGIC.len())? != MAGIC {
            return Err(self.corrupt("not a snapshot"));
        }
        let length = self.length(HEADER_BYTES_MAX)?;
        let bytes = self.read(length)?;
        ChainMeta::decode(&bytes, &format!("snapshot {}", self.path.display()))
    }

    fn tables(&mut self, env: &Env, tables: &[Table]) -> Result<(), StorageError> {
        tables.iter().try_for_each(|table| while_true(|| self.records(env, *table)))
    }

    /// Reads a table without keeping it.
    fn pass_over(&mut self) -> Result<(), StorageError> {
        loop {
            let key_length = self.length(FIELD_BYTES_MAX)?;
            if key_length == 0 {
                return Ok(());
            }
            let value_length = self.length(FIELD_BYTES_MAX)?;
            self.read(key_length)?;
            self.read(value_length)?;
        }
    }

    /// Reads some records of a table; `false` after the last.
    fn records(&mut self, env: &Env, table: Table) -> Result<bool, StorageError> {
        let tx = env.write()?;
        let mut bytes = 0;
        let more = {
            let mut cursor = tx.cursor(table)?;
            loop {
                let key_length = self.length(FIELD_BYTES_MAX)?;
                if key_length == 0 {
                    break false;
                }
                let value_length = self.length(FIELD_BYTES_MAX)?;
                let key = self.read(key_length)?;
                let value = self.read(value_length)?;
                cursor.append(&key, &value).map_err(|error| match error {
                    // Keys out of order, too long, and the like: not what a table was.
                    StorageError::Mdbx { .. } | StorageError::TooLarge { .. } => {
                        self.corrupt(&format!("table {}: {error}", table.name))
                    }
                    error => error,
                })?;
                bytes += key_length + value_length;
                if bytes > LOAD_BYTES {
                    break true;
                }
            }
        };
        tx.commit()?;
        Ok(more)
    }

    /// Checks the hash, and that nothing follows it.
    fn finish(mut self) -> Result<(), StorageError> {
        let computed = std::mem::take(&mut self.hasher).finalize();
        let stored = self.read(HASH_BYTES as usize)?;
        if stored != computed.as_slice() {
            return Err(self.corrupt("its hash does not match its content"));
        }
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.corrupt("something follows its end")),
            Err(error) => Err(self.read_error(error)),
        }
    }
}

fn while_true(mut step: impl FnMut() -> Result<bool, StorageError>) -> Result<(), StorageError> {
    while step()? {}
    Ok(())
}
