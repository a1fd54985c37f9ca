//! What replication and apply read.

use super::{device::LogDevice, store::corrupt, tail::Tail};
use crate::{
    Spawner,
    codec::decode_entry,
    config::{APPEND_BYTES_MAX, APPLY_BYTES_MAX},
    types::{Entry, TypeConfig, Vote},
};
use blockraft_storage::{LogRecord, StorageError};
use futures::{Stream, stream};
use openraft::{OptionalSend, storage::RaftLogReader};
use parking_lot::Mutex;
use std::{
    fmt,
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

/// A handle to the log; cheap to clone.
#[derive(Clone)]
pub(crate) struct LogReader {
    device: Arc<dyn LogDevice>,
    tail: Arc<Mutex<Tail>>,
    spawner: Spawner,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    pub(super) fn new(
        device: Arc<dyn LogDevice>,
        tail: Arc<Mutex<Tail>>,
        spawner: Spawner,
    ) -> Self {
        Self { device, tail, spawner }
    }

    /// The entries of `range` that the log holds, in order, up to about `bytes_max`.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let read = self.tail.lock().read(range, bytes_max);
        if read.on_disk.is_empty() {
            return Ok(read.cached);
        }
        let end = read.on_disk.end;
        let mut entries = self.read_disk(read.on_disk, bytes_max).await?;
        // What memory holds may only follow if the disk part is complete.
        if entries.last().is_some_and(|entry| entry.log_id.index + 1 == end) {
            let bytes: usize = entries.iter().map(crate::codec::entry_bytes).sum();
            if bytes < bytes_max {
                entries.extend(read.cached);
            }
        }
        Ok(entries)
    }

    async fn read_disk(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let device = Arc::clone(&self.device);
        let read = self.spawner.tasks.spawn_blocking(move || {
            let records = device.read(range, bytes_max)?;
            let decode = |record: &LogRecord| {
                decode_entry(record.index, &record.bytes)
                    .map_err(|error| corrupt(&format!("log entry {}", record.index), &error))
            };
            records.iter().map(decode).collect::<Result<Vec<Entry>, StorageError>>()
        });
        read.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Like [`Self::read`], of a range that the log must hold: starts with its first entry.
    async fn read_from_start(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let start = range.start;
        let entries = self.read(range, bytes_max).await?;
        match entries.first() {
            // A batch with a hole in it would corrupt the receiver.
            Some(first) if first.log_id.index != start => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("log entry {start} is gone, the first is {}", first.log_id.index),
            )),
            _ => Ok(entries),
        }
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let range = to_range(&range);
        let mut entries = self.read(range.clone(), usize::MAX).await?;
        // Memory and disk meet in one read unless entries moved to disk in between.
        while let Some(last) = entries.last()
            && last.log_id.index + 1 < range.end
        {
            let more = self.read(last.log_id.index + 1..range.end, usize::MAX).await?;
            if more.is_empty() {
                break;
            }
            entries.extend(more);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read_from_start(start..end, APPEND_BYTES_MAX).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let pieces =
            stream::try_unfold((self.clone(), to_range(&range)), |(reader, rest)| async move {
                if rest.is_empty() {
                    return Ok::<_, io::Error>(None);
                }
                let entries = reader.read_from_start(rest.clone(), APPLY_BYTES_MAX).await?;
                let Some(last) = entries.last() else { return Ok(None) };
                let rest = last.log_id.index + 1..rest.end;
                Ok(Some((stream::iter(entries.into_iter().map(Ok)), (reader, rest))))
            });
        Box::pin(futures::TryStreamExt::try_flatten(pieces))
    }
}

fn to_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
