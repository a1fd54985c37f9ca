//! Answering other members.

use super::{
    Plane, Rejection, Spawner, TransportConfig,
    frame::{Frame, Outcome, PAYLOAD_BYTES_MAX, frames, write_frame},
    hello::{self, HandshakeError},
    secure,
};
use blockraft_primitives::NodeId;
use blockraft_storage::Identity;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, BufWriter, split},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::coop::unconstrained,
    time::{sleep, timeout},
};

/// Answers that wait to be written on one connection.
const ANSWER_QUEUE_LEN_MAX: usize = 64;

/// Addresses whose last refusal is remembered.
const REFUSAL_COUNT_MAX: usize = 256;

/// Answers requests of other members.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Requests of one connection are polled first in the order in which they
    /// came, and then side by side, on the connection's own task: work that blocks or computes for
    /// long belongs elsewhere.
    fn handle(
        &self,
        peer: NodeId,
        plane: Plane,
        kind: u8,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Refused>>;
}

/// A request that is not answered; the asker gets the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Accepts connections until the spawner stops.
pub(super) fn spawn(
    listener: TcpListener,
    identity: Identity,
    config: TransportConfig,
    handler: Arc<dyn Handler>,
    spawner: Spawner,
) {
    let refusals = Arc::default();
    let server = Server { identity, config, handler, refusals, spawner: spawner.clone() };
    let stop = spawner.stop.clone();
    spawner.tasks.spawn(async move {
        // Returns only by being stopped.
        let _ = stop.run_until_cancelled(server.accept(listener)).await;
    });
}

#[derive(Clone)]
struct Server {
    identity: Identity,
    config: TransportConfig,
    handler: Arc<dyn Handler>,
    /// Why each address was refused last, so that one that keeps knocking is logged once.
    refusals: Arc<Mutex<BTreeMap<IpAddr, Rejection>>>,
    spawner: Spawner,
}

impl Server {
    async fn accept(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(self.config.connection_count_max));
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a connection that died in the queue.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                tracing::warn!(%from, limit = self.config.connection_count_max, "too many connections, this one is closed");
                continue;
            };
            let server = self.clone();
            let stop = self.spawner.stop.clone();
            self.spawner.tasks.spawn(async move {
                // When stopped, the connection just closes.
                let _ = stop.run_until_cancelled(server.connection(stream, from)).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: TcpStream, from: SocketAddr) {
        let (stream, peer, plane) = match self.greet(stream).await {
            Ok(greeted) => greeted,
            Err(HandshakeError::Rejected(rejection)) => {
                if self.is_news(from.ip(), &rejection) {
                    tracing::warn!(%from, %rejection, "connection refused");
                }
                return;
            }
            Err(HandshakeError::Io(error)) => {
                tracing::debug!(%from, %error, "connection ended before its hello");
                return;
            }
        };
        match self.converse(stream, peer, plane).await {
            Ok(()) => tracing::debug!(peer, %plane, "connection closed"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(peer, %plane, %from, %error, "malformed frame, connection closed");
            }
            Err(error) => tracing::debug!(peer, %plane, %error, "connection ended"),
        }
    }

    fn is_news(&self, from: IpAddr, rejection: &Rejection) -> bool {
        let mut refusals = self.refusals.lock();
        if refusals.len() >= REFUSAL_COUNT_MAX && !refusals.contains_key(&from) {
            refusals.clear();
        }
        refusals.insert(from, rejection.clone()).as_ref() != Some(rejection)
    }

    async fn greet(
        &self,
        stream: TcpStream,
    ) -> Result<(secure::Channel, NodeId, Plane), HandshakeError> {
        let limit = self.config.handshake_timeout;
        let mut stream = match timeout(limit, secure::accepted(stream)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(HandshakeError::Rejected(Rejection::Deadline(limit))),
        };
        let (peer, plane) = hello::accept(&mut stream, self.identity, limit).await?;
        Ok((stream, peer, plane))
    }

    async fn converse(
        &self,
        stream: secure::Channel,
        peer: NodeId,
        plane: Plane,
    ) -> io::Result<()> {
        let (read, write) = split(stream);
        let (answers, queue) = mpsc::channel(ANSWER_QUEUE_LEN_MAX);
        tokio::select! {
            result = self.answer_requests(read, peer, plane, answers) => result,
            result = write_answers(BufWriter::new(write), queue) => result,
        }
    }

    async fn answer_requests<R: tokio::io::AsyncRead + Unpin>(
        &self,
        read: R,
        peer: NodeId,
        plane: Plane,
        answers: mpsc::Sender<Frame>,
    ) -> io::Result<()> {
        let mut requests = std::pin::pin!(frames(read).fuse());
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(answer) = running.next(), if !running.is_empty() => {
                    if answers.send(answer).await.is_err() {
                        return Ok(());
                    }
                }
                request = requests.next(), if running.len() < self.config.request_count_max => {
                    let Some(request) = request else { return Ok(()) };
                    let Frame { id, kind, payload } = request?;
                    let mut answer = Box::pin(
                        self.handler
                            .handle(peer, plane, kind, payload)
                            .map(move |result| answer_frame(id, result)),
                    );
                    // Handlers reach Raft in the order of arrival: the first poll, which submits,
                    // happens here and does not yield to tokio's budget.
                    match unconstrained(&mut answer).now_or_never() {
                        Some(answer) => {
                            if answers.send(answer).await.is_err() {
                                return Ok(());
                            }
                        }
                        None => running.push(answer),
                    }
                }
            }
        }
    }
}

fn answer_frame(id: u64, result: Result<Bytes, Refused>) -> Frame {
    let (outcome, payload) = match result {
        Ok(payload) if payload.len() <= PAYLOAD_BYTES_MAX => (Outcome::Done, payload),
        Ok(payload) => {
            let text = format!("the answer of {} bytes does not fit into a frame", payload.len());
            (Outcome::Refused, Bytes::from(text))
        }
        Err(Refused(message)) => (Outcome::Refused, Bytes::from(message)),
    };
    Frame { id, kind: outcome as u8, payload }
}

async fn write_answers<W: tokio::io::AsyncWrite + Unpin>(
    mut write: W,
    mut answers: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        write_frame(&mut write, &answer).await?;
        if answers.is_empty() {
            write.flush().await?;
        }
    }
    Ok(())
}
