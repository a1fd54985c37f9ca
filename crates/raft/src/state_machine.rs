//! openraft's state machine contract over an [`Application`].
//!
//! Applying and installing happen on one worker thread, in order, off the async runtime. The queue
//! to it holds one piece of work: openraft waits, and what it reads ahead stays bounded.

use crate::{
    Application, ApplicationError, AppliedEntry, ApplyResponse, Payload, RaftError, SnapshotHandle,
    Spawner,
    codec::{decode, encode, entry_bytes},
    config::{APPLY_BYTES_MAX, APPLY_ENTRY_COUNT_MAX},
    metric,
    node::Failure,
    types::{
        Entry, EntryPayload, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, log_id,
        position,
    },
};
use alloy_primitives::B256;
use blockraft_primitives::Applied;
use futures::{Stream, StreamExt};
use openraft::{
    OptionalSend,
    storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine},
};
use std::{fmt, io, path::PathBuf, sync::Arc};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

/// A snapshot on disk: read when it is sent, installed when it has arrived.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) hash: B256,
    /// Held by a snapshot that has arrived until it is installed or given up: the next one is
    /// written to the same path.
    #[expect(dead_code, reason = "it is held, and dropped with the rest")]
    pub(crate) arrival: Option<Arc<OwnedSemaphorePermit>>,
}

/// What openraft drives.
pub(crate) struct StateMachine {
    application: Arc<dyn Application>,
    work: mpsc::Sender<Work>,
    spawner: Spawner,
    failure: Failure,
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").finish_non_exhaustive()
    }
}

enum Work {
    Apply { entries: Vec<AppliedEntry>, done: oneshot::Sender<io::Result<Vec<ApplyResponse>>> },
    Install { snapshot: SnapshotFile, done: oneshot::Sender<io::Result<Applied>> },
}

impl StateMachine {
    /// Starts the worker. It ends when the state machine is dropped.
    pub(crate) fn start(
        application: Arc<dyn Application>,
        spawner: Spawner,
        failure: Failure,
    ) -> Self {
        let (work, queue) = mpsc::channel(1);
        let worker =
            Worker { application: Arc::clone(&application), queue, failure: failure.clone() };
        spawner.tasks.spawn_blocking(move || worker.run());
        Self { application, work, spawner, failure }
    }

    async fn perform<T>(
        &self,
        work: Work,
        done: oneshot::Receiver<io::Result<T>>,
    ) -> io::Result<T> {
        let stopped = || io::Error::other("the state machine has stopped after an earlier failure");
        self.work.send(work).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }

    /// Runs a query of the application on a thread for blocking work.
    async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn Application) -> Result<T, ApplicationError> + Send + 'static,
    ) -> io::Result<T> {
        ask(&self.application, &self.spawner, &self.failure, query).await
    }
}

async fn ask<T: Send + 'static>(
    application: &Arc<dyn Application>,
    spawner: &Spawner,
    failure: &Failure,
    query: impl FnOnce(&dyn Application) -> Result<T, ApplicationError> + Send + 'static,
) -> io::Result<T> {
    let application = Arc::clone(application);
    let asked = spawner.tasks.spawn_blocking(move || query(&*application));
    asked.await.map_err(io::Error::other)?.map_err(|error| fail(failure, error))
}

/// Every failure of the application is final.
fn fail(failure: &Failure, error: ApplicationError) -> io::Error {
    tracing::error!(%error, source = %error.source, "the state machine failed, raft stops");
    let text = error.to_string();
    failure.report(RaftError::Application(error));
    io::Error::other(text)
}

struct Worker {
    application: Arc<dyn Application>,
    queue: mpsc::Receiver<Work>,
    failure: Failure,
}

impl Worker {
    /// The thread's body.
    fn run(mut self) {
        while let Some(work) = self.queue.blocking_recv() {
            // Whoever asked may be gone; the work is done all the same.
            let failed = match work {
                Work::Apply { entries, done } => {
                    let applied = self.apply(entries);
                    let failed = applied.is_err();
                    let _ = done.send(applied);
                    failed
                }
                Work::Install { snapshot, done } => {
                    let installed = self
                        .application
                        .install_snapshot(&snapshot.path)
                        .map_err(|error| fail(&self.failure, error));
                    let failed = installed.is_err();
                    let _ = done.send(installed);
                    failed
                }
            };
            if failed {
                return;
            }
        }
    }

    fn apply(&self, entries: Vec<AppliedEntry>) -> io::Result<Vec<ApplyResponse>> {
        let count = entries.len();
        let started = Instant::now();
        let responses =
            self.application.apply(entries).map_err(|error| fail(&self.failure, error))?;
        assert_eq!(responses.len(), count, "the application answers every entry");
        metric::applied(started.elapsed(), count);
        Ok(responses)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.ask(|application| Ok(application.applied())).await?;
        Ok((applied.position.as_ref().map(log_id), decode_membership(&applied)?))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        loop {
            let mut batch = Vec::new();
            let mut responders = Vec::new();
            let mut bytes = 0;
            while batch.len() < APPLY_ENTRY_COUNT_MAX && bytes < APPLY_BYTES_MAX {
                let Some(item) = entries.next().await else { break };
                let (entry, responder) = item?;
                bytes += entry_bytes(&entry);
                batch.push(applied_entry(entry));
                responders.push(responder);
            }
            if batch.is_empty() {
                return Ok(());
            }
            let (done, applied) = oneshot::channel();
            let responses = self.perform(Work::Apply { entries: batch, done }, applied).await?;
            for (responder, response) in responders.into_iter().zip(responses) {
                if let Some(responder) = responder {
                    responder.send(response);
                }
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            application: Arc::clone(&self.application),
            spawner: self.spawner.clone(),
            failure: self.failure.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let (done, installed) = oneshot::channel();
        let work = Work::Install { snapshot, done };
        let applied = self.perform(work, installed).await?;
        let got = applied.position.as_ref().map(log_id);
        if got != meta.last_log_id {
            let expected = &meta.last_log_id;
            return Err(io::Error::other(format!(
                "the installed snapshot reaches {got:?}, its sender said {expected:?}"
            )));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.ask(|application| application.current_snapshot()).await?;
        current.map(to_snapshot).transpose()
    }
}

/// Builds a snapshot while entries go on being applied.
pub(crate) struct SnapshotBuilder {
    application: Arc<dyn Application>,
    spawner: Spawner,
    failure: Failure,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let started = Instant::now();
        let built = ask(&self.application, &self.spawner, &self.failure, |application| {
            application.build_snapshot()
        })
        .await?;
        tracing::info!(position = ?built.applied.position, bytes = built.bytes, elapsed = ?started.elapsed(), "snapshot built");
        to_snapshot(built)
    }
}

fn to_snapshot(handle: SnapshotHandle) -> io::Result<Snapshot> {
    let SnapshotHandle { applied, path, bytes, hash } = handle;
    let meta = SnapshotMeta {
        last_log_id: applied.position.as_ref().map(log_id),
        last_membership: decode_membership(&applied)?,
    };
    Ok(Snapshot { meta, snapshot: SnapshotFile { path, bytes, hash, arrival: None } })
}

fn decode_membership(applied: &Applied) -> io::Result<StoredMembership> {
    if applied.membership.is_empty() {
        return Ok(StoredMembership::default());
    }
    Ok(decode(&applied.membership)?)
}

fn applied_entry(entry: Entry) -> AppliedEntry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(data) => Payload::Entry(data.0),
        EntryPayload::Membership(membership) => {
            Payload::Membership(encode(&StoredMembership::new(Some(entry.log_id), membership)))
        }
    };
    AppliedEntry { position: position(&entry.log_id), payload }
}
