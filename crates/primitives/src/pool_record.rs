//! A pool transaction at rest: what storage keeps so that the replicated pool survives a restart.

use crate::{
    AdmissionId, EntryError, Transaction,
    entry::{WireTransaction, decode_transaction},
};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};

/// A transaction of the replicated pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRecord {
    /// Its place among all admitted transactions.
    pub id: AdmissionId,
    /// Index of the `Admit` entry that brought it.
    pub admitted_at: u64,
    /// Index of the `Admit` entry whose transaction replaced it, if one did. It is kept for blocks
    /// that were cut before the replacement was applied, and never offered to a new one.
    pub replaced_at: Option<u64>,
    /// The transaction.
    pub transaction: Transaction,
}

/// What an applied entry does to the stored pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolChange {
    /// A record is new, or reads differently now.
    Put(PoolRecord),
    /// A record is gone (included, dropped, or stale).
    Remove(AdmissionId),
}

#[derive(RlpEncodable, RlpDecodable)]
struct WireRecord {
    id: AdmissionId,
    admitted_at: u64,
    /// Zero stands for none: log index 0 is never an `Admit` entry (it holds the first membership).
    replaced_at: u64,
    transaction: WireTransaction,
}

impl PoolRecord {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        alloy_rlp::encode(WireRecord {
            id: self.id,
            admitted_at: self.admitted_at,
            replaced_at: self.replaced_at.unwrap_or(0),
            transaction: WireTransaction::from(&self.transaction),
        })
    }

    /// Reads [`Self::encode`] back.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, EntryError> {
        let wire = WireRecord::decode(&mut bytes)?;
        Ok(Self {
            id: wire.id,
            admitted_at: wire.admitted_at,
            replaced_at: (wire.replaced_at != 0).then_some(wire.replaced_at),
            transaction: decode_transaction(wire.transaction)?,
        })
    }
}
