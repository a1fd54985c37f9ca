//! Reverse diffs: what keys held before a block, in chunks in which one key is found without the rest.
//!
//! ```text
//! chunk:    crc32c of block and records (4), records
//! account:  0, hashed address (32)                            to name the account of the slots behind it
//!           1, hashed address (32), length (2), trail, value  the account itself changed
//! slot:     2, hashed slot (32), length (2), trail, value     of the account named last
//! ```
//! `trail` is what [`Trail::push`](crate::trail::Trail::push) carries away, `value` what was there before
//! the block: account RLP or a number, nothing for nothing. Accounts are in order of their keys, each before
//! its slots; so the keys of a block, and its chunks by the highest key in each, are in order.

use crate::{
    StorageError,
    codec::decode_u64,
    env::{TableCursor, WriteTx},
    tables::REVERSE_DIFFS,
    trail::skip_carried,
};
use alloy_primitives::B256;
use signet_libmdbx::Ro;

/// A chunk ends before it grows beyond this: three of them fill a page.
const CHUNK_BYTES: usize = 1240;
const CRC_BYTES: usize = 4;
const RECORD_HEAD_BYTES: usize = 1 + 32 + 2;

const NAME: u8 = 0;
const ACCOUNT: u8 = 1;
const SLOT: u8 = 2;

/// The reverse diffs of a run of blocks, while they are written. Keys come in order.
#[derive(Debug)]
pub(crate) struct ReverseDiffs {
    first: u64,
    blocks: Vec<Chunks>,
}

/// The chunks of one block, one behind the other.
#[derive(Debug, Default)]
struct Chunks {
    bytes: Vec<u8>,
    /// The highest key and the end of each chunk that is done.
    done: Vec<(Key, usize)>,
    /// The highest key of the last one, which is not.
    last: Option<Key>,
}

/// A hashed address, or one and a hashed slot.
pub(crate) type Key = (B256, Option<B256>);

/// What a key held before a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous<'a> {
    /// The key.
    pub(crate) key: Key,
    /// Lists of the key's trail that the block carried away.
    pub(crate) carried: &'a [u8],
    /// What it held.
    pub(crate) value: &'a [u8],
}

impl ReverseDiffs {
    /// Of the blocks from `first` to `last`.
    pub(crate) fn new(first: u64, last: u64) -> Self {
        let count = (last + 1).saturating_sub(first) as usize;
        Self { first, blocks: (0..count).map(|_| Chunks::default()).collect() }
    }

    /// Block `number` changed a key; `record` is what the trail carries away and the value before.
    pub(crate) fn push(&mut self, number: u64, key: Key, record: &[u8]) {
        let chunks = &mut self.blocks[(number - self.first) as usize];
        chunks.push(number, key, record);
    }

    /// Appends it all to the table.
    pub(crate) fn append(mut self, tx: &WriteTx<'_>) -> Result<(), StorageError> {
        let mut table = tx.cursor(REVERSE_DIFFS)?;
        for (number, chunks) in (self.first..).zip(&mut self.blocks) {
            chunks.end(number);
            let mut start = 0;
            for (key, end) in &chunks.done {
                table.append(&chunk_key(number, key), &chunks.bytes[start..*end])?;
                start = *end;
            }
        }
        Ok(())
    }
}

impl Chunks {
    fn push(&mut self, number: u64, key: Key, record: &[u8]) {
        let start = self.done.last().map_or(0, |(_, end)| *end);
        let size = self.bytes.len() - start + record.len() + 2 * RECORD_HEAD_BYTES;
        if self.last.is_some() && size > CHUNK_BYTES {
            self.end(number);
        }
        if self.last.is_none() {
            self.bytes.extend_from_slice(&[0; CRC_BYTES]);
        }
        let (account, slot) = key;
        if slot.is_some() && self.last.is_none_or(|(last, _)| last != account) {
            self.bytes.push(NAME);
            self.bytes.extend_from_slice(account.as_slice());
        }
        let (kind, hashed) = slot.map_or((ACCOUNT, account), |slot| (SLOT, slot));
        self.bytes.push(kind);
        self.bytes.extend_from_slice(hashed.as_slice());
        let length = u16::try_from(record.len()).expect("a trail and a value are short");
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(record);
        self.last = Some(key);
    }

    fn end(&mut self, number: u64) {
        let Some(last) = self.last.take() else { return };
        let start = self.done.last().map_or(0, |(_, end)| *end);
        let crc = checksum(number, &self.bytes[start + CRC_BYTES..]);
        self.bytes[start..start + CRC_BYTES].copy_from_slice(&crc);
        self.done.push((last, self.bytes.len()));
    }
}

/// A key of the table.
pub(crate) fn chunk_key(number: u64, key: &Key) -> Vec<u8> {
    let mut bytes = [0; 8 + 64];
    let len = put_chunk_key(number, key, &mut bytes);
    bytes[..len].to_vec()
}

fn put_chunk_key(number: u64, (account, slot): &Key, out: &mut [u8; 8 + 64]) -> usize {
    out[..8].copy_from_slice(&number.to_be_bytes());
    out[8..40].copy_from_slice(account.as_slice());
    let Some(slot) = slot else { return 40 };
    out[40..].copy_from_slice(slot.as_slice());
    72
}

/// The block that a key of the table, or of the removals, begins with.
pub(crate) fn block_of(key: &[u8]) -> Result<u64, StorageError> {
    decode_u64("a key of the history", key.get(..8).unwrap_or(key))
}

/// Finds what a block holds of a key, in a table of reverse diffs, and hands it on.
pub(crate) fn find<T>(
    table: &mut TableCursor<'_, Ro>,
    number: u64,
    key: &Key,
    found: impl FnOnce(Previous<'_>) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let missing = || {
        let (account, slot) = key;
        let place = format!("reverse diff of block {number}");
        let slot = slot.map(|slot| format!(" slot {slot}")).unwrap_or_default();
        StorageError::corrupt(place, format!("has nothing of {account}{slot}"))
    };
    let mut sought = [0; 8 + 64];
    let len = put_chunk_key(number, key, &mut sought);
    let (at, chunk) = table.seek(&sought[..len])?.ok_or_else(missing)?;
    if at.get(..8) != Some(&sought[..8]) {
        return Err(missing());
    }
    let mut records = Records::new(number, &chunk)?;
    while let Some(previous) = records.next()? {
        if previous.key == *key {
            return found(previous);
        }
    }
    Err(missing())
}

/// The records of a chunk.
pub(crate) struct Records<'a> {
    number: u64,
    rest: &'a [u8],
    account: Option<B256>,
}

impl<'a> Records<'a> {
    /// Without a look at the checksum: see [`Self::checked`].
    pub(crate) fn new(number: u64, chunk: &'a [u8]) -> Result<Self, StorageError> {
        let (_, rest) = chunk
            .split_at_checked(CRC_BYTES)
            .ok_or_else(|| corrupt(number, "a chunk is too short"))?;
        Ok(Self { number, rest, account: None })
    }

    /// Refuses a chunk that is not as it was written.
    pub(crate) fn checked(number: u64, chunk: &'a [u8]) -> Result<Self, StorageError> {
        let records = Self::new(number, chunk)?;
        if chunk[..CRC_BYTES] != checksum(number, records.rest) {
            return Err(corrupt(number, "a chunk does not match its checksum"));
        }
        Ok(records)
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Option<Previous<'a>>, StorageError> {
        loop {
            let Some((&kind, rest)) = self.rest.split_first() else { return Ok(None) };
            let too_short = || corrupt(self.number, "a record is too short");
            let (hashed, rest) = rest.split_first_chunk::<32>().ok_or_else(too_short)?;
            let hashed = B256::from(*hashed);
            if kind != SLOT {
                self.account = Some(hashed);
            }
            if kind == NAME {
                self.rest = rest;
                continue;
            }
            let account = self.account.filter(|_| kind == ACCOUNT || kind == SLOT);
            let account = account.ok_or_else(|| corrupt(self.number, "a record is of no kind"))?;
            let (length, rest) = rest.split_first_chunk().ok_or_else(too_short)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (record, rest) = rest.split_at_checked(length).ok_or_else(too_short)?;
            self.rest = rest;
            let value = skip_carried(record)?;
            let carried = &record[..record.len() - value.len()];
            let key = (account, (kind == SLOT).then_some(hashed));
            return Ok(Some(Previous { key, carried, value }));
        }
    }
}

fn checksum(number: u64, records: &[u8]) -> [u8; CRC_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), records).to_be_bytes()
}

fn corrupt(number: u64, problem: &str) -> StorageError {
    StorageError::corrupt(format!("reverse diff of block {number}"), problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    fn key(account: u8, slot: Option<u8>) -> Key {
        (B256::repeat_byte(account), slot.map(B256::repeat_byte))
    }

    #[test]
    fn bytes_of_a_chunk_are_frozen() {
        let mut diffs = ReverseDiffs::new(7, 8);
        diffs.push(7, key(1, None), &[0, 0xaa]);
        diffs.push(7, key(1, Some(2)), &[0, 0xbb]);
        diffs.push(7, key(3, Some(4)), &[0]);
        let chunks = &mut diffs.blocks[0];
        chunks.end(7);
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let (three, four) = ("03".repeat(32), "04".repeat(32));
        let records = format!("01{one}000200aa02{two}000200bb00{three}02{four}000100");
        let crc = hex::encode(checksum(7, &hex::decode(&records).unwrap()));
        assert_eq!(crc, "6d11e844");
        assert_eq!(hex::encode(&chunks.bytes), format!("{crc}{records}"));
        assert_eq!(chunks.done, [(key(3, Some(4)), chunks.bytes.len())]);
        let expected = format!("0000000000000007{three}{four}");
        assert_eq!(hex::encode(chunk_key(7, &key(3, Some(4)))), expected);
        assert_eq!(block_of(&chunk_key(7, &key(3, None))).unwrap(), 7);

        let mut read = Records::checked(7, &chunks.bytes).unwrap();
        for (key, value) in
            [(key(1, None), &[0xaa][..]), (key(1, Some(2)), &[0xbb]), (key(3, Some(4)), &[])]
        {
            let expected = Previous { key, carried: &[0], value };
            assert_eq!(read.next().unwrap(), Some(expected));
        }
        assert_eq!(read.next().unwrap(), None);
        assert!(Records::checked(8, &chunks.bytes).is_err());
    }

    #[test]
    fn a_slot_in_a_new_chunk_names_its_account_again() {
        let mut diffs = ReverseDiffs::new(1, 1);
        let keys: Vec<Key> = (0..60).map(|slot| key(9, Some(slot))).collect();
        for key in &keys {
            diffs.push(1, *key, &[0, 1, 2, 3]);
        }
        let chunks = &mut diffs.blocks[0];
        chunks.end(1);
        assert!(chunks.done.len() > 1);
        let (mut start, mut read) = (0, Vec::new());
        for (last, end) in &chunks.done {
            assert!(end - start <= CHUNK_BYTES);
            let mut records = Records::checked(1, &chunks.bytes[start..*end]).unwrap();
            while let Some(previous) = records.next().unwrap() {
                read.push(previous.key);
            }
            assert_eq!(read.last(), Some(last));
            start = *end;
        }
        assert_eq!(read, keys);
    }

    #[test]
    fn damaged_chunks_are_corrupt_not_a_panic() {
        let (one, long) = ("01".repeat(32), "00000000");
        for bytes in [
            "",
            "000000",
            &format!("{long}02{one}000100"),
            &format!("{long}01{one}"),
            &format!("{long}01{one}0005"),
            &format!("{long}01{one}00020100"),
            &format!("{long}07{one}000100"),
        ] {
            let bytes = hex::decode(bytes).unwrap();
            let read = Records::new(1, &bytes).and_then(|mut records| records.next());
            assert!(matches!(read, Err(StorageError::Corrupt { .. })), "{read:?}");
        }
    }
}
