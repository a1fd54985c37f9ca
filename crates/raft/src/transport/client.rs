//! Asking other members: the door of the dialling side.

use super::{
    Handler, Plane, Rejection, Spawner,
    frame::PAYLOAD_BYTES_MAX,
    link::{self, Ask},
    server,
};
use crate::metric;
use blockraft_primitives::{NodeId, limits};
use blockraft_storage::Identity;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

/// Requests that wait for one link to write them.
const LINK_QUEUE_LEN_MAX: usize = 1024;

/// Deadlines and limits of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportConfig {
    /// Connecting, and the hello that follows, on either side.
    pub handshake_timeout: Duration,
    /// The pause after the first failed attempt to connect; doubles with each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// A connection that has been silent for this long when a request runs out of time is given up.
    pub silence_max: Duration,
    /// Connections accepted at a time.
    pub connection_count_max: usize,
    /// Requests of one connection that are being answered at a time; further ones wait unread.
    pub request_count_max: usize,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(25),
            backoff_max: Duration::from_secs(1),
            silence_max: Duration::from_secs(2),
            connection_count_max: limits::PEER_CONNECTION_COUNT_MAX,
            request_count_max: 1024,
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No address is known for the node.
    #[error("no address is known for node {0}")]
    UnknownPeer(NodeId),
    /// Nobody listens there, or an attempt just failed. Nothing was sent.
    #[error("node {peer} is unreachable: {reason}")]
    Unreachable {
        /// Who was asked.
        peer: NodeId,
        /// The operating system's words.
        reason: String,
    },
    /// The nodes do not belong together. Nothing was sent.
    #[error("no connection to node {peer}: {rejection}")]
    Rejected {
        /// Who was asked.
        peer: NodeId,
        /// What does not fit.
        rejection: Rejection,
    },
    /// No answer in time; the request may have been carried out.
    #[error("node {peer} did not answer within {after:?}")]
    Timeout {
        /// Who was asked.
        peer: NodeId,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke before the answer; the request may have been carried out.
    #[error("the connection to node {peer} broke before it answered")]
    Disconnected {
        /// Who was asked.
        peer: NodeId,
    },
    /// The other node's handler refused.
    #[error("node {peer} refused: {message}")]
    Refused {
        /// Who was asked.
        peer: NodeId,
        /// Its words.
        message: String,
    },
    /// Longer than a frame may be. Nothing was sent.
    #[error("request of {got} bytes, at most {max} fit into a frame")]
    TooLong {
        /// The payload's length.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The node is stopping.
    #[error("the transport has stopped")]
    Stopped,
}

/// The transport of one node; cheap to clone.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    config: TransportConfig,
    spawner: Spawner,
    peers: Mutex<Peers>,
}

#[derive(Default)]
struct Peers {
    addresses: BTreeMap<NodeId, String>,
    /// Peers whose address was configured here.
    pinned: BTreeSet<NodeId>,
    links: BTreeMap<(NodeId, Plane), Link>,
}

/// The way to a link's task.
#[derive(Clone)]
struct Link {
    address: String,
    asks: mpsc::Sender<Ask>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport without peers. Nothing is opened yet.
    pub fn new(identity: Identity, config: TransportConfig, spawner: Spawner) -> Self {
        let peers = Mutex::default();
        Self { inner: Arc::new(Inner { identity, config, spawner, peers }) }
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// Opens the listener of [`Self::serve`].
    pub async fn bind(address: &str) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Answers other members on `listener` until the spawner stops. Returns the address.
    pub fn serve(
        &self,
        listener: TcpListener,
        handler: Arc<dyn Handler>,
    ) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        let Inner { identity, config, spawner, .. } = &*self.inner;
        server::spawn(listener, *identity, config.clone(), handler, spawner.clone());
        Ok(address)
    }

    /// Tells where a peer listens, whatever the cluster's membership says: an operator's
    /// configuration knows better where a node was moved to.
    pub fn pin_address(&self, peer: NodeId, address: &str) {
        self.inner.peers.lock().pinned.remove(&peer);
        self.set_address(peer, address);
        self.inner.peers.lock().pinned.insert(peer);
    }

    /// Tells where a peer listens, unless that is pinned. Links to an older address are dropped.
    pub fn set_address(&self, peer: NodeId, address: &str) {
        let mut peers = self.inner.peers.lock();
        if peers.pinned.contains(&peer) {
            return;
        }
        if peers.addresses.get(&peer).is_some_and(|known| known == address) {
            return;
        }
        peers.addresses.insert(peer, address.to_owned());
        peers.links.retain(|(node, _), _| *node != peer);
    }

    /// Asks `peer`. Requests of one caller to one peer and plane are written in the order of the
    /// first polls; answers come in any order. Connects when there is no connection.
    pub async fn request(
        &self,
        peer: NodeId,
        plane: Plane,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(TransportError::TooLong { got: payload.len(), max: PAYLOAD_BYTES_MAX });
        }
        let asks = self.link(peer, plane)?;
        let started = Instant::now();
        let until = started + deadline;
        let (answer, answered) = oneshot::channel();
        let ask = Ask { kind, payload, until, answer };
        match timeout_at(until, asks.send(ask)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(TransportError::Stopped),
            Err(_) => return Err(TransportError::Timeout { peer, after: deadline }),
        }
        match timeout_at(until, answered).await {
            Ok(Ok(result)) => {
                metric::round_trip(peer, started.elapsed());
                result
            }
            Ok(Err(_)) => Err(TransportError::Disconnected { peer }),
            Err(_) => Err(TransportError::Timeout { peer, after: deadline }),
        }
    }

    /// The queue of the link, which is started when there is none.
    fn link(&self, peer: NodeId, plane: Plane) -> Result<mpsc::Sender<Ask>, TransportError> {
        let Inner { identity, config, spawner, peers } = &*self.inner;
        if spawner.stop.is_cancelled() {
            return Err(TransportError::Stopped);
        }
        let mut peers = peers.lock();
        let address = peers.addresses.get(&peer).ok_or(TransportError::UnknownPeer(peer))?.clone();
        if let Some(link) = peers.links.get(&(peer, plane))
            && link.address == address
        {
            return Ok(link.asks.clone());
        }
        let (asks, queue) = mpsc::channel(LINK_QUEUE_LEN_MAX);
        let task = link::Link {
            identity: *identity,
            peer,
            plane,
            address: address.clone(),
            config: config.clone(),
            stop: spawner.stop.clone(),
        };
        spawner.tasks.spawn(task.run(queue));
        peers.links.insert((peer, plane), Link { address, asks: asks.clone() });
        Ok(asks)
    }
}
