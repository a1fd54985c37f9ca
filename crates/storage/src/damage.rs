//! What is wrong on disk, and where: the words of `blockraft db`.

use crate::StorageError;
use alloy_primitives::B256;
use serde::Serialize;
use std::fmt;

/// One thing that is not as it was written. Of the place, whatever can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The state shard; `None` for the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<usize>,
    /// First byte of the hashed addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u8>,
    /// The table, named as in `tables.rs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<&'static str>,
    /// keccak256 of the account's address, or of a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<B256>,
    /// keccak256 of the slot's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<B256>,
    /// The block that a record of the history or of the chain is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// What is wrong there.
    pub problem: String,
}

impl Damage {
    /// Of a whole shard.
    pub fn of_shard(shard: usize, problem: impl Into<String>) -> Self {
        Self { shard: Some(shard), problem: problem.into(), ..Self::default() }
    }

    /// Of the chain.
    pub fn of_chain(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), ..Self::default() }
    }

    pub(crate) fn in_table(shard: usize, table: &'static str, problem: impl Into<String>) -> Self {
        Self { table: Some(table), ..Self::of_shard(shard, problem) }
    }

    /// At a key of one of the state tables, as far as the key can be read.
    pub(crate) fn at_key(
        shard: usize,
        table: &'static str,
        key: &[u8],
        problem: impl Into<String>,
    ) -> Self {
        let hash = |from: usize| key.get(from..from + 32).map(B256::from_slice);
        Self {
            partition: key.first().copied(),
            key: hash(0),
            slot: hash(32),
            ..Self::in_table(shard, table, problem)
        }
    }

    pub(crate) fn error(shard: usize, table: &'static str, error: &StorageError) -> Self {
        Self::in_table(shard, table, error.to_string())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard {
            Some(shard) => write!(f, "shard {shard}")?,
            None => f.write_str("chain")?,
        }
        if let Some(partition) = self.partition {
            write!(f, ", partition {partition:#04x}")?;
        }
        if let Some(table) = self.table {
            write!(f, ", table {table}")?;
        }
        if let Some(key) = self.key {
            write!(f, ", key {key}")?;
        }
        if let Some(slot) = self.slot {
            write!(f, ", slot {slot}")?;
        }
        if let Some(block) = self.block {
            write!(f, ", block {block}")?;
        }
        write!(f, ": {}", self.problem)
    }
}
