//! What openraft's core writes to.

use super::{
    device::LogDevice,
    reader::LogReader,
    tail::{Tail, next_index},
    writer::{Job, Writer},
};
use crate::{
    Spawner,
    codec::{CodecError, decode, decode_entry, encode, encode_entry},
    config::LOG_WRITE_QUEUE_LEN_MAX,
    node::Failure,
    types::{Entry, LogId, TypeConfig, Vote},
};
use blockraft_storage::{LogRecord, StorageError};
use openraft::{
    OptionalSend,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use parking_lot::Mutex;
use std::{io, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// The log of one member. Dropping it ends its writer.
#[derive(Debug)]
pub(crate) struct LogStore {
    reader: LogReader,
    tail: Arc<Mutex<Tail>>,
    jobs: mpsc::Sender<Job>,
}

impl LogStore {
    /// Reads where the log stands and starts its writer. Blocks on the disk.
    pub(crate) fn open(
        device: Arc<dyn LogDevice>,
        spawner: Spawner,
        failure: Failure,
    ) -> Result<Self, StorageError> {
        let tail = Arc::new(Mutex::new(read_tail(&*device)?));
        let (sender, jobs) = mpsc::channel(LOG_WRITE_QUEUE_LEN_MAX);
        let writer = Writer { device: Arc::clone(&device), tail: Arc::clone(&tail), failure, jobs };
        spawner.tasks.spawn_blocking(move || writer.run());
        let reader = LogReader::new(device, Arc::clone(&tail), spawner);
        Ok(Self { reader, tail, jobs: sender })
    }

    async fn enqueue(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| stopped())
    }

    async fn perform(&self, job: Job, done: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        self.enqueue(job).await?;
        done.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the raft log has stopped after an earlier failure")
}

fn read_tail(device: &dyn LogDevice) -> Result<Tail, StorageError> {
    let purged: Option<LogId> = read_mark("purge mark", device.purged())?;
    let vote: Option<Vote> = read_mark("vote", device.read_vote())?;
    let committed: Option<LogId> = read_mark("commit mark", device.read_committed())?;
    let bounds = device.bounds()?;
    let last = match bounds.last {
        Some(last) => Some(read_log_id(device, last)?),
        None => None,
    };
    // The commit mark follows the entries to disk; one beyond them speaks of a log that was lost.
    let end = last.or(purged);
    let committed = committed.filter(|committed| Some(committed.index) <= end.map(|id| id.index));
    Ok(Tail::opened(bounds.first, last, purged, vote, committed))
}

fn read_mark<T: serde::de::DeserializeOwned>(
    name: &'static str,
    bytes: Option<Vec<u8>>,
) -> Result<Option<T>, StorageError> {
    bytes.map(|bytes| decode(&bytes)).transpose().map_err(|error| corrupt(name, &error))
}

fn read_log_id(device: &dyn LogDevice, index: u64) -> Result<LogId, StorageError> {
    let place = format!("log entry {index}");
    let records = device.read(index..index + 1, usize::MAX)?;
    let Some(record) = records.first() else {
        return Err(StorageError::Corrupt { place, problem: "missing".to_owned() });
    };
    let entry = decode_entry(index, &record.bytes).map_err(|error| corrupt(&place, &error))?;
    Ok(entry.log_id)
}

pub(super) fn corrupt(place: &str, error: &CodecError) -> StorageError {
    StorageError::Corrupt { place: place.to_owned(), problem: error.to_string() }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, saved) = oneshot::channel();
        self.perform(Job::Vote { vote: encode(vote), done }, saved).await?;
        self.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        self.tail.lock().committed = Some(committed);
        self.enqueue(Job::Committed { mark: encode(&committed) }).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.tail.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = {
            let mut tail = self.tail.lock();
            let mut records = Vec::new();
            for entry in entries {
                let bytes = encode_entry(&entry);
                records.push(LogRecord { index: entry.log_id.index, bytes });
                tail.push(entry);
            }
            records
        };
        self.enqueue(Job::Append { records, callback }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = next_index(&last_log_id);
        self.tail.lock().truncate_after(last_log_id);
        let (done, cut) = oneshot::channel();
        self.perform(Job::Truncate { from, done }, cut).await?;
        // Appends that were on their way have reported since: what they said is cut off again.
        self.tail.lock().truncate_after(last_log_id);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        if !self.tail.lock().purge(log_id) {
            return Ok(());
        }
        self.enqueue(Job::Purge { index: log_id.index, mark: encode(&log_id) }).await
    }
}
