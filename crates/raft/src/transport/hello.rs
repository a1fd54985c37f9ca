//! The first bytes of a connection: both sides say who they are before anything else is read.
//!
//! `magic [8], version u16, cluster id [32], node id u64, plane u8, verdict u8`, 52 bytes, big
//! endian. The dialling side sends first, with verdict 0; the other answers with its own and a
//! verdict, and closes unless it is 0.

use alloy_primitives::B256;
use blockraft_primitives::NodeId;
use blockraft_storage::Identity;
use std::{fmt, io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// The version of the wire format. Both sides must speak the same.
pub const PROTOCOL_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"BLKRAFT\n";
const HELLO_BYTES: usize = 52;
const ACCEPTED: u8 = 0;

/// What a connection is for. Planes never share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Plane {
    /// Votes, heartbeats, transfer of leadership: short messages that must not wait.
    Control = 1,
    /// Log entries.
    Replication = 2,
    /// Snapshots.
    Snapshot = 3,
    /// The node's own messages: forwarding, questions.
    Data = 4,
    /// Units of work and their outcomes: long messages in bursts.
    Execution = 5,
}

impl Plane {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Control, Self::Replication, Self::Snapshot, Self::Data, Self::Execution]
            .into_iter()
            .find(|plane| *plane as u8 == byte)
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Replication => "replication",
            Self::Snapshot => "snapshot",
            Self::Data => "data",
            Self::Execution => "execution",
        })
    }
}

/// Why two nodes do not talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The other side is no BlockRaFT node.
    #[error("not a blockraft peer: it opened with {got:?}")]
    Magic {
        /// Its first bytes.
        got: [u8; 8],
    },
    /// The other side runs an incompatible build.
    #[error("wire protocol version {got}, expected {expected}")]
    Version {
        /// Theirs.
        got: u16,
        /// Ours.
        expected: u16,
    },
    /// The other side belongs to another cluster, or has another genesis.
    #[error("cluster id {got}, expected {expected}")]
    Cluster {
        /// Theirs.
        got: B256,
        /// Ours.
        expected: B256,
    },
    /// The address belongs to another node than the one that was dialled.
    #[error("node id {got}, expected {expected}")]
    Node {
        /// Theirs.
        got: NodeId,
        /// The one that was dialled.
        expected: NodeId,
    },
    /// Two nodes run under one id.
    #[error("the peer has this node's own id {0}")]
    SameNode(NodeId),
    /// A plane that this build does not know.
    #[error("unknown plane {got}")]
    Plane {
        /// The byte that came.
        got: u8,
    },
    /// The other side refused, with a code that this build does not know.
    #[error("the peer refused the connection with code {0}")]
    Refused(u8),
    /// No hello in time.
    #[error("no hello within {0:?}")]
    Deadline(Duration),
}

impl Rejection {
    /// What the peer is told.
    fn verdict(&self) -> u8 {
        match self {
            Self::Magic { .. } => 1,
            Self::Version { .. } => 2,
            Self::Cluster { .. } => 3,
            Self::Node { .. } => 4,
            Self::SameNode(_) => 5,
            Self::Plane { .. } => 6,
            Self::Refused(_) | Self::Deadline(_) => 7,
        }
    }
}

/// A handshake that did not come about.
#[derive(Debug)]
pub(super) enum HandshakeError {
    Rejected(Rejection),
    Io(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Hello {
    magic: [u8; 8],
    version: u16,
    identity: Identity,
    plane: u8,
    verdict: u8,
}

impl Hello {
    fn ours(identity: Identity, plane: u8, verdict: u8) -> Self {
        Self { magic: MAGIC, version: PROTOCOL_VERSION, identity, plane, verdict }
    }

    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..8].copy_from_slice(&self.magic);
        out[8..10].copy_from_slice(&self.version.to_be_bytes());
        out[10..42].copy_from_slice(self.identity.cluster_id.as_slice());
        out[42..50].copy_from_slice(&self.identity.node_id.to_be_bytes());
        out[50] = self.plane;
        out[51] = self.verdict;
        out
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Self {
        let array = |from: usize| -> [u8; 8] {
            bytes[from..from + 8].try_into().expect("eight bytes of a longer array")
        };
        Self {
            magic: array(0),
            version: u16::from_be_bytes([bytes[8], bytes[9]]),
            identity: Identity {
                cluster_id: B256::from_slice(&bytes[10..42]),
                node_id: NodeId::from_be_bytes(array(42)),
            },
            plane: bytes[50],
            verdict: bytes[51],
        }
    }

    /// What both sides check of one another.
    fn check(&self, ours: Identity) -> Result<(), Rejection> {
        if self.magic != MAGIC {
            return Err(Rejection::Magic { got: self.magic });
        }
        if self.version != PROTOCOL_VERSION {
            return Err(Rejection::Version { got: self.version, expected: PROTOCOL_VERSION });
        }
        let (got, expected) = (self.identity.cluster_id, ours.cluster_id);
        if got != expected {
            return Err(Rejection::Cluster { got, expected });
        }
        Ok(())
    }
}

/// The dialling side. `expected` is the node that should answer.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ours: Identity,
    expected: NodeId,
    plane: Plane,
) -> Result<(), HandshakeError> {
    stream.write_all(&Hello::ours(ours, plane as u8, ACCEPTED).encode()).await?;
    let theirs = read_hello(stream).await?;
    theirs.check(ours).map_err(HandshakeError::Rejected)?;
    let got = theirs.identity.node_id;
    let rejection = match theirs.verdict {
        ACCEPTED if got == expected => return Ok(()),
        ACCEPTED => Rejection::Node { got, expected },
        5 => Rejection::SameNode(got),
        code => Rejection::Refused(code),
    };
    Err(HandshakeError::Rejected(rejection))
}

/// The accepting side: who is there, and what for.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ours: Identity,
    deadline: Duration,
) -> Result<(NodeId, Plane), HandshakeError> {
    let theirs = match timeout(deadline, read_hello(stream)).await {
        Ok(theirs) => theirs?,
        Err(_) => return Err(HandshakeError::Rejected(Rejection::Deadline(deadline))),
    };
    let verdict = theirs.check(ours).and_then(|()| {
        if theirs.identity.node_id == ours.node_id {
            return Err(Rejection::SameNode(ours.node_id));
        }
        Plane::from_byte(theirs.plane).ok_or(Rejection::Plane { got: theirs.plane })
    });
    let code = verdict.as_ref().err().map_or(ACCEPTED, Rejection::verdict);
    stream.write_all(&Hello::ours(ours, theirs.plane, code).encode()).await?;
    match verdict {
        Ok(plane) => Ok((theirs.identity.node_id, plane)),
        Err(rejection) => Err(HandshakeError::Rejected(rejection)),
    }
}

/// Reads the magic first, so that garbage shorter than a hello is named as such.
async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Hello, HandshakeError> {
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes[..8]).await?;
    let magic: [u8; 8] = bytes[..8].try_into().expect("eight bytes of a longer array");
    if magic != MAGIC {
        return Err(HandshakeError::Rejected(Rejection::Magic { got: magic }));
    }
    stream.read_exact(&mut bytes[8..]).await?;
    Ok(Hello::decode(&bytes))
}
