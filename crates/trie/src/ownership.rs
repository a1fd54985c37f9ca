//! Subtries as things of their own: their roots, the state root from 256 of them, and moving one from
//! node to node.

use crate::{
    StateTrie, TrieError,
    builder::{BuiltSubtrie, SubtrieBuilder},
    encode::{self, KEY_NIBBLES, NodeRef},
    parallel::{PARTS, assemble},
    state_trie::hash_storages,
    storage_trie::StorageTrie,
    subtrie::Top,
};
use alloy_primitives::{B256, Bytes, U256};
use alloy_rlp::{BufMut, Decodable, Encodable, Header, RlpDecodable, RlpEncodable};
use blockraft_primitives::{Account, PartitionSet};
use std::collections::BTreeSet;

/// What the owner of a subtrie says of it: its root node, from which and those of the other 255 the state
/// root follows. 35 bytes for a subtrie of more than a few accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtrieRoot {
    prefix: u8,
    top: Top,
}

/// Everything in one subtrie, sorted: what a snapshot or a repair moves.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct SubtrieExport {
    /// First byte of the hashed addresses.
    pub prefix: u8,
    /// Sorted by hashed address.
    pub accounts: Vec<ExportedAccount>,
}

/// An account with its storage.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ExportedAccount {
    /// keccak256 of the address.
    pub hashed_address: B256,
    /// Transactions sent.
    pub nonce: u64,
    /// In wei.
    pub balance: U256,
    /// keccak256 of the code.
    pub code_hash: B256,
    /// Sorted by hashed slot; none is zero.
    pub slots: Vec<ExportedSlot>,
}

/// A storage slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ExportedSlot {
    /// keccak256 of the slot's number.
    pub hashed_slot: B256,
    /// Not zero.
    pub value: U256,
}

impl SubtrieRoot {
    pub(crate) const fn new(prefix: u8, top: Top) -> Self {
        Self { prefix, top }
    }

    /// First byte of the hashed addresses below.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    pub(crate) const fn top(&self) -> &Top {
        &self.top
    }

    /// Whether no account is there.
    pub fn is_empty(&self) -> bool {
        self.top == Top::Empty
    }
}

/// The state root from the roots of all subtries, in any order.
///
/// # Errors
/// One of the 256 is missing or there twice.
pub fn assemble_root(roots: &[SubtrieRoot]) -> Result<B256, TrieError> {
    let prefixes: BTreeSet<u8> = roots.iter().map(SubtrieRoot::prefix).collect();
    if roots.len() != PARTS || prefixes.len() != PARTS {
        return Err(TrieError::IncompleteRoots { got: prefixes.len(), given: roots.len() });
    }
    let mut tops = vec![Top::Empty; PARTS];
    for root in roots {
        tops[usize::from(root.prefix)] = root.top.clone();
    }
    Ok(assemble(&tops))
}

impl StateTrie {
    /// The root of one subtrie. Hashes what changed there, and nothing else.
    pub fn subtrie_root(&mut self, prefix: u8) -> SubtrieRoot {
        self.accounts.hash_parts(|p| p == prefix, hash_storages);
        SubtrieRoot::new(prefix, self.accounts.top(prefix).clone())
    }

    /// The roots of some subtries, in the order of their prefixes. Hashes what changed there on the rayon
    /// pool of the caller, and nothing else: the rest waits until it is asked for.
    pub fn subtrie_roots(&mut self, prefixes: &PartitionSet) -> Vec<SubtrieRoot> {
        self.accounts.hash_parts(|p| prefixes.contains(p), hash_storages);
        prefixes.iter().map(|p| SubtrieRoot::new(p, self.accounts.top(p).clone())).collect()
    }

    /// Copies out one subtrie.
    pub fn export_subtrie(&self, prefix: u8) -> SubtrieExport {
        let part = &self.accounts.parts()[usize::from(prefix)];
        let export = |leaf: &&crate::leaf::AccountLeaf| {
            let Account { nonce, balance, code_hash } = leaf.account(&part.side);
            let storage = leaf.extra(&part.side).and_then(|extra| extra.storage.hot());
            let slots = storage.map_or_else(Vec::new, StorageTrie::leaves);
            let slots = slots.iter().map(|s| ExportedSlot { hashed_slot: s.key, value: s.value });
            let slots = slots.collect();
            ExportedAccount { hashed_address: leaf.key, nonce, balance, code_hash, slots }
        };
        SubtrieExport { prefix, accounts: part.leaves().iter().map(export).collect() }
    }

    /// Puts a subtrie in the place of what was there.
    pub fn replace_subtrie(&mut self, built: BuiltSubtrie) {
        self.accounts.replace_part(built.prefix, built.part, built.top);
    }
}

impl SubtrieExport {
    /// Builds the subtrie and checks that it is the one expected.
    ///
    /// # Errors
    /// Its order is broken, or its root is another.
    pub fn build(&self, expected: &SubtrieRoot) -> Result<BuiltSubtrie, TrieError> {
        let mut builder = SubtrieBuilder::new(self.prefix);
        for account in &self.accounts {
            let ExportedAccount { hashed_address, nonce, balance, code_hash, ref slots } = *account;
            let slots = slots.iter().map(|slot| (slot.hashed_slot, slot.value));
            builder.add_account(hashed_address, &Account { nonce, balance, code_hash }, slots)?;
        }
        let built = builder.finish();
        let got = built.root();
        if got == *expected {
            Ok(built)
        } else {
            Err(TrieError::SubtrieMismatch {
                prefix: self.prefix,
                got: Box::new(got),
                expected: Box::new(expected.clone()),
            })
        }
    }
}

/// `[depth, key, node]`: depth 0 is an empty subtrie, 64 a leaf with its value, what is between a branch
/// with its hash; the key is cut to whole bytes of its depth, but never to none.
impl Encodable for SubtrieRoot {
    fn encode(&self, out: &mut dyn BufMut) {
        let prefix = [self.prefix];
        let (depth, key, node): (usize, &[u8], &[u8]) = match &self.top {
            Top::Empty => (0, &prefix, &[]),
            Top::Leaf { key, value } => (KEY_NIBBLES, key.as_slice(), value),
            Top::Branch { key, depth, node } => (*depth, &key.0[..depth.div_ceil(2)], node.bytes()),
        };
        let payload_length = depth.length() + key.length() + node.length();
        Header { list: true, payload_length }.encode(out);
        depth.encode(out);
        key.encode(out);
        node.encode(out);
    }

    fn length(&self) -> usize {
        let mut out = Vec::new();
        self.encode(&mut out);
        out.len()
    }
}

impl Decodable for SubtrieRoot {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut fields = Header::decode_bytes(buf, true)?;
        let depth = usize::decode(&mut fields)?;
        let key_bytes = Bytes::decode(&mut fields)?;
        let node = Bytes::decode(&mut fields)?;
        let key_len = depth.div_ceil(2).max(1);
        if !fields.is_empty() || depth > KEY_NIBBLES || key_bytes.len() != key_len {
            return Err(alloy_rlp::Error::Custom("malformed root of a subtrie"));
        }
        let mut key = B256::ZERO;
        key.0[..key_len].copy_from_slice(&key_bytes);
        let top = match (depth, node.len()) {
            (0, 0) => Top::Empty,
            (KEY_NIBBLES, 1..) => Top::Leaf { key, value: node.to_vec() },
            (2..KEY_NIBBLES, 32) if encode::truncated(&key, depth) == key => {
                Top::Branch { key, depth, node: NodeRef::hash(B256::from_slice(&node)) }
            }
            _ => return Err(alloy_rlp::Error::Custom("malformed root of a subtrie")),
        };
        Ok(Self { prefix: key.0[0], top })
    }
}
