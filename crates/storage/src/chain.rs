//! The chain environment: blocks, their indices, the pool, and how far all of it has come.

use crate::{
    LogQuery, StorageError, TransactionLocation,
    body::{Body, decode_body, encode_body},
    codec::decode_u64,
    env::{Env, ReadTx, WriteTx},
    log_index,
    tables::{
        BLOCK_HASHES, BODIES, CHAIN_META, CHAIN_TABLES, FORMAT_VERSION, HEADERS, POOL, RECEIPTS,
        TRANSACTIONS,
    },
    types::PoolEffect,
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::B256;
use alloy_rlp::{Decodable, Encodable};
use blockraft_primitives::{Applied, PoolRecord, SealedBlock, decode_receipts, encode_receipts};
use serde::{Deserialize, Serialize};
use signet_libmdbx::SyncMode;
use std::{path::Path, sync::Arc};

const STATE: &[u8] = b"state";

/// The open chain environment.
#[derive(Debug)]
pub(crate) struct Chain {
    env: Env,
}

/// How far the chain on disk has come. Preceded by the format version on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainMeta {
    /// Hash of block 0.
    pub(crate) genesis: B256,
    /// State environments of this directory.
    pub(crate) shards: u8,
    /// Number and hash of the last block.
    pub(crate) head: (u64, B256),
    /// Position of the state machine, whose pool this is.
    pub(crate) applied: Applied,
}

impl Chain {
    pub(crate) fn open(path: &Path, map_bytes_max: usize) -> Result<Self, StorageError> {
        Ok(Self { env: Env::open(path, CHAIN_TABLES, SyncMode::Durable, map_bytes_max)? })
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// How far the chain has come, or `None` in one that was never written.
    pub(crate) fn meta(&self) -> Result<Option<ChainMeta>, StorageError> {
        let tx = self.env.read()?;
        let Some(bytes) = tx.get(CHAIN_META, STATE)? else { return Ok(None) };
        ChainMeta::decode(&bytes, &format!("{} meta", self.env.path().display())).map(Some)
    }

    /// Writes blocks that follow the chain, changes the pool, and moves the position: all or nothing,
    /// durably. `pool` is sorted by id, one effect an id.
    pub(crate) fn write(
        &self,
        blocks: &[&SealedBlock],
        pool: &[PoolEffect<'_>],
        meta: &ChainMeta,
    ) -> Result<(), StorageError> {
        let tx = self.env.write()?;
        write_blocks(&tx, blocks)?;
        log_index::write(&tx, blocks.iter().copied())?;
        write_pool(&tx, pool)?;
        tx.put(CHAIN_META, STATE, &meta.encode())?;
        fail::fail_point!("persist-chain-before-commit", |_| Err(StorageError::Injected {
            point: "persist-chain-before-commit"
        }));
        tx.commit()
    }

    /// Deletes the blocks above `meta`'s head up to `last`, changes the pool, and moves the position back:
    /// all or nothing, durably. The log index keeps its postings: it may name a block too many.
    pub(crate) fn truncate(
        &self,
        last: u64,
        pool: &[PoolEffect<'_>],
        meta: &ChainMeta,
    ) -> Result<(), StorageError> {
        let gone: Vec<Arc<SealedBlock>> = (meta.head.0 + 1..=last)
            .map(|number| {
                let missing = || StorageError::corrupt("headers", "a block is missing");
                self.block(number)?.ok_or_else(missing)
            })
            .collect::<Result<_, _>>()?;
        let tx = self.env.write()?;
        for block in &gone {
            let key = block.number().to_be_bytes();
            for table in [HEADERS, BODIES, RECEIPTS] {
                tx.delete(table, &key)?;
            }
            tx.delete(BLOCK_HASHES, block.hash().as_slice())?;
            for transaction in &block.transactions {
                tx.delete(TRANSACTIONS, transaction.tx_hash().as_slice())?;
            }
        }
        write_pool(&tx, pool)?;
        tx.put(CHAIN_META, STATE, &meta.encode())?;
        tx.commit()
    }

    /// The stored pool, sorted by id.
    pub(crate) fn pool(&self) -> Result<Vec<PoolRecord>, StorageError> {
        let tx = self.env.read()?;
        let mut table = tx.cursor(POOL)?;
        let mut records = Vec::new();
        let mut next = table.first()?;
        while let Some((_, value)) = next {
            let record = PoolRecord::decode(&value)
                .map_err(|error| StorageError::corrupt("pool", error.to_string()))?;
            records.push(record);
            next = table.next()?;
        }
        Ok(records)
    }

    pub(crate) fn header(&self, number: u64) -> Result<Option<Sealed<Header>>, StorageError> {
        header(&self.env.read()?, number)
    }

    /// A block's hash, without decoding its header.
    pub(crate) fn hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        let tx = self.env.read()?;
        let value = tx.get(HEADERS, &number.to_be_bytes())?;
        Ok(value.and_then(|value| value.get(..32).map(B256::from_slice)))
    }

    pub(crate) fn number_of(&self, hash: &B256) -> Result<Option<u64>, StorageError> {
        let tx = self.env.read()?;
        let value = tx.get(BLOCK_HASHES, hash.as_slice())?;
        value.map(|value| decode_u64("block_hashes", &value)).transpose()
    }

    pub(crate) fn block(&self, number: u64) -> Result<Option<Arc<SealedBlock>>, StorageError> {
        let tx = self.env.read()?;
        let key = number.to_be_bytes();
        let Some(header) = header(&tx, number)? else { return Ok(None) };
        let missing =
            |table| StorageError::corrupt(format!("{table} of block {number}"), "missing");
        let corrupt = |table, error: blockraft_primitives::EntryError| {
            StorageError::corrupt(format!("{table} of block {number}"), error.to_string())
        };
        let body = tx.get(BODIES, &key)?.ok_or_else(|| missing("body"))?;
        let receipts = tx.get(RECEIPTS, &key)?.ok_or_else(|| missing("receipts"))?;
        let body = decode_body(&body).map_err(|e| corrupt("body", e))?;
        let receipts = decode_receipts(&receipts).map_err(|e| corrupt("receipts", e))?;
        let Body { transactions, ommers, withdrawals } = body;
        Ok(Some(Arc::new(SealedBlock { header, transactions, receipts, ommers, withdrawals })))
    }

    pub(crate) fn transaction(
        &self,
        hash: &B256,
    ) -> Result<Option<TransactionLocation>, StorageError> {
        let tx = self.env.read()?;
        let value = tx.get(TRANSACTIONS, hash.as_slice())?;
        value
            .map(|value| {
                let (block, index) = value.split_at_checked(8).unwrap_or_default();
                let index = index
                    .try_into()
                    .map_err(|_| StorageError::corrupt("transactions", "not a location"))?;
                Ok(TransactionLocation {
                    block: decode_u64("transactions", block)?,
                    index: u32::from_be_bytes(index) as usize,
                })
            })
            .transpose()
    }

    /// As [`crate::Store::blocks_with_logs`], of the blocks on disk.
    pub(crate) fn blocks_with_logs(&self, query: &LogQuery) -> Result<Vec<u64>, StorageError> {
        log_index::candidates(&self.env.read()?, query)
    }
}

fn write_pool(tx: &WriteTx<'_>, pool: &[PoolEffect<'_>]) -> Result<(), StorageError> {
    let mut table = tx.cursor(POOL)?;
    for (id, record) in pool {
        let key = id.0.to_be_bytes();
        match record {
            Some(record) => table.put(&key, &record.encode())?,
            None => drop(table.delete(&key)?),
        }
    }
    Ok(())
}

fn write_blocks(tx: &WriteTx<'_>, blocks: &[&SealedBlock]) -> Result<(), StorageError> {
    let mut hashes = Vec::new();
    let mut transactions = Vec::new();
    let mut headers = tx.cursor(HEADERS)?;
    let mut bodies = tx.cursor(BODIES)?;
    let mut receipts = tx.cursor(RECEIPTS)?;
    for block in blocks {
        let number = block.number();
        let key = number.to_be_bytes();
        let mut header = block.hash().to_vec();
        block.header.inner().encode(&mut header);
        headers.put(&key, &header)?;
        bodies.put(&key, &encode_body(block))?;
        receipts.put(&key, &encode_receipts(&block.receipts))?;
        hashes.push((block.hash(), key));
        for (index, transaction) in block.transactions.iter().enumerate() {
            let mut location = [0; 12];
            location[..8].copy_from_slice(&key);
            location[8..].copy_from_slice(&(index as u32).to_be_bytes());
            transactions.push((*transaction.tx_hash(), location));
        }
    }
    hashes.sort_unstable();
    transactions.sort_unstable();
    let mut table = tx.cursor(BLOCK_HASHES)?;
    hashes.iter().try_for_each(|(hash, key)| table.put(hash.as_slice(), key))?;
    let mut table = tx.cursor(TRANSACTIONS)?;
    transactions.iter().try_for_each(|(hash, location)| table.put(hash.as_slice(), location))
}

impl ChainMeta {
    /// The bytes on disk and in a snapshot's header: format version, postcard.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = FORMAT_VERSION.to_be_bytes().to_vec();
        bytes.extend(postcard::to_stdvec(self).expect("numbers and bytes always serialise"));
        bytes
    }

    /// Reads [`Self::encode`] back; `place` is where the bytes are from.
    pub(crate) fn decode(bytes: &[u8], place: &str) -> Result<Self, StorageError> {
        let (version, state) = bytes
            .split_first_chunk()
            .ok_or_else(|| StorageError::corrupt(place, "value is too short"))?;
        let got = u32::from_be_bytes(*version);
        if got != FORMAT_VERSION {
            let place = place.to_owned();
            return Err(StorageError::Version { place, got, expected: FORMAT_VERSION });
        }
        postcard::from_bytes(state).map_err(|error| StorageError::corrupt(place, error.to_string()))
    }
}

fn header(tx: &ReadTx<'_>, number: u64) -> Result<Option<Sealed<Header>>, StorageError> {
    let Some(value) = tx.get(HEADERS, &number.to_be_bytes())? else { return Ok(None) };
    let place = || format!("header of block {number}");
    let (hash, mut rlp) = value
        .split_at_checked(32)
        .ok_or_else(|| StorageError::corrupt(place(), "value is too short"))?;
    let header = Header::decode(&mut rlp)
        .map_err(|error| StorageError::corrupt(place(), error.to_string()))?;
    Ok(Some(Sealed::new_unchecked(header, B256::from_slice(hash))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;
    use blockraft_primitives::{AdmissionId, LogPosition};

    #[test]
    fn bytes_of_the_position_are_frozen() {
        let meta = ChainMeta {
            genesis: B256::repeat_byte(0x11),
            shards: 4,
            head: (300, B256::repeat_byte(0x22)),
            applied: Applied {
                position: Some(LogPosition { term: 2, leader: 3, index: 400 }),
                membership: vec![0xaa, 0xbb],
                next_admission: AdmissionId(5),
            },
        };
        let bytes = meta.encode();
        let (genesis, head) = ("11".repeat(32), "22".repeat(32));
        let expected =
            format!("00000003{LENGTH}{genesis}04ac02{LENGTH}{head}0102039003{MEMBERSHIP}05");
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(ChainMeta::decode(&bytes, "test").unwrap(), meta);
        let newer = [&[0, 0, 0, 4], &bytes[4..]].concat();
        let refused = ChainMeta::decode(&newer, "test");
        assert!(matches!(refused, Err(StorageError::Version { got: 4, expected: 3, .. })));
    }

    /// postcard's length before bytes.
    const LENGTH: &str = "20";
    const MEMBERSHIP: &str = "02aabb";
}
