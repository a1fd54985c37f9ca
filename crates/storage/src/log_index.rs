//! Which blocks hold a log with an address or a topic, without reading receipts.
//!
//! A posting says "in this block there is a log with this": an address, a topic at a position, or any
//! log at all. Its key is section, fingerprint, block within the section: a section's postings lie
//! together on disk, so writing touches few pages, and a query seeks once per value and section.

use crate::{
    LogQuery, StorageError,
    env::{ReadTx, WriteTx},
    tables::{LOG_INDEX, LOG_SECTION_BLOCKS},
};
use alloy_primitives::{Log, keccak256};
use blockraft_primitives::SealedBlock;
use std::collections::BTreeSet;

const PREFIX_BYTES: usize = 12;
const KEY_BYTES: usize = PREFIX_BYTES + 2;

/// What a fingerprint is of, besides topics at positions 0 to 3.
const KIND_ADDRESS: u8 = 4;
const KIND_ANY: u8 = 5;

type Fingerprint = [u8; 8];

/// Writes the postings of blocks.
pub(crate) fn write<'a>(
    tx: &WriteTx<'_>,
    blocks: impl Iterator<Item = &'a SealedBlock>,
) -> Result<(), StorageError> {
    let mut keys = Vec::new();
    for block in blocks {
        let mut fingerprints = BTreeSet::new();
        for log in block.receipts.iter().flat_map(|receipt| &receipt.logs) {
            fingerprints.insert(fingerprint(KIND_ANY, &[]));
            fingerprints.insert(fingerprint(KIND_ADDRESS, log.address.as_slice()));
            for (position, topic) in log.topics().iter().enumerate() {
                fingerprints.insert(fingerprint(position as u8, topic.as_slice()));
            }
        }
        keys.extend(fingerprints.into_iter().map(|f| key(block.number(), f)));
    }
    keys.sort_unstable();
    let mut table = tx.cursor(LOG_INDEX)?;
    keys.iter().try_for_each(|key| table.put(key, &[]))
}

/// Blocks of `query.from..=query.to` that have what the query asks for, as far as the index tells.
pub(crate) fn candidates(tx: &ReadTx<'_>, query: &LogQuery) -> Result<Vec<u64>, StorageError> {
    let mut found: Option<Vec<u64>> = None;
    for fingerprints in constraints(query) {
        let blocks = blocks_with_any(tx, &fingerprints, query.from, query.to)?;
        found = Some(match found {
            None => blocks,
            Some(mut found) => {
                found.retain(|block| blocks.binary_search(block).is_ok());
                found
            }
        });
    }
    Ok(found.unwrap_or_default())
}

/// Whether a block has a log that the query asks for.
pub(crate) fn matches(query: &LogQuery, block: &SealedBlock) -> bool {
    block.receipts.iter().flat_map(|receipt| &receipt.logs).any(|log| matches_log(query, log))
}

fn matches_log(query: &LogQuery, log: &Log) -> bool {
    let address = query.addresses.is_empty() || query.addresses.contains(&log.address);
    let topics = log.topics();
    address
        && query.topics.iter().enumerate().all(|(position, wanted)| {
            wanted.is_empty() || topics.get(position).is_some_and(|topic| wanted.contains(topic))
        })
}

/// Each of these must be met by one of its fingerprints.
fn constraints(query: &LogQuery) -> Vec<Vec<Fingerprint>> {
    let mut constraints = Vec::new();
    if !query.addresses.is_empty() {
        constraints.push(
            query.addresses.iter().map(|a| fingerprint(KIND_ADDRESS, a.as_slice())).collect(),
        );
    }
    for (position, topics) in query.topics.iter().enumerate().filter(|(_, t)| !t.is_empty()) {
        constraints
            .push(topics.iter().map(|t| fingerprint(position as u8, t.as_slice())).collect());
    }
    if constraints.is_empty() {
        constraints.push(vec![fingerprint(KIND_ANY, &[])]);
    }
    constraints
}

fn blocks_with_any(
    tx: &ReadTx<'_>,
    fingerprints: &[Fingerprint],
    from: u64,
    to: u64,
) -> Result<Vec<u64>, StorageError> {
    let mut table = tx.cursor(LOG_INDEX)?;
    let mut blocks = Vec::new();
    for section in from / LOG_SECTION_BLOCKS..=to / LOG_SECTION_BLOCKS {
        let first = from.max(section * LOG_SECTION_BLOCKS);
        for &fingerprint in fingerprints {
            let start = key(first, fingerprint);
            let mut next = table.seek(&start)?;
            while let Some(block) = next.and_then(|(key, _)| block_of(&key, &start)) {
                if block > to {
                    break;
                }
                blocks.push(block);
                next = table.next()?;
            }
        }
    }
    blocks.sort_unstable();
    blocks.dedup();
    Ok(blocks)
}

fn fingerprint(kind: u8, value: &[u8]) -> Fingerprint {
    let mut bytes = [0; 33];
    bytes[0] = kind;
    bytes[1..=value.len()].copy_from_slice(value);
    let hash = keccak256(&bytes[..=value.len()]);
    hash[..8].try_into().expect("a hash is longer than a fingerprint")
}

fn key(block: u64, fingerprint: Fingerprint) -> [u8; KEY_BYTES] {
    let section = u32::try_from(block / LOG_SECTION_BLOCKS).expect("fewer than 2^42 blocks");
    let mut key = [0; KEY_BYTES];
    key[..4].copy_from_slice(&section.to_be_bytes());
    key[4..PREFIX_BYTES].copy_from_slice(&fingerprint);
    key[PREFIX_BYTES..].copy_from_slice(&((block % LOG_SECTION_BLOCKS) as u16).to_be_bytes());
    key
}

/// The block of a posting, if it is of the same section and fingerprint as `like`.
fn block_of(key: &[u8], like: &[u8; KEY_BYTES]) -> Option<u64> {
    if key.len() != KEY_BYTES || key[..PREFIX_BYTES] != like[..PREFIX_BYTES] {
        return None;
    }
    let section = u32::from_be_bytes(key[..4].try_into().ok()?);
    let offset = u16::from_be_bytes(key[PREFIX_BYTES..].try_into().ok()?);
    Some(u64::from(section) * LOG_SECTION_BLOCKS + u64::from(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{Address, B256, hex};

    #[test]
    fn bytes_of_postings_are_frozen() {
        let address = fingerprint(KIND_ADDRESS, Address::repeat_byte(0x11).as_slice());
        let topic = fingerprint(3, B256::repeat_byte(0x22).as_slice());
        let bytes = key(LOG_SECTION_BLOCKS * 258 + 513, address);
        assert_eq!(hex::encode(bytes), format!("00000102{}0201", hex::encode(address)));
        assert_eq!(block_of(&bytes, &key(LOG_SECTION_BLOCKS * 258, address)), Some(264_705));
        assert_eq!(block_of(&bytes, &key(LOG_SECTION_BLOCKS * 258, topic)), None);
        let of = |bytes: &[u8]| keccak256(bytes)[..8].to_vec();
        assert_eq!(address.to_vec(), of(&[&[4][..], &[0x11; 20]].concat()));
        assert_eq!(topic.to_vec(), of(&[&[3][..], &[0x22; 32]].concat()));
        assert_eq!(fingerprint(KIND_ANY, &[]).to_vec(), of(&[5]));
    }
}
