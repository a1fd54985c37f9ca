//! Frames: `length u32, request id u64, kind u8, payload`, big endian; the length counts what
//! follows it. An answer carries the request's id, and an [`Outcome`] in the place of the kind.

use blockraft_primitives::limits::FRAME_BYTES_MAX;
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

/// Bytes of a frame before its payload, the length not counted.
const HEADER_BYTES: usize = 9;
/// The longest payload.
pub(super) const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;

/// One request or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u64,
    pub(super) kind: u8,
    pub(super) payload: Bytes,
}

/// How a request ended, in an answer's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outcome {
    /// The payload is the handler's answer.
    Done = 0,
    /// The payload is the handler's refusal, UTF-8.
    Refused = 1,
}

/// Frames as they come in. A length beyond the limit is an error before anything is allocated.
pub(super) fn frames<R: AsyncRead>(read: R) -> impl Stream<Item = io::Result<Frame>> {
    let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
    FramedRead::new(read, codec).map(|bytes| parse(bytes?.freeze()))
}

fn parse(mut bytes: Bytes) -> io::Result<Frame> {
    if bytes.len() < HEADER_BYTES {
        let short = format!("frame of {} bytes is shorter than its header", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, short));
    }
    Ok(Frame { id: bytes.get_u64(), kind: bytes.get_u8(), payload: bytes })
}

/// Writes one frame. The payload is not copied when the writer lets long writes through.
pub(super) async fn write_frame<W: AsyncWrite + Unpin>(
    write: &mut W,
    frame: &Frame,
) -> io::Result<()> {
    let length = HEADER_BYTES + frame.payload.len();
    assert!(length <= FRAME_BYTES_MAX, "frame of {length} bytes was not refused earlier");
    let mut header = [0; 4 + HEADER_BYTES];
    header[..4].copy_from_slice(&(length as u32).to_be_bytes());
    header[4..12].copy_from_slice(&frame.id.to_be_bytes());
    header[12] = frame.kind;
    crate::metric::sent(4 + length);
    write.write_all(&header).await?;
    write.write_all(&frame.payload).await
}
