//! A node whose own state is not the chain's heals itself, while it does not run: from its log and snapshots,
//! else from another member.

use super::{
    Maintenance, Repaired, ScrubReport, SnapshotPeer, StoreOptions, fetch_snapshot, locate, repair,
    scrub,
};
use crate::{NodeConfig, error::NodeError};
use blockraft_storage::StorageError;
use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often it looks whether the node that has just stopped has let go of the directory.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(50);
const LOCK_RETRIES_MAX: usize = 200;

/// Looks at all of the state on disk, and rebuilds what is wrong of it. Where nothing is, the fault was one of
/// memory: the trie is built anew when the node starts.
///
/// # Errors
/// Neither this directory nor any other member has what the state could be rebuilt from.
pub async fn heal(config: &NodeConfig) -> Result<Repaired, NodeError> {
    let datadir = config.datadir.clone();
    let (maintenance, report) = on_worker(move || {
        let mut maintenance = open(&datadir)?;
        let mut report = scrub(&maintenance, |_| {})?;
        locate(&mut maintenance, &mut report)?;
        Ok((maintenance, report))
    })
    .await?;
    for damage in &report.damage {
        tracing::error!(%damage, "the state on disk is damaged");
    }
    let (mut maintenance, own) = repair_from(maintenance, &report, None).await?;
    let mut problems = match own {
        Ok(repaired) => return Ok(repaired),
        Err(error) => vec![error.to_string()],
    };
    let own_id = maintenance.identity().node_id;
    for (id, member) in config.members.iter().filter(|(id, _)| *id != own_id) {
        let peer = SnapshotPeer { id: *id, address: member.raft_addr.clone() };
        tracing::info!(peer = id, "fetching a snapshot to heal the state from");
        let fetched = match fetch_snapshot(&maintenance, &peer, |_, _| {}).await {
            Ok(fetched) => fetched,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let (back, healed) = repair_from(maintenance, &report, Some(fetched)).await?;
        match healed {
            Ok(repaired) => return Ok(repaired),
            Err(error) => problems.push(format!("from node {id}: {error}")),
        }
        maintenance = back;
    }
    Err(NodeError::NoSource(problems.join("; ")))
}

fn open(datadir: &Path) -> Result<Maintenance, NodeError> {
    for _ in 0..LOCK_RETRIES_MAX {
        match Maintenance::open(datadir, StoreOptions::default()) {
            Err(StorageError::Locked { .. }) => thread::sleep(LOCK_RETRY_PAUSE),
            opened => return Ok(opened?),
        }
    }
    Ok(Maintenance::open(datadir, StoreOptions::default())?)
}

type Attempt = (Maintenance, Result<Repaired, NodeError>);

async fn repair_from(
    mut maintenance: Maintenance,
    report: &ScrubReport,
    from: Option<PathBuf>,
) -> Result<Attempt, NodeError> {
    let report = report.clone();
    on_worker(move || {
        let repaired = repair(&mut maintenance, &report, from.as_deref(), |_| {});
        Ok((maintenance, repaired))
    })
    .await
}

async fn on_worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(NodeError::TaskEnded("healing")))
}
