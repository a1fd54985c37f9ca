//! The thread that writes the log: group commit, in order.

use super::{device::LogDevice, tail::Tail};
use crate::{
    config::LOG_WRITE_BYTES_MAX, error::RaftError, metric, node::Failure, types::TypeConfig,
};
use blockraft_storage::{LogRecord, StorageError};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use std::{io, sync::Arc};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// A write, in the order in which Raft asked for it.
pub(super) enum Job {
    /// Durable before the callback fires.
    Append { records: Vec<LogRecord>, callback: IOFlushed<TypeConfig> },
    /// Durable before `done`.
    Vote { vote: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    /// Durable before `done`.
    Truncate { from: u64, done: oneshot::Sender<io::Result<()>> },
    /// Nobody waits.
    Purge { index: u64, mark: Vec<u8> },
    /// Nobody waits.
    Committed { mark: Vec<u8> },
}

/// Runs until the store is dropped.
pub(super) struct Writer {
    pub(super) device: Arc<dyn LogDevice>,
    pub(super) tail: Arc<Mutex<Tail>>,
    pub(super) failure: Failure,
    pub(super) jobs: mpsc::Receiver<Job>,
}

/// Appends that become one durable write.
#[derive(Default)]
struct Group {
    records: Vec<LogRecord>,
    bytes: usize,
    callbacks: Vec<IOFlushed<TypeConfig>>,
}

impl Writer {
    /// The thread's body.
    pub(super) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(job) = next {
                if let Err(error) = self.take(job, &mut group) {
                    return self.fail(error, group);
                }
                next = if group.bytes < LOG_WRITE_BYTES_MAX {
                    self.jobs.try_recv().ok()
                } else {
                    None
                };
            }
            if let Err(error) = self.flush(&mut group) {
                return self.fail(error, group);
            }
        }
    }

    fn take(&self, job: Job, group: &mut Group) -> Result<(), StorageError> {
        match job {
            Job::Append { records, callback } => {
                group.bytes += records.iter().map(|record| record.bytes.len()).sum::<usize>();
                group.records.extend(records);
                group.callbacks.push(callback);
                Ok(())
            }
            Job::Vote { vote, done } => {
                let saved = self.flush(group).and_then(|()| self.device.save_vote(&vote));
                answer(done, saved)
            }
            Job::Truncate { from, done } => {
                let cut = self.flush(group).and_then(|()| self.device.truncate_from(from));
                answer(done, cut)
            }
            Job::Purge { index, mark } => {
                self.flush(group)?;
                self.device.purge_to(index, &mark)
            }
            // It reaches the disk with the next append, never before the entries that it speaks of.
            Job::Committed { mark } => self.device.save_committed(&mark),
        }
    }

    fn flush(&self, group: &mut Group) -> Result<(), StorageError> {
        if let Some(last) = group.records.last() {
            let next = last.index + 1;
            let started = Instant::now();
            self.device.append(&group.records)?;
            metric::log_append(started.elapsed(), group.records.len(), group.bytes);
            self.tail.lock().set_durable(next);
        }
        group.records.clear();
        group.bytes = 0;
        for callback in group.callbacks.drain(..) {
            callback.io_completed(Ok(()));
        }
        Ok(())
    }

    /// The first failure is the last write: everything that waits is told so, and the queue closes.
    fn fail(mut self, error: StorageError, group: Group) {
        tracing::error!(%error, "the raft log failed, raft stops");
        let text = error.to_string();
        let refused = || io::Error::other(text.clone());
        self.failure.report(RaftError::Log(error));
        for callback in group.callbacks {
            callback.io_completed(Err(refused()));
        }
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            match job {
                Job::Append { callback, .. } => callback.io_completed(Err(refused())),
                Job::Vote { done, .. } | Job::Truncate { done, .. } => {
                    // The asker may be gone already.
                    let _ = done.send(Err(refused()));
                }
                Job::Purge { .. } | Job::Committed { .. } => {}
            }
        }
    }
}

/// Tells the asker, and keeps an error for the caller.
fn answer(
    done: oneshot::Sender<io::Result<()>>,
    result: Result<(), StorageError>,
) -> Result<(), StorageError> {
    let told = match &result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::other(error.to_string())),
    };
    // The asker may be gone already.
    let _ = done.send(told);
    result
}
