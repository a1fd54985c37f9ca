//! The state of an executor that runs its share of a block in order, on one thread: what was read and
//! written so far, and of each location only its present value.
//!
//! A transaction reads here what it would read in a [`Memory`](super::memory::Memory) that holds the same
//! share, without locks, versions and marks: who judges the outcomes has a memory of its own.

use super::{
    memory::{Mark, Place, Seen},
    outcome::{Difference, Writes},
    source::Source,
};
use crate::{
    codes::{CodeCache, code_of},
    database::DatabaseError,
    late::Parent,
};
use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map, Entry, U256Map},
};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange, StateReader};
use revm::state::Bytecode;
use std::cell::RefCell;

/// See the module.
pub(crate) struct Ledger<S> {
    reader: S,
    parent: Parent,
    accounts: RefCell<AddressMap<Held>>,
    codes: RefCell<B256Map<Bytecode>>,
    code_cache: Option<CodeCache>,
}

/// An account as it is now.
#[derive(Debug)]
struct Held {
    now: Option<Account>,
    /// Whether the block has written to it; slots have notes of their own.
    is_written: bool,
    /// Slots that are not below are zero.
    starts_empty: bool,
    /// Whether the parent state has storage of it; `None` is not read yet.
    stored: Option<bool>,
    slots: U256Map<HeldSlot>,
}

/// A slot as it is now.
#[derive(Clone, Copy, Debug)]
struct HeldSlot {
    value: U256,
    /// Whether the block has written it.
    is_written: bool,
}

impl<S: StateReader> Ledger<S> {
    /// For a share that touches about so many accounts.
    pub(crate) fn new(reader: S, parent: Parent, account_count: usize) -> Self {
        let accounts = AddressMap::with_capacity_and_hasher(account_count, Default::default());
        let codes = RefCell::default();
        Self { reader, parent, accounts: RefCell::new(accounts), codes, code_cache: None }
    }

    /// Takes codes from there.
    pub(crate) fn with_codes(self, code_cache: Option<CodeCache>) -> Self {
        Self { code_cache, ..self }
    }

    /// Asks what is held of an account, which is read first where that is nothing.
    fn ask<T>(
        &self,
        address: Address,
        ask: impl FnOnce(&mut Held) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        match self.accounts.borrow_mut().entry(address) {
            Entry::Occupied(entry) => ask(entry.into_mut()),
            Entry::Vacant(entry) => ask(entry.insert(Held::new(self.reader.account(address)?))),
        }
    }
}

impl<S: StateReader> Source for Ledger<S> {
    type Reader = S;
    const IS_SHARED: bool = false;

    fn reader(&self) -> &S {
        &self.reader
    }

    fn parent(&self) -> &Parent {
        &self.parent
    }

    fn account(&self, address: Address, _: Place) -> Result<Option<Account>, DatabaseError> {
        self.ask(address, |held| Ok(held.now))
    }

    fn account_and_stillness(
        &self,
        address: Address,
        _: Place,
    ) -> Result<(Option<Account>, bool), DatabaseError> {
        self.ask(address, |held| Ok((held.now, !held.is_written)))
    }

    fn has_code(&self, address: Address, _: Place) -> Result<bool, DatabaseError> {
        self.ask(address, |held| Ok(held.now.is_some_and(|account| account.has_code())))
    }

    fn has_storage(&self, address: Address, _: Place) -> Result<bool, DatabaseError> {
        self.ask(address, |held| {
            if held.starts_empty {
                return Ok(false);
            }
            if held.stored.is_none() {
                held.stored = Some(self.reader.has_storage(address)?);
            }
            Ok(held.stored == Some(true))
        })
    }

    fn slot_and_stillness(
        &self,
        address: Address,
        slot: U256,
        _: Place,
        _: impl FnOnce() -> bool,
    ) -> Result<(U256, bool), DatabaseError> {
        self.ask(address, |held| match held.slots.entry(slot) {
            Entry::Occupied(entry) => {
                let HeldSlot { value, is_written } = *entry.get();
                Ok((value, !is_written))
            }
            // It may have been emptied by the block.
            Entry::Vacant(_) if held.starts_empty => Ok((U256::ZERO, !held.is_written)),
            Entry::Vacant(entry) => {
                let value = self.reader.storage(address, slot)?;
                entry.insert(HeldSlot { value, is_written: false });
                Ok((value, true))
            }
        })
    }

    fn code(&self, code_hash: B256) -> Result<Bytecode, DatabaseError> {
        match self.codes.borrow_mut().entry(code_hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => {
                let code = code_of(self.code_cache.as_ref(), &self.reader, code_hash)?;
                Ok(entry.insert(code).clone())
            }
        }
    }

    fn account_mark(&self, _: Address) -> Mark {
        Mark::default()
    }

    fn seen_value(&self, _: Address, mark: Mark) -> Seen {
        mark.shape()
    }

    fn slot_mark(&self, _: Address, _: U256) -> Mark {
        Mark::default()
    }

    fn wipe_count(&self) -> u32 {
        0
    }

    fn publish(&self, _: Place, writes: &Writes) {
        self.codes.borrow_mut().extend(writes.codes.iter().cloned());
        let mut accounts = self.accounts.borrow_mut();
        for write in &writes.accounts {
            accounts.get_mut(&write.address).expect(WAS_READ).write(write);
        }
        for Difference { address, wei } in &writes.differences {
            let held = accounts.get_mut(address).expect(WAS_READ);
            held.is_written = true;
            let account = held.now.get_or_insert_default();
            account.balance = account.balance.wrapping_add(*wei);
        }
    }
}

/// The fee recipient is read when a share begins, everybody else by the transaction that writes.
const WAS_READ: &str = "who is written to was read before";

impl Held {
    fn new(before: Option<Account>) -> Self {
        let starts_empty = before.is_none();
        let slots = U256Map::default();
        Self { now: before, is_written: false, starts_empty, stored: None, slots }
    }

    fn write(&mut self, write: &AccountDiff) {
        self.is_written |= write.change != AccountChange::Unchanged || write.storage_wiped;
        match write.change {
            AccountChange::Unchanged => {}
            AccountChange::Deleted => self.now = None,
            AccountChange::Set(account) => self.now = Some(account),
        }
        if write.storage_wiped {
            self.starts_empty = true;
            self.slots.clear();
        }
        let written = |change: &SlotChange| HeldSlot { value: change.value, is_written: true };
        self.slots.extend(write.storage.iter().map(|change| (change.slot, written(change))));
    }
}
