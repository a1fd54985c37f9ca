//! At which blocks a key changed: what its flat record carries, so that its history is found.
//!
//! A trail is a few short lists of blocks. The first has the last changes, up to [`FIRST_LIST_LEN_MAX`].
//! When it is full, the reverse diff of the next change carries it away and a new list begins; the block of
//! that change is added to the second list, which is carried away in its turn, and so on. So a key that
//! changed 100,000 times has three short lists, and each of its changes is at most three steps away.
//!
//! ```text
//! lists:  for each, the first first: length (1), blocks, newest first, as differences to the block before
//! block:  seven bits a byte, lowest first, the high bit set in all but the last
//! ```
//! The first block of the first list is a difference to 0. A list that a reverse diff carries begins with
//! the difference to the block of that diff.
//!
//! **Invariant**: the newest block of a list, but of the first, is the oldest block of the list before.

use crate::StorageError;

/// Blocks in the first list, which every key has that changed: what keeps flat records small.
const FIRST_LIST_LEN_MAX: usize = 32;
/// Blocks in any other list, which only keys have that change often: what keeps steps few.
const LIST_LEN_MAX: usize = 64;
/// More than any number of blocks fills.
const LISTS_MAX: usize = 12;

/// A trail in memory: made to be used again for key after key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trail {
    /// All lists, newest block first.
    blocks: Vec<u64>,
    lens: [usize; LISTS_MAX],
}

impl Trail {
    /// Reads a flat record's trail in the place of what was here.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.blocks.clear();
        self.lens = [0; LISTS_MAX];
        let mut from = None;
        for list in 0.. {
            if bytes.is_empty() {
                break;
            }
            let len = list_len(&mut bytes)?;
            *self.lens.get_mut(list).ok_or_else(|| corrupt("too many lists"))? = len;
            for _ in 0..len {
                let block = block(&mut bytes, from)?;
                from = Some(block);
                self.blocks.push(block);
            }
        }
        Ok(())
    }

    /// Adds the bytes of the flat record.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (mut from, mut rest) = (None, &self.blocks[..]);
        for len in self.lens.iter().take_while(|len| **len > 0) {
            let list;
            (list, rest) = rest.split_at(*len);
            write_list(list, from, out);
            from = list.last().copied();
        }
    }

    /// The last change.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.blocks.first().copied()
    }

    /// Adds a change; the lists that its reverse diff carries away are written to `carried`.
    pub(crate) fn push(&mut self, block: u64, carried: &mut Vec<u8>) {
        let full = (0..).take_while(|list| self.lens[*list] == len_max(*list)).count();
        assert!(full + 1 < LISTS_MAX, "no chain is so long");
        carried.push(full as u8);
        let mut start = 0;
        for len in &self.lens[..full] {
            write_list(&self.blocks[start..start + len], Some(block), carried);
            start += len;
        }
        self.blocks.splice(..start, std::iter::repeat_n(block, full + 1));
        self.lens[..full].fill(1);
        self.lens[full] += 1;
    }

    /// Takes the last change back, with what its reverse diff carries.
    pub(crate) fn pop(&mut self, number: u64, mut carried: &[u8]) -> Result<(), StorageError> {
        let full = usize::from(byte(&mut carried)?);
        let is_last = |count: usize| self.blocks.get(..count) == Some(&vec![number; count][..]);
        if full + 1 >= LISTS_MAX
            || self.lens[..full].iter().any(|len| *len != 1)
            || !is_last(full + 1)
        {
            return Err(corrupt("does not end with the change that is taken back"));
        }
        let mut lists = Vec::new();
        for list in 0..full {
            let (len, mut from) = (list_len(&mut carried)?, Some(number));
            self.lens[list] = len;
            for _ in 0..len {
                from = Some(block(&mut carried, from)?);
                lists.extend(from);
            }
        }
        self.lens[full] -= 1;
        self.blocks.splice(..=full, lists);
        Ok(())
    }

    /// Forgets the changes up to a block: what was before them is asked for no more.
    pub(crate) fn trim(&mut self, oldest: u64) {
        if self.blocks.last().is_none_or(|last| *last > oldest) {
            return;
        }
        let mut start = 0;
        let mut kept = Vec::with_capacity(self.blocks.len());
        for len in &mut self.lens {
            let list = &self.blocks[start..start + *len];
            start += *len;
            *len = list.partition_point(|block| *block > oldest);
            kept.extend_from_slice(&list[..*len]);
        }
        self.blocks = kept;
    }
}

/// Where to look for the first change after a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    /// The reverse diff of this block knows more.
    pub(crate) block: u64,
    /// Lists below the one that the block was found in: with 0 it is the change itself.
    pub(crate) below: usize,
}

/// What a flat record's trail says of the first change after `number`; `None` if there is none.
pub(crate) fn first_after(mut trail: &[u8], number: u64) -> Result<Option<Lead>, StorageError> {
    let (mut lead, mut from) = (None, None);
    for below in 0.. {
        if trail.is_empty() {
            break;
        }
        for _ in 0..list_len(&mut trail)? {
            let block = block(&mut trail, from)?;
            if block <= number {
                return Ok(lead);
            }
            lead = Some(Lead { block, below });
            from = Some(block);
        }
    }
    Ok(lead)
}

/// As [`first_after`], further on: what the lists say that the reverse diff of `lead.block` carries.
pub(crate) fn narrow(lead: Lead, mut carried: &[u8], number: u64) -> Result<Lead, StorageError> {
    let below = lead.below - 1;
    let lists = usize::from(byte(&mut carried)?);
    if below >= lists {
        return Err(corrupt("carries no list where one begins"));
    }
    for list in 0..=below {
        let mut narrowed = Lead { block: lead.block, below };
        let mut from = lead.block;
        for _ in 0..list_len(&mut carried)? {
            from = block(&mut carried, Some(from))?;
            if list == below && from <= number {
                return Ok(narrowed);
            }
            narrowed.block = from;
        }
        if list == below {
            return Ok(narrowed);
        }
    }
    unreachable!("the loop returns at its last list")
}

/// What follows the lists that a reverse diff carries.
pub(crate) fn skip_carried(mut carried: &[u8]) -> Result<&[u8], StorageError> {
    for _ in 0..byte(&mut carried)? {
        for _ in 0..list_len(&mut carried)? {
            while byte(&mut carried)? & 0x80 != 0 {}
        }
    }
    Ok(carried)
}

fn len_max(list: usize) -> usize {
    if list == 0 { FIRST_LIST_LEN_MAX } else { LIST_LEN_MAX }
}

fn write_list(list: &[u64], mut from: Option<u64>, out: &mut Vec<u8>) {
    out.push(list.len() as u8);
    for &block in list {
        let mut difference = from.map_or(block, |from| from - block);
        while difference >= 0x80 {
            out.push(difference as u8 | 0x80);
            difference >>= 7;
        }
        out.push(difference as u8);
        from = Some(block);
    }
}

fn list_len(bytes: &mut &[u8]) -> Result<usize, StorageError> {
    match usize::from(byte(bytes)?) {
        len @ 1..=LIST_LEN_MAX => Ok(len),
        _ => Err(corrupt("a list has a wrong length")),
    }
}

fn block(bytes: &mut &[u8], from: Option<u64>) -> Result<u64, StorageError> {
    let (mut difference, mut shift) = (0, 0);
    loop {
        let next = byte(bytes)?;
        if shift > 56 {
            return Err(corrupt("a block number is too long"));
        }
        difference |= u64::from(next & 0x7f) << shift;
        shift += 7;
        if next & 0x80 == 0 {
            break;
        }
    }
    let block = from.map_or(Some(difference), |from| from.checked_sub(difference));
    block.ok_or_else(|| corrupt("a block number is below zero"))
}

fn byte(bytes: &mut &[u8]) -> Result<u8, StorageError> {
    let (first, rest) = bytes.split_first().ok_or_else(|| corrupt("ends too early"))?;
    *bytes = rest;
    Ok(*first)
}

fn corrupt(problem: &str) -> StorageError {
    StorageError::corrupt("a key's trail", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;
    use std::collections::BTreeMap;

    fn bytes_of(trail: &Trail) -> Vec<u8> {
        let mut bytes = Vec::new();
        trail.write(&mut bytes);
        bytes
    }

    /// A key that changes at these blocks: its trail, and what each reverse diff carries.
    fn grow(blocks: impl Iterator<Item = u64>) -> (Trail, BTreeMap<u64, Vec<u8>>) {
        let (mut trail, mut diffs) = (Trail::default(), BTreeMap::new());
        for block in blocks {
            trail.push(block, diffs.entry(block).or_default());
        }
        (trail, diffs)
    }

    /// The first change after `number`, and how many reverse diffs were read on the way.
    fn find(trail: &[u8], diffs: &BTreeMap<u64, Vec<u8>>, number: u64) -> (Option<u64>, usize) {
        let Some(mut lead) = first_after(trail, number).unwrap() else { return (None, 0) };
        let mut steps = 0;
        while lead.below > 0 {
            lead = narrow(lead, &diffs[&lead.block], number).unwrap();
            steps += 1;
        }
        (Some(lead.block), steps)
    }

    #[test]
    fn bytes_of_a_trail_are_frozen() {
        let (trail, diffs) = grow([5, 300, 301].into_iter());
        assert_eq!(hex::encode(bytes_of(&trail)), "03ad0201a702");
        assert_eq!(diffs.values().map(hex::encode).collect::<Vec<_>>(), ["00"; 3]);
        let (trail, diffs) = grow(1..=34);
        assert_eq!(hex::encode(bytes_of(&trail)), "0222010100");
        assert_eq!(hex::encode(&diffs[&33]), format!("0120{}", "01".repeat(32)));
        assert_eq!(bytes_of(&Trail::default()), Vec::<u8>::new());
        let mut read = Trail::default();
        read.read(&bytes_of(&trail)).unwrap();
        assert_eq!(read, trail);
    }

    #[test]
    fn every_change_is_found_in_a_few_steps() {
        for (stride, count) in [(1u64, 5000u64), (7, 300), (130, 33), (3, 1)] {
            let blocks = || (1..=count).map(|n| n * stride);
            let (trail, diffs) = grow(blocks());
            let bytes = bytes_of(&trail);
            for number in 0..=count * stride + 1 {
                let expected = blocks().nth((number / stride) as usize);
                let (found, steps) = find(&bytes, &diffs, number);
                assert_eq!(found, expected, "{stride} {count} {number}");
                assert!(steps <= 2, "{steps} steps");
            }
        }
    }

    #[test]
    fn taking_back_is_the_inverse_of_adding() {
        let mut trail = Trail::default();
        let mut before = Vec::new();
        for block in 1..=5000 {
            let mut carried = Vec::new();
            before.push((trail.clone(), block));
            trail.push(block, &mut carried);
            let last = before.last_mut().unwrap();
            last.1 = block;
            let mut back = trail.clone();
            back.pop(block, &carried).unwrap();
            assert_eq!(back, last.0, "{block}");
            assert!(trail.clone().pop(block + 1, &carried).is_err());
        }
    }

    #[test]
    fn what_is_trimmed_is_asked_for_no_more() {
        let (whole, diffs) = grow((1..=700).map(|n| n * 2));
        for oldest in [0, 1, 2, 63, 64, 65, 500, 1399, 1400, 1401] {
            let mut trail = whole.clone();
            trail.trim(oldest);
            let bytes = bytes_of(&trail);
            for number in oldest..1402 {
                let expected = Some((number / 2 + 1) * 2).filter(|block| *block <= 1400);
                assert_eq!(find(&bytes, &diffs, number).0, expected, "{oldest} {number}");
            }
            let mut read = Trail::default();
            read.read(&bytes).unwrap();
            assert_eq!(read, trail);
        }
    }

    #[test]
    fn damaged_trails_are_corrupt_not_a_panic() {
        for bytes in ["00", "41", "01", "0180", "01ffffffffffffffffffff01", "020102"] {
            let bytes = hex::decode(bytes).unwrap();
            assert!(Trail::default().read(&bytes).is_err(), "{bytes:?}");
        }
        let lead = Lead { block: 9, below: 1 };
        for bytes in ["", "00", "0100", "0101"] {
            assert!(narrow(lead, &hex::decode(bytes).unwrap(), 3).is_err(), "{bytes}");
        }
    }
}
