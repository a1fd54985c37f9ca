//! One task for each peer and plane: it connects when somebody asks, writes requests, and hands
//! answers back. It ends when its queue is dropped or the node stops.

use super::{
    Plane, Rejection, TransportConfig, TransportError,
    frame::{Frame, Outcome, frames, write_frame},
    hello::{self, HandshakeError},
    secure,
};
use blockraft_primitives::NodeId;
use blockraft_storage::Identity;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, time::Duration};
use tokio::{
    io::{AsyncWriteExt, BufWriter, split},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// A request on its way.
pub(super) struct Ask {
    pub(super) kind: u8,
    pub(super) payload: Bytes,
    pub(super) until: Instant,
    pub(super) answer: oneshot::Sender<Result<Bytes, TransportError>>,
}

/// What the task knows.
pub(super) struct Link {
    pub(super) identity: Identity,
    pub(super) peer: NodeId,
    pub(super) plane: Plane,
    pub(super) address: String,
    pub(super) config: TransportConfig,
    pub(super) stop: CancellationToken,
}

/// Requests that were written and not answered.
struct Waiting {
    asks: BTreeMap<u64, Waiter>,
    heard_at: Instant,
}

struct Waiter {
    until: Instant,
    answer: oneshot::Sender<Result<Bytes, TransportError>>,
}

impl Link {
    /// The task's body.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Ask>) {
        let stop = self.stop.clone();
        // Whoever still waits learns of the end by its dropped sender.
        let _ = stop.run_until_cancelled(self.serve(&mut queue)).await;
    }

    async fn serve(&self, queue: &mut mpsc::Receiver<Ask>) {
        let mut backoff = self.config.backoff_min;
        let mut last_failure: Option<TransportError> = None;
        while let Some(first) = queue.recv().await {
            match self.connect().await {
                Ok(stream) => {
                    if last_failure.take().is_some() {
                        tracing::info!(peer = self.peer, plane = %self.plane, "connected again");
                    }
                    backoff = self.config.backoff_min;
                    self.converse(stream, first, queue).await;
                }
                Err(error) => {
                    if last_failure.as_ref() != Some(&error) {
                        tracing::warn!(peer = self.peer, plane = %self.plane, address = self.address, %error, "cannot connect");
                    }
                    // Nobody is listening for an answer that nobody takes.
                    let _ = first.answer.send(Err(error.clone()));
                    self.refuse_for(backoff, &error, queue).await;
                    backoff = (backoff * 2).min(self.config.backoff_max);
                    last_failure = Some(error);
                }
            }
        }
    }

    async fn connect(&self) -> Result<secure::Channel, TransportError> {
        let peer = self.peer;
        let unreachable =
            |reason: io::Error| TransportError::Unreachable { peer, reason: reason.to_string() };
        let attempt = async {
            let stream = TcpStream::connect(&self.address).await.map_err(HandshakeError::Io)?;
            let mut stream = secure::dialled(stream).await?;
            hello::dial(&mut stream, self.identity, peer, self.plane).await?;
            Ok(stream)
        };
        match timeout(self.config.handshake_timeout, attempt).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(HandshakeError::Rejected(rejection))) => {
                Err(TransportError::Rejected { peer, rejection })
            }
            Ok(Err(HandshakeError::Io(error))) => Err(unreachable(error)),
            Err(_) => {
                let rejection = Rejection::Deadline(self.config.handshake_timeout);
                Err(unreachable(io::Error::other(rejection)))
            }
        }
    }

    /// The pause after a failed attempt: who asks meanwhile is told at once.
    async fn refuse_for(
        &self,
        pause: Duration,
        error: &TransportError,
        queue: &mut mpsc::Receiver<Ask>,
    ) {
        let refuse = async {
            while let Some(ask) = queue.recv().await {
                // As above.
                let _ = ask.answer.send(Err(error.clone()));
            }
        };
        // Ending by the clock is the normal case.
        let _ = timeout(pause, refuse).await;
    }

    /// One connection, from its hello to its end.
    async fn converse(&self, stream: secure::Channel, first: Ask, queue: &mut mpsc::Receiver<Ask>) {
        let waiting = Mutex::new(Waiting { asks: BTreeMap::new(), heard_at: Instant::now() });
        let (read, write) = split(stream);
        let ended = tokio::select! {
            result = self.write_requests(BufWriter::new(write), first, queue, &waiting) => result,
            result = self.read_answers(read, &waiting) => result,
            result = self.watch(&waiting) => result,
        };
        let lost = std::mem::take(&mut waiting.lock().asks);
        if let Err(error) = ended {
            tracing::info!(peer = self.peer, plane = %self.plane, %error, waiting = lost.len(), "connection ended");
        }
        for waiter in lost.into_values() {
            // As above.
            let _ = waiter.answer.send(Err(TransportError::Disconnected { peer: self.peer }));
        }
    }

    async fn write_requests<W: tokio::io::AsyncWrite + Unpin>(
        &self,
        mut write: W,
        first: Ask,
        queue: &mut mpsc::Receiver<Ask>,
        waiting: &Mutex<Waiting>,
    ) -> io::Result<()> {
        let mut id = 0;
        let mut next = Some(first);
        while let Some(ask) = next {
            // An answer that nobody waits for is not asked for.
            if !ask.answer.is_closed() {
                id += 1;
                let waiter = Waiter { until: ask.until, answer: ask.answer };
                waiting.lock().asks.insert(id, waiter);
                write_frame(&mut write, &Frame { id, kind: ask.kind, payload: ask.payload })
                    .await?;
            }
            next = match queue.try_recv() {
                Ok(ask) => Some(ask),
                Err(_) => {
                    write.flush().await?;
                    queue.recv().await
                }
            };
        }
        Ok(())
    }

    async fn read_answers<R: tokio::io::AsyncRead + Unpin>(
        &self,
        read: R,
        waiting: &Mutex<Waiting>,
    ) -> io::Result<()> {
        let mut answers = std::pin::pin!(frames(read));
        while let Some(answer) = answers.next().await {
            let Frame { id, kind, payload } = answer?;
            let waiter = {
                let mut waiting = waiting.lock();
                waiting.heard_at = Instant::now();
                waiting.asks.remove(&id)
            };
            // An answer that came too late.
            let Some(waiter) = waiter else { continue };
            let result = if kind == Outcome::Done as u8 {
                Ok(payload)
            } else {
                let message = String::from_utf8_lossy(&payload).into_owned();
                Err(TransportError::Refused { peer: self.peer, message })
            };
            // As above.
            let _ = waiter.answer.send(result);
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// Forgets requests that ran out of time. When the peer has been silent meanwhile, the
    /// connection may be half open: ends it, so that the next request dials anew.
    async fn watch(&self, waiting: &Mutex<Waiting>) -> io::Result<()> {
        let mut ticks = interval(self.config.silence_max / 4);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let mut waiting = waiting.lock();
            let before = waiting.asks.len();
            waiting.asks.retain(|_, waiter| waiter.until > now);
            let overdue = waiting.asks.len() < before;
            if overdue && now.duration_since(waiting.heard_at) > self.config.silence_max {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("nothing heard for {:?}", now.duration_since(waiting.heard_at)),
                ));
            }
        }
    }
}
