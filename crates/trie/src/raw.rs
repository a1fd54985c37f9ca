//! Tries of plain bytes: one over 32-byte keys that is kept as the state is, and the slow twin that says
//! what a root must be.

use crate::{
    cold::Whole,
    encode,
    leaf::Leaf,
    subtrie::{Scratch, Subtrie},
};
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use std::collections::BTreeMap;

/// Why nothing is ever read for such a trie.
const WHOLE: &str = "its nodes are never dropped";

/// A trie of any values under 32-byte keys.
#[derive(Clone, Debug, Default)]
pub struct RawTrie {
    trie: Subtrie<RawLeaf>,
}

#[derive(Clone, Debug, Default)]
struct RawLeaf {
    key: B256,
    value: Bytes,
}

impl Leaf for RawLeaf {
    type Side = ();
    type Kept = ();

    fn keep(&self, (): &(), (): &mut ()) -> bool {
        false
    }

    fn keep_again((): &(), (): &mut ()) {}

    fn kept_bytes((): &()) -> usize {
        0
    }

    fn carry(&self, (): &mut (), (): &mut ()) -> Self {
        self.clone()
    }

    fn key(&self) -> &B256 {
        &self.key
    }

    fn encode_value(&self, (): &(), out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.value);
    }
}

impl RawTrie {
    /// Builds one from all its values at once.
    pub fn build(values: &BTreeMap<B256, Bytes>) -> Self {
        let leaf = |(key, value): (&B256, &Bytes)| RawLeaf { key: *key, value: value.clone() };
        let leaves = values.iter().filter(|(_, value)| !value.is_empty()).map(leaf).collect();
        Self { trie: Subtrie::build(leaves, ()) }
    }

    /// Sets the value of `key`; an empty one removes it.
    pub fn set(&mut self, key: B256, value: Bytes) {
        if value.is_empty() {
            self.trie.remove(&key, &Whole).expect(WHOLE);
            return;
        }
        let upserted = self.trie.upsert(
            &key,
            &Whole,
            |()| Some(RawLeaf { key, value: value.clone() }),
            |leaf, ()| Ok(std::mem::replace(&mut leaf.value, value.clone()) != value),
        );
        upserted.expect(WHOLE);
    }

    /// The root.
    pub fn root(&mut self) -> B256 {
        Subtrie::hash_group(&mut [&mut self.trie], &mut Scratch::new())[0].root_hash()
    }

    /// RLP of the nodes from the root towards `key`. Hashes what changed.
    pub fn prove(&mut self, key: &B256) -> Vec<Bytes> {
        self.root();
        let mut nodes = Vec::new();
        self.trie.prove(key, 0, &mut nodes);
        nodes
    }
}

/// The root of a trie of any keys and values, from the definition (yellow paper, appendix D): serial,
/// from scratch, keys of any length. What all other code here is held against.
pub fn plain_root(values: &BTreeMap<Vec<u8>, Vec<u8>>) -> B256 {
    let entries: Vec<(Vec<u8>, &[u8])> = values
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.iter().flat_map(|b| [b >> 4, b & 15]).collect(), &value[..]))
        .collect();
    if entries.is_empty() { EMPTY_ROOT_HASH } else { keccak256(plain_node(&entries, 0)) }
}

fn plain_node(entries: &[(Vec<u8>, &[u8])], start: usize) -> Vec<u8> {
    let (first, last) = (&entries[0].0, &entries[entries.len() - 1].0);
    if entries.len() == 1 {
        return plain_list(&[
            plain_string(&hex_prefix(&first[start..], true)),
            plain_string(entries[0].1),
        ]);
    }
    let shared = first[start..].iter().zip(&last[start..]).take_while(|(a, b)| a == b).count();
    if shared > 0 {
        return plain_list(&[
            plain_string(&hex_prefix(&first[start..start + shared], false)),
            plain_ref(plain_node(entries, start + shared)),
        ]);
    }
    let mut items: Vec<Vec<u8>> = (0..16)
        .map(|digit| {
            let from =
                entries.partition_point(|(key, _)| key.get(start).is_none_or(|d| *d < digit));
            let to = entries.partition_point(|(key, _)| key.get(start).is_none_or(|d| *d <= digit));
            if from == to {
                plain_string(&[])
            } else {
                plain_ref(plain_node(&entries[from..to], start + 1))
            }
        })
        .collect();
    items.push(plain_string(if first.len() == start { entries[0].1 } else { &[] }));
    plain_list(&items)
}

fn plain_ref(node: Vec<u8>) -> Vec<u8> {
    if node.len() < 32 { node } else { plain_string(keccak256(node).as_slice()) }
}

fn plain_list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    let mut out = Vec::with_capacity(payload.len() + 4);
    encode::list_header(payload.len(), &mut out);
    out.extend(payload);
    out
}

fn plain_string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    encode::string(bytes, &mut out);
    out
}

fn hex_prefix(nibbles: &[u8], is_leaf: bool) -> Vec<u8> {
    let flag = if is_leaf { 2 } else { 0 };
    let mut padded = Vec::with_capacity(nibbles.len() + 2);
    if nibbles.len() % 2 == 1 {
        padded.push(flag | 1);
    } else {
        padded.extend([flag, 0]);
    }
    padded.extend(nibbles);
    padded.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
