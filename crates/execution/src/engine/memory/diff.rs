//! What all places together changed.

use super::{
    Memory, Place, SlotKey, SlotMap, UNPOISONED,
    cell::{Cell, SlotCell},
    tips::Tips,
    words,
};
use crate::{DatabaseError, engine::sync::RwLock, late::Parent};
use alloy_primitives::{
    Address, B256, Bytes,
    map::{AddressMap, B256Map},
};
use blockraft_primitives::{AccountChange, AccountDiff, SlotChange, StateDiff, StateReader};
use revm::state::Bytecode;
use std::collections::BTreeMap;

impl<S: StateReader> Memory<S> {
    /// What all places together changed.
    pub(crate) fn into_diff(self) -> Result<StateDiff, DatabaseError> {
        if !self.tips.is_empty() {
            // Perhaps nobody has looked at who was tipped.
            self.account(self.tips.recipient, 0)?;
        }
        let Self { reader, parent, accounts, slots, tips, codes, .. } = self;
        let (accounts, slots) = (unlocked(accounts), unlocked(slots));
        let known = codes.into_inner().expect(UNPOISONED);
        let tips = (!tips.is_empty()).then_some(tips);
        Drawing { reader, tips, known }.draw(&accounts, &slots, &parent)
    }
}

fn unlocked<T>(stripes: Box<[RwLock<T>]>) -> Vec<T> {
    stripes.into_iter().map(|stripe| stripe.into_inner().expect(UNPOISONED)).collect()
}

/// What a net change is drawn up with.
struct Drawing<S> {
    reader: S,
    /// If there are any.
    tips: Option<Tips>,
    /// Codes that the block has seen.
    known: B256Map<Bytecode>,
}

/// An account that was written to. The first bytes of its address lie here: most comparisons need no more.
struct WrittenAccount<'a> {
    prefix: u64,
    address: Address,
    cell: &'a Cell,
}

/// A slot that was written to, in the same way.
struct WrittenSlot<'a> {
    prefixes: [u64; 2],
    key: &'a SlotKey,
    cell: &'a SlotCell,
}

impl<S: StateReader> Drawing<S> {
    fn draw(
        &self,
        accounts: &[AddressMap<Cell>],
        slots: &[SlotMap],
        parent: &Parent,
    ) -> Result<StateDiff, DatabaseError> {
        let (accounts, slots) = (self.written_accounts(accounts), written_slots(slots));
        let mut diffs = Vec::with_capacity(accounts.len());
        let mut codes: BTreeMap<B256, Bytes> = BTreeMap::new();
        let of_one = |a: &WrittenSlot<'_>, b: &WrittenSlot<'_>| a.key.address == b.key.address;
        let mut groups = slots.chunk_by(of_one).peekable();
        for account in accounts {
            while let Some(slots) = groups.next_if(|slots| slots[0].key.address < account.address) {
                diffs.extend(self.storage_diff(slots)?);
            }
            let slots = groups.next_if(|slots| slots[0].key.address == account.address);
            let Some((diff, code_hash)) = self.account_diff(&account, slots.unwrap_or_default())?
            else {
                continue;
            };
            if let Some(code_hash) = code_hash {
                let code = self.known.get(&code_hash).expect("code is published with its account");
                codes.insert(code_hash, code.original_bytes());
            }
            diffs.push(diff);
        }
        for slots in groups {
            diffs.extend(self.storage_diff(slots)?);
        }
        let mut diff = StateDiff { accounts: diffs, codes: codes.into_values().collect() };
        parent.complete(&mut diff)?;
        Ok(diff)
    }

    fn written_accounts<'a>(&self, stripes: &'a [AddressMap<Cell>]) -> Vec<WrittenAccount<'a>> {
        let mut written = Vec::with_capacity(stripes.iter().map(AddressMap::len).sum());
        for (address, cell) in stripes.iter().flatten() {
            if cell.is_written() || self.tips_of(*address).is_some() {
                let [prefix, ..] = words(*address);
                written.push(WrittenAccount { prefix, address: *address, cell });
            }
        }
        written.sort_unstable_by(|a, b| {
            a.prefix.cmp(&b.prefix).then_with(|| a.address.cmp(&b.address))
        });
        written
    }

    fn tips_of(&self, address: Address) -> Option<&Tips> {
        self.tips.as_ref().filter(|tips| tips.recipient == address)
    }

    /// What changed of an account that was written to, and the hash of its code if that is new.
    fn account_diff(
        &self,
        WrittenAccount { address, cell, .. }: &WrittenAccount<'_>,
        slots: &[WrittenSlot<'_>],
    ) -> Result<Option<(AccountDiff, Option<B256>)>, DatabaseError> {
        let address = *address;
        let tips = self.tips_of(address);
        let before = match cell.before {
            Some(before) => before,
            None => {
                // It came with an outcome from elsewhere. Who sets an account saw another one.
                let set = cell.set_once().filter(|now| !now.has_code() && tips.is_none());
                if let Some(now) = set.filter(|_| slots.is_empty()) {
                    let change = AccountChange::Set(now);
                    return Ok(Some((AccountDiff { change, ..unchanged(address) }, None)));
                }
                self.reader.account(address)?
            }
        };
        let Some(now) = cell.last(before, &tips) else {
            let change = AccountChange::Deleted;
            let diff = AccountDiff { change, storage_wiped: true, ..unchanged(address) };
            return Ok(before.map(|_| (diff, None)));
        };
        let wipe = cell.last_wipe(Place::MAX);
        let storage_wiped = before.is_some() && wipe.is_some();
        let starts_empty = storage_wiped || before.is_none();
        let storage = self.storage(slots, starts_empty, wipe)?;
        let is_same = before == Some(now);
        if is_same && !storage_wiped && storage.is_empty() {
            return Ok(None);
        }
        let known = before.is_some_and(|before| before.code_hash == now.code_hash);
        let code_hash = (now.has_code() && !known).then_some(now.code_hash);
        let change = if is_same { AccountChange::Unchanged } else { AccountChange::Set(now) };
        Ok(Some((AccountDiff { address, change, storage_wiped, storage }, code_hash)))
    }

    /// What changed of an account of which only slots were written.
    fn storage_diff(
        &self,
        slots: &[WrittenSlot<'_>],
    ) -> Result<Option<AccountDiff>, DatabaseError> {
        let storage = self.storage(slots, false, None)?;
        let diff = AccountDiff { storage, ..unchanged(slots[0].key.address) };
        Ok(Some(diff).filter(|diff| !diff.storage.is_empty()))
    }

    fn storage(
        &self,
        slots: &[WrittenSlot<'_>],
        starts_empty: bool,
        wipe: Option<Place>,
    ) -> Result<Vec<SlotChange>, DatabaseError> {
        let mut storage = Vec::with_capacity(slots.len());
        for WrittenSlot { key: SlotKey { address, slot }, cell, .. } in slots {
            let before = || -> Result<_, DatabaseError> {
                // Without an account there is no storage to read.
                let there = self.reader.account(*address)?.is_some();
                Ok(if there { self.reader.storage(*address, *slot)? } else { Default::default() })
            };
            let value = cell.changed(starts_empty, wipe, before)?;
            storage.extend(value.map(|value| SlotChange { slot: *slot, value }));
        }
        Ok(storage)
    }
}

fn written_slots(stripes: &[SlotMap]) -> Vec<WrittenSlot<'_>> {
    let mut written = Vec::with_capacity(stripes.iter().map(SlotMap::len).sum());
    for (key, cell) in stripes.iter().flatten() {
        if !cell.versions.is_empty() {
            let ([first, ..], [.., second]) = (words(key.address), key.slot.into_limbs());
            written.push(WrittenSlot { prefixes: [first, second], key, cell });
        }
    }
    let whole = |key: &SlotKey| (key.address, key.slot);
    written.sort_unstable_by(|a, b| {
        // Accounts that begin alike, or slots that do.
        a.prefixes.cmp(&b.prefixes).then_with(|| whole(a.key).cmp(&whole(b.key)))
    });
    written
}

/// An account of which nothing has changed yet.
fn unchanged(address: Address) -> AccountDiff {
    let change = AccountChange::Unchanged;
    AccountDiff { address, change, storage_wiped: false, storage: Vec::new() }
}
