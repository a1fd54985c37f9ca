//! A snapshot from another member, fetched by one whose own state is damaged. The fetching side runs no
//! node; the answering side does, and answers on its data plane.

use super::Maintenance;
use crate::error::NodeError;
use blockraft_primitives::{NodeId, limits::SNAPSHOT_CHUNK_BYTES};
use blockraft_raft::{Plane, Refused, Spawner, Transport, TransportConfig};
use blockraft_storage::Store;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// The kind of these requests on the data plane.
pub(crate) const FETCH_KIND: u8 = 1;
/// Writing a snapshot takes the peer a while.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(600);
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// A member to fetch from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPeer {
    /// Its id.
    pub id: NodeId,
    /// Where it listens for other members, host:port.
    pub address: String,
}

/// What is asked for, postcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fetch {
    /// A snapshot of the state as it is now; answered with a [`Begun`].
    Begin,
    /// Bytes from `offset` of the snapshot with this hash, as many as a chunk may hold.
    Chunk { hash: [u8; 32], offset: u64 },
}

/// The snapshot that chunks will be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    hash: [u8; 32],
    bytes: u64,
}

/// Answers a fetch. Blocks: for a worker thread.
pub(crate) fn answer(store: &Store, request: &[u8]) -> Result<Bytes, Refused> {
    let refused = |error: &dyn std::fmt::Display| Refused(error.to_string());
    match postcard::from_bytes(request).map_err(|e| refused(&e))? {
        Fetch::Begin => {
            store.persist().map_err(|e| refused(&e))?;
            let snapshot = store.write_snapshot().map_err(|e| refused(&e))?;
            let begun = Begun { hash: snapshot.hash.0, bytes: snapshot.bytes };
            Ok(postcard::to_stdvec(&begun).map_err(|e| refused(&e))?.into())
        }
        Fetch::Chunk { hash, offset } => {
            let bytes = store
                .read_snapshot(&hash.into(), offset, SNAPSHOT_CHUNK_BYTES)
                .map_err(|e| refused(&e))?;
            Ok(bytes.into())
        }
    }
}

/// Fetches a peer's state as a snapshot file within the data directory. What it holds is checked when
/// it is read.
///
/// # Errors
/// The peer cannot be reached, is of another cluster, or refuses.
pub async fn fetch_snapshot(
    maintenance: &Maintenance,
    peer: &SnapshotPeer,
    progress: impl Fn(u64, u64),
) -> Result<PathBuf, NodeError> {
    let spawner = Spawner::default();
    let transport =
        Transport::new(*maintenance.identity(), TransportConfig::default(), spawner.clone());
    transport.pin_address(peer.id, &peer.address);
    let result = fetch(maintenance, peer.id, &transport, progress).await;
    spawner.stop.cancel();
    result
}

async fn fetch(
    maintenance: &Maintenance,
    peer: NodeId,
    transport: &Transport,
    progress: impl Fn(u64, u64),
) -> Result<PathBuf, NodeError> {
    let failed = |problem: String| NodeError::PeerSnapshot { peer, problem };
    let ask = async |request: Fetch, deadline| {
        let request = postcard::to_stdvec(&request).map_err(|e| failed(e.to_string()))?;
        transport
            .request(peer, Plane::Data, FETCH_KIND, request.into(), deadline)
            .await
            .map_err(|e| failed(e.to_string()))
    };
    let answer = ask(Fetch::Begin, BEGIN_TIMEOUT).await?;
    let Begun { hash, bytes } = postcard::from_bytes(&answer).map_err(|e| failed(e.to_string()))?;
    let mut offset = 0;
    let mut path = maintenance.keep_fetched(0, &[])?;
    while offset < bytes {
        let chunk = ask(Fetch::Chunk { hash, offset }, CHUNK_TIMEOUT).await?;
        if chunk.is_empty() {
            return Err(failed("it ended too early".to_owned()));
        }
        path = maintenance.keep_fetched(offset, &chunk)?;
        offset += chunk.len() as u64;
        progress(offset, bytes);
    }
    Ok(path)
}
