//! era1 files: e2store records with snappy-framed headers, bodies and receipts, and an accumulator.
//!
//! A record is `type (2), length (4, little-endian), 0 (2), data`. An era1 is a version record, four records
//! a block, the accumulator over all its blocks, and an index; other records may lie between.

use super::source::{Counted, RawBlock, SourceError, check_length};
use alloy_primitives::{B256, U256, keccak256};
use blockraft_primitives::limits::IMPORT_BLOCK_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::io::{BufRead, Read};

const VERSION: u16 = 0x3265;
const HEADER: u16 = 0x03;
const BODY: u16 = 0x04;
const RECEIPTS: u16 = 0x05;
const TOTAL_DIFFICULTY: u16 = 0x06;
const ACCUMULATOR: u16 = 0x07;
const INDEX: u16 = 0x3266;

/// Blocks of one era1 at most; the accumulator is a tree of this many leaves.
const BLOCK_COUNT_MAX: usize = 8192;

/// What was read of an era1 so far.
#[derive(Debug, Default)]
pub(super) struct Era1 {
    begun: bool,
    /// Leaves of the accumulator.
    records: Vec<B256>,
    /// Where the blocks begin.
    offsets: Vec<u64>,
    accumulated: bool,
    indexed: bool,
}

struct Record {
    offset: u64,
    kind: u16,
    data: Vec<u8>,
}

impl Era1 {
    /// The next block; `None` at the end of a whole file.
    pub(super) fn read(
        &mut self,
        bytes: &mut Counted<impl BufRead>,
    ) -> Result<Option<RawBlock>, SourceError> {
        loop {
            let Some(record) = record(bytes)? else {
                return if self.indexed {
                    Ok(None)
                } else {
                    Err(SourceError::Truncated { offset: bytes.offset })
                };
            };
            let problem = |problem: &str| wrong(record.offset, problem);
            match record.kind {
                // Several of them may follow one another in one file.
                VERSION if self.indexed || !self.begun => {
                    *self = Self { begun: true, ..Self::default() };
                }
                _ if !self.begun => return Err(problem("a version record is expected first")),
                HEADER if !self.accumulated => return self.block(bytes, &record).map(Some),
                ACCUMULATOR if !self.accumulated => self.check_accumulator(&record)?,
                INDEX if self.accumulated && !self.indexed => self.check_index(&record)?,
                VERSION | HEADER | BODY | RECEIPTS | TOTAL_DIFFICULTY | ACCUMULATOR | INDEX => {
                    return Err(problem("a record out of its order"));
                }
                _ => {}
            }
        }
    }

    fn block(
        &mut self,
        bytes: &mut Counted<impl BufRead>,
        header: &Record,
    ) -> Result<RawBlock, SourceError> {
        if self.records.len() == BLOCK_COUNT_MAX {
            return Err(wrong(header.offset, "more than 8192 blocks"));
        }
        let body = expect(bytes, BODY)?;
        let receipts = expect(bytes, RECEIPTS)?;
        let difficulty = expect(bytes, TOTAL_DIFFICULTY)?;
        let header_rlp = unpacked(header)?;
        // They follow from execution; that they are whole is checked here.
        unpacked(&receipts)?;
        let total: [u8; 32] = difficulty
            .data
            .as_slice()
            .try_into()
            .map_err(|_| wrong(difficulty.offset, "a total difficulty is 32 bytes"))?;
        let leaf = Sha256::new().chain_update(keccak256(&header_rlp)).chain_update(total);
        self.records.push(B256::from_slice(&leaf.finalize()));
        self.offsets.push(header.offset);
        Ok(RawBlock {
            offset: header.offset,
            bytes: join(header_rlp, &unpacked(&body)?, body.offset)?,
            total_difficulty: Some(U256::from_le_bytes(total)),
        })
    }

    fn check_accumulator(&mut self, record: &Record) -> Result<(), SourceError> {
        let expected = list_root(&self.records, BLOCK_COUNT_MAX.ilog2());
        if record.data != expected.as_slice() {
            let got = alloy_primitives::hex::encode_prefixed(&record.data);
            let problem = format!("the accumulator is {got}, of these blocks it is {expected}");
            return Err(wrong(record.offset, problem));
        }
        self.accumulated = true;
        Ok(())
    }

    /// `first block (8), a place for each block relative to this record (8 each), count (8)`.
    fn check_index(&mut self, record: &Record) -> Result<(), SourceError> {
        let words = record.data.chunks_exact(8);
        let whole = words.remainder().is_empty();
        let words: Vec<i64> =
            words.map(|word| i64::from_le_bytes(word.try_into().expect("8 bytes"))).collect();
        let places = self.offsets.iter().map(|offset| *offset as i64 - record.offset as i64);
        let fits = words.len() == self.offsets.len() + 2
            && words.last() == Some(&(self.offsets.len() as i64))
            && places.eq(words[1..=self.offsets.len()].iter().copied());
        if !whole || !fits {
            return Err(wrong(record.offset, "the block index does not fit the blocks"));
        }
        self.indexed = true;
        Ok(())
    }
}

fn wrong(offset: u64, problem: impl Into<String>) -> SourceError {
    SourceError::Era { offset, problem: problem.into() }
}

fn record(bytes: &mut Counted<impl BufRead>) -> Result<Option<Record>, SourceError> {
    let offset = bytes.offset;
    if bytes.inner.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut head = Vec::with_capacity(8);
    bytes.append(8, &mut head, offset)?;
    if head[6..] != [0, 0] {
        return Err(wrong(offset, "reserved bytes of a record are not zero"));
    }
    let kind = u16::from_le_bytes([head[0], head[1]]);
    let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
    check_length(offset, u64::from(length))?;
    let mut data = Vec::new();
    bytes.append(u64::from(length), &mut data, offset)?;
    Ok(Some(Record { offset, kind, data }))
}

fn expect(bytes: &mut Counted<impl BufRead>, kind: u16) -> Result<Record, SourceError> {
    let offset = bytes.offset;
    let record = record(bytes)?.ok_or(SourceError::Truncated { offset })?;
    if record.kind != kind {
        let problem = format!("record of type {:#x}, expected {kind:#x}", record.kind);
        return Err(wrong(offset, problem));
    }
    Ok(record)
}

/// The content of a snappy-framed record, whose checksums are right.
fn unpacked(record: &Record) -> Result<Vec<u8>, SourceError> {
    let mut content = Vec::new();
    snap::read::FrameDecoder::new(record.data.as_slice())
        .take(IMPORT_BLOCK_BYTES_MAX as u64 + 1)
        .read_to_end(&mut content)
        .map_err(|error| wrong(record.offset, format!("snappy: {error}")))?;
    check_length(record.offset, content.len() as u64)?;
    Ok(content)
}

/// A block's RLP from its header's and its body's, which are lists.
fn join(header: Vec<u8>, mut body: &[u8], offset: u64) -> Result<Vec<u8>, SourceError> {
    let list = alloy_rlp::Header::decode(&mut body).ok();
    if list.is_none_or(|list| !list.list || list.payload_length != body.len()) {
        return Err(wrong(offset, "a body is not one RLP list"));
    }
    let payload_length = header.len() + body.len();
    let mut block = Vec::with_capacity(payload_length + 9);
    alloy_rlp::Header { list: true, payload_length }.encode(&mut block);
    block.extend_from_slice(&header);
    block.extend_from_slice(body);
    Ok(block)
}

/// SSZ: the hash tree root of a list of at most `2^depth` elements with these roots.
fn list_root(leaves: &[B256], depth: u32) -> B256 {
    let pair = |a: B256, b: B256| {
        B256::from_slice(&Sha256::new().chain_update(a).chain_update(b).finalize())
    };
    let mut level = leaves.to_vec();
    let mut nothing = B256::ZERO;
    for _ in 0..depth {
        if level.len() % 2 == 1 {
            level.push(nothing);
        }
        level = level.chunks_exact(2).map(|both| pair(both[0], both[1])).collect();
        nothing = pair(nothing, nothing);
    }
    let mut length = B256::ZERO;
    length[..8].copy_from_slice(&(leaves.len() as u64).to_le_bytes());
    pair(level.first().copied().unwrap_or(nothing), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::b256;

    #[test]
    fn roots_of_lists_are_those_of_ssz() {
        // An empty list: the zero tree of its depth, mixed with the length 0.
        let zero_1 = b256!("f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b");
        let of = |a: B256, b: B256| B256::from_slice(&Sha256::digest([a.0, b.0].concat()));
        assert_eq!(of(B256::ZERO, B256::ZERO), zero_1);
        assert_eq!(list_root(&[], 1), of(zero_1, B256::ZERO));
        let (a, b, c) = (B256::repeat_byte(1), B256::repeat_byte(2), B256::repeat_byte(3));
        let mut three = B256::ZERO;
        three[0] = 3;
        let expected = of(of(of(of(a, b), of(c, B256::ZERO)), of(zero_1, zero_1)), three);
        assert_eq!(list_root(&[a, b, c], 3), expected);
    }
}
