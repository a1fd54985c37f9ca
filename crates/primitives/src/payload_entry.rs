//! What a consensus client's word becomes in the log: whole blocks, and where the head shall be.

use crate::{
    EntryError, Receipt, StateDiff, Transaction,
    entry::{WireReceipt, WireTransaction, decode_transaction},
};
use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::B256;
use alloy_rlp::{RlpDecodable, RlpEncodable};

/// A block that came from outside, complete: its transactions need not be in the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadEntry {
    /// Complete, with state root.
    pub header: Header,
    /// In block order.
    pub transactions: Vec<Transaction>,
    /// EIP-4895; `None` before Shanghai.
    pub withdrawals: Option<Vec<Withdrawal>>,
    /// One a transaction.
    pub receipts: Vec<Receipt>,
    /// What the block changes in the state.
    pub diff: StateDiff,
}

/// Where the chain shall end. It counts only on the head that its proposer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ForkchoiceEntry {
    /// Hash of the head that this entry changes or confirms.
    pub from: B256,
    /// Height of the block that shall be the head: `from` itself, or an ancestor to go back to.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Hash of the last block that is not expected to be taken back; zero where none is known.
    pub safe: B256,
    /// Hash of the last block that is never taken back; zero where none is known.
    pub finalized: B256,
}

/// The withdrawals are a list in a list: an absent list and an empty one are not the same.
#[derive(RlpEncodable, RlpDecodable)]
pub(crate) struct WirePayload {
    header: Header,
    transactions: Vec<WireTransaction>,
    withdrawals: Vec<Vec<Withdrawal>>,
    receipts: Vec<WireReceipt>,
    diff: StateDiff,
}

impl From<&PayloadEntry> for WirePayload {
    fn from(entry: &PayloadEntry) -> Self {
        Self {
            header: entry.header.clone(),
            transactions: entry.transactions.iter().map(WireTransaction::from).collect(),
            withdrawals: entry.withdrawals.iter().cloned().collect(),
            receipts: entry.receipts.iter().map(WireReceipt::from).collect(),
            diff: entry.diff.clone(),
        }
    }
}

impl TryFrom<WirePayload> for PayloadEntry {
    type Error = EntryError;

    fn try_from(wire: WirePayload) -> Result<Self, EntryError> {
        let mut withdrawals = wire.withdrawals.into_iter();
        let entry = Self {
            header: wire.header,
            transactions: wire
                .transactions
                .into_iter()
                .map(decode_transaction)
                .collect::<Result<_, _>>()?,
            withdrawals: withdrawals.next(),
            receipts: wire.receipts.into_iter().map(Receipt::try_from).collect::<Result<_, _>>()?,
            diff: wire.diff,
        };
        match withdrawals.next() {
            None => Ok(entry),
            Some(_) => Err(alloy_rlp::Error::Custom("a block has one list of withdrawals").into()),
        }
    }
}
