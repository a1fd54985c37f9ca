//! The door: a state trie that takes diffs and yields roots.

use crate::{
    cold::{Accounts, FlatState, Slots},
    error::TrieError,
    hasher,
    leaf::{AccountLeaf, Extras, Storage},
    memory::MemoryLimit,
    parallel::Forest,
    storage_trie::{self, StorageTrie, slot_key},
    subtrie::Subtrie,
};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use blockraft_primitives::{Account, AccountChange, AccountDiff, PartitionSet, StateDiff};

/// Ethereum's state trie in memory: accounts under keccak256 of their address, each with its storage
/// under keccak256 of the slot.
///
/// Changing it is cheap; hashing waits for [`Self::root`] and is done for changed nodes only, on the
/// rayon pool of the caller. Every result is independent of the number of threads.
#[derive(Clone, Debug, Default)]
pub struct StateTrie {
    pub(crate) accounts: Forest<AccountLeaf>,
    pub(crate) memory: Option<MemoryLimit>,
}

impl StateTrie {
    /// The empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the final values that `diff` names, of a trie without a memory limit: see [`Self::push`].
    ///
    /// # Panics
    /// When something was dropped and cannot be read back.
    pub fn update(&mut self, diff: &StateDiff) {
        self.push(diff).expect("a trie without a memory limit reads nothing");
    }

    /// Writes the final values that `diff` names, without hashing. May be called many times before
    /// [`Self::root`], as write sets become final while a block still executes: later ones win. Storage
    /// that is written to an account that does not exist (and is not created by the same diff) is no
    /// part of the state and ignored.
    ///
    /// # Errors
    /// Something was dropped and cannot be read back; the trie is of no use any more.
    pub fn push(&mut self, diff: &StateDiff) -> Result<(), TrieError> {
        self.push_to(diff, &PartitionSet::ALL)
    }

    /// Writes what `diff` names in some partitions, and nothing else of it. As [`Self::push`].
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_to(
        &mut self,
        diff: &StateDiff,
        partitions: &PartitionSet,
    ) -> Result<(), TrieError> {
        let keys = hasher::hash_all(&diff.accounts, |change, out| {
            out.extend_from_slice(change.address.as_slice());
        });
        if let Some(memory) = &mut self.memory {
            memory.keys_since += diff.key_count();
        }
        let flat = self.memory.as_ref().map(MemoryLimit::flat);
        self.accounts.apply(&keys, |part, key, index| match partitions.contains(key[0]) {
            true => apply(part, key, &diff.accounts[index], flat),
            false => Ok(()),
        })
    }

    /// The state root.
    pub fn root(&mut self) -> B256 {
        self.accounts.hash(hash_storages)
    }

    /// The account as of the last update; of a trie of which nothing was dropped.
    pub fn account(&self, address: Address) -> Option<Account> {
        let (key, part) = self.part_of(address);
        part.get(&key).map(|leaf| leaf.account(&part.side))
    }

    /// A storage slot as of the last update; zero where there is none. Of a trie of which nothing was
    /// dropped.
    pub fn storage(&self, address: Address, slot: U256) -> U256 {
        self.storage_trie(address).map_or(U256::ZERO, |storage| storage.get(&slot_key(slot)))
    }

    /// The root of an account's storage; `None` where there is no account. Hashes what changed.
    pub fn storage_root(&mut self, address: Address) -> Option<B256> {
        let key = keccak256(address);
        let part = self.accounts.part_at_mut(key.0[0]);
        hash_storages(&mut [part]);
        let part = self.accounts.part(&key);
        let leaf = part.get(&key)?;
        Some(leaf.extra(&part.side).map_or(EMPTY_ROOT_HASH, |extra| extra.storage_root))
    }

    /// Accounts that exist.
    pub fn account_count(&self) -> usize {
        self.accounts.leaf_count()
    }

    /// Slots that are not zero. Looks at every account.
    pub fn slot_count(&self) -> usize {
        self.accounts
            .parts()
            .iter()
            .map(|part| {
                part.leaves()
                    .iter()
                    .filter_map(|leaf| leaf.extra(&part.side)?.storage.hot())
                    .map(StorageTrie::slot_count)
                    .sum::<usize>()
            })
            .sum()
    }

    /// Bytes of memory that the trie holds, with what its vectors have in reserve.
    pub fn memory_bytes(&self) -> usize {
        self.accounts.memory_bytes()
            + self.accounts.parts().iter().map(|part| part.side.memory_bytes()).sum::<usize>()
    }

    /// Stops over a trie that is not what the header says.
    ///
    /// # Errors
    /// The roots differ.
    pub fn check_root(&mut self, expected: B256) -> Result<(), TrieError> {
        let got = self.root();
        if got == expected { Ok(()) } else { Err(TrieError::RootMismatch { got, expected }) }
    }

    pub(crate) fn storage_trie(&self, address: Address) -> Option<&StorageTrie> {
        let (key, part) = self.part_of(address);
        part.get(&key)?.extra(&part.side)?.storage.hot()
    }

    fn part_of(&self, address: Address) -> (B256, &Subtrie<AccountLeaf>) {
        let key = keccak256(address);
        (key, self.accounts.part(&key))
    }
}

/// Applies the change of one account to its subtrie.
fn apply(
    part: &mut Subtrie<AccountLeaf>,
    key: &B256,
    diff: &AccountDiff,
    flat: Option<&dyn FlatState>,
) -> Result<(), TrieError> {
    let source = Accounts(flat);
    if diff.change == AccountChange::Deleted {
        if let Some(mut leaf) = part.remove(key, &source)? {
            leaf.release(&mut part.side);
        }
        return Ok(());
    }
    let insert = |extras: &mut Extras| {
        let AccountChange::Set(account) = &diff.change else { return None };
        let mut leaf = AccountLeaf::new(*key);
        leaf.set_account(account, extras);
        write_storage(&mut leaf, diff, extras, None).expect("a new account has nothing to read");
        Some(leaf)
    };
    part.upsert(key, &source, insert, |leaf, extras| {
        let mut changed = false;
        if let AccountChange::Set(account) = &diff.change
            && leaf.account(extras) != *account
        {
            leaf.set_account(account, extras);
            changed = true;
        }
        Ok(write_storage(leaf, diff, extras, flat)? || changed)
    })
}

/// Applies the storage part of a change. Says whether there was one.
fn write_storage(
    leaf: &mut AccountLeaf,
    diff: &AccountDiff,
    extras: &mut Extras,
    flat: Option<&dyn FlatState>,
) -> Result<bool, TrieError> {
    let wiped = diff.storage_wiped && leaf.wipe_storage(extras);
    // Zeros over no storage change nothing.
    if diff.storage.is_empty()
        || !leaf.has_storage(extras) && diff.storage.iter().all(|s| s.value.is_zero())
    {
        return Ok(wiped);
    }
    warm_storage(leaf, extras, flat)?;
    let source = Slots { flat, account: leaf.key };
    leaf.storage_mut(extras).update(&diff.storage, &source)?;
    Ok(true)
}

/// Reads back the storage of an account, if it was dropped whole.
pub(crate) fn warm_storage(
    leaf: &mut AccountLeaf,
    extras: &mut Extras,
    flat: Option<&dyn FlatState>,
) -> Result<(), TrieError> {
    if let Some(root) = leaf.cold_root(extras) {
        let storage = Slots { flat, account: leaf.key }.load_all(root)?;
        leaf.set_clean_storage(Storage::Hot(Box::new(storage)), root, extras);
    }
    Ok(())
}

/// Takes the storage roots of these subtries' accounts that changed.
pub(crate) fn hash_storages(parts: &mut [&mut Subtrie<AccountLeaf>]) {
    // Taken out of their places, so that threads can share them out.
    let mut taken = Vec::new();
    for (number, part) in parts.iter_mut().enumerate() {
        let extras = &mut part.side;
        let mut dirty = std::mem::take(&mut extras.dirty);
        for index in dirty.drain(..) {
            let extra = extras.get_mut(index).expect("only extras that exist are marked");
            if std::mem::take(&mut extra.storage_dirty) {
                extra.storage_root = EMPTY_ROOT_HASH;
                if let Storage::Hot(storage) = std::mem::replace(&mut extra.storage, Storage::Empty)
                {
                    taken.push((number, index, storage));
                }
            }
        }
        extras.dirty = dirty;
    }
    if taken.is_empty() {
        return;
    }
    let mut storages: Vec<&mut StorageTrie> = taken.iter_mut().map(|t| t.2.as_mut()).collect();
    let roots = storage_trie::hash_storages(&mut storages);
    for ((number, index, storage), root) in taken.into_iter().zip(roots) {
        let extra = parts[number].side.get_mut(index).expect("only extras that exist are marked");
        extra.storage_root = root;
        if !storage.is_empty() {
            extra.storage = Storage::Hot(storage);
        }
    }
}
