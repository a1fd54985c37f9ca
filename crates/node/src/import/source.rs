//! Chain files as a stream of blocks: concatenated block RLP, or era1.

use super::era::Era1;
use alloy_primitives::U256;
use blockraft_primitives::limits::IMPORT_BLOCK_BYTES_MAX;
use std::io::{self, BufRead, BufReader, Read, Seek};

/// One block of a chain file, not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBlock {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its RLP.
    pub bytes: Vec<u8>,
    /// The total difficulty up to it, where the file tells (era1).
    pub total_difficulty: Option<U256>,
}

/// A chain file that cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system.
    #[error("cannot read: {0}")]
    Io(io::Error),
    /// The file ends within a block.
    #[error("the file ends within the record that begins at byte {offset}")]
    Truncated {
        /// Where the block or record begins.
        offset: u64,
    },
    /// Not a chain file, or garbage between blocks.
    #[error("byte {offset}: this is not the RLP of a block")]
    NotABlock {
        /// Where.
        offset: u64,
    },
    /// Longer than any block may be.
    #[error("byte {offset}: a record of {got} bytes, at most {limit} are possible")]
    TooLong {
        /// Where.
        offset: u64,
        /// Its length.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A compressed file.
    #[error("the file is compressed with {format}: unpack it first")]
    Compressed {
        /// By what.
        format: &'static str,
    },
    /// Something of an era1 file is wrong.
    #[error("byte {offset}: era1: {problem}")]
    Era {
        /// Where.
        offset: u64,
        /// What.
        problem: String,
    },
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a chain file block by block; nothing of it is kept.
#[derive(Debug)]
pub struct ChainSource<R> {
    bytes: Counted<BufReader<R>>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Unknown,
    Rlp,
    Era1(Box<Era1>),
    /// Nothing follows.
    Ended,
}

impl<R: Read> ChainSource<R> {
    /// A source that tells the format by the first bytes.
    pub fn new(reader: R) -> Self {
        let bytes = Counted { inner: BufReader::with_capacity(1 << 20, reader), offset: 0 };
        Self { bytes, format: Format::Unknown }
    }

    /// The next block; `None` at the end. Nothing comes after an error.
    pub fn next_block(&mut self) -> Option<Result<RawBlock, SourceError>> {
        let next = self.read().transpose()?;
        if next.is_err() {
            self.format = Format::Ended;
        }
        Some(next)
    }

    fn read(&mut self) -> Result<Option<RawBlock>, SourceError> {
        loop {
            match &mut self.format {
                Format::Unknown => self.format = format_of(self.bytes.inner.fill_buf()?)?,
                Format::Rlp => return read_rlp(&mut self.bytes),
                Format::Era1(era) => return era.read(&mut self.bytes),
                Format::Ended => return Ok(None),
            }
        }
    }
}

/// Counts the blocks of a file of concatenated RLP without reading them; as far as it is one.
pub fn count_blocks<R: Read + Seek>(reader: R) -> io::Result<Option<u64>> {
    let mut bytes = BufReader::new(reader);
    if !matches!(format_of(bytes.fill_buf()?), Ok(Format::Rlp)) {
        return Ok(None);
    }
    let mut counted = Counted { inner: bytes, offset: 0 };
    let mut count = 0;
    while let Ok(Some((_, length))) = list_header(&mut counted) {
        counted.inner.seek_relative(length as i64)?;
        counted.offset += length;
        count += 1;
    }
    Ok(Some(count))
}

fn format_of(first: &[u8]) -> Result<Format, SourceError> {
    let compressed = |format| Err(SourceError::Compressed { format });
    match first {
        [0x1f, 0x8b, ..] => compressed("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => compressed("zstd"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => compressed("xz"),
        [b'B', b'Z', b'h', ..] => compressed("bzip2"),
        [b'e', b'2', ..] => Ok(Format::Era1(Box::default())),
        _ => Ok(Format::Rlp),
    }
}

fn read_rlp(bytes: &mut Counted<impl BufRead>) -> Result<Option<RawBlock>, SourceError> {
    let offset = bytes.offset;
    let Some((header, length)) = list_header(bytes)? else { return Ok(None) };
    let mut block = header;
    bytes.append(length, &mut block, offset)?;
    Ok(Some(RawBlock { offset, bytes: block, total_difficulty: None }))
}

/// The bytes before a list's payload, and the payload's length; `None` at the end of the file.
fn list_header(bytes: &mut Counted<impl BufRead>) -> Result<Option<(Vec<u8>, u64)>, SourceError> {
    let offset = bytes.offset;
    if bytes.inner.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut header = Vec::with_capacity(9);
    bytes.append(1, &mut header, offset)?;
    let length = match header[0] {
        0xc0..=0xf7 => u64::from(header[0] - 0xc0),
        first @ 0xf8..=0xff => {
            bytes.append(u64::from(first - 0xf7), &mut header, offset)?;
            let digits = &header[1..];
            if digits[0] == 0 {
                return Err(SourceError::NotABlock { offset });
            }
            digits.iter().fold(0, |length, digit| length << 8 | u64::from(*digit))
        }
        _ => return Err(SourceError::NotABlock { offset }),
    };
    check_length(offset, length)?;
    Ok(Some((header, length)))
}

/// Before anything is allocated for it.
pub(super) fn check_length(offset: u64, got: u64) -> Result<(), SourceError> {
    let limit = IMPORT_BLOCK_BYTES_MAX as u64;
    if got > limit {
        return Err(SourceError::TooLong { offset, got, limit });
    }
    Ok(())
}

/// A reader that knows where it is.
#[derive(Debug)]
pub(super) struct Counted<R> {
    pub(super) inner: R,
    pub(super) offset: u64,
}

impl<R: BufRead> Counted<R> {
    /// Appends exactly `length` bytes of the record that began at `from`.
    pub(super) fn append(
        &mut self,
        length: u64,
        out: &mut Vec<u8>,
        from: u64,
    ) -> Result<(), SourceError> {
        let got = self.inner.by_ref().take(length).read_to_end(out)? as u64;
        self.offset += got;
        if got < length {
            return Err(SourceError::Truncated { offset: from });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<RawBlock>, Option<String>) {
        let mut source = ChainSource::new(bytes);
        let mut blocks = Vec::new();
        while let Some(next) = source.next_block() {
            match next {
                Ok(block) => blocks.push(block),
                Err(error) => {
                    assert!(source.next_block().is_none());
                    return (blocks, Some(error.to_string()));
                }
            }
        }
        (blocks, None)
    }

    #[test]
    fn lists_are_told_apart_by_their_lengths() {
        let long = [&[0xf9, 0x01, 0x00][..], &[7; 256]].concat();
        let file = [&[0xc2, 1, 2][..], &long, &[0xc0]].concat();
        let (blocks, error) = read(&file);
        let parts: Vec<_> = blocks.iter().map(|block| (block.offset, &block.bytes[..])).collect();
        assert_eq!(parts, [(0, &[0xc2, 1, 2][..]), (3, &long), (262, &[0xc0])]);
        assert_eq!(error, None);
        assert_eq!(count_blocks(std::io::Cursor::new(&file)).unwrap(), Some(3));
        assert_eq!(read(&[]), (Vec::new(), None));
    }

    #[test]
    fn what_is_no_chain_file_is_refused_with_its_place() {
        let rows: [(&[u8], usize, &str); 8] = [
            (&[0xc2, 1], 0, "the file ends within the record that begins at byte 0"),
            (&[0xc0, 0xf9, 1], 1, "the file ends within the record that begins at byte 1"),
            (&[0xc0, 0x80], 1, "byte 1: this is not the RLP of a block"),
            (&[0xc0, 0xf8, 0], 1, "byte 1: this is not the RLP of a block"),
            (
                &[0xff, 1, 0, 0, 0, 0, 0, 0, 0],
                0,
                "byte 0: a record of 72057594037927936 bytes, at most 134217728 are possible",
            ),
            (&[0x1f, 0x8b, 8], 0, "the file is compressed with gzip: unpack it first"),
            (&[0x28, 0xb5, 0x2f, 0xfd], 0, "the file is compressed with zstd: unpack it first"),
            (b"{}", 0, "byte 0: this is not the RLP of a block"),
        ];
        for (bytes, count, expected) in rows {
            let (blocks, error) = read(bytes);
            assert_eq!((blocks.len(), error.as_deref()), (count, Some(expected)));
        }
    }
}
