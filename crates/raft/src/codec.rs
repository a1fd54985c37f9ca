//! Entries, votes and memberships as bytes, for the disk and the wire alike.
//!
//! A record is `version u8, kind u8, term u64 (big endian), payload`: raw bytes for an application
//! entry, postcard for a membership, nothing for a blank. Its index is kept beside it.

use crate::types::{CommittedLeaderId, Entry, EntryData, EntryPayload, LogId};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

/// The version of the record above.
const RECORD_VERSION: u8 = 1;
/// Bytes before the payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 10;

const KIND_BLANK: u8 = 0;
const KIND_MEMBERSHIP: u8 = 1;
const KIND_ENTRY: u8 = 2;

/// Bytes that are none of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("raft record is {got} bytes long, shorter than its header")]
    Short { got: usize },
    #[error("raft record version {got} is not supported, expected {RECORD_VERSION}")]
    Version { got: u8 },
    #[error("raft record of unknown kind {got}")]
    Kind { got: u8 },
    #[error("raft message is malformed")]
    Postcard(#[from] postcard::Error),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Memory and disk that an entry takes, roughly.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(data) => data.0.len(),
        EntryPayload::Membership(membership) => 128 * (1 + membership.nodes().count()),
    };
    RECORD_HEADER_BYTES + payload
}

/// The record of an entry.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry_bytes(entry));
    put_entry(entry, &mut out);
    out.freeze()
}

/// Appends the record of an entry.
pub(crate) fn put_entry(entry: &Entry, out: &mut BytesMut) {
    out.put_u8(RECORD_VERSION);
    let term = **entry.log_id.committed_leader_id();
    match &entry.payload {
        EntryPayload::Blank => {
            out.put_u8(KIND_BLANK);
            out.put_u64(term);
        }
        EntryPayload::Normal(data) => {
            out.put_u8(KIND_ENTRY);
            out.put_u64(term);
            out.put_slice(&data.0);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(KIND_MEMBERSHIP);
            out.put_u64(term);
            out.put_slice(&encode(membership));
        }
    }
}

/// Reads a record back. The payload is shared with `record`, not copied.
pub(crate) fn decode_entry(index: u64, record: &Bytes) -> Result<Entry, CodecError> {
    let (term, kind) = decode_header(record)?;
    let payload = match kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_ENTRY => EntryPayload::Normal(EntryData(record.slice(RECORD_HEADER_BYTES..))),
        KIND_MEMBERSHIP => EntryPayload::Membership(decode(&record[RECORD_HEADER_BYTES..])?),
        got => return Err(CodecError::Kind { got }),
    };
    Ok(Entry { log_id: LogId::new(CommittedLeaderId::new(term), index), payload })
}

/// The application's bytes in a stored record of the log; `None` for entries that are Raft's own.
///
/// # Errors
/// The record is none of this crate's.
pub fn application_entry(record: &Bytes) -> std::io::Result<Option<Bytes>> {
    let (_, kind) = decode_header(record)?;
    Ok((kind == KIND_ENTRY).then(|| record.slice(RECORD_HEADER_BYTES..)))
}

fn decode_header(record: &[u8]) -> Result<(u64, u8), CodecError> {
    let Some((header, _)) = record.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err(CodecError::Short { got: record.len() });
    };
    let [version, kind, term @ ..] = *header;
    if version != RECORD_VERSION {
        return Err(CodecError::Version { got: version });
    }
    Ok((u64::from_be_bytes(term), kind))
}

/// Votes, log ids, memberships and small messages.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("raft's own types have no unsized or unknown parts")
}

/// Reads [`encode`] back.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Ok(postcard::from_bytes(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Member, types::Vote};
    use alloy_primitives::hex;
    use std::collections::{BTreeMap, BTreeSet};

    fn member(n: u64) -> Member {
        Member { raft_addr: format!("r{n}:1"), rpc_addr: format!("h{n}:2") }
    }

    #[track_caller]
    fn check(payload: EntryPayload, golden: &str) {
        let log_id = LogId::new(CommittedLeaderId::new(0x0102), 7);
        let entry = Entry { log_id, payload };
        let record = encode_entry(&entry);
        assert_eq!(hex::encode(&record), golden);
        assert_eq!(decode_entry(7, &record).unwrap(), entry);
    }

    #[test]
    fn records_read_back_and_keep_their_bytes() {
        check(EntryPayload::Blank, "01000000000000000102");
        let data = EntryData(Bytes::from_static(b"entry"));
        check(EntryPayload::Normal(data), "01020000000000000102656e747279");
        let nodes = BTreeMap::from([(1, member(1)), (2, member(2))]);
        let membership = openraft::Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        check(
            EntryPayload::Membership(membership),
            "0101000000000000010201010102010472313a310468313a32020472323a310468323a32",
        );
    }

    #[test]
    fn votes_and_log_ids_keep_their_bytes() {
        assert_eq!(hex::encode(encode(&Vote::new_committed(3, 2))), "03010201");
        let log_id = LogId::new(CommittedLeaderId::new(3), 9);
        assert_eq!(hex::encode(encode(&log_id)), "0309");
    }

    #[test]
    fn malformed_records_are_refused() {
        let decoded = |bytes: &'static [u8]| {
            decode_entry(1, &Bytes::from_static(bytes)).unwrap_err().to_string()
        };
        assert_eq!(decoded(b"short"), "raft record is 5 bytes long, shorter than its header");
        let version = decoded(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(version, "raft record version 9 is not supported, expected 1");
        assert_eq!(decoded(&[1, 7, 0, 0, 0, 0, 0, 0, 0, 0]), "raft record of unknown kind 7");
        let cut = decoded(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 200]);
        assert_eq!(cut, "raft message is malformed");
    }
}
