//! The bytes of Raft's messages.

use crate::{
    codec::{CodecError, decode, decode_entry, encode, put_entry},
    types::{LogId, SnapshotMeta, TypeConfig, Vote},
};
use alloy_primitives::B256;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize};

/// Kinds on the control and replication planes.
pub(super) const APPEND: u8 = 1;
pub(super) const VOTE: u8 = 2;
pub(super) const PRE_VOTE: u8 = 3;
pub(super) const TRANSFER: u8 = 4;

/// Kinds on the snapshot plane.
pub(super) const SNAPSHOT_BEGIN: u8 = 1;
pub(super) const SNAPSHOT_CHUNK: u8 = 2;
pub(super) const SNAPSHOT_END: u8 = 3;

/// Bytes before a chunk's data: the snapshot's hash and the offset.
const CHUNK_HEADER_BYTES: usize = 40;

/// An append request but for its entries, which follow as `length u32, record`. Their indices count
/// on from `prev_log_id`.
#[derive(Serialize, Deserialize)]
struct AppendHeader {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
}

/// Opens the transfer of a snapshot; answered with the offset to go on from, a u64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotBegin {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
    pub(super) bytes: u64,
    pub(super) hash: [u8; 32],
}

/// A piece of the file.
pub(super) struct SnapshotChunk {
    pub(super) hash: B256,
    pub(super) offset: u64,
    pub(super) data: Bytes,
}

pub(super) fn encode_append(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let header = encode(&AppendHeader {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
    });
    let entries: usize = request.entries.iter().map(|e| 4 + crate::codec::entry_bytes(e)).sum();
    let mut out = BytesMut::with_capacity(4 + header.len() + entries);
    out.put_u32(header.len() as u32);
    out.put_slice(&header);
    for entry in &request.entries {
        let at = out.len();
        out.put_u32(0);
        put_entry(entry, &mut out);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    out.freeze()
}

pub(super) fn decode_append(
    mut bytes: Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let header: AppendHeader = decode(&take_piece(&mut bytes)?)?;
    let mut index = header.prev_log_id.map_or(0, |id| id.index + 1);
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        entries.push(decode_entry(index, &take_piece(&mut bytes)?)?);
        index += 1;
    }
    Ok(AppendEntriesRequest {
        vote: header.vote,
        prev_log_id: header.prev_log_id,
        entries,
        leader_commit: header.leader_commit,
    })
}

fn take_piece(bytes: &mut Bytes) -> Result<Bytes, CodecError> {
    let got = bytes.len();
    let length = bytes.try_get_u32().map_err(|_| CodecError::Short { got })? as usize;
    if length > bytes.len() {
        return Err(CodecError::Short { got });
    }
    Ok(bytes.split_to(length))
}

pub(super) fn encode_chunk(hash: &B256, offset: u64, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(CHUNK_HEADER_BYTES + data.len());
    out.put_slice(hash.as_slice());
    out.put_u64(offset);
    out.put_slice(data);
    out.freeze()
}

pub(super) fn decode_chunk(mut bytes: Bytes) -> Result<SnapshotChunk, CodecError> {
    let got = bytes.len();
    if got < CHUNK_HEADER_BYTES {
        return Err(CodecError::Short { got });
    }
    let hash = B256::from_slice(&bytes.split_to(32));
    let offset = bytes.get_u64();
    Ok(SnapshotChunk { hash, offset, data: bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CommittedLeaderId, Entry, EntryData, EntryPayload};
    use alloy_primitives::hex;

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let id = |index| LogId::new(CommittedLeaderId::new(2), index);
        let data = EntryPayload::Normal(EntryData(Bytes::from_static(b"abc")));
        AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(id(4)),
            entries: vec![
                Entry { log_id: id(5), payload: data },
                Entry { log_id: id(6), payload: EntryPayload::Blank },
            ],
            leader_commit: Some(id(3)),
        }
    }

    #[test]
    fn append_reads_back_and_keeps_its_bytes() {
        let bytes = encode_append(&request());
        let golden = concat!(
            "0000000a",
            "02010101",
            "010204",
            "010203",
            "0000000d",
            "01020000000000000002616263",
            "0000000a",
            "01000000000000000002",
        );
        assert_eq!(hex::encode(&bytes), golden);
        assert_eq!(format!("{:?}", decode_append(bytes).unwrap()), format!("{:?}", request()));
    }

    #[test]
    fn cut_or_inflated_append_is_refused() {
        let bytes = encode_append(&request());
        for length in (0..bytes.len()).filter(|length| ![14, 31].contains(length)) {
            assert!(decode_append(bytes.slice(..length)).is_err(), "cut to {length}");
        }
        let mut inflated = bytes.to_vec();
        inflated[14] = 0xff;
        assert!(decode_append(inflated.into()).is_err());
    }

    #[test]
    fn chunk_reads_back() {
        let hash = B256::repeat_byte(7);
        let chunk = decode_chunk(encode_chunk(&hash, 9, b"data")).unwrap();
        assert_eq!((chunk.hash, chunk.offset, &chunk.data[..]), (hash, 9, &b"data"[..]));
        assert!(decode_chunk(Bytes::from_static(&[0; 39])).is_err());
    }
}
