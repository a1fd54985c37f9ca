//! The storage of one account: one subtrie while it is small, 256 of them when it is large, so that the
//! root of one hot contract can be computed by many threads.

use crate::{
    TrieError,
    cold::Slots,
    hasher,
    leaf::SlotLeaf,
    parallel::Forest,
    subtrie::{Scratch, Subtrie},
};
use alloy_primitives::{B256, Bytes, U256, keccak256};
use blockraft_primitives::SlotChange;
use rayon::prelude::*;

/// Slots from which on a storage trie is split. It stays split if it shrinks.
const SPLIT_SLOTS: usize = 8192;
/// Small tries that are hashed together.
const GROUP: usize = 64;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum StorageTrie {
    Small(Subtrie<SlotLeaf>),
    Split(Forest<SlotLeaf>),
}

impl Default for StorageTrie {
    fn default() -> Self {
        Self::Small(Subtrie::default())
    }
}

impl StorageTrie {
    /// Builds from slots that are sorted by hash and not zero.
    pub(crate) fn build(leaves: Vec<SlotLeaf>) -> Self {
        if leaves.len() < SPLIT_SLOTS {
            Self::Small(Subtrie::build(leaves, ()))
        } else {
            Self::Split(Forest::build(leaves, || ()))
        }
    }

    /// Writes slots; zero removes one. What was dropped is read from `source`.
    pub(crate) fn update(
        &mut self,
        changes: &[SlotChange],
        source: &Slots<'_>,
    ) -> Result<(), TrieError> {
        let keys = hasher::hash_all(changes, |change, out| {
            out.extend_from_slice(&change.slot.to_be_bytes::<32>());
        });
        if let Self::Small(trie) = self {
            if trie.leaf_count() + changes.len() < SPLIT_SLOTS {
                return keys
                    .iter()
                    .zip(changes)
                    .try_for_each(|(key, change)| set_slot(trie, key, change.value, source));
            }
            trie.reveal_all(source)?;
            let leaves = trie.leaves().into_iter().cloned().collect();
            *self = Self::Split(Forest::build(leaves, || ()));
        }
        match self {
            Self::Small(_) => Ok(()),
            Self::Split(forest) => forest
                .apply(&keys, |part, key, index| set_slot(part, key, changes[index].value, source)),
        }
    }

    /// Reads back what the way to a slot needs.
    pub(crate) fn reveal(&mut self, key: &B256, source: &Slots<'_>) -> Result<(), TrieError> {
        let part = match self {
            Self::Small(trie) => trie,
            Self::Split(forest) => forest.part_at_mut(key.0[0]),
        };
        part.reveal(key, source).map(drop)
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Small(trie) => trie.is_empty(),
            Self::Split(forest) => forest.leaf_count() == 0,
        }
    }

    pub(crate) fn slot_count(&self) -> usize {
        match self {
            Self::Small(trie) => trie.leaf_count(),
            Self::Split(forest) => forest.leaf_count(),
        }
    }

    /// The value of a hashed slot, zero where there is none.
    pub(crate) fn get(&self, key: &B256) -> U256 {
        let leaf = match self {
            Self::Small(trie) => trie.get(key),
            Self::Split(forest) => forest.part(key).get(key),
        };
        leaf.map_or(U256::ZERO, |leaf| leaf.value)
    }

    /// All slots in the order of their hashes.
    pub(crate) fn leaves(&self) -> Vec<&SlotLeaf> {
        match self {
            Self::Small(trie) => trie.leaves(),
            Self::Split(forest) => forest.parts().iter().flat_map(Subtrie::leaves).collect(),
        }
    }

    /// The nodes from the root towards a hashed slot; the trie must be hashed.
    pub(crate) fn prove(&self, key: &B256) -> Vec<Bytes> {
        match self {
            Self::Small(trie) => {
                let mut nodes = Vec::new();
                trie.prove(key, 0, &mut nodes);
                nodes
            }
            Self::Split(forest) => forest.prove(key),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Small(trie) => trie.memory_bytes(),
            Self::Split(forest) => forest.memory_bytes(),
        }
    }
}

/// The storage roots of many accounts, in their order. Small tries are hashed together, large ones each
/// by all threads.
pub(crate) fn hash_storages(storages: &mut [&mut StorageTrie]) -> Vec<B256> {
    let mut roots = vec![B256::ZERO; storages.len()];
    let (mut small, mut small_roots, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for (storage, root) in storages.iter_mut().zip(&mut roots) {
        match storage {
            StorageTrie::Small(trie) => {
                small.push(trie);
                small_roots.push(root);
            }
            StorageTrie::Split(forest) => large.push((forest, root)),
        }
    }
    let hash = |scratch: &mut Scratch, (tries, roots): (&mut [&mut _], &mut [&mut B256])| {
        for (root, top) in roots.iter_mut().zip(Subtrie::hash_group(tries, scratch)) {
            **root = top.root_hash();
        }
    };
    if small.len() <= GROUP {
        if !small.is_empty() {
            hash(&mut Scratch::new(), (&mut small, &mut small_roots));
        }
    } else {
        let groups = small.par_chunks_mut(GROUP).zip(small_roots.par_chunks_mut(GROUP));
        groups.for_each_init(Scratch::new, hash);
    }
    large.into_par_iter().for_each(|(forest, root)| *root = forest.hash(|_| {}));
    roots
}

/// The key of a slot in the trie.
pub(crate) fn slot_key(slot: U256) -> B256 {
    keccak256(slot.to_be_bytes::<32>())
}

fn set_slot(
    trie: &mut Subtrie<SlotLeaf>,
    key: &B256,
    value: U256,
    source: &Slots<'_>,
) -> Result<(), TrieError> {
    if value.is_zero() {
        return trie.remove(key, source).map(drop);
    }
    trie.upsert(
        key,
        source,
        |()| Some(SlotLeaf { key: *key, value }),
        |leaf, ()| Ok(std::mem::replace(&mut leaf.value, value) != value),
    )
}
