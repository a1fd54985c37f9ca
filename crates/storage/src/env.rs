//! One MDBX environment: the only file that calls MDBX.
//!
//! The binding does not check sizes in release builds and the C code aborts on a bad one, so every
//! key and value passes [`check`]. Read transactions are pooled, because beginning one costs as much
//! as a lookup; an MDBX commit of this process empties the pool, so none pins old pages for long.

use crate::{StorageError, datadir::sync_dir, tables::Table};
use parking_lot::Mutex;
use signet_libmdbx::{
    Database, DatabaseFlags, Environment, EnvironmentFlags, Geometry, MdbxError, Mode, ReadError,
    Ro, Rw, SyncMode, TransactionKind, TxUnsync, WriteFlags,
    sys::PageSize,
    tx::{Cursor, PtrUnsync},
};
use std::{
    borrow::Cow,
    cell::Cell,
    fmt, fs,
    path::{Path, PathBuf},
};

/// MDBX would take 2022 bytes at this page size; no table of ours comes near.
const KEY_BYTES_MAX: usize = 512;
/// MDBX would take 2 GiB; a larger value than this is a fault of ours.
const VALUE_BYTES_MAX: usize = 1 << 30;
/// Fixed, so that a directory can move between machines.
const PAGE_BYTES: usize = 4096;
/// By how much a file grows at once.
const GROWTH_BYTES: isize = 16 << 20;
/// More readers at once than any configuration has threads.
const READERS_MAX: u64 = 2048;
/// Idle read transactions kept.
const IDLE_READERS_MAX: usize = 64;

/// A key and value as MDBX holds them.
pub(crate) type Record<'tx> = (Cow<'tx, [u8]>, Cow<'tx, [u8]>);

/// An open environment.
pub(crate) struct Env {
    path: PathBuf,
    databases: Vec<Database>,
    readers: Mutex<Readers>,
    /// After the pooled transactions above in drop order.
    environment: Environment,
}

#[derive(Default)]
struct Readers {
    /// Counts MDBX commits; a transaction begun under an older count is not pooled.
    epoch: u64,
    idle: Vec<Reader>,
}

struct Reader {
    tx: TxUnsync<Ro>,
    epoch: u64,
    note: Cell<Option<(u64, u64)>>,
}

/// A transaction: one consistent view of an environment.
pub(crate) struct Tx<'e, K: TransactionKind<Access = PtrUnsync>> {
    env: &'e Env,
    tx: TxUnsync<K>,
}

/// A read transaction on loan from the pool.
pub(crate) struct ReadTx<'e> {
    env: &'e Env,
    reader: Option<Reader>,
}

/// How much a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableSize {
    /// Records.
    pub(crate) entries: u64,
    /// Bytes of its pages.
    pub(crate) bytes: u64,
}

/// The write transaction of an environment.
pub(crate) type WriteTx<'e> = Tx<'e, Rw>;

impl Env {
    /// Opens an environment and its tables, making what is not there.
    pub(crate) fn open(
        path: &Path,
        tables: &[Table],
        sync: SyncMode,
        map_bytes_max: usize,
    ) -> Result<Self, StorageError> {
        fs::create_dir_all(path).map_err(|error| StorageError::io(path, error))?;
        let error = |source| mdbx_error(path, "open", source);
        let environment = Environment::builder()
            .set_max_dbs(tables.len())
            .set_max_readers(READERS_MAX)
            .set_geometry(Geometry {
                size: Some(0..map_bytes_max),
                growth_step: Some(GROWTH_BYTES),
                shrink_threshold: None,
                page_size: Some(PageSize::Set(PAGE_BYTES)),
            })
            .set_flags(EnvironmentFlags {
                mode: Mode::ReadWrite { sync_mode: sync },
                // Keys are hashes: what lies next to a page says nothing about what is read next.
                no_rdahead: true,
                ..Default::default()
            })
            .open(path)
            .map_err(error)?;
        let tx = environment.begin_rw_unsync().map_err(error)?;
        let databases = tables
            .iter()
            .enumerate()
            .map(|(slot, table)| {
                assert_eq!(slot, table.slot, "table {} is listed in its slot", table.name);
                tx.create_db(Some(table.name), DatabaseFlags::empty()).map_err(error)
            })
            .collect::<Result<_, _>>()?;
        tx.commit().map_err(error)?;
        sync_dir(path)?;
        Ok(Self { path: path.to_owned(), databases, readers: Mutex::default(), environment })
    }

    /// The environment's directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a read transaction, or takes an idle one that sees the newest data.
    pub(crate) fn read(&self) -> Result<ReadTx<'_>, StorageError> {
        let epoch = {
            let mut readers = self.readers.lock();
            if let Some(reader) = readers.idle.pop() {
                return Ok(ReadTx { env: self, reader: Some(reader) });
            }
            readers.epoch
        };
        let tx = self.environment.begin_ro_unsync().map_err(|e| self.error("begin read", e))?;
        Ok(ReadTx { env: self, reader: Some(Reader { tx, epoch, note: Cell::new(None) }) })
    }

    /// Begins the write transaction; waits for another one to end.
    pub(crate) fn write(&self) -> Result<WriteTx<'_>, StorageError> {
        let tx = self.environment.begin_rw_unsync().map_err(|e| self.error("begin write", e))?;
        Ok(Tx { env: self, tx })
    }

    /// Flushes everything MDBX committed to disk.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.environment.sync(true).map(drop).map_err(|e| self.error("sync", e))
    }

    fn error(&self, action: &'static str, source: MdbxError) -> StorageError {
        mdbx_error(&self.path, action, source)
    }

    fn read_error(&self, action: &'static str, error: ReadError) -> StorageError {
        match error {
            ReadError::Mdbx(source) => self.error(action, source),
            // Bytes are read as bytes; the binding has nothing to decode.
            ReadError::Decoding(source) => {
                StorageError::corrupt(self.path.display().to_string(), source.to_string())
            }
        }
    }

    fn database(&self, table: Table) -> Database {
        self.databases[table.slot]
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ReadTx<'_> {
    /// The value under a key.
    pub(crate) fn get(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Cow<'_, [u8]>>, StorageError> {
        get(self.env, &self.reader().tx, table, key)
    }

    /// A cursor over a table.
    pub(crate) fn cursor(&self, table: Table) -> Result<TableCursor<'_, Ro>, StorageError> {
        cursor(self.env, &self.reader().tx, table)
    }

    /// How much a table holds.
    pub(crate) fn table_size(&self, table: Table) -> Result<TableSize, StorageError> {
        let stat = self.reader().tx.db_stat(&self.env.database(table));
        let stat = stat.map_err(|e| self.env.error("stat", e))?;
        let pages = stat.branch_pages() + stat.leaf_pages() + stat.overflow_pages();
        Ok(TableSize { entries: stat.entries() as u64, bytes: (pages * PAGE_BYTES) as u64 })
    }

    /// Two numbers that the environment's owner derives from this view of the data, remembered as long
    /// as the transaction is reused.
    pub(crate) fn note(
        &self,
        derive: impl FnOnce(&Self) -> Result<(u64, u64), StorageError>,
    ) -> Result<(u64, u64), StorageError> {
        if let Some(note) = self.reader().note.get() {
            return Ok(note);
        }
        let note = derive(self)?;
        self.reader().note.set(Some(note));
        Ok(note)
    }

    fn reader(&self) -> &Reader {
        self.reader.as_ref().expect("taken only when dropped")
    }
}

impl Drop for ReadTx<'_> {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let mut readers = self.env.readers.lock();
        if reader.epoch == readers.epoch && readers.idle.len() < IDLE_READERS_MAX {
            readers.idle.push(reader);
        } else {
            // MDBX ends the transaction; the lock need not wait for that.
            drop(readers);
            drop(reader);
        }
    }
}

impl Tx<'_, Rw> {
    /// The value under a key.
    pub(crate) fn get(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Cow<'_, [u8]>>, StorageError> {
        get(self.env, &self.tx, table, key)
    }

    /// A cursor over a table.
    pub(crate) fn cursor(&self, table: Table) -> Result<TableCursor<'_, Rw>, StorageError> {
        cursor(self.env, &self.tx, table)
    }

    /// Puts a value.
    pub(crate) fn put(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check(table, key, value)?;
        self.tx
            .put(self.env.database(table), key, value, WriteFlags::empty())
            .map_err(|e| self.env.error("put", e))
    }

    /// Deletes a key; `false` when it was not there.
    pub(crate) fn delete(&self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        check(table, key, &[])?;
        self.tx.del(self.env.database(table), key, None).map_err(|e| self.env.error("delete", e))
    }

    /// Makes it all visible, and durable in a durable environment.
    pub(crate) fn commit(self) -> Result<(), StorageError> {
        let env = self.env;
        self.tx.commit().map_err(|e| env.error("commit", e))?;
        let idle = {
            let mut readers = env.readers.lock();
            readers.epoch += 1;
            std::mem::take(&mut readers.idle)
        };
        drop(idle);
        Ok(())
    }
}

fn get<'tx, K: TransactionKind<Access = PtrUnsync>>(
    env: &Env,
    tx: &'tx TxUnsync<K>,
    table: Table,
    key: &[u8],
) -> Result<Option<Cow<'tx, [u8]>>, StorageError> {
    check(table, key, &[])?;
    tx.get(env.database(table).dbi(), key).map_err(|e| env.read_error("get", e))
}

fn cursor<'tx, K: TransactionKind<Access = PtrUnsync>>(
    env: &'tx Env,
    tx: &'tx TxUnsync<K>,
    table: Table,
) -> Result<TableCursor<'tx, K>, StorageError> {
    let cursor = tx.cursor(env.database(table)).map_err(|e| env.error("cursor", e))?;
    Ok(TableCursor { env, table, cursor })
}

/// A cursor. Nearby keys are found without a walk from the root, so sorted work is cheap work.
pub(crate) struct TableCursor<'tx, K: TransactionKind> {
    env: &'tx Env,
    table: Table,
    cursor: Cursor<'tx, K>,
}

impl<'tx, K: TransactionKind> TableCursor<'tx, K> {
    /// The value under exactly this key.
    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Cow<'tx, [u8]>>, StorageError> {
        check(self.table, key, &[])?;
        self.cursor.set(key).map_err(|e| self.env.read_error("get", e))
    }

    /// The first record at or after this key.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<Option<Record<'tx>>, StorageError> {
        check(self.table, key, &[])?;
        self.cursor.set_range(key).map_err(|e| self.env.read_error("seek", e))
    }

    /// The first record of the table.
    pub(crate) fn first(&mut self) -> Result<Option<Record<'tx>>, StorageError> {
        self.cursor.first().map_err(|e| self.env.read_error("first", e))
    }

    /// The last record of the table.
    pub(crate) fn last(&mut self) -> Result<Option<Record<'tx>>, StorageError> {
        self.cursor.last().map_err(|e| self.env.read_error("last", e))
    }

    /// The record before the one that the cursor is at.
    pub(crate) fn previous(&mut self) -> Result<Option<Record<'tx>>, StorageError> {
        self.cursor.prev().map_err(|e| self.env.read_error("previous", e))
    }

    /// The record after the one that the cursor is at.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'tx>>, StorageError> {
        self.cursor.next().map_err(|e| self.env.read_error("next", e))
    }
}

impl TableCursor<'_, Rw> {
    /// Puts a value.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check(self.table, key, value)?;
        self.cursor.put(key, value, WriteFlags::UPSERT).map_err(|e| self.env.error("put", e))
    }

    /// Replaces the value of the record that the cursor is at, whose key this is.
    pub(crate) fn put_here(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check(self.table, key, value)?;
        self.cursor.put(key, value, WriteFlags::CURRENT).map_err(|e| self.env.error("put", e))
    }

    /// Deletes the record that the cursor is at.
    pub(crate) fn delete_here(&mut self) -> Result<(), StorageError> {
        self.cursor.del().map_err(|e| self.env.error("delete", e))
    }

    /// Puts a value behind all others of the table; the key must be the highest.
    pub(crate) fn append(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        check(self.table, key, value)?;
        self.cursor.append(key, value).map_err(|e| self.env.error("append", e))
    }

    /// Deletes a key; `false` when it was not there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool, StorageError> {
        check(self.table, key, &[])?;
        let found: Option<()> =
            self.cursor.set(key).map_err(|e| self.env.read_error("delete", e))?;
        if found.is_none() {
            return Ok(false);
        }
        self.delete_here()?;
        Ok(true)
    }
}

fn check(table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
    let too_large =
        |what, got, limit| StorageError::TooLarge { table: table.name, what, got, limit };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(too_large("key", key.len(), KEY_BYTES_MAX));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(too_large("value", value.len(), VALUE_BYTES_MAX));
    }
    Ok(())
}

/// `ENOSPC` and `EDQUOT`, as MDBX hands them through.
const NO_SPACE: i32 = 28;
const QUOTA_EXCEEDED: i32 = 122;

fn mdbx_error(path: &Path, action: &'static str, source: MdbxError) -> StorageError {
    let path = path.to_owned();
    match source {
        MdbxError::MapFull => StorageError::MapFull { path },
        MdbxError::Other(NO_SPACE | QUOTA_EXCEEDED) => StorageError::DiskFull { path },
        MdbxError::Corrupted | MdbxError::PageNotFound => {
            StorageError::corrupt(path.display().to_string(), source.to_string())
        }
        source => StorageError::Mdbx { path, action, source },
    }
}
