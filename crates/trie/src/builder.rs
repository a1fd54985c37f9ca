//! Building a trie at start, from flat state that is sorted by hash: partition by partition, on as many
//! threads as the caller has.

use crate::{
    StateTrie, SubtrieRoot, TrieError,
    leaf::{AccountLeaf, Extras, SlotLeaf},
    state_trie::hash_storages,
    storage_trie::StorageTrie,
    subtrie::{Scratch, Subtrie, Top},
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::Account;
use rayon::prelude::*;

/// Builds the subtrie of one first byte of the hashed address.
#[derive(Debug)]
pub struct SubtrieBuilder {
    prefix: u8,
    leaves: Vec<AccountLeaf>,
    extras: Extras,
}

/// A subtrie that was built and hashed.
#[derive(Debug)]
pub struct BuiltSubtrie {
    pub(crate) prefix: u8,
    pub(crate) part: Subtrie<AccountLeaf>,
    pub(crate) top: Top,
}

impl SubtrieBuilder {
    /// A builder for the accounts whose hashed address starts with `prefix`.
    pub fn new(prefix: u8) -> Self {
        Self { prefix, leaves: Vec::new(), extras: Extras::default() }
    }

    /// Adds an account. Accounts come in the order of their hashed addresses, slots in the order of
    /// their hashes; slots that are zero are skipped.
    ///
    /// # Errors
    /// The order is broken, or the hashed address has another prefix.
    pub fn add_account(
        &mut self,
        hashed_address: B256,
        account: &Account,
        storage: impl IntoIterator<Item = (B256, U256)>,
    ) -> Result<(), TrieError> {
        let error = |key| TrieError::LeafOrder { prefix: self.prefix, key };
        let in_order = self.leaves.last().is_none_or(|last| last.key < hashed_address);
        if !in_order || hashed_address.0[0] != self.prefix {
            return Err(error(hashed_address));
        }
        let mut slots: Vec<SlotLeaf> = Vec::new();
        for (key, value) in storage {
            if slots.last().is_some_and(|last| last.key >= key) {
                return Err(error(key));
            }
            if !value.is_zero() {
                slots.push(SlotLeaf { key, value });
            }
        }
        let mut leaf = AccountLeaf::new(hashed_address);
        leaf.set_account(account, &mut self.extras);
        if !slots.is_empty() {
            slots.shrink_to_fit();
            *leaf.storage_mut(&mut self.extras) = StorageTrie::build(slots);
        }
        self.leaves.push(leaf);
        Ok(())
    }

    /// Builds and hashes the subtrie.
    pub fn finish(self) -> BuiltSubtrie {
        let mut leaves = self.leaves;
        leaves.shrink_to_fit();
        let mut part = Subtrie::build(leaves, self.extras);
        hash_storages(&mut [&mut part]);
        let mut tops = Subtrie::hash_group(&mut [&mut part], &mut Scratch::new());
        let top = tops.pop().expect("one top for one subtrie");
        BuiltSubtrie { prefix: self.prefix, part, top }
    }
}

impl BuiltSubtrie {
    /// Its root.
    pub fn root(&self) -> SubtrieRoot {
        SubtrieRoot::new(self.prefix, self.top.clone())
    }
}

impl StateTrie {
    /// Builds the whole trie on the rayon pool of the caller: `fill` is called once for each prefix, with
    /// the builder of that prefix.
    ///
    /// # Errors
    /// The first that `fill` returns.
    pub fn build<E: Send>(
        fill: impl Fn(u8, &mut SubtrieBuilder) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let built = (0..=u8::MAX).into_par_iter().map(|prefix| {
            let mut builder = SubtrieBuilder::new(prefix);
            fill(prefix, &mut builder)?;
            Ok(builder.finish())
        });
        Ok(Self::from_subtries(built.collect::<Result<Vec<_>, E>>()?))
    }

    /// The subtrie in which a proof of `key` ends, in a trie with these roots in the order of their
    /// prefixes: not the one of the key where the key's has no neighbours, and so no node, of its own.
    pub fn subtrie_of_proof(roots: &[SubtrieRoot], key: &B256) -> u8 {
        let only = |roots: &[SubtrieRoot]| {
            let mut occupied = roots.iter().filter(|root| !root.is_empty());
            occupied.next().filter(|_| occupied.next().is_none()).map(SubtrieRoot::prefix)
        };
        let occupied_rows = roots.chunks(16).filter(|row| row.iter().any(|root| !root.is_empty()));
        let row = if occupied_rows.clone().count() == 1 {
            occupied_rows.flatten().find(|root| !root.is_empty()).map_or(0, SubtrieRoot::prefix)
                >> 4
        } else {
            key.0[0] >> 4
        };
        let columns = roots.chunks(16).nth(usize::from(row)).unwrap_or_default();
        only(columns).unwrap_or((row << 4) | (key.0[0] & 0x0f))
    }

    /// One subtrie among others of which only the roots are known, `others`: enough for its proofs.
    pub fn of_one_subtrie(built: BuiltSubtrie, others: &[SubtrieRoot]) -> Self {
        let mut trie = Self::default();
        for root in others {
            trie.accounts.replace_part(root.prefix(), Subtrie::absent(), root.top().clone());
        }
        trie.accounts.replace_part(built.prefix, built.part, built.top);
        trie
    }

    /// Puts subtries together; those not given are empty.
    pub fn from_subtries(built: impl IntoIterator<Item = BuiltSubtrie>) -> Self {
        let mut trie = Self::default();
        for subtrie in built {
            trie.accounts.replace_part(subtrie.prefix, subtrie.part, subtrie.top);
        }
        trie
    }
}
