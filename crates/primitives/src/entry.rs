//! What the Raft log carries, and its bytes.
//!
//! An entry is `version, kind, payload`: compact for what every transaction goes through (`bytes.rs`), RLP
//! for a consensus client's word. Transactions travel as `sender, EIP-2718 bytes`: the gateway has recovered
//! the sender, and members of one cluster trust each other (crash faults only).

mod at_rest;
mod bytes;

use crate::{
    AdmissionId, Receipt, StateDiff, Transaction,
    compact::{Reader, Writer},
    payload_entry::{ForkchoiceEntry, PayloadEntry, WirePayload},
};
use alloy_consensus::{Eip658Value, Header, TxEnvelope, transaction::Recovered};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, Log};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};
use std::sync::Arc;

/// The version of the encoding below. A change of bytes changes this and the golden files.
pub const ENTRY_VERSION: u8 = 3;

const KIND_ADMIT: u8 = 1;
const KIND_BLOCK: u8 = 2;
const KIND_PAYLOAD: u8 = 3;
const KIND_FORKCHOICE: u8 = 4;

/// Room made for a transaction in a batch, and for what a block says of one: it grows where that is too little.
const TX_BYTES_EXPECTED: usize = 160;
const BLOCK_TX_BYTES_EXPECTED: usize = 64;

/// One application entry of the Raft log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEntry {
    /// Transactions enter the replicated pool.
    Admit(AdmitBatch),
    /// A block joins the chain.
    Block(Box<BlockEntry>),
    /// A block that a consensus client named joins the chain.
    Payload(Box<PayloadEntry>),
    /// A consensus client says where the chain ends: blocks above that leave it again.
    Forkchoice(ForkchoiceEntry),
}

/// Transactions in the order in which they are offered to the pool. The pool's verdict on each is
/// reached when the entry is applied, by every node alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmitBatch {
    /// With their senders.
    pub transactions: Vec<Transaction>,
}

/// A block as the leader proposes it: transactions by reference, results by value.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockEntry {
    /// Complete, with state root.
    pub header: Header,
    /// Pool transactions in block order.
    pub transactions: Vec<AdmissionId>,
    /// Pool transactions that can never run and leave the pool with this block.
    pub dropped: Vec<DroppedTransaction>,
    /// One a transaction.
    pub receipts: Vec<Receipt>,
    /// What the block changes in the state.
    pub diff: Arc<StateDiff>,
    /// Index of the last log entry that the leader's pool had applied when it cut this block.
    /// Replaced transactions are kept until a block with a later index has been applied.
    pub pool_index: u64,
    /// Where members hashed parts of the state, the roots of its 256 subtries, as the trie crate encodes
    /// them; empty where the leader hashed alone.
    pub subtrie_roots: Bytes,
}

/// A transaction that leaves the pool without a receipt, on the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedTransaction {
    /// Which one.
    pub id: AdmissionId,
    /// Why.
    pub reason: DropReason,
}

/// Why a transaction was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// The rules of the fork forbid it, whatever the state (intrinsic gas, gas limit, type).
    Invalid = 1,
    /// Executing it made the executor panic or run past its time.
    Poison = 2,
}

/// Bytes that are no entry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EntryError {
    /// Nothing there.
    #[error("log entry is empty")]
    Empty,
    /// Written by another version.
    #[error("log entry version {got} is not supported, expected {ENTRY_VERSION}")]
    Version {
        /// Version found.
        got: u8,
    },
    /// A kind that this version does not know.
    #[error("unknown log entry kind {got}")]
    Kind {
        /// Kind found.
        got: u8,
    },
    /// The payload does not decode: what is wrong.
    #[error("malformed log entry: {0}")]
    Malformed(&'static str),
    /// RLP in the payload does not decode.
    #[error("malformed log entry: {0}")]
    Rlp(#[from] alloy_rlp::Error),
    /// A transaction does not decode.
    #[error("malformed transaction in log entry: {0}")]
    Transaction(String),
}

impl LogEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Admit(batch) => batch.encode_entry(),
            Self::Block(block) => block.encode_entry(),
            Self::Payload(payload) => framed(KIND_PAYLOAD, &WirePayload::from(&**payload)),
            Self::Forkchoice(forkchoice) => framed(KIND_FORKCHOICE, forkchoice),
        }
    }

    /// Reads an entry back.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let (&version, rest) = bytes.split_first().ok_or(EntryError::Empty)?;
        if version != ENTRY_VERSION {
            return Err(EntryError::Version { got: version });
        }
        let (&kind, mut payload) = rest.split_first().ok_or(EntryError::Empty)?;
        let entry = match kind {
            KIND_ADMIT => return AdmitBatch::decode(payload).map(Self::Admit),
            KIND_BLOCK => return BlockEntry::decode(payload).map(|b| Self::Block(Box::new(b))),
            KIND_PAYLOAD => Self::Payload(Box::new(WirePayload::decode(&mut payload)?.try_into()?)),
            KIND_FORKCHOICE => Self::Forkchoice(ForkchoiceEntry::decode(&mut payload)?),
            got => return Err(EntryError::Kind { got }),
        };
        if payload.is_empty() { Ok(entry) } else { Err(alloy_rlp::Error::UnexpectedLength.into()) }
    }
}

impl AdmitBatch {
    /// The bytes of `LogEntry::Admit`.
    pub fn encode_entry(&self) -> Bytes {
        let mut out = self.writer();
        out.raw(&[ENTRY_VERSION, KIND_ADMIT]);
        bytes::put_batch(self, &mut out);
        out.finish().into()
    }

    /// The batch alone, as it travels from a gateway to the leader.
    pub fn encode(&self) -> Bytes {
        let mut out = self.writer();
        bytes::put_batch(self, &mut out);
        out.finish().into()
    }

    /// Reads [`Self::encode`] back.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut input = Reader::new(bytes);
        let batch = bytes::take_batch(&mut input)?;
        input.finish()?;
        Ok(batch)
    }

    fn writer(&self) -> Writer {
        Writer::with_capacity(TX_BYTES_EXPECTED * self.transactions.len())
    }
}

impl BlockEntry {
    /// The bytes of `LogEntry::Block`.
    pub fn encode_entry(&self) -> Bytes {
        let mut out = Writer::with_capacity(BLOCK_TX_BYTES_EXPECTED * self.transactions.len());
        out.raw(&[ENTRY_VERSION, KIND_BLOCK]);
        bytes::put_block(self, &mut out);
        out.finish().into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut input = Reader::new(bytes);
        let block = bytes::take_block(&mut input)?;
        input.finish()?;
        Ok(block)
    }
}

/// The bytes of a diff, as in a block's entry.
pub fn encode_diff(diff: &StateDiff) -> Bytes {
    let mut out = Writer::with_capacity(BLOCK_TX_BYTES_EXPECTED * diff.accounts.len());
    bytes::put_diff(diff, &mut out);
    out.finish().into()
}

/// Reads [`encode_diff`] back.
pub fn decode_diff(bytes: &[u8]) -> Result<StateDiff, EntryError> {
    let mut input = Reader::new(bytes);
    let diff = bytes::take_diff(&mut input)?;
    input.finish()?;
    Ok(diff)
}

/// The bytes of a block's transactions at rest, with their senders: RLP.
pub fn encode_transactions(transactions: &[Transaction]) -> Vec<u8> {
    at_rest::transactions(transactions)
}

/// Reads [`encode_transactions`] back from the front of `bytes`.
pub fn decode_transactions(bytes: &mut &[u8]) -> Result<Vec<Transaction>, EntryError> {
    let wire = WireTransactions::decode(bytes)?;
    wire.transactions.into_iter().map(decode_transaction).collect()
}

/// The bytes of a block's receipts at rest: RLP, without blooms.
pub fn encode_receipts(receipts: &[Receipt]) -> Vec<u8> {
    at_rest::receipts(receipts)
}

/// Reads [`encode_receipts`] back.
pub fn decode_receipts(mut bytes: &[u8]) -> Result<Vec<Receipt>, EntryError> {
    let wire = Vec::<WireReceipt>::decode(&mut bytes)?;
    Ok(wire.into_iter().map(Receipt::try_from).collect::<Result<_, _>>()?)
}

fn framed(kind: u8, payload: &impl Encodable) -> Bytes {
    let mut out = Vec::with_capacity(2 + payload.length());
    out.extend([ENTRY_VERSION, kind]);
    payload.encode(&mut out);
    out.into()
}

pub(crate) fn decode_transaction(wire: WireTransaction) -> Result<Transaction, EntryError> {
    decode_raw_transaction(wire.sender, &wire.raw)
}

fn decode_raw_transaction(sender: Address, mut raw: &[u8]) -> Result<Transaction, EntryError> {
    let tx = TxEnvelope::decode_2718(&mut raw)
        .map_err(|error| EntryError::Transaction(error.to_string()))?;
    if !raw.is_empty() {
        return Err(EntryError::Transaction("bytes left over".to_owned()));
    }
    Ok(Arc::new(Recovered::new_unchecked(tx, sender)))
}

#[derive(RlpEncodable, RlpDecodable)]
struct WireTransactions {
    transactions: Vec<WireTransaction>,
}

#[derive(RlpEncodable, RlpDecodable)]
pub(crate) struct WireTransaction {
    pub(crate) sender: Address,
    pub(crate) raw: Bytes,
}

impl From<&Transaction> for WireTransaction {
    fn from(tx: &Transaction) -> Self {
        Self { sender: tx.signer(), raw: tx.encoded_2718().into() }
    }
}

/// `status` is one byte (0 or 1, EIP-658) or, before Byzantium, a state root.
#[derive(RlpEncodable, RlpDecodable)]
pub(crate) struct WireReceipt {
    status: Bytes,
    cumulative_gas_used: u64,
    logs: Vec<Log>,
}

impl From<&Receipt> for WireReceipt {
    fn from(receipt: &Receipt) -> Self {
        let status = match receipt.status {
            Eip658Value::Eip658(ok) => Bytes::copy_from_slice(&[u8::from(ok)]),
            Eip658Value::PostState(root) => Bytes::copy_from_slice(root.as_slice()),
        };
        Self {
            status,
            cumulative_gas_used: receipt.cumulative_gas_used,
            logs: receipt.logs.clone(),
        }
    }
}

impl TryFrom<WireReceipt> for Receipt {
    type Error = alloy_rlp::Error;

    fn try_from(wire: WireReceipt) -> alloy_rlp::Result<Self> {
        let status = match wire.status.as_ref() {
            [0] => Eip658Value::Eip658(false),
            [1] => Eip658Value::Eip658(true),
            root if root.len() == 32 => Eip658Value::PostState(B256::from_slice(root)),
            _ => return Err(alloy_rlp::Error::Custom("receipt status")),
        };
        Ok(Self { status, cumulative_gas_used: wire.cumulative_gas_used, logs: wire.logs })
    }
}

impl Encodable for AdmissionId {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        self.0.encode(out);
    }
    fn length(&self) -> usize {
        self.0.length()
    }
}

impl Decodable for AdmissionId {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        u64::decode(buf).map(Self)
    }
}
