//! The chain as Raft sees it.

use crate::{
    chain::{Chain, Outcome},
    error::NodeError,
    persister::Persistence,
};
use blockraft_primitives::{Applied, limits::OVERLAY_BLOCK_COUNT_MAX};
use blockraft_protocol::Response;
use blockraft_raft::{
    Application, ApplicationError, AppliedEntry, ApplyResponse, Payload, SnapshotHandle,
};
use blockraft_storage::SnapshotFile;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

/// Applies committed entries to the chain, and keeps the disk from falling too far behind.
pub(crate) struct ChainApplication {
    pub(crate) chain: Arc<Chain>,
    pub(crate) persistence: Arc<Persistence>,
    /// Where a snapshot that comes in is written.
    pub(crate) incoming: PathBuf,
    /// Tells the producer, the gateway and waiting reads that something was applied.
    pub(crate) progress: watch::Sender<u64>,
}

impl ChainApplication {
    fn apply_entry(&self, entry: AppliedEntry) -> Result<ApplyResponse, NodeError> {
        let mut applied = self.chain.store.applied();
        applied.position = Some(entry.position);
        match entry.payload {
            Payload::Blank => self.chain.apply_blank(applied),
            Payload::Membership(membership) => {
                applied.membership = membership;
                self.chain.apply_blank(applied);
            }
            Payload::Entry(bytes) => {
                return Ok(match self.chain.apply(applied, &bytes)? {
                    Outcome::Admitted(verdicts) => {
                        ApplyResponse::Admit(Response::Verdicts(verdicts).encode().into())
                    }
                    Outcome::Block { accepted } => ApplyResponse::Block { accepted },
                });
            }
        }
        Ok(ApplyResponse::None)
    }
}

impl Application for ChainApplication {
    fn applied(&self) -> Applied {
        self.chain.store.applied()
    }

    fn apply(&self, entries: Vec<AppliedEntry>) -> Result<Vec<ApplyResponse>, ApplicationError> {
        let mut responses = Vec::with_capacity(entries.len());
        for entry in entries {
            self.persistence.wait_for_room(&self.chain.store);
            let index = entry.position.index;
            let response =
                self.apply_entry(entry).map_err(|e| ApplicationError::new("apply an entry", e))?;
            responses.push(response);
            self.progress.send_replace(index);
        }
        if self.chain.store.backlog().blocks > OVERLAY_BLOCK_COUNT_MAX / 2 {
            self.persistence.hurry();
        }
        Ok(responses)
    }

    fn build_snapshot(&self) -> Result<SnapshotHandle, ApplicationError> {
        let store = &self.chain.store;
        let snapshot = store.persist().and_then(|_| store.write_snapshot());
        snapshot.map(handle).map_err(|e| ApplicationError::new("build a snapshot", e))
    }

    fn current_snapshot(&self) -> Result<Option<SnapshotHandle>, ApplicationError> {
        let current = self.chain.store.latest_snapshot();
        current
            .map(|snapshot| snapshot.map(handle))
            .map_err(|e| ApplicationError::new("read the current snapshot", e))
    }

    fn receive_snapshot_path(&self) -> Result<PathBuf, ApplicationError> {
        Ok(self.incoming.clone())
    }

    fn install_snapshot(&self, file: &Path) -> Result<Applied, ApplicationError> {
        let applied =
            self.chain.install(file).map_err(|e| ApplicationError::new("install a snapshot", e))?;
        self.progress.send_replace(applied.position.map_or(0, |p| p.index));
        Ok(applied)
    }
}

fn handle(snapshot: SnapshotFile) -> SnapshotHandle {
    SnapshotHandle {
        applied: snapshot.applied,
        path: snapshot.path,
        bytes: snapshot.bytes,
        hash: snapshot.hash,
    }
}
