//! RLP of trie nodes, written straight from 32-byte keys: no nibble is ever unpacked into a byte.
//!
//! A node sits at a *start*: the number of nibbles that its ancestors consumed. The same leaf or branch
//! has another encoding at another start, which is all that extension nodes are: a branch at depth `d`
//! that starts at `s < d` is wrapped into an extension over the key nibbles `s..d`.

use alloy_primitives::{B256, Bytes, keccak256};

/// Nibbles of a key.
pub(crate) const KEY_NIBBLES: usize = 64;
/// RLP of the empty string: an absent child, an absent value.
const EMPTY_STRING: u8 = 0x80;

/// Nibble `index` of `key`, most significant first.
#[inline]
pub(crate) fn nibble(key: &B256, index: usize) -> usize {
    let byte = key.0[index / 2];
    usize::from(if index.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

/// Nibbles that `a` and `b` share from the start; [`KEY_NIBBLES`] if they are equal.
#[inline]
pub(crate) fn common_prefix(a: &B256, b: &B256) -> usize {
    for (index, (x, y)) in a.0.iter().zip(&b.0).enumerate() {
        let differing = x ^ y;
        if differing != 0 {
            return 2 * index + usize::from(differing < 0x10);
        }
    }
    KEY_NIBBLES
}

/// `key` with everything behind its first `nibbles` set to zero.
pub(crate) fn truncated(key: &B256, nibbles: usize) -> B256 {
    let mut out = B256::ZERO;
    out.0[..nibbles.div_ceil(2)].copy_from_slice(&key.0[..nibbles.div_ceil(2)]);
    if !nibbles.is_multiple_of(2) {
        out.0[nibbles / 2] &= 0xf0;
    }
    out
}

/// What a parent holds of a child: its hash, or its RLP if that is shorter than 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeRef {
    bytes: [u8; 32],
    /// 32 for a hash, less for RLP: RLP of 32 bytes and more is always hashed.
    len: u8,
}

impl NodeRef {
    pub(crate) const fn hash(hash: B256) -> Self {
        Self { bytes: hash.0, len: 32 }
    }

    /// The reference to the node that `rlp` encodes.
    pub(crate) fn to(rlp: &[u8]) -> Self {
        if rlp.len() >= 32 { Self::hash(keccak256(rlp)) } else { Self::inline(rlp) }
    }

    /// The reference to a node of less than 32 bytes.
    pub(crate) fn inline(rlp: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..rlp.len()].copy_from_slice(rlp);
        Self { bytes, len: rlp.len() as u8 }
    }

    /// Reads what a parent keeps: 32 bytes, and whether they hold RLP.
    pub(crate) fn stored(bytes: &[u8; 32], inline: bool) -> Self {
        // A node shorter than 32 bytes is a list with a one-byte header.
        let len = if inline { bytes[0] - 0xc0 + 1 } else { 32 };
        Self { bytes: *bytes, len }
    }

    pub(crate) const fn is_inline(&self) -> bool {
        self.len < 32
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The hash of the node, of which this is the root: a root is hashed however short it is.
    pub(crate) fn root_hash(&self) -> B256 {
        if self.is_inline() {
            keccak256(&self.bytes[..usize::from(self.len)])
        } else {
            B256::new(self.bytes)
        }
    }

    fn encoded_len(&self) -> usize {
        if self.is_inline() { usize::from(self.len) } else { 33 }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if self.is_inline() {
            out.extend_from_slice(&self.bytes[..usize::from(self.len)]);
        } else {
            out.push(EMPTY_STRING + 32);
            out.extend_from_slice(&self.bytes);
        }
    }
}

/// Writes the leaf with `key` and `value` that starts at `start`, replacing what `out` holds.
pub(crate) fn leaf(key: &B256, start: usize, value: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let path_len = path_encoded_len(KEY_NIBBLES - start);
    list_header(path_len + string_len(value), out);
    path(key, start, KEY_NIBBLES, true, out);
    string(value, out);
}

/// Writes the extension over the nibbles `start..end` of `key`, replacing what `out` holds.
pub(crate) fn extension(key: &B256, start: usize, end: usize, child: &NodeRef, out: &mut Vec<u8>) {
    out.clear();
    list_header(path_encoded_len(end - start) + child.encoded_len(), out);
    path(key, start, end, false, out);
    child.encode(out);
}

/// Writes the branch that `child` describes nibble by nibble, replacing what `out` holds.
pub(crate) fn branch(child: impl Fn(usize) -> Option<NodeRef>, out: &mut Vec<u8>) {
    out.clear();
    let children: [Option<NodeRef>; 16] = std::array::from_fn(child);
    let payload =
        1 + children.iter().map(|c| c.as_ref().map_or(1, NodeRef::encoded_len)).sum::<usize>();
    list_header(payload, out);
    for child in &children {
        match child {
            Some(child) => child.encode(out),
            None => out.push(EMPTY_STRING),
        }
    }
    out.push(EMPTY_STRING);
}

/// Writes a branch of which every child is hashed: the form that nearly all branches have.
pub(crate) fn hashed_branch(mask: u16, hashes: &[[u8; 32]], out: &mut Vec<u8>) {
    out.clear();
    let payload = 17 + 32 * hashes.len();
    list_header(payload, out);
    let mut at = out.len();
    out.resize(at + payload, EMPTY_STRING);
    let mut hashes = hashes.iter();
    for index in 0..16 {
        if mask & (1 << index) == 0 {
            at += 1;
        } else {
            out[at] = EMPTY_STRING + 32;
            let hash = hashes.next().expect("one hash for each bit of the mask");
            out[at + 1..at + 33].copy_from_slice(hash);
            at += 33;
        }
    }
}

/// Adds `value` as an RLP string.
pub(crate) fn string(value: &[u8], out: &mut Vec<u8>) {
    match value {
        [byte] if *byte < EMPTY_STRING => out.push(*byte),
        _ if value.len() < 56 => {
            out.push(EMPTY_STRING + value.len() as u8);
            out.extend_from_slice(value);
        }
        _ => {
            long_header(0xb7, value.len(), out);
            out.extend_from_slice(value);
        }
    }
}

/// Copies a node out of a buffer.
pub(crate) fn to_bytes(rlp: &[u8]) -> Bytes {
    Bytes::copy_from_slice(rlp)
}

fn string_len(value: &[u8]) -> usize {
    match value {
        [byte] if *byte < EMPTY_STRING => 1,
        _ if value.len() < 56 => 1 + value.len(),
        _ => 1 + length_bytes(value.len()) + value.len(),
    }
}

pub(crate) fn list_header(payload: usize, out: &mut Vec<u8>) {
    if payload < 56 {
        out.push(0xc0 + payload as u8);
    } else {
        long_header(0xf7, payload, out);
    }
}

fn long_header(offset: u8, len: usize, out: &mut Vec<u8>) {
    let bytes = length_bytes(len);
    out.push(offset + bytes as u8);
    out.extend_from_slice(&len.to_be_bytes()[size_of::<usize>() - bytes..]);
}

const fn length_bytes(len: usize) -> usize {
    size_of::<usize>() - len.leading_zeros() as usize / 8
}

/// Length of a hex-prefix path as an RLP string. A path of one byte is below 0x80 and its own RLP.
const fn path_encoded_len(nibbles: usize) -> usize {
    let bytes = nibbles / 2 + 1;
    if bytes == 1 { 1 } else { 1 + bytes }
}

/// Hex-prefix encoding of the nibbles `start..end` (yellow paper, appendix C).
fn path(key: &B256, start: usize, end: usize, is_leaf: bool, out: &mut Vec<u8>) {
    let nibbles = end - start;
    let bytes = nibbles / 2 + 1;
    if bytes > 1 {
        out.push(EMPTY_STRING + bytes as u8);
    }
    let flag = if is_leaf { 0x20 } else { 0 };
    let mut next = start;
    if nibbles.is_multiple_of(2) {
        out.push(flag);
    } else {
        out.push(flag | 0x10 | nibble(key, start) as u8);
        next += 1;
    }
    if next.is_multiple_of(2) {
        out.extend_from_slice(&key.0[next / 2..end / 2]);
    } else {
        out.extend(
            (next..end).step_by(2).map(|i| (nibble(key, i) << 4 | nibble(key, i + 1)) as u8),
        );
    }
}
