//! What nodes say to one another beside Raft, and its bytes.
//!
//! A message is `version, kind, payload`. Transactions travel as in the log
//! ([`AdmitBatch::encode`]: sender and EIP-2718 bytes), so nobody need recover them again, and headers as
//! RLP; all else is postcard. Framing, deadlines and the identity of the peer are the transport's.

use crate::{
    GivenWork, PoolError, PooledWork, Refusal, RootAnswer, RootUnit, SignedHash, Unit, UnitAnswer,
    UnitId, UnitRefused, UnitWork,
    recovery::{decode_senders, encode_senders},
};
use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes};
use alloy_rlp::Decodable;
use blockraft_primitives::{AdmitBatch, EntryError, LogEntry, NodeId, PartitionSet};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// The version of the encoding below. A change of bytes changes this and the golden files in
/// `testdata/wire`.
pub const WIRE_VERSION: u8 = 2;

const KIND_SUBMIT: u8 = 1;
const KIND_STATUS: u8 = 2;
const KIND_VERDICTS: u8 = 3;
const KIND_REFUSED: u8 = 4;
const KIND_STATUS_ANSWER: u8 = 5;
const KIND_PROPOSE: u8 = 16;
const KIND_PROPOSED: u8 = 17;
const KIND_EXECUTE: u8 = 18;
const KIND_EXECUTED: u8 = 19;
const KIND_NOT_EXECUTED: u8 = 20;
const KIND_EXECUTE_GIVEN: u8 = 21;
const KIND_HASH: u8 = 22;
const KIND_HASHED: u8 = 23;
const KIND_RECOVER: u8 = 32;
const KIND_RECOVERED: u8 = 33;

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Take these transactions on. For the leader; another node answers [`Response::Refused`].
    Submit(AdmitBatch),
    /// Who are you and how far have you come?
    Status,
    /// Put this encoded `Payload` or `Forkchoice` entry into the log. For the leader, as above. Read once
    /// before it gets there: a committed entry that no node can read would stop all of them.
    Propose(Bytes),
    /// Run a unit of work.
    Execute(Unit),
    /// Hash subtries.
    Hash(RootUnit),
    /// Recover who signed these.
    Recover(Vec<SignedHash>),
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The batch is committed and applied: one verdict a transaction, in its order.
    Verdicts(Vec<Result<(), PoolError>>),
    /// The batch was not looked at, or its fate is unknown.
    Refused(Refusal),
    /// To [`Request::Status`].
    Status(NodeStatus),
    /// The entry is committed and applied.
    Proposed {
        /// Whether it fitted the chain.
        accepted: bool,
    },
    /// To [`Request::Execute`]: the unit was run.
    Executed(UnitAnswer),
    /// To [`Request::Hash`]: the subtries were hashed.
    Hashed(RootAnswer),
    /// To [`Request::Execute`] and [`Request::Hash`]: it was not done.
    NotExecuted(UnitRefused),
    /// To [`Request::Recover`]: a sender each, where there is one.
    Recovered(Vec<Option<Address>>),
}

/// What goes before the outcomes or roots of an answer.
#[derive(Serialize, Deserialize)]
struct AnswerHeader {
    echo: UnitId,
    executor: NodeId,
    run_us: u64,
}

/// What goes before the changes of a unit of hashing.
#[derive(Serialize, Deserialize)]
struct RootHeader {
    id: UnitId,
    partitions: PartitionSet,
}

/// How a node sees itself and the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Raft term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Index of the last log entry applied.
    pub applied_index: u64,
    /// Height of the last block applied.
    pub head_number: u64,
    /// Its hash.
    pub head_hash: B256,
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than version and kind take.
    #[error("message is too short")]
    TooShort,
    /// Written by another version.
    #[error("message version {got} is not supported, expected {WIRE_VERSION}")]
    Version {
        /// Version found.
        got: u8,
    },
    /// A kind that has no place here.
    #[error("unexpected message kind {got}")]
    Kind {
        /// Kind found.
        got: u8,
    },
    /// The payload does not decode.
    #[error("malformed message: {0}")]
    Payload(#[from] postcard::Error),
    /// The payload is longer than what it says.
    #[error("malformed message: {left} bytes left over")]
    LeftOver {
        /// Bytes.
        left: usize,
    },
    /// The transactions do not decode.
    #[error("malformed batch: {0}")]
    Batch(String),
    /// The header does not decode.
    #[error("malformed header: {0}")]
    Header(#[from] alloy_rlp::Error),
    /// No whole number of signatures, or of senders.
    #[error("malformed list of signatures or senders")]
    Recovery,
    /// A log entry that only the leader itself makes.
    #[error("only entries of a consensus client can be proposed from another node")]
    Entry,
}

impl From<EntryError> for WireError {
    fn from(error: EntryError) -> Self {
        Self::Batch(error.to_string())
    }
}

impl Request {
    /// The message's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Submit(batch) => framed(KIND_SUBMIT, &batch.encode()),
            Self::Status => framed(KIND_STATUS, &[]),
            Self::Propose(entry) => framed(KIND_PROPOSE, entry),
            Self::Execute(Unit { id, work: UnitWork::Pooled(work) }) => {
                framed(KIND_EXECUTE, &to_postcard(&(id, work)))
            }
            Self::Execute(Unit { id, work: UnitWork::Given(work) }) => {
                let header = alloy_rlp::encode(&*work.header);
                let batch = AdmitBatch { transactions: work.transactions.clone() }.encode();
                let id = to_postcard(id);
                [&[WIRE_VERSION, KIND_EXECUTE_GIVEN], &id[..], &header, &batch].concat().into()
            }
            Self::Hash(unit) => {
                let RootUnit { id, partitions, ref changes } = *unit;
                let header = to_postcard(&RootHeader { id, partitions });
                [&[WIRE_VERSION, KIND_HASH], &header[..], changes].concat().into()
            }
            Self::Recover(signed) => framed(KIND_RECOVER, &SignedHash::encode_all(signed)),
        }
    }

    /// Reads a request back.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match unframe(bytes)? {
            (KIND_SUBMIT, payload) => Ok(Self::Submit(AdmitBatch::decode(payload)?)),
            (KIND_STATUS, []) => Ok(Self::Status),
            (KIND_STATUS, rest) => Err(WireError::LeftOver { left: rest.len() }),
            (KIND_PROPOSE, entry) => match LogEntry::decode(entry)? {
                LogEntry::Payload(_) | LogEntry::Forkchoice(_) => {
                    Ok(Self::Propose(Bytes::copy_from_slice(entry)))
                }
                LogEntry::Admit(_) | LogEntry::Block(_) => Err(WireError::Entry),
            },
            (KIND_EXECUTE, payload) => {
                let (id, work): (UnitId, PooledWork) = from_postcard(payload)?;
                Ok(Self::Execute(Unit { id, work: UnitWork::Pooled(work) }))
            }
            (KIND_EXECUTE_GIVEN, payload) => {
                let (id, mut rest) = postcard::take_from_bytes::<UnitId>(payload)?;
                let header = Arc::new(Header::decode(&mut rest)?);
                let transactions = AdmitBatch::decode(rest)?.transactions;
                let work = UnitWork::Given(GivenWork { header, transactions });
                Ok(Self::Execute(Unit { id, work }))
            }
            (KIND_HASH, payload) => {
                let (header, changes) = postcard::take_from_bytes::<RootHeader>(payload)?;
                let RootHeader { id, partitions } = header;
                let changes = Bytes::copy_from_slice(changes);
                Ok(Self::Hash(RootUnit { id, partitions, changes }))
            }
            (KIND_RECOVER, payload) => {
                SignedHash::decode_all(payload).map(Self::Recover).ok_or(WireError::Recovery)
            }
            (got, _) => Err(WireError::Kind { got }),
        }
    }
}

impl Response {
    /// The message's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Verdicts(verdicts) => framed(KIND_VERDICTS, &to_postcard(verdicts)),
            Self::Refused(refusal) => framed(KIND_REFUSED, &to_postcard(refusal)),
            Self::Status(status) => framed(KIND_STATUS_ANSWER, &to_postcard(status)),
            Self::Proposed { accepted } => framed(KIND_PROPOSED, &to_postcard(accepted)),
            Self::Executed(answer) => {
                let UnitAnswer { echo, executor, run_us, ref outcomes } = *answer;
                let header = to_postcard(&AnswerHeader { echo, executor, run_us });
                [&[WIRE_VERSION, KIND_EXECUTED], &header[..], outcomes].concat().into()
            }
            Self::Hashed(answer) => {
                let RootAnswer { echo, owner: executor, run_us, ref roots } = *answer;
                let header = to_postcard(&AnswerHeader { echo, executor, run_us });
                [&[WIRE_VERSION, KIND_HASHED], &header[..], roots].concat().into()
            }
            Self::NotExecuted(refused) => framed(KIND_NOT_EXECUTED, &to_postcard(refused)),
            Self::Recovered(senders) => framed(KIND_RECOVERED, &encode_senders(senders)),
        }
    }

    /// Reads a response back.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match unframe(bytes)? {
            (KIND_VERDICTS, payload) => from_postcard(payload).map(Self::Verdicts),
            (KIND_REFUSED, payload) => from_postcard(payload).map(Self::Refused),
            (KIND_STATUS_ANSWER, payload) => from_postcard(payload).map(Self::Status),
            (KIND_PROPOSED, payload) => {
                from_postcard(payload).map(|accepted| Self::Proposed { accepted })
            }
            (KIND_EXECUTED, payload) => {
                let (header, outcomes) = postcard::take_from_bytes::<AnswerHeader>(payload)?;
                let AnswerHeader { echo, executor, run_us } = header;
                let outcomes = Bytes::copy_from_slice(outcomes);
                Ok(Self::Executed(UnitAnswer { echo, executor, run_us, outcomes }))
            }
            (KIND_HASHED, payload) => {
                let (header, roots) = postcard::take_from_bytes::<AnswerHeader>(payload)?;
                let AnswerHeader { echo, executor: owner, run_us } = header;
                let roots = Bytes::copy_from_slice(roots);
                Ok(Self::Hashed(RootAnswer { echo, owner, run_us, roots }))
            }
            (KIND_NOT_EXECUTED, payload) => from_postcard(payload).map(Self::NotExecuted),
            (KIND_RECOVERED, payload) => {
                decode_senders(payload).map(Self::Recovered).ok_or(WireError::Recovery)
            }
            (got, _) => Err(WireError::Kind { got }),
        }
    }
}

fn framed(kind: u8, payload: &[u8]) -> Bytes {
    [&[WIRE_VERSION, kind], payload].concat().into()
}

fn unframe(bytes: &[u8]) -> Result<(u8, &[u8]), WireError> {
    match bytes {
        [WIRE_VERSION, kind, payload @ ..] => Ok((*kind, payload)),
        [] | [WIRE_VERSION] => Err(WireError::TooShort),
        [got, ..] => Err(WireError::Version { got: *got }),
    }
}

fn to_postcard(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("a value without borrowed lengths serializes into memory")
}

fn from_postcard<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    let (value, rest) = postcard::take_from_bytes(payload)?;
    if rest.is_empty() { Ok(value) } else { Err(WireError::LeftOver { left: rest.len() }) }
}
