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

mod alone;
mod cell;
mod diff;
mod reads;
mod tips;

use super::{
    outcome::{Difference, Writes},
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};
use crate::{
    codes::{CodeCache, code_of},
    database::DatabaseError,
    late::Parent,
};
use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, B256Map, HashMap},
};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange, StateReader};
use cell::{Cell, SlotCell, slot_value};
use revm::state::Bytecode;
use std::hash::{Hash, Hasher};
use tips::Tips;

/// Place in the block: system calls and transactions in one sequence.
pub(crate) type Place = u32;

/// Locks over which accounts are spread, and those over which slots are: far more than threads, so that
/// two rarely meet. Slots are spread without regard to their account, or one token would be one lock. In unit
/// tests they meet.
const STRIPE_COUNT: usize = if cfg!(test) { 2 } else { 128 };

/// Counters of changes, a power of two: at least so many, and so many for each place, up to a limit.
/// In unit tests locations often share one.
const MARK_COUNT_MIN: usize = if cfg!(test) { 8 } else { 1 << 14 };
const MARKS_PER_PLACE: usize = if cfg!(test) { 0 } else { 16 };
const MARK_COUNT_MAX: usize = 1 << 18;

/// See the module.
pub(crate) struct Memory<S> {
    reader: S,
    parent: Parent,
    accounts: Box<[RwLock<AddressMap<Cell>>]>,
    slots: Box<[RwLock<SlotMap>]>,
    marks: Box<[AtomicU32]>,
    tips: Tips,
    /// How often an account's storage was wiped: that changes all its slots and leaves no marks at them.
    wipes: AtomicU32,
    codes: RwLock<B256Map<Bytecode>>,
    code_cache: Option<CodeCache>,
    /// An account was read that breaks what differences rely on.
    irregular: AtomicBool,
}

type SlotMap = HashMap<SlotKey, SlotCell>;

/// A slot of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SlotKey {
    address: Address,
    slot: U256,
}

impl Hash for SlotKey {
    /// In words: as bytes it would take several times as long.
    #[inline]
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let [a, b, c] = words(self.address);
        let [d, e, f, g] = self.slot.into_limbs();
        [a, b, c, d, e, f, g].into_iter().for_each(|word| hasher.write_u64(word));
    }
}

/// How many locations a block will touch: a guess, so that maps need not grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// Transactions, each at a place of its own.
    pub(crate) places: usize,
    pub(crate) accounts: usize,
    pub(crate) slots: usize,
}

/// Counters of a location at the moment of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which counters.
    at: u32,
    /// Of an account: nonce, code and whether it is there. Of a slot the same as `value`.
    shape: u32,
    /// Of all of it.
    value: u32,
}

/// The counter that says whether a read holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    at: u32,
    count: u32,
}

/// No counter: whoever was read is changed by nearly every transaction and does not leave marks.
const UNCOUNTED: u32 = u32::MAX;

impl Mark {
    /// What matters is all of it.
    pub(crate) fn value(self) -> Seen {
        Seen { at: if self.at == UNCOUNTED { UNCOUNTED } else { self.at ^ 1 }, count: self.value }
    }

    /// What matters is the shape alone.
    pub(crate) fn shape(self) -> Seen {
        Seen { at: self.at, count: self.shape }
    }
}

impl<S: StateReader> Memory<S> {
    pub(crate) fn new(
        reader: S,
        parent: Parent,
        fee_recipient: Address,
        Expected { places, accounts, slots }: Expected,
    ) -> Self {
        // Some stripes get more than their share. Room that is not needed costs as well: entries lie
        // scattered in it, and all its pages have to be cleared.
        let share = |count: usize| {
            let share = count / STRIPE_COUNT;
            share + 2 * share.isqrt()
        };
        let (accounts, slots) = (share(accounts), share(slots));
        let mark_count = (places * MARKS_PER_PLACE).next_power_of_two();
        let mark_count = mark_count.clamp(MARK_COUNT_MIN, MARK_COUNT_MAX);
        let account_stripe = || AddressMap::with_capacity_and_hasher(accounts, Default::default());
        let slot_stripe = || SlotMap::with_capacity_and_hasher(slots, Default::default());
        Self {
            reader,
            parent,
            accounts: (0..STRIPE_COUNT).map(|_| RwLock::new(account_stripe())).collect(),
            slots: (0..STRIPE_COUNT).map(|_| RwLock::new(slot_stripe())).collect(),
            tips: Tips::new(fee_recipient, places),
            marks: (0..mark_count).map(|_| AtomicU32::new(0)).collect(),
            wipes: AtomicU32::new(0),
            codes: RwLock::default(),
            code_cache: None,
            irregular: AtomicBool::new(false),
        }
    }

    /// Takes codes from there.
    pub(crate) fn with_codes(self, code_cache: Option<CodeCache>) -> Self {
        Self { code_cache, ..self }
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
        self.look(address, |cell| cell.account(place, &self.tips_of(address)))
    }

    /// As [`Self::account`], and whether no place has written to the account.
    pub(crate) fn account_and_stillness(
        &self,
        address: Address,
        place: Place,
    ) -> Result<(Option<Account>, bool), DatabaseError> {
        let tips = self.tips_of(address);
        self.look(address, |cell| {
            let account = cell.account(place, &tips)?;
            Some((account, !cell.is_written() && tips.is_none()))
        })
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
            _ => cell.account(place, &self.tips_of(address)),
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
        self.slot_of(address, slot, place, || false)
    }

    /// As [`Self::slot`]; `is_there` may know that the account is in the parent state.
    pub(crate) fn slot_of(
        &self,
        address: Address,
        slot: U256,
        place: Place,
        is_there: impl FnOnce() -> bool,
    ) -> Result<U256, DatabaseError> {
        let wipe = self.last_wipe(address, place);
        let key = SlotKey { address, slot };
        let known = self.read_slots(key).get(&key).map(|cell| cell.value(place));
        if let Some(value) = known.and_then(|version| slot_value(version, wipe)) {
            return Ok(value);
        }
        if wipe.is_some() {
            return Ok(U256::ZERO);
        }
        let before =
            if is_there() { self.reader.storage(address, slot)? } else { self.slot_before(key)? };
        let mut stripe = self.write_slots(key);
        let cell = stripe.entry(key).or_default();
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
        cell.set_stored(stored);
        Ok(cell.has_storage(place).expect("its first value is known"))
    }

    /// Code by its hash; a hash never means two things, so places do not matter.
    pub(crate) fn code(&self, code_hash: B256) -> Result<Bytecode, DatabaseError> {
        if let Some(code) = self.codes.read().expect(UNPOISONED).get(&code_hash) {
            return Ok(code.clone());
        }
        let code = code_of(self.code_cache.as_ref(), &self.reader, code_hash)?;
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
        let at = self.mark_of(mix(address));
        let [shape, value] = self.account_marks(at).map(|mark| mark.load(Acquire));
        Mark { at: at as u32, shape, value }
    }

    /// What says that the account as it was with this mark is still the same.
    pub(crate) fn seen_value(&self, address: Address, mark: Mark) -> Seen {
        let counted = address != self.tips.recipient;
        Mark { at: if counted { mark.at } else { UNCOUNTED }, ..mark }.value()
    }

    /// Whether nothing was written to what was read since the mark was taken.
    pub(crate) fn is_unmoved(&self, seen: Seen) -> bool {
        self.marks.get(seen.at as usize).is_some_and(|mark| mark.load(Acquire) == seen.count)
    }

    /// A slot's counter. To be taken before the slot is read.
    pub(crate) fn slot_mark(&self, address: Address, slot: U256) -> Mark {
        let at = self.mark_of(mix_slot(address, slot));
        let value = self.marks[at].load(Acquire);
        // Its value is counted where an account's shape is.
        Mark { at: at as u32, shape: value, value }
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
                let key = SlotKey { address: write.address, slot: *slot };
                self.write_slots(key).entry(key).or_default().versions.insert(place, *value);
                self.leave_slot_mark(write.address, *slot);
            }
        }
        for Difference { address, wei } in &writes.differences {
            if *address == self.tips.recipient && self.tips.add(place, *wei) {
                continue;
            }
            self.write(*address).entry(*address).or_default().add(place, *wei);
            self.leave_value_mark(*address);
        }
    }

    /// Takes back what `place` published.
    pub(crate) fn retract(&self, place: Place, writes: &Writes) {
        for write in &writes.accounts {
            if write.change != AccountChange::Unchanged || write.storage_wiped {
                if let Some(cell) = self.write(write.address).get_mut(&write.address) {
                    cell.retract(place);
                }
                self.leave_marks(write);
            }
            for SlotChange { slot, .. } in &write.storage {
                let key = SlotKey { address: write.address, slot: *slot };
                if let Some(cell) = self.write_slots(key).get_mut(&key) {
                    cell.versions.remove(place);
                }
                self.leave_slot_mark(write.address, *slot);
            }
        }
        for Difference { address, .. } in &writes.differences {
            if *address == self.tips.recipient {
                self.tips.clear(place);
            }
            if let Some(cell) = self.write(*address).get_mut(address) {
                cell.retract_difference(place);
            }
            self.leave_value_mark(*address);
        }
    }

    /// The last place before `place` that wrote to an account.
    pub(crate) fn account_writer(&self, address: Address, place: Place) -> Option<Place> {
        let tipped = self.tips_of(address).and_then(|tips| tips.last_before(place));
        tipped.max(self.read(address).get(&address).and_then(|cell| cell.writer(place)))
    }

    /// The last place before `place` that wrote to a slot.
    pub(crate) fn slot_writer(&self, address: Address, slot: U256, place: Place) -> Option<Place> {
        let key = SlotKey { address, slot };
        self.read_slots(key).get(&key)?.versions.last_before(place).map(|(at, _)| at)
    }

    /// The parent's value of a slot. Without an account there is no storage to read.
    fn slot_before(&self, SlotKey { address, slot }: SlotKey) -> Result<U256, DatabaseError> {
        let there = self.account(address, 0)?.is_some();
        Ok(if there { self.reader.storage(address, slot)? } else { U256::ZERO })
    }

    fn tips_of(&self, address: Address) -> Option<&Tips> {
        (address == self.tips.recipient).then_some(&self.tips)
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
        self.judge_fitness(account);
        Ok(account)
    }

    /// Looks at an account of the parent state for what [`Self::is_irregular`] says.
    #[inline]
    fn judge_fitness(&self, account: Option<Account>) {
        if account.is_some_and(is_unfit) {
            self.irregular.store(true, Relaxed);
        }
    }

    /// The last place before `place` at which the account's storage was wiped.
    #[inline]
    fn last_wipe(&self, address: Address, place: Place) -> Option<Place> {
        if self.wipes.load(Acquire) == 0 {
            return None;
        }
        self.read(address).get(&address)?.last_wipe(place)
    }

    fn leave_marks(&self, write: &AccountDiff) {
        for mark in self.account_marks(self.mark_of(mix(write.address))) {
            mark.fetch_add(1, Release);
        }
        if write.storage_wiped {
            self.wipes.fetch_add(1, Release);
        }
    }

    fn leave_slot_mark(&self, address: Address, slot: U256) {
        self.marks[self.mark_of(mix_slot(address, slot))].fetch_add(1, Release);
    }

    fn leave_value_mark(&self, address: Address) {
        self.account_marks(self.mark_of(mix(address)))[1].fetch_add(1, Release);
    }

    #[inline]
    fn mark_of(&self, mixed: u64) -> usize {
        (mixed >> 40) as usize & (self.marks.len() - 1)
    }

    /// Counters of shape and value: neighbours.
    #[inline]
    fn account_marks(&self, at: usize) -> [&AtomicU32; 2] {
        [&self.marks[at], &self.marks[at ^ 1]]
    }

    #[inline]
    fn read(&self, address: Address) -> RwLockReadGuard<'_, AddressMap<Cell>> {
        self.accounts[stripe_of(mix(address))].read().expect(UNPOISONED)
    }

    #[inline]
    fn write(&self, address: Address) -> RwLockWriteGuard<'_, AddressMap<Cell>> {
        self.accounts[stripe_of(mix(address))].write().expect(UNPOISONED)
    }

    #[inline]
    fn read_slots(&self, key: SlotKey) -> RwLockReadGuard<'_, SlotMap> {
        self.slots[stripe_of(mix_slot(key.address, key.slot))].read().expect(UNPOISONED)
    }

    #[inline]
    fn write_slots(&self, key: SlotKey) -> RwLockWriteGuard<'_, SlotMap> {
        self.slots[stripe_of(mix_slot(key.address, key.slot))].write().expect(UNPOISONED)
    }
}

#[inline]
fn is_unfit(account: Account) -> bool {
    account.is_empty() || account.balance.bit_len() > 192
}

/// Readers of the parent state, which may panic, are never called under a lock.
const UNPOISONED: &str = "nothing panics under this lock";

/// Spreads what is not spread yet (small numbers, made-up addresses) over the upper bits.
#[inline]
fn mix(address: Address) -> u64 {
    let [a, b, c] = words(address);
    (a ^ b.rotate_left(17) ^ c.rotate_left(31)).wrapping_mul(SPREAD)
}

/// An address as numbers that sort as it does.
#[inline]
fn words(address: Address) -> [u64; 3] {
    let bytes = address.as_slice();
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    [word(0), word(8), word(12)]
}

#[inline]
fn mix_slot(address: Address, slot: U256) -> u64 {
    let [a, b, c, d] = slot.into_limbs();
    let folded = a ^ b.rotate_left(13) ^ c.rotate_left(29) ^ d.rotate_left(43);
    (mix(address).rotate_left(23) ^ folded).wrapping_mul(SPREAD)
}

/// 2^64 over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn stripe_of(mixed: u64) -> usize {
    (mixed >> 57) as usize % STRIPE_COUNT
}

#[cfg(test)]
mod tests;
