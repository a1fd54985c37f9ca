//! The transfer of a snapshot: one file in chunks, resumable, hashed.
//!
//! The sender begins, is told how much of this very snapshot is there already, sends the rest in
//! order, and ends; the receiver then checks the hash of the whole file and installs it.

use super::message::{
    SNAPSHOT_BEGIN, SNAPSHOT_CHUNK, SNAPSHOT_END, SnapshotBegin, SnapshotChunk, encode_chunk,
};
use crate::{
    Application, ApplicationError, Plane, Spawner, Transport, TransportError,
    codec::{CodecError, decode, encode},
    config::{SNAPSHOT_CHUNK_TIMEOUT, SNAPSHOT_INSTALL_TIMEOUT},
    state_machine::SnapshotFile,
    types::{Snapshot, TypeConfig, Vote},
};
use alloy_primitives::{B256, Keccak256};
use blockraft_primitives::{NodeId, limits::SNAPSHOT_CHUNK_BYTES};
use bytes::Bytes;
use openraft::raft::SnapshotResponse;
use std::{io, path::PathBuf, sync::Arc};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
};

/// The end of a snapshot file: keccak256 of everything before.
const HASH_BYTES: u64 = 32;

/// Why a snapshot was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("snapshot file cannot be read")]
    File(#[from] io::Error),
    #[error("answer is malformed")]
    Codec(#[from] CodecError),
}

/// Sends `snapshot` to `target`, which installs it before it answers.
pub(super) async fn send(
    transport: &Transport,
    target: NodeId,
    vote: Vote,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, SendError> {
    let SnapshotFile { path, bytes, hash, .. } = snapshot.snapshot;
    // Opened first: should a newer snapshot replace it meanwhile, this one stays readable.
    let mut file = File::open(&path).await?;
    let ask = async |kind, payload: Bytes, deadline| {
        transport.request(target, Plane::Snapshot, kind, payload, deadline).await
    };
    let begin = SnapshotBegin { vote, meta: snapshot.meta, bytes, hash: hash.0 };
    let answer = ask(SNAPSHOT_BEGIN, encode(&begin).into(), SNAPSHOT_CHUNK_TIMEOUT).await?;
    let mut offset: u64 = decode(&answer)?;
    tracing::info!(target, bytes, offset, "sending a snapshot");
    file.seek(SeekFrom::Start(offset)).await?;
    let mut buffer = vec![0; SNAPSHOT_CHUNK_BYTES];
    while offset < bytes {
        let length = buffer.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..length]).await?;
        let chunk = encode_chunk(&hash, offset, &buffer[..length]);
        ask(SNAPSHOT_CHUNK, chunk, SNAPSHOT_CHUNK_TIMEOUT).await?;
        offset += length as u64;
    }
    let answer = ask(SNAPSHOT_END, Bytes::new(), SNAPSHOT_INSTALL_TIMEOUT).await?;
    Ok(decode(&answer)?)
}

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("no snapshot, or another one, is coming in")]
    NoTransfer,
    #[error("the snapshot before it is still being installed")]
    Installing,
    #[error("snapshot chunk at {got}, expected one at {expected}")]
    Offset { got: u64, expected: u64 },
    #[error("snapshot of {got} bytes, announced were {expected}")]
    Length { got: u64, expected: u64 },
    #[error("snapshot hashes to {got}, announced was {expected}")]
    Hash { got: B256, expected: B256 },
    #[error("snapshot file cannot be written: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Application(#[from] ApplicationError),
}

/// Takes in one snapshot at a time; a new one displaces one that is incomplete.
pub(crate) struct Receiver {
    application: Arc<dyn Application>,
    spawner: Spawner,
    /// An async lock, held while a chunk is written: chunks of one snapshot come one by one, and
    /// those of two senders must not mix.
    incoming: Mutex<Option<Incoming>>,
    /// One permit: the right to write to the path that the application gives.
    arrivals: Arc<Semaphore>,
}

struct Incoming {
    begin: SnapshotBegin,
    path: PathBuf,
    file: File,
    written: u64,
    /// Over all but the last [`HASH_BYTES`], which are the hash itself.
    hasher: Keccak256,
    trailer: Vec<u8>,
    arrival: OwnedSemaphorePermit,
}

impl Receiver {
    pub(crate) fn new(application: Arc<dyn Application>, spawner: Spawner) -> Self {
        Self {
            application,
            spawner,
            incoming: Mutex::default(),
            arrivals: Arc::new(Semaphore::new(1)),
        }
    }

    /// Answers from where to go on.
    pub(super) async fn begin(&self, begin: SnapshotBegin) -> Result<u64, ReceiveError> {
        let mut incoming = self.incoming.lock().await;
        if let Some(known) = incoming.as_mut()
            && (known.begin.hash, known.begin.bytes) == (begin.hash, begin.bytes)
        {
            // The same snapshot after a lost connection, perhaps from a new leader.
            known.begin = begin;
            return Ok(known.written);
        }
        // Closes the file of the one before.
        *incoming = None;
        let arrival = Arc::clone(&self.arrivals);
        let arrival = arrival.try_acquire_owned().map_err(|_| ReceiveError::Installing)?;
        let application = Arc::clone(&self.application);
        let path = self
            .spawner
            .tasks
            .spawn_blocking(move || application.receive_snapshot_path())
            .await
            .map_err(io::Error::other)??;
        let file = File::create(&path).await?;
        tracing::info!(bytes = begin.bytes, position = ?begin.meta.last_log_id, "a snapshot is coming in");
        let (hasher, trailer) = (Keccak256::new(), Vec::new());
        *incoming = Some(Incoming { begin, path, file, written: 0, hasher, trailer, arrival });
        Ok(0)
    }

    pub(super) async fn chunk(&self, chunk: SnapshotChunk) -> Result<(), ReceiveError> {
        let mut slot = self.incoming.lock().await;
        let incoming = slot
            .as_mut()
            .filter(|incoming| incoming.begin.hash == chunk.hash.0)
            .ok_or(ReceiveError::NoTransfer)?;
        let (got, expected) = (chunk.offset, incoming.written);
        if got != expected {
            return Err(ReceiveError::Offset { got, expected });
        }
        let after = expected + chunk.data.len() as u64;
        if after > incoming.begin.bytes {
            let expected = incoming.begin.bytes;
            return Err(ReceiveError::Length { got: after, expected });
        }
        if let Err(error) = incoming.file.write_all(&chunk.data).await {
            // How much of it arrived is not known: begin anew.
            *slot = None;
            return Err(error.into());
        }
        let body_left = incoming.begin.bytes.saturating_sub(HASH_BYTES).saturating_sub(expected);
        let split = chunk.data.len().min(usize::try_from(body_left).unwrap_or(usize::MAX));
        incoming.hasher.update(&chunk.data[..split]);
        incoming.trailer.extend_from_slice(&chunk.data[split..]);
        incoming.written = after;
        Ok(())
    }

    /// Closes the transfer and hands the file over.
    pub(super) async fn end(&self) -> Result<(Vote, Snapshot), ReceiveError> {
        let incoming = self.incoming.lock().await.take().ok_or(ReceiveError::NoTransfer)?;
        let Incoming { begin, path, mut file, written, hasher, trailer, arrival } = incoming;
        if written != begin.bytes {
            return Err(ReceiveError::Length { got: written, expected: begin.bytes });
        }
        let (got, expected) = (hasher.finalize(), B256::from(begin.hash));
        if got != expected || trailer != expected.as_slice() {
            return Err(ReceiveError::Hash { got, expected });
        }
        file.flush().await?;
        file.sync_all().await?;
        let arrival = Some(Arc::new(arrival));
        let snapshot = SnapshotFile { path, bytes: begin.bytes, hash: expected, arrival };
        Ok((begin.vote, Snapshot { meta: begin.meta, snapshot }))
    }
}
