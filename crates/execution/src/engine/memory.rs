//! Multi-version memory: of every location that a block touches, the parent's value and each value that a
//! transaction wrote, by the transaction's place in the block.
//!
//! A reader at place `i` sees the last value written before `i`, be it final or not: who wrote it may
//! still run again. What is added to and taken from balances that nobody looked at is kept as
//! differences, which are added up when someone reads the balance.
//!
//! Every change leaves a *mark*: a location's counter goes up. A reader notes the counters before it looks,
//! so that later an unmoved counter says, without looking again, that the read still holds. Locations share
//! counters, which costs a second look now and then and nothing else.

use super::{
    outcome::{Difference, Writes},
    versions::Versions,
};
use crate::{
    database::{DatabaseError, bytecode},
    late::Parent,
};
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map, HashMap},
};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, SlotChange, StateDiff, StateReader,
};
use revm::state::Bytecode;
use std::{
    collections::BTreeMap,
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

/// Place in the block: system calls and transactions in one sequence.
pub(crate) type Place = u32;

/// Locks over which accounts are spread, and those over which slots are: far more than threads, so that
/// two rarely meet. Slots are spread without regard to their account, or one token would be one lock.
const STRIPE_COUNT: usize = 128;

/// Counters of changes: a power of two.
const MARK_COUNT: usize = 1 << 14;

/// See the module.
pub(crate) struct Memory<S> {
    reader: S,
    parent: Parent,
    accounts: Box<[RwLock<AddressMap<Cell>>]>,
    slots: Box<[RwLock<SlotMap>]>,
    marks: Box<[AtomicU32]>,
    /// How often an account's storage was wiped: that changes all its slots and leaves no marks at them.
    wipes: AtomicU32,
    codes: RwLock<B256Map<Bytecode>>,
    /// An account was read that breaks what differences rely on.
    irregular: AtomicBool,
}

type SlotMap = HashMap<(Address, U256), SlotCell>;

/// All that is known of one account but for its slots.
#[derive(Debug, Default)]
struct Cell {
    /// In the parent state; the outer `None` is not read yet.
    before: Option<Option<Account>>,
    versions: Versions<Option<Account>>,
    /// Modulo 2^256: negative ones are there too.
    differences: Vec<(Place, U256)>,
    wipes: Vec<Place>,
    /// Whether the parent state has storage of it; `None` is not read yet.
    stored: Option<bool>,
}

#[derive(Debug, Default)]
struct SlotCell {
    /// In the parent state; `None` is not read yet.
    before: Option<U256>,
    versions: Versions<U256>,
}

/// Counters of a location at the moment of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Of an account: nonce, code and whether it is there. Of a slot the same as `value`.
    pub(crate) shape: u32,
    /// Of all of it.
    pub(crate) value: u32,
}

impl<S: StateReader> Memory<S> {
    pub(crate) fn new(reader: S, parent: Parent) -> Self {
        Self {
            reader,
            parent,
            accounts: (0..STRIPE_COUNT).map(|_| RwLock::default()).collect(),
            slots: (0..STRIPE_COUNT).map(|_| RwLock::default()).collect(),
            marks: (0..MARK_COUNT).map(|_| AtomicU32::new(0)).collect(),
            wipes: AtomicU32::new(0),
            codes: RwLock::default(),
            irregular: AtomicBool::new(false),
        }
    }

    /// Whether an account was read that exists and is empty (EIP-161 leftovers in made-up states), or
    /// whose balance could overflow: blocks on such a state run serially.
    pub(crate) fn is_irregular(&self) -> bool {
        self.irregular.load(Relaxed)
    }

    /// The account as a transaction at `place` sees it.
    pub(crate) fn account(
        &self,
        address: Address,
        place: Place,
    ) -> Result<Option<Account>, DatabaseError> {
        self.look(address, |cell| cell.account(place))
    }

    /// As [`Self::account`], but of a balance only whether there is one: differences are not added up
    /// where the rest says that the account is not empty.
    pub(crate) fn shape(
        &self,
        address: Address,
        place: Place,
    ) -> Result<Option<Account>, DatabaseError> {
        self.look(address, |cell| match cell.version(place)? {
            (_, Some(account)) if account.nonce > 0 || account.has_code() => Some(Some(account)),
            _ => cell.account(place),
        })
    }

    /// Whether the account has code, without adding up what was credited to it.
    pub(crate) fn has_code(&self, address: Address, place: Place) -> Result<bool, DatabaseError> {
        let has_code = |account: Option<Account>| account.is_some_and(|account| account.has_code());
        self.look(address, |cell| cell.version(place).map(|(_, account)| has_code(account)))
    }

    /// The slot as a transaction at `place` sees it; see [`Parent::resolve`] for what may stand there.
    pub(crate) fn slot(
        &self,
        address: Address,
        slot: U256,
        place: Place,
    ) -> Result<U256, DatabaseError> {
        let wipe = self.last_wipe(address, place);
        let known = self.read_slots(address, slot).get(&(address, slot)).map(|c| c.value(place));
        if let Some(value) = known.and_then(|version| slot_value(version, wipe)) {
            return Ok(value);
        }
        if wipe.is_some() {
            return Ok(U256::ZERO);
        }
        // Without an account there is no storage to read.
        let there = self.account(address, 0)?.is_some();
        let before = if there { self.reader.storage(address, slot)? } else { U256::ZERO };
        let mut stripe = self.write_slots(address, slot);
        let cell = stripe.entry((address, slot)).or_default();
        cell.before = Some(before);
        Ok(slot_value(cell.value(place), None).expect("its first value is known"))
    }

    /// Whether an account without nonce and code has storage as a transaction at `place` sees it. Its slots
    /// cannot be written one by one: what is created has a nonce from EIP-161 on.
    pub(crate) fn has_storage(
        &self,
        address: Address,
        place: Place,
    ) -> Result<bool, DatabaseError> {
        if let Some(answer) = self.read(address).get(&address).and_then(|c| c.has_storage(place)) {
            return Ok(answer);
        }
        let there = self.account(address, 0)?.is_some();
        let stored = there && self.reader.has_storage(address)?;
        let mut stripe = self.write(address);
        let cell = stripe.entry(address).or_default();
        cell.stored = Some(stored);
        Ok(cell.has_storage(place).expect("its first value is known"))
    }

    /// Code by its hash; a hash never means two things, so places do not matter.
    pub(crate) fn code(&self, code_hash: B256) -> Result<Bytecode, DatabaseError> {
        if let Some(code) = self.codes.read().expect(UNPOISONED).get(&code_hash) {
            return Ok(code.clone());
        }
        let code = bytecode(self.reader.code(code_hash)?);
        self.codes.write().expect(UNPOISONED).insert(code_hash, code.clone());
        Ok(code)
    }

    /// The parent block.
    pub(crate) fn parent(&self) -> &Parent {
        &self.parent
    }

    /// The parent state.
    pub(crate) fn reader(&self) -> &S {
        &self.reader
    }

    /// An account's counters. To be taken before the account is read.
    pub(crate) fn account_mark(&self, address: Address) -> Mark {
        let [shape, value] = self.account_marks(address).map(|mark| mark.load(Acquire));
        Mark { shape, value }
    }

    /// A slot's counter. To be taken before the slot is read.
    pub(crate) fn slot_mark(&self, address: Address, slot: U256) -> Mark {
        let value = self.marks[mark_of(mix_slot(address, slot))].load(Acquire);
        Mark { shape: value, value }
    }

    /// Counts how often storage was wiped. To be taken before anything is read.
    pub(crate) fn wipe_count(&self) -> u32 {
        self.wipes.load(Acquire)
    }

    /// Makes writes visible to all later places.
    pub(crate) fn publish(&self, place: Place, writes: &Writes) {
        if !writes.codes.is_empty() {
            // First: whoever sees the account must find its code.
            self.codes.write().expect(UNPOISONED).extend(writes.codes.iter().cloned());
        }
        for write in &writes.accounts {
            if write.change != AccountChange::Unchanged || write.storage_wiped {
                self.write(write.address).entry(write.address).or_default().publish(place, write);
                self.leave_marks(write);
            }
            for SlotChange { slot, value } in &write.storage {
                let mut stripe = self.write_slots(write.address, *slot);
                stripe.entry((write.address, *slot)).or_default().versions.insert(place, *value);
                drop(stripe);
                self.leave_slot_mark(write.address, *slot);
            }
        }
        for Difference { address, wei } in &writes.differences {
            self.write(*address).entry(*address).or_default().add(place, *wei);
            self.account_marks(*address)[1].fetch_add(1, Release);
        }
    }

    /// Takes back what `place` published.
    pub(crate) fn retract(&self, place: Place, writes: &Writes) {
        for write in &writes.accounts {
            if write.change != AccountChange::Unchanged || write.storage_wiped {
                if let Some(cell) = self.write(write.address).get_mut(&write.address) {
                    cell.versions.remove(place);
                    cell.wipes.retain(|p| *p != place);
                }
                self.leave_marks(write);
            }
            for SlotChange { slot, .. } in &write.storage {
                let mut stripe = self.write_slots(write.address, *slot);
                if let Some(cell) = stripe.get_mut(&(write.address, *slot)) {
                    cell.versions.remove(place);
                }
                drop(stripe);
                self.leave_slot_mark(write.address, *slot);
            }
        }
        for Difference { address, .. } in &writes.differences {
            if let Some(cell) = self.write(*address).get_mut(address) {
                cell.differences.retain(|(p, _)| *p != place);
            }
            self.account_marks(*address)[1].fetch_add(1, Release);
        }
    }

    /// The last place before `place` that wrote to an account.
    pub(crate) fn account_writer(&self, address: Address, place: Place) -> Option<Place> {
        let stripe = self.read(address);
        let cell = stripe.get(&address)?;
        let credited = cell.differences.partition_point(|(p, _)| *p < place).checked_sub(1);
        let credited = credited.map(|last| cell.differences[last].0);
        credited.max(cell.versions.last_before(place).map(|(at, _)| at))
    }

    /// The last place before `place` that wrote to a slot.
    pub(crate) fn slot_writer(&self, address: Address, slot: U256, place: Place) -> Option<Place> {
        let stripe = self.read_slots(address, slot);
        stripe.get(&(address, slot))?.versions.last_before(place).map(|(at, _)| at)
    }

    /// What all places together changed.
    pub(crate) fn into_diff(self) -> Result<StateDiff, DatabaseError> {
        let mut slots = self.written_slots()?;
        let mut accounts = Vec::new();
        let mut codes: BTreeMap<B256, Bytes> = BTreeMap::new();
        let known = self.codes.into_inner().expect(UNPOISONED);
        for stripe in self.accounts {
            for (address, mut cell) in stripe.into_inner().expect(UNPOISONED) {
                let storage = slots.remove(&address).unwrap_or_default();
                if !cell.is_written() && storage.is_empty() {
                    continue;
                }
                if cell.before.is_none() {
                    // Credited and never looked at.
                    cell.before = Some(self.reader.account(address)?);
                }
                let Some((diff, code_hash)) = cell.into_diff(address, storage) else { continue };
                if let Some(code_hash) = code_hash {
                    let code = known.get(&code_hash).expect("code is published with its account");
                    codes.insert(code_hash, code.original_bytes());
                }
                accounts.push(diff);
            }
        }
        // Nobody read these as accounts: they came with outcomes from elsewhere.
        for (address, written) in slots {
            let cell = Cell { before: Some(self.reader.account(address)?), ..Cell::default() };
            accounts.extend(cell.into_diff(address, written).map(|(diff, _)| diff));
        }
        accounts.sort_unstable_by_key(|account: &AccountDiff| account.address);
        let mut diff = StateDiff { accounts, codes: codes.into_values().collect() };
        self.parent.complete(&mut diff)?;
        Ok(diff)
    }

    /// Slots that were written, by account.
    fn written_slots(&self) -> Result<AddressMap<Vec<WrittenSlot>>, DatabaseError> {
        let mut slots: AddressMap<Vec<WrittenSlot>> = AddressMap::default();
        for stripe in &self.slots {
            for ((address, slot), cell) in stripe.read().expect(UNPOISONED).iter() {
                let Some((at, value)) = cell.versions.last_before(Place::MAX) else { continue };
                let before = match cell.before {
                    Some(before) => before,
                    None if self.account(*address, 0)?.is_none() => U256::ZERO,
                    None => self.reader.storage(*address, *slot)?,
                };
                let written = WrittenSlot { slot: *slot, at, value, before };
                slots.entry(*address).or_default().push(written);
            }
        }
        Ok(slots)
    }

    /// Asks an account's cell, whose parent account is read first where the cell needs it.
    fn look<T>(
        &self,
        address: Address,
        ask: impl Fn(&Cell) -> Option<T>,
    ) -> Result<T, DatabaseError> {
        if let Some(answer) = self.read(address).get(&address).and_then(&ask) {
            return Ok(answer);
        }
        let before = self.account_before(address)?;
        let mut stripe = self.write(address);
        let cell = stripe.entry(address).or_default();
        cell.before = Some(before);
        Ok(ask(cell).expect("its first value is known"))
    }

    fn account_before(&self, address: Address) -> Result<Option<Account>, DatabaseError> {
        let account = self.reader.account(address)?;
        if account.is_some_and(|a| a.is_empty() || a.balance.bit_len() > 192) {
            self.irregular.store(true, Relaxed);
        }
        Ok(account)
    }

    /// The last place before `place` at which the account's storage was wiped.
    fn last_wipe(&self, address: Address, place: Place) -> Option<Place> {
        if self.wipes.load(Acquire) == 0 {
            return None;
        }
        let stripe = self.read(address);
        let wipes = &stripe.get(&address)?.wipes;
        wipes.partition_point(|p| *p < place).checked_sub(1).map(|last| wipes[last])
    }

    fn leave_marks(&self, write: &AccountDiff) {
        for mark in self.account_marks(write.address) {
            mark.fetch_add(1, Release);
        }
        if write.storage_wiped {
            self.wipes.fetch_add(1, Release);
        }
    }

    fn leave_slot_mark(&self, address: Address, slot: U256) {
        self.marks[mark_of(mix_slot(address, slot))].fetch_add(1, Release);
    }

    /// Counters of shape and value: neighbours.
    fn account_marks(&self, address: Address) -> [&AtomicU32; 2] {
        let at = mark_of(mix(address));
        [&self.marks[at], &self.marks[at ^ 1]]
    }

    fn read(&self, address: Address) -> RwLockReadGuard<'_, AddressMap<Cell>> {
        self.accounts[stripe_of(mix(address))].read().expect(UNPOISONED)
    }

    fn write(&self, address: Address) -> RwLockWriteGuard<'_, AddressMap<Cell>> {
        self.accounts[stripe_of(mix(address))].write().expect(UNPOISONED)
    }

    fn read_slots(&self, address: Address, slot: U256) -> RwLockReadGuard<'_, SlotMap> {
        self.slots[stripe_of(mix_slot(address, slot))].read().expect(UNPOISONED)
    }

    fn write_slots(&self, address: Address, slot: U256) -> RwLockWriteGuard<'_, SlotMap> {
        self.slots[stripe_of(mix_slot(address, slot))].write().expect(UNPOISONED)
    }
}

/// Readers of the parent state, which may panic, are never called under a lock.
const UNPOISONED: &str = "nothing panics under this lock";

/// Spreads what is not spread yet (small numbers, made-up addresses) over the upper bits.
fn mix(address: Address) -> u64 {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| address[at + i]));
    (word(0) ^ word(8).rotate_left(17) ^ word(12).rotate_left(31)).wrapping_mul(SPREAD)
}

fn mix_slot(address: Address, slot: U256) -> u64 {
    let [a, b, c, d] = slot.into_limbs();
    let folded = a ^ b.rotate_left(13) ^ c.rotate_left(29) ^ d.rotate_left(43);
    (mix(address).rotate_left(23) ^ folded).wrapping_mul(SPREAD)
}

/// 2^64 over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

fn stripe_of(mixed: u64) -> usize {
    (mixed >> 57) as usize % STRIPE_COUNT
}

fn mark_of(mixed: u64) -> usize {
    (mixed >> 40) as usize % MARK_COUNT
}

/// A slot that some place wrote.
struct WrittenSlot {
    slot: U256,
    at: Place,
    value: U256,
    before: U256,
}

/// What a reader sees, if it is known: the last version if that was not wiped since, else the parent's
/// value. Who wipes and writes in one go, wiped first.
fn slot_value(
    (version, before): (Option<(Place, U256)>, Option<U256>),
    wipe: Option<Place>,
) -> Option<U256> {
    match (version, wipe) {
        (Some((at, value)), wipe) if wipe.is_none_or(|wipe| at >= wipe) => Some(value),
        (_, Some(_)) => Some(U256::ZERO),
        (_, None) => before,
    }
}

impl SlotCell {
    /// The last version before `place`, and the parent's value.
    fn value(&self, place: Place) -> (Option<(Place, U256)>, Option<U256>) {
        (self.versions.last_before(place), self.before)
    }
}

impl Cell {
    /// The last account version before `place`, the parent's included; `None` where that is not read yet.
    fn version(&self, place: Place) -> Option<(Option<Place>, Option<Account>)> {
        match self.versions.last_before(place) {
            Some((at, account)) => Some((Some(at), account)),
            None => self.before.map(|account| (None, account)),
        }
    }

    fn account(&self, place: Place) -> Option<Option<Account>> {
        let (at, mut account) = self.version(place)?;
        if !self.differences.is_empty() {
            let end = self.differences.partition_point(|(p, _)| *p < place);
            // What the place that wrote the version added came on top of it.
            let from = at.map_or(0, |at| self.differences.partition_point(|(p, _)| *p < at));
            let sum = self.differences[from..end.max(from)]
                .iter()
                .fold(U256::ZERO, |sum, (_, wei)| sum.wrapping_add(*wei));
            if !sum.is_zero() {
                let account = account.get_or_insert_default();
                account.balance = account.balance.wrapping_add(sum);
            }
        }
        Some(account)
    }

    fn has_storage(&self, place: Place) -> Option<bool> {
        let wiped = self.wipes.first().is_some_and(|wipe| *wipe < place);
        if wiped { Some(false) } else { self.stored }
    }

    fn publish(&mut self, place: Place, write: &AccountDiff) {
        match write.change {
            AccountChange::Unchanged => {}
            AccountChange::Deleted => self.versions.insert(place, None),
            AccountChange::Set(account) => self.versions.insert(place, Some(account)),
        }
        if write.storage_wiped {
            let at = self.wipes.partition_point(|p| *p < place);
            self.wipes.insert(at, place);
        }
    }

    fn add(&mut self, place: Place, wei: U256) {
        // Places come nearly in order.
        let at = match self.differences.last() {
            Some((last, _)) if *last >= place => {
                self.differences.partition_point(|(p, _)| *p < place)
            }
            _ => self.differences.len(),
        };
        match self.differences.get_mut(at) {
            Some((p, sum)) if *p == place => *sum = sum.wrapping_add(wei),
            _ => self.differences.insert(at, (place, wei)),
        }
    }

    fn is_written(&self) -> bool {
        !self.versions.is_empty() || !self.differences.is_empty() || !self.wipes.is_empty()
    }

    /// The net change, and the hash of the code if that is new.
    fn into_diff(
        self,
        address: Address,
        written: Vec<WrittenSlot>,
    ) -> Option<(AccountDiff, Option<B256>)> {
        let before = self.before.expect("loaded by the caller");
        let Some(now) = self.account(Place::MAX).expect("loaded by the caller") else {
            let change = AccountChange::Deleted;
            let diff = AccountDiff { address, change, storage_wiped: true, storage: Vec::new() };
            return before.map(|_| (diff, None));
        };
        let storage_wiped = before.is_some() && !self.wipes.is_empty();
        let starts_empty = storage_wiped || before.is_none();
        let wipe = self.wipes.last().copied();
        let mut storage: Vec<SlotChange> = written
            .into_iter()
            .filter_map(|WrittenSlot { slot, at, value, before }| {
                let value = slot_value((Some((at, value)), None), wipe)?;
                let first = if starts_empty { U256::ZERO } else { before };
                (first != value).then_some(SlotChange { slot, value })
            })
            .collect();
        let unchanged = before == Some(now);
        if unchanged && !storage_wiped && storage.is_empty() {
            return None;
        }
        storage.sort_unstable_by_key(|change| change.slot);
        let known = before.is_some_and(|before| before.code_hash == now.code_hash);
        let code_hash = (now.has_code() && !known).then_some(now.code_hash);
        let change = if unchanged { AccountChange::Unchanged } else { AccountChange::Set(now) };
        Some((AccountDiff { address, change, storage_wiped, storage }, code_hash))
    }
}

#[cfg(test)]
mod tests;
