//! The state changes that are applied and not yet on disk, by key and block.
//!
//! A reader at block n asks here first: the last change of its key at or below n wins. Only when there
//! is none does it open an MDBX snapshot, and by then whatever was dropped from here is in that
//! snapshot, because changes are dropped after the MDBX commit that holds them. So a reader needs no
//! lock over both, and any number of persists may fall in between.

use alloy_primitives::{
    Address, B256, Bytes, U256, keccak256,
    map::{AddressMap, B256Map, U256Map},
};
use blockraft_primitives::{Account, AccountChange, StateDiff};
use parking_lot::RwLock;

/// Locks, so that a block's changes going in do not stop all readers.
const PART_COUNT: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    parts: [RwLock<AddressMap<Versions>>; PART_COUNT],
    codes: RwLock<B256Map<(u64, Bytes)>>,
}

/// All that is known of one account, each list in block order.
#[derive(Debug, Default)]
struct Versions {
    account: Vec<(u64, Option<Account>)>,
    /// Blocks that made every slot zero before their own slot changes.
    wipes: Vec<u64>,
    slots: U256Map<Vec<(u64, U256)>>,
}

impl Overlay {
    /// Adds a block's changes. Readers below that block do not see them.
    pub(crate) fn insert(&self, number: u64, diff: &StateDiff) {
        for code in &diff.codes {
            self.codes.write().insert(keccak256(code), (number, code.clone()));
        }
        for account in &diff.accounts {
            let mut part = self.part(&account.address).write();
            let versions = part.entry(account.address).or_default();
            match account.change {
                AccountChange::Unchanged => {}
                AccountChange::Deleted => versions.account.push((number, None)),
                AccountChange::Set(value) => versions.account.push((number, Some(value))),
            }
            if account.storage_wiped || account.change == AccountChange::Deleted {
                versions.wipes.push(number);
            }
            for change in &account.storage {
                versions.slots.entry(change.slot).or_default().push((number, change.value));
            }
        }
    }

    /// Drops what a block changed, and everything older of the same keys. A wipe goes together with all
    /// the slots that it made zero: one that stayed behind would be read as if it had never been wiped.
    pub(crate) fn remove(&self, number: u64, diff: &StateDiff) {
        if !diff.codes.is_empty() {
            self.codes.write().retain(|_, (added, _)| *added > number);
        }
        for account in &diff.accounts {
            let mut part = self.part(&account.address).write();
            let Some(versions) = part.get_mut(&account.address) else { continue };
            versions.account.retain(|(at, _)| *at > number);
            if versions.wipes.iter().any(|at| *at <= number) {
                versions.wipes.retain(|at| *at > number);
                versions.slots.retain(|_, values| {
                    values.retain(|(at, _)| *at > number);
                    !values.is_empty()
                });
            }
            for change in &account.storage {
                if let Some(values) = versions.slots.get_mut(&change.slot) {
                    values.retain(|(at, _)| *at > number);
                    if values.is_empty() {
                        versions.slots.remove(&change.slot);
                    }
                }
            }
            if versions.is_empty() {
                part.remove(&account.address);
            }
        }
    }

    /// The account after block `number`; outer `None` where this does not say.
    pub(crate) fn account(&self, address: &Address, number: u64) -> Option<Option<Account>> {
        let part = self.part(address).read();
        last_until(&part.get(address)?.account, number).map(|(_, account)| account)
    }

    /// The slot after block `number`; `None` where this does not say.
    pub(crate) fn storage(&self, address: &Address, slot: &U256, number: u64) -> Option<U256> {
        let part = self.part(address).read();
        let versions = part.get(address)?;
        let written = versions.slots.get(slot).and_then(|values| last_until(values, number));
        let wiped = versions.wipes.iter().rev().find(|at| **at <= number);
        match (written, wiped) {
            (Some((at, _)), Some(wiped)) if at < *wiped => Some(U256::ZERO),
            (Some((_, value)), _) => Some(value),
            (None, Some(_)) => Some(U256::ZERO),
            (None, None) => None,
        }
    }

    /// Whether the account has storage after block `number`; `None` where this does not say.
    pub(crate) fn has_storage(&self, address: &Address, number: u64) -> Option<bool> {
        let part = self.part(address).read();
        let versions = part.get(address)?;
        let wiped = versions.wipes.iter().rev().find(|at| **at <= number);
        let holds = versions.slots.values().any(|values| {
            last_until(values, number).is_some_and(|(at, value)| {
                !value.is_zero() && wiped.is_none_or(|wiped| at >= *wiped)
            })
        });
        (holds || wiped.is_some()).then_some(holds)
    }

    /// Code by its hash.
    pub(crate) fn code(&self, hash: &B256) -> Option<Bytes> {
        self.codes.read().get(hash).map(|(_, code)| code.clone())
    }

    fn part(&self, address: &Address) -> &RwLock<AddressMap<Versions>> {
        &self.parts[usize::from(address[19]) % PART_COUNT]
    }
}

impl Versions {
    fn is_empty(&self) -> bool {
        self.account.is_empty() && self.wipes.is_empty() && self.slots.is_empty()
    }
}

fn last_until<T: Copy>(versions: &[(u64, T)], number: u64) -> Option<(u64, T)> {
    versions.iter().rev().find(|(at, _)| *at <= number).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockraft_primitives::{AccountDiff, SlotChange};

    const CONTRACT: Address = Address::repeat_byte(1);
    const SLOT: U256 = U256::ZERO;

    fn diff(change: AccountChange, wiped: bool, values: &[U256]) -> StateDiff {
        let storage = values.iter().map(|value| SlotChange { slot: SLOT, value: *value }).collect();
        let account = AccountDiff { address: CONTRACT, change, storage_wiped: wiped, storage };
        StateDiff { accounts: vec![account], codes: Vec::new() }
    }

    /// A persist lets its blocks go one after the other, and readers come in between.
    #[test]
    fn a_slot_that_was_wiped_never_comes_back_while_its_blocks_are_let_go() {
        let blocks = [
            (1, diff(AccountChange::Set(Account::default()), false, &[])),
            (2, diff(AccountChange::Unchanged, false, &[U256::MAX])),
            (3, diff(AccountChange::Unchanged, true, &[])),
        ];
        let overlay = Overlay::default();
        for (number, diff) in &blocks {
            overlay.insert(*number, diff);
        }
        assert_eq!(overlay.storage(&CONTRACT, &SLOT, 3), Some(U256::ZERO));
        for (number, diff) in &blocks {
            overlay.remove(3, diff);
            assert_eq!(overlay.storage(&CONTRACT, &SLOT, 3), None, "block {number} let go");
            assert_eq!(overlay.has_storage(&CONTRACT, 3), None, "block {number} let go");
        }
    }
}
