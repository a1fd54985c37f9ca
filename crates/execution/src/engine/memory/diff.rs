//! What all places together changed.

use super::{
    Memory, Place, SlotKey, UNPOISONED,
    cell::{WrittenSlot, changed_slots},
    words,
};
use crate::DatabaseError;
use alloy_primitives::{Address, B256, Bytes, map::AddressMap};
use blockraft_primitives::{AccountChange, AccountDiff, SlotChange, StateDiff, StateReader};
use std::collections::BTreeMap;

impl<S: StateReader> Memory<S> {
    /// What all places together changed.
    pub(crate) fn into_diff(self) -> Result<StateDiff, DatabaseError> {
        if !self.tips.is_empty() {
            // Perhaps nobody has looked at who was tipped.
            self.account(self.tips.recipient, 0)?;
        }
        let mut slots = self.written_slots()?;
        let mut accounts = Vec::new();
        let mut codes: BTreeMap<B256, Bytes> = BTreeMap::new();
        let known = self.codes.into_inner().expect(UNPOISONED);
        let tips = Some(&self.tips);
        for stripe in self.accounts {
            let stripe = stripe.into_inner().expect(UNPOISONED);
            accounts.reserve(stripe.len());
            for (address, mut cell) in stripe {
                let tips = tips.filter(|tips| tips.recipient == address && !tips.is_empty());
                let storage = slots.remove(&address).unwrap_or_default();
                if !cell.is_written() && storage.is_empty() && tips.is_none() {
                    continue;
                }
                if cell.before.is_none() {
                    // Set by an outcome from elsewhere. Who sets an account saw another one.
                    let set = cell.set_once().filter(|now| !now.has_code() && tips.is_none());
                    if let Some(now) = set.filter(|_| storage.is_empty()) {
                        let change = AccountChange::Set(now);
                        accounts.push(AccountDiff { change, ..unchanged(address, Vec::new()) });
                        continue;
                    }
                    cell.before = Some(self.reader.account(address)?);
                }
                let Some((diff, code_hash)) = cell.into_diff(address, storage, &tips) else {
                    continue;
                };
                if let Some(code_hash) = code_hash {
                    let code = known.get(&code_hash).expect("code is published with its account");
                    codes.insert(code_hash, code.original_bytes());
                }
                accounts.push(diff);
            }
        }
        // Nobody read these as accounts: they came with outcomes from elsewhere.
        for (address, written) in slots {
            let storage = changed_slots(written);
            if !storage.is_empty() {
                accounts.push(unchanged(address, storage));
            }
        }
        accounts.sort_by_cached_key(|account: &AccountDiff| words(account.address));
        let mut diff = StateDiff { accounts, codes: codes.into_values().collect() };
        self.parent.complete(&mut diff)?;
        Ok(diff)
    }

    /// Slots that were written, by account.
    fn written_slots(&self) -> Result<AddressMap<Vec<WrittenSlot>>, DatabaseError> {
        let mut slots: AddressMap<Vec<WrittenSlot>> = AddressMap::default();
        for stripe in &self.slots {
            for (key, cell) in stripe.read().expect(UNPOISONED).iter() {
                let Some((at, value)) = cell.versions.last_before(Place::MAX) else { continue };
                let before = match cell.before {
                    // One change, by somebody who saw another value.
                    None if cell.versions.only().is_some() => None,
                    None => Some(self.slot_before(*key)?),
                    known => known,
                };
                let SlotKey { address, slot } = *key;
                slots.entry(address).or_default().push(WrittenSlot { slot, at, value, before });
            }
        }
        Ok(slots)
    }
}

/// An account of which nothing but storage changed.
fn unchanged(address: Address, storage: Vec<SlotChange>) -> AccountDiff {
    let change = AccountChange::Unchanged;
    AccountDiff { address, change, storage_wiped: false, storage }
}
