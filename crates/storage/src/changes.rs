//! What changed since a block, as a diff that leads back to it.

use crate::{
    database::Database,
    shard::{Found, hash_address},
};
use alloy_primitives::{Address, B256, U256, map::B256Map};
use blockraft_primitives::{AccountChange, AccountDiff, SlotChange, StateDiff, StateError};
use std::collections::{BTreeMap, BTreeSet};

/// Accounts that changed, with their changed slots.
#[derive(Debug, Default)]
struct Keys {
    accounts: BTreeMap<Address, BTreeSet<U256>>,
    count: usize,
}

impl Database {
    /// See [`crate::Store::changes_since`]. Collects keys first, from memory and then from disk, so
    /// that none slips through while it moves; then reads what they held.
    pub(crate) fn changes_since(
        &self,
        number: u64,
        key_limit: usize,
    ) -> Result<StateDiff, StateError> {
        self.check_height(number)?;
        let queued: Vec<_> = self.live.read().queue.iter().cloned().collect();
        let mut keys = Keys::default();
        let mut wiped = B256Map::default();
        for block in queued.iter().filter_map(|step| step.block.as_ref()).rev() {
            if block.block.number() <= number {
                // Their changes stand, but a later wipe may have ended them.
                keys.add_slots_of(&block.diff, &wiped);
                keys.check(key_limit, number, number + 1)?;
                continue;
            }
            keys.add(&block.diff);
            keys.check(key_limit, number, block.block.number())?;
            for account in &block.diff.accounts {
                if account.storage_wiped || account.change == AccountChange::Deleted {
                    wiped.insert(hash_address(&account.address), account.address);
                }
            }
        }
        self.collect_from_disk(&mut keys, &wiped, number, key_limit)?;
        self.read_at(number, keys)
    }

    fn collect_from_disk(
        &self,
        keys: &mut Keys,
        wiped: &B256Map<Address>,
        number: u64,
        key_limit: usize,
    ) -> Result<(), StateError> {
        for (index, shard) in self.shards.iter().enumerate() {
            let mut enumerate: Vec<B256> = wiped.keys().copied().collect();
            enumerate.retain(|hashed| crate::shard::shard_of(hashed, self.shards.len()) == index);
            enumerate.sort_unstable();
            let mut over = Ok(());
            shard.changes_after(number, &enumerate, &mut |found| {
                let reached = match found {
                    Found::Slot(account, slot) => {
                        keys.add_slot(wiped[&account], slot);
                        // The wipe is of the newest blocks: nothing older is within the limit either.
                        self.live.read().head.number
                    }
                    Found::Change(reached, address, slot) => {
                        match slot {
                            Some(slot) => keys.add_slot(address, slot),
                            None => keys.add_account(address),
                        }
                        reached
                    }
                };
                over = keys.check(key_limit, number, reached);
                over.is_ok()
            })?;
            over?;
        }
        Ok(())
    }

    fn read_at(&self, number: u64, keys: Keys) -> Result<StateDiff, StateError> {
        let mut accounts = Vec::with_capacity(keys.accounts.len());
        for (address, slots) in keys.accounts {
            let account = self.account(&address, number)?;
            let mut storage = Vec::with_capacity(slots.len());
            for slot in slots {
                storage.push(SlotChange { slot, value: self.storage(&address, slot, number)? });
            }
            accounts.push(AccountDiff {
                address,
                change: account.map_or(AccountChange::Deleted, AccountChange::Set),
                storage_wiped: false,
                storage,
            });
        }
        Ok(StateDiff { accounts, codes: Vec::new() })
    }
}

impl Keys {
    fn add(&mut self, diff: &StateDiff) {
        for account in &diff.accounts {
            self.add_account(account.address);
            for change in &account.storage {
                self.add_slot(account.address, change.slot);
            }
        }
    }

    fn add_slots_of(&mut self, diff: &StateDiff, wiped: &B256Map<Address>) {
        let accounts = diff.accounts.iter().filter(|account| !account.storage.is_empty());
        for account in accounts.filter(|a| wiped.contains_key(&hash_address(&a.address))) {
            for change in &account.storage {
                self.add_slot(account.address, change.slot);
            }
        }
    }

    fn add_account(&mut self, address: Address) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.accounts.entry(address) {
            entry.insert(BTreeSet::new());
            self.count += 1;
        }
    }

    fn add_slot(&mut self, address: Address, slot: U256) {
        self.add_account(address);
        let slots = self.accounts.get_mut(&address).expect("added above");
        self.count += usize::from(slots.insert(slot));
    }

    /// Too many keys read as history that is not kept: `reached` is the oldest block whose changes
    /// were added, so its own state is out of reach and that of later ones may not be.
    fn check(&self, limit: usize, requested: u64, reached: u64) -> Result<(), StateError> {
        if self.count > limit {
            return Err(StateError::Pruned { requested, oldest: reached });
        }
        Ok(())
    }
}
