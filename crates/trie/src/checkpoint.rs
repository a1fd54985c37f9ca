//! A checkpoint: the trie without what the flat state says anyway, to start from without reading it all.
//!
//! ```text
//! magic (8), hash of the block (32), 256 subtries, keccak256 of all of the above (32)
//! a subtrie is a node:
//!     0                                                    nothing
//!     1, key (32), nonce (8), balance (32), code hash (32), has storage (1), storage root (32)
//!     2, depth (1), mask (2), a node for each bit of the mask
//!     3, reference (32), inline (1), key (32), leaves (4), kept (4), [key (32), storage root (32)]..
//! ```
//! Numbers are big-endian. It is believed for two reasons: its own hash says that it is as it was written, and
//! hashing its nodes must give the state root of the block's header. What it left out is held against the
//! references in it when it is read back.

use crate::{
    FlatState, StateTrie, TrieError,
    arena::{Kind, Node},
    cold::Stub,
    encode::{KEY_NIBBLES, nibble},
    leaf::{AccountLeaf, Leaf, Storage},
    parallel::{Forest, PARTS},
    subtrie::Subtrie,
};
use alloy_primitives::{B256, U256, keccak256};
use blockraft_primitives::Account;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"BRTRIE\0\x01";
const EMPTY: u8 = 0;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const STUB: u8 = 3;
const HASH_BYTES: usize = 32;

impl StateTrie {
    /// The checkpoint of the state after the block with this hash, all of which must be in the flat state.
    /// Drops from memory all that can be dropped: for a node that stops.
    pub fn checkpoint(&mut self, block: B256) -> Vec<u8> {
        self.root();
        self.drop_leaves();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(block.as_slice());
        for part in self.accounts.parts() {
            part.write(part.root, &mut out);
        }
        let hash = keccak256(&out);
        out.extend_from_slice(hash.as_slice());
        out
    }

    /// The trie of a checkpoint, if it is of the block with this hash and gives its state root. What it
    /// left out is read from `flat` on need; `bytes_max` is as in [`Self::limit_memory`].
    ///
    /// # Errors
    /// [`TrieError::Checkpoint`]: it is damaged, or of another block; [`TrieError::RootMismatch`].
    pub fn from_checkpoint(
        bytes: &[u8],
        block: B256,
        state_root: B256,
        bytes_max: usize,
        flat: Arc<dyn FlatState>,
    ) -> Result<Self, TrieError> {
        let (content, hash) = bytes
            .split_at_checked(bytes.len().saturating_sub(HASH_BYTES))
            .ok_or(TrieError::Checkpoint("it ends too early"))?;
        if keccak256(content) != hash {
            return Err(TrieError::Checkpoint("its hash does not match its content"));
        }
        let mut input = Input(content);
        if input.take()? != MAGIC {
            return Err(TrieError::Checkpoint("it is no checkpoint of this version"));
        }
        if input.hash()? != block {
            return Err(TrieError::Checkpoint("it is of another block"));
        }
        let mut parts = Vec::with_capacity(PARTS);
        for _ in 0..PARTS {
            let mut part = Subtrie::default();
            part.root = part.read(&mut input, None)?;
            if matches!(part.root.kind(), Kind::Stub(_)) {
                return Err(MALFORMED);
            }
            part.mark_all();
            parts.push(part);
        }
        if !input.0.is_empty() {
            return Err(MALFORMED);
        }
        let mut trie = Self { accounts: Forest::from_parts(parts), memory: None };
        trie.check_root(state_root)?;
        trie.limit_memory(bytes_max, flat);
        Ok(trie)
    }
}

const MALFORMED: TrieError = TrieError::Checkpoint("it is malformed");

impl Subtrie<AccountLeaf> {
    fn write(&self, node: Node, out: &mut Vec<u8>) {
        match node.kind() {
            Kind::Empty => out.push(EMPTY),
            Kind::Leaf(index) => {
                let leaf = &self.arena.leaves[index as usize];
                let account = leaf.account(&self.side);
                let extra = leaf.extra(&self.side);
                out.push(LEAF);
                out.extend_from_slice(leaf.key().as_slice());
                out.extend_from_slice(&account.nonce.to_be_bytes());
                out.extend_from_slice(&account.balance.to_be_bytes::<32>());
                out.extend_from_slice(account.code_hash.as_slice());
                out.push(u8::from(leaf.has_storage(&self.side)));
                let root = extra.map_or(B256::ZERO, |extra| extra.storage_root);
                out.extend_from_slice(root.as_slice());
            }
            Kind::Branch(index) => {
                let branch = self.arena.branches[index as usize];
                out.push(BRANCH);
                out.push(branch.depth);
                out.extend_from_slice(&branch.mask.to_be_bytes());
                let mut digits = branch.mask;
                for (place, child) in self.children_of(index).iter().enumerate() {
                    let inline = branch.inline & digits & digits.wrapping_neg() != 0;
                    digits &= digits - 1;
                    match child.kind() {
                        Kind::Stub(stub) => {
                            let reference = &self.arena.refs[branch.run as usize + place];
                            write_stub(&self.arena.stubs[stub as usize], reference, inline, out);
                        }
                        _ => self.write(*child, out),
                    }
                }
            }
            Kind::Stub(_) => unreachable!("written by its parent; a root is not dropped"),
        }
    }

    /// Reads a node below the branch at `above`. References other than those of stubs wait to be hashed.
    fn read(&mut self, input: &mut Input<'_>, above: Option<u8>) -> Result<Node, TrieError> {
        let [tag] = input.take()?;
        match tag {
            EMPTY if above.is_none() => Ok(Node::EMPTY),
            LEAF => {
                let mut leaf = AccountLeaf::new(input.hash()?);
                let nonce = u64::from_be_bytes(input.take()?);
                let balance = U256::from_be_bytes(input.take::<32>()?);
                let code_hash = input.hash()?;
                leaf.set_account(&Account { nonce, balance, code_hash }, &mut self.side);
                let ([has_storage], root) = (input.take()?, input.hash()?);
                if has_storage != 0 {
                    leaf.set_clean_storage(Storage::Cold, root, &mut self.side);
                }
                Ok(self.arena.insert_leaf(leaf))
            }
            BRANCH => self.read_branch(input, above),
            _ => Err(MALFORMED),
        }
    }

    fn read_branch(&mut self, input: &mut Input<'_>, above: Option<u8>) -> Result<Node, TrieError> {
        let [depth] = input.take()?;
        let mask = u16::from_be_bytes(input.take()?);
        let count = mask.count_ones() as usize;
        if above.is_some_and(|above| above >= depth)
            || usize::from(depth) >= KEY_NIBBLES
            || count < 2
        {
            return Err(MALFORMED);
        }
        let mut children = [Node::EMPTY; 16];
        let mut stubs = Vec::new();
        for (place, child) in children.iter_mut().enumerate().take(count) {
            *child = if input.0.first() == Some(&STUB) {
                let (stub, reference, inline) = read_stub(input)?;
                let digit = nibble(&stub.key, usize::from(depth));
                let before = (mask & ((1 << digit) - 1)).count_ones() as usize;
                if mask & (1 << digit) == 0 || before != place {
                    return Err(MALFORMED);
                }
                stubs.push((place, digit, reference, inline));
                self.arena.insert_stub(stub)
            } else {
                self.read(input, Some(depth))?
            };
        }
        let node = self.arena.insert_branch(usize::from(depth), mask, &children[..count]);
        let Kind::Branch(index) = node.kind() else { unreachable!("a branch was inserted") };
        for (place, digit, reference, inline) in stubs {
            let branch = &mut self.arena.branches[index as usize];
            branch.dirty &= !(1 << digit);
            branch.inline |= u16::from(inline) << digit;
            self.arena.refs[branch.run as usize + place] = reference;
        }
        Ok(node)
    }
}

fn write_stub(stub: &Stub<AccountLeaf>, reference: &[u8; 32], inline: bool, out: &mut Vec<u8>) {
    out.push(STUB);
    out.extend_from_slice(reference);
    out.push(u8::from(inline));
    out.extend_from_slice(stub.key.as_slice());
    out.extend_from_slice(&stub.leaf_count.to_be_bytes());
    out.extend_from_slice(&(stub.kept.len() as u32).to_be_bytes());
    for (key, root) in &stub.kept {
        out.extend_from_slice(key.as_slice());
        out.extend_from_slice(root.as_slice());
    }
}

fn read_stub(input: &mut Input<'_>) -> Result<(Stub<AccountLeaf>, [u8; 32], bool), TrieError> {
    let _tag: [u8; 1] = input.take()?;
    let reference = input.take()?;
    let [inline] = input.take()?;
    let key = input.hash()?;
    let leaf_count = u32::from_be_bytes(input.take()?);
    let kept_count = u32::from_be_bytes(input.take()?);
    if kept_count > leaf_count {
        return Err(MALFORMED);
    }
    let kept = (0..kept_count).map(|_| Ok((input.hash()?, input.hash()?)));
    let kept = kept.collect::<Result<Vec<_>, TrieError>>()?;
    Ok((Stub { key, leaf_count, kept }, reference, inline != 0))
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TrieError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn hash(&mut self) -> Result<B256, TrieError> {
        self.take().map(B256::new)
    }
}
