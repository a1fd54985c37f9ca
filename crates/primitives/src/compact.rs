//! The small pieces that compact log entries are made of: variable-length integers, words without their
//! leading zeros, and a table of the words that were written before.
//!
//! Same values, same bytes. Reading never makes room for more than what the bytes that are there can stand for:
//! a word of 32 for each.

use crate::EntryError;
use alloy_primitives::{Address, B256, U256, map::B256Map};

/// Code of a word that was written before; its place in the table follows.
const REPEATED: u8 = 0xff;
/// Significant bytes from which on a word is worth a place in the table.
const TABLED_BYTES_MIN: usize = 5;

/// Writes values one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    places: B256Map<u64>,
}

impl Writer {
    /// With room for so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), places: B256Map::default() }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// For encodings that tell their own length.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Seven bits a byte, the low ones first; the high bit says that more follow (LEB128).
    pub(crate) fn integer(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.integer(count as u64);
    }

    /// Likewise for small differences of either sign.
    pub(crate) fn difference(&mut self, from: u64, to: u64) {
        let difference = to.wrapping_sub(from) as i64;
        self.integer(((difference << 1) ^ (difference >> 63)) as u64);
    }

    /// Bytes of a length that the reader knows.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// How many bytes are significant, and those.
    pub(crate) fn number(&mut self, number: U256) {
        self.trimmed(&number.to_be_bytes::<32>());
    }

    fn trimmed(&mut self, word: &[u8; 32]) {
        let significant = significant_bytes(word);
        self.bytes.push(significant as u8);
        self.bytes.extend_from_slice(&word[32 - significant..]);
    }

    /// A word that is likely to occur more than once.
    pub(crate) fn word(&mut self, word: &B256) {
        if significant_bytes(&word.0) < TABLED_BYTES_MIN {
            return self.trimmed(&word.0);
        }
        let next = self.places.len() as u64;
        match self.places.get(word) {
            Some(&place) => {
                self.bytes.push(REPEATED);
                self.integer(place);
            }
            None => {
                self.places.insert(*word, next);
                self.trimmed(&word.0);
            }
        }
    }

    /// An address as the word that the EVM makes of it.
    pub(crate) fn address(&mut self, address: &Address) {
        self.word(&address.into_word());
    }
}

fn significant_bytes(word: &[u8; 32]) -> usize {
    32 - word.iter().take_while(|byte| **byte == 0).count()
}

/// Reads what a [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    table: Vec<B256>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, table: Vec::new() }
    }

    /// For encodings that tell their own length.
    pub(crate) fn buffer(&mut self) -> &mut &'a [u8] {
        &mut self.rest
    }

    /// Asserts that nothing is left.
    pub(crate) fn finish(self) -> Result<(), EntryError> {
        if self.rest.is_empty() { Ok(()) } else { Err(EntryError::Malformed("bytes left over")) }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, EntryError> {
        let (&byte, rest) = self.rest.split_first().ok_or(EntryError::Malformed("too short"))?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn integer(&mut self) -> Result<u64, EntryError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 0 && byte == 0 || bits << shift >> shift != bits {
                return Err(EntryError::Malformed("integer"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(EntryError::Malformed("integer"))
    }

    /// How many things follow, each of at least one byte.
    pub(crate) fn count(&mut self) -> Result<usize, EntryError> {
        let count = self.integer()?;
        if count > self.rest.len() as u64 {
            return Err(EntryError::Malformed("count"));
        }
        Ok(count as usize)
    }

    pub(crate) fn difference(&mut self, from: u64) -> Result<u64, EntryError> {
        let coded = self.integer()?;
        Ok(from.wrapping_add((coded >> 1) ^ (coded & 1).wrapping_neg()))
    }

    pub(crate) fn raw(&mut self, length: usize) -> Result<&'a [u8], EntryError> {
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or(EntryError::Malformed("too short"))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], EntryError> {
        let length = self.count()?;
        self.raw(length)
    }

    pub(crate) fn number(&mut self) -> Result<U256, EntryError> {
        let significant = self.byte()?;
        Ok(U256::from_be_bytes(self.trimmed(significant)?))
    }

    fn trimmed(&mut self, significant: u8) -> Result<[u8; 32], EntryError> {
        let mut word = [0; 32];
        if significant > 32 {
            return Err(EntryError::Malformed("word"));
        }
        let bytes = self.raw(usize::from(significant))?;
        if bytes.first() == Some(&0) {
            return Err(EntryError::Malformed("leading zero"));
        }
        word[32 - bytes.len()..].copy_from_slice(bytes);
        Ok(word)
    }

    pub(crate) fn word(&mut self) -> Result<B256, EntryError> {
        let code = self.byte()?;
        if code == REPEATED {
            let place = usize::try_from(self.integer()?).unwrap_or(usize::MAX);
            return self.table.get(place).copied().ok_or(EntryError::Malformed("repeated word"));
        }
        let word = B256::new(self.trimmed(code)?);
        if usize::from(code) >= TABLED_BYTES_MIN {
            self.table.push(word);
        }
        Ok(word)
    }

    pub(crate) fn address(&mut self) -> Result<Address, EntryError> {
        let word = self.word()?;
        if word[..12].iter().any(|byte| *byte != 0) {
            return Err(EntryError::Malformed("address"));
        }
        Ok(Address::from_word(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    #[test]
    fn values_read_back_from_few_bytes() {
        let address = Address::repeat_byte(0x11);
        let mut writer = Writer::default();
        for integer in [0, 127, 128, 21_000, u64::MAX] {
            writer.integer(integer);
        }
        writer.difference(7, 5);
        writer.difference(0, u64::MAX);
        writer.number(U256::ZERO);
        writer.number(U256::MAX);
        writer.address(&address);
        writer.word(&address.into_word());
        writer.word(&B256::with_last_byte(9));
        writer.bytes(b"ab");
        let bytes = writer.finish();
        let golden = concat!(
            "00",
            "7f",
            "8001",
            "88a401",
            "ffffffffffffffffff01",
            "03",
            "01",
            "00",
            "20ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "141111111111111111111111111111111111111111",
            "ff00",
            "0109",
            "026162",
        );
        assert_eq!(hex::encode(&bytes), golden);

        let mut reader = Reader::new(&bytes);
        for integer in [0, 127, 128, 21_000, u64::MAX] {
            assert_eq!(reader.integer(), Ok(integer));
        }
        assert_eq!((reader.difference(7), reader.difference(0)), (Ok(5), Ok(u64::MAX)));
        assert_eq!((reader.number(), reader.number()), (Ok(U256::ZERO), Ok(U256::MAX)));
        assert_eq!(reader.address(), Ok(address));
        assert_eq!(reader.word(), Ok(address.into_word()));
        assert_eq!(reader.word(), Ok(B256::with_last_byte(9)));
        assert_eq!(reader.bytes(), Ok(&b"ab"[..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn other_spellings_and_inflated_counts_are_refused() {
        let integer = |bytes: &[u8]| Reader::new(bytes).integer();
        for bytes in [&[0x80, 0][..], &[0xff; 10], &[0x80; 11], &[0x80]] {
            assert!(integer(bytes).is_err(), "{bytes:x?}");
        }
        assert_eq!(Reader::new(&[2, 0]).count(), Err(EntryError::Malformed("count")));
        assert_eq!(Reader::new(&[2, 0, 1]).number(), Err(EntryError::Malformed("leading zero")));
        assert_eq!(Reader::new(&[33]).word(), Err(EntryError::Malformed("word")));
        assert_eq!(Reader::new(&[255, 0]).word(), Err(EntryError::Malformed("repeated word")));
        let word = [&[32][..], &[1; 32]].concat();
        assert_eq!(Reader::new(&word).address(), Err(EntryError::Malformed("address")));
    }
}
