//! The Raft log: what an acknowledgement rests on, so every write is on disk when it returns.

use crate::{
    LogBounds, LogRecord, StorageError,
    codec::decode_u64,
    datadir::DirLock,
    env::{Env, WriteTx},
    tables::{FORMAT_VERSION, LOG_ENTRIES, LOG_META, LOG_TABLES},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use signet_libmdbx::SyncMode;
use std::{ops::Range, path::Path, sync::Arc};

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const VERSION: &[u8] = b"version";

/// Length of the checksum before each entry.
const CHECKSUM_BYTES: usize = 4;

/// The Raft log of a data directory. A handle: clones share one log, and see each other's writes.
#[derive(Clone, Debug)]
pub struct RaftLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    env: Env,
    /// Writers take turns; held while `meta` is read, written to disk and replaced.
    writer: Mutex<()>,
    /// What the disk says, but for `committed`, which may be newer here.
    meta: RwLock<Meta>,
    /// Keeps other processes away as long as the environment is open.
    _lock: Arc<DirLock>,
}

#[derive(Clone, Debug, Default)]
struct Meta {
    bounds: LogBounds,
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
    purged: Option<Purged>,
}

#[derive(Clone, Debug)]
struct Purged {
    index: u64,
    id: Vec<u8>,
}

impl RaftLog {
    pub(crate) fn open(
        path: &Path,
        map_bytes_max: usize,
        lock: Arc<DirLock>,
    ) -> Result<Self, StorageError> {
        let env = Env::open(path, LOG_TABLES, SyncMode::Durable, map_bytes_max)?;
        let meta = read_meta(&env)?;
        let inner = Inner { env, writer: Mutex::default(), meta: RwLock::new(meta), _lock: lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Appends entries; they are on disk when this returns.
    ///
    /// # Errors
    /// [`StorageError::LogGap`] when they do not follow the log: the last entry, or else the last one
    /// purged. An empty log that was never purged takes any first index.
    pub fn append(&self, entries: &[LogRecord]) -> Result<(), StorageError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let _writer = self.inner.writer.lock();
        let mut meta = self.inner.meta.read().clone();
        let mut expected = meta.next_index().unwrap_or(first.index);
        let tx = self.inner.env.write()?;
        {
            let mut table = tx.cursor(LOG_ENTRIES)?;
            let mut value = Vec::new();
            for entry in entries {
                if entry.index != expected {
                    return Err(StorageError::LogGap { got: entry.index, expected });
                }
                value.clear();
                value.extend_from_slice(&checksum(entry.index, &entry.bytes).to_be_bytes());
                value.extend_from_slice(&entry.bytes);
                table.append(&entry.index.to_be_bytes(), &value)?;
                expected += 1;
            }
        }
        put_committed(&tx, &meta)?;
        fail::fail_point!("log-append-before-commit", |_| Err(StorageError::Injected {
            point: "log-append-before-commit"
        }));
        tx.commit()?;
        meta.bounds.first.get_or_insert(first.index);
        meta.bounds.last = Some(last.index);
        self.publish(meta);
        Ok(())
    }

    /// Entries of a range of indices, in order: as many as there are and as fit in `bytes_max`, but at
    /// least one if the first index of the range is in the log.
    pub fn read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>, StorageError> {
        let tx = self.inner.env.read()?;
        let mut table = tx.cursor(LOG_ENTRIES)?;
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        let mut next = table.seek(&range.start.to_be_bytes())?;
        while let Some((key, value)) = next {
            let index = decode_u64("log entry key", &key)?;
            if index >= range.end {
                break;
            }
            if let Some(last) = records.last().filter(|last| last.index + 1 != index) {
                let place = format!("log entry {}", last.index + 1);
                return Err(StorageError::corrupt(place, "missing"));
            }
            let entry = decode_entry(index, &value)?;
            bytes += entry.len();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(LogRecord { index, bytes: entry });
            next = table.next()?;
        }
        Ok(records)
    }

    /// First and last index.
    pub fn bounds(&self) -> Result<LogBounds, StorageError> {
        Ok(self.inner.meta.read().bounds)
    }

    /// Deletes `index` and everything after it, durably.
    pub fn truncate_from(&self, index: u64) -> Result<(), StorageError> {
        let _writer = self.inner.writer.lock();
        let mut meta = self.inner.meta.read().clone();
        let Some((first, last)) = meta.bounds.first.zip(meta.bounds.last) else { return Ok(()) };
        if index > last {
            return Ok(());
        }
        let tx = self.inner.env.write()?;
        delete_entries(&tx, index.max(first)..last + 1)?;
        tx.commit()?;
        meta.bounds = if index <= first {
            LogBounds::default()
        } else {
            LogBounds { first: Some(first), last: Some(index - 1) }
        };
        self.publish(meta);
        Ok(())
    }

    /// Deletes everything up to and including `index`, and remembers `purged`, the id of that entry.
    /// The log may end before `index` (a snapshot took its place): it goes on behind it. An index
    /// below the last purged one changes nothing.
    pub fn purge_to(&self, index: u64, purged: &[u8]) -> Result<(), StorageError> {
        let _writer = self.inner.writer.lock();
        let mut meta = self.inner.meta.read().clone();
        if meta.purged.as_ref().is_some_and(|before| before.index > index) {
            return Ok(());
        }
        let tx = self.inner.env.write()?;
        if let Some((first, last)) = meta.bounds.first.zip(meta.bounds.last) {
            delete_entries(&tx, first..last.min(index) + 1)?;
            meta.bounds = if last <= index {
                LogBounds::default()
            } else {
                LogBounds { first: Some(first.max(index + 1)), last: Some(last) }
            };
        }
        tx.put(LOG_META, PURGED, &[&index.to_be_bytes(), purged].concat())?;
        tx.commit()?;
        meta.purged = Some(Purged { index, id: purged.to_owned() });
        self.publish(meta);
        Ok(())
    }

    /// The id that the last [`Self::purge_to`] was given.
    pub fn purged(&self) -> Option<Vec<u8>> {
        self.inner.meta.read().purged.as_ref().map(|purged| purged.id.clone())
    }

    /// Stores the vote, durably.
    pub fn save_vote(&self, vote: &[u8]) -> Result<(), StorageError> {
        let _writer = self.inner.writer.lock();
        let mut meta = self.inner.meta.read().clone();
        let tx = self.inner.env.write()?;
        tx.put(LOG_META, VOTE, vote)?;
        put_committed(&tx, &meta)?;
        tx.commit()?;
        meta.vote = Some(vote.to_owned());
        self.publish(meta);
        Ok(())
    }

    /// The vote last stored.
    pub fn read_vote(&self) -> Option<Vec<u8>> {
        self.inner.meta.read().vote.clone()
    }

    /// Remembers the committed id; it reaches the disk with the next append or vote. Raft finds it out
    /// again should it be lost.
    pub fn save_committed(&self, committed: &[u8]) -> Result<(), StorageError> {
        self.inner.meta.write().committed = Some(committed.to_owned());
        Ok(())
    }

    /// The committed id last remembered.
    pub fn read_committed(&self) -> Option<Vec<u8>> {
        self.inner.meta.read().committed.clone()
    }

    /// Flips a bit of a stored entry behind the checksum's back.
    #[cfg(test)]
    pub(crate) fn flip_bit(&self, index: u64, byte: usize) {
        let tx = self.inner.env.write().unwrap();
        let key = index.to_be_bytes();
        let mut value = tx.get(LOG_ENTRIES, &key).unwrap().unwrap().into_owned();
        value[byte] ^= 1;
        tx.put(LOG_ENTRIES, &key, &value).unwrap();
        tx.commit().unwrap();
    }

    /// Makes what a writer put on disk the current state; a newer committed id stays.
    fn publish(&self, meta: Meta) {
        let mut current = self.inner.meta.write();
        let committed = current.committed.take();
        *current = Meta { committed, ..meta };
    }
}

impl Meta {
    /// The index that an append must begin with; `None` where any will do.
    fn next_index(&self) -> Option<u64> {
        let purged = || self.purged.as_ref().map(|purged| purged.index);
        self.bounds.last.or_else(purged).map(|index| index + 1)
    }
}

fn read_meta(env: &Env) -> Result<Meta, StorageError> {
    check_version(env)?;
    let tx = env.read()?;
    let value = |key| Ok::<_, StorageError>(tx.get(LOG_META, key)?.map(|v| v.into_owned()));
    let purged = value(PURGED)?
        .map(|bytes| {
            let (index, id) = bytes
                .split_at_checked(8)
                .ok_or_else(|| StorageError::corrupt("log meta purged", "value is too short"))?;
            let index = decode_u64("log meta purged", index)?;
            Ok::<_, StorageError>(Purged { index, id: id.to_owned() })
        })
        .transpose()?;
    let mut table = tx.cursor(LOG_ENTRIES)?;
    let index = |record: Option<crate::env::Record<'_>>| {
        record.map(|(key, _)| decode_u64("log entry key", &key)).transpose()
    };
    let bounds = LogBounds { first: index(table.first()?)?, last: index(table.last()?)? };
    Ok(Meta { bounds, vote: value(VOTE)?, committed: value(COMMITTED)?, purged })
}

fn check_version(env: &Env) -> Result<(), StorageError> {
    let found = env.read()?.get(LOG_META, VERSION)?.map(|bytes| bytes.into_owned());
    let expected = FORMAT_VERSION.to_be_bytes();
    match found.as_deref() {
        Some(bytes) if bytes == expected => Ok(()),
        Some(bytes) => Err(StorageError::Version {
            place: env.path().display().to_string(),
            got: bytes.try_into().map_or(0, u32::from_be_bytes),
            expected: FORMAT_VERSION,
        }),
        None => {
            let tx = env.write()?;
            tx.put(LOG_META, VERSION, &expected)?;
            tx.commit()
        }
    }
}

fn put_committed(tx: &WriteTx<'_>, meta: &Meta) -> Result<(), StorageError> {
    meta.committed.as_ref().map_or(Ok(()), |committed| tx.put(LOG_META, COMMITTED, committed))
}

fn delete_entries(tx: &WriteTx<'_>, range: Range<u64>) -> Result<(), StorageError> {
    let mut table = tx.cursor(LOG_ENTRIES)?;
    for index in range {
        table.delete(&index.to_be_bytes())?;
    }
    Ok(())
}

fn decode_entry(index: u64, value: &[u8]) -> Result<Bytes, StorageError> {
    let place = || format!("log entry {index}");
    let (stored, entry) = value
        .split_at_checked(CHECKSUM_BYTES)
        .ok_or_else(|| StorageError::corrupt(place(), "shorter than its checksum"))?;
    let computed = checksum(index, entry);
    if stored != computed.to_be_bytes() {
        let problem = format!(
            "checksum is {computed:08x}, expected 0x{}",
            alloy_primitives::hex::encode(stored)
        );
        return Err(StorageError::corrupt(place(), problem));
    }
    Ok(Bytes::copy_from_slice(entry))
}

/// The index is part of it, so that an entry in the wrong place is found as well.
fn checksum(index: u64, entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_be_bytes()), entry)
}

#[cfg(test)]
mod tests;
