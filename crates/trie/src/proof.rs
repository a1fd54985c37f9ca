//! Proofs that an account or a slot has a value, or that there is none (EIP-1186).

use crate::{
    StateTrie, TrieError,
    arena::Kind,
    cold::{Accounts, Slots},
    encode::{self, NodeRef, common_prefix, nibble},
    leaf::{AccountExtra, AccountLeaf, Extras, Leaf, Storage},
    state_trie::warm_storage,
    storage_trie::{StorageTrie, slot_key},
    subtrie::{LEAVES_THERE, Subtrie},
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use blockraft_primitives::Account;

/// What `eth_getProof` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// The account; `None` if the proof shows its absence.
    pub account: Option<Account>,
    /// Of its storage.
    pub storage_root: B256,
    /// RLP of the nodes from the state root to the account, or to where its path ends.
    pub nodes: Vec<Bytes>,
    /// One for each slot asked for, in that order.
    pub slots: Vec<SlotProof>,
}

/// The value of one slot and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotProof {
    /// The slot's number, not hashed.
    pub slot: U256,
    /// Zero if the proof shows its absence.
    pub value: U256,
    /// RLP of the nodes from the storage root to the slot, or to where its path ends.
    pub nodes: Vec<Bytes>,
}

impl StateTrie {
    /// Proves an account and some of its slots against [`Self::root`]. Hashes what changed.
    ///
    /// # Errors
    /// Something was dropped and cannot be read back.
    pub fn prove(&mut self, address: Address, slots: &[U256]) -> Result<AccountProof, TrieError> {
        self.root();
        let key = keccak256(address);
        self.reveal(&key, slots)?;
        let storage_root = self.storage_root(address).unwrap_or(EMPTY_ROOT_HASH);
        let storage = self.storage_trie(address);
        Ok(AccountProof {
            account: self.account(address),
            storage_root,
            nodes: self.accounts.prove(&key),
            slots: slots.iter().map(|slot| prove_slot(storage, *slot)).collect(),
        })
    }

    /// Reads back what the ways to an account and its slots need.
    fn reveal(&mut self, key: &B256, slots: &[U256]) -> Result<(), TrieError> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let flat = Some(memory.flat());
        let part = self.accounts.part_at_mut(key.0[0]);
        let warm = |leaf: &mut AccountLeaf, extras: &mut Extras| {
            if slots.is_empty() {
                return Ok(false);
            }
            warm_storage(leaf, extras, flat)?;
            if let Some(AccountExtra { storage: Storage::Hot(storage), .. }) =
                leaf.extra_mut(extras)
            {
                let source = Slots { flat, account: *key };
                slots.iter().try_for_each(|slot| storage.reveal(&slot_key(*slot), &source))?;
            }
            Ok(false)
        };
        part.upsert(key, &Accounts(flat), |_| None, warm)
    }
}

fn prove_slot(storage: Option<&StorageTrie>, slot: U256) -> SlotProof {
    let key = slot_key(slot);
    SlotProof {
        slot,
        value: storage.map_or(U256::ZERO, |storage| storage.get(&key)),
        nodes: storage.map_or_else(Vec::new, |storage| storage.prove(&key)),
    }
}

/// Proofs.
impl<L: Leaf> Subtrie<L> {
    /// Adds the nodes from the root towards `key`, as far as they exist; the trie must be hashed. Nodes
    /// that lie inside their parents are not repeated.
    pub(crate) fn prove(&self, key: &B256, mut start: usize, nodes: &mut Vec<Bytes>) {
        assert!(!self.root_dirty, "a proof is taken from a hashed trie");
        let (mut message, mut value) = (Vec::new(), Vec::new());
        let mut node = self.root.kind();
        let mut is_root = start == 0;
        loop {
            match node {
                Kind::Empty => return,
                Kind::Stub(_) => unreachable!("{LEAVES_THERE}"),
                Kind::Leaf(index) => {
                    let leaf = &self.arena.leaves[index as usize];
                    leaf.encode_value(&self.side, &mut value);
                    encode::leaf(leaf.key(), start, &value, &mut message);
                    nodes.push(encode::to_bytes(&message));
                    return;
                }
                Kind::Branch(index) => {
                    let branch = &self.arena.branches[index as usize];
                    let depth = usize::from(branch.depth);
                    self.encode_branch(index, &mut message);
                    let branch_rlp = encode::to_bytes(&message);
                    if depth > start {
                        let other = self.any_key(node);
                        let branch_ref = NodeRef::to(&message);
                        encode::extension(other, start, depth, &branch_ref, &mut message);
                        nodes.push(encode::to_bytes(&message));
                        if common_prefix(key, other) < depth || branch_ref.is_inline() {
                            return;
                        }
                        nodes.push(branch_rlp);
                    } else if is_root || branch_rlp.len() >= 32 {
                        nodes.push(branch_rlp);
                    }
                    let digit = nibble(key, depth);
                    if !branch.has(digit) || branch.inline & (1 << digit) != 0 {
                        return;
                    }
                    node = self.arena.children[branch.place(digit)].kind();
                    start = depth + 1;
                    is_root = false;
                }
            }
        }
    }
}
