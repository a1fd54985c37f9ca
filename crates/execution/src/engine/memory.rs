//! Multi-version memory: of every location that a block touches, the parent's value and each value that a
//! transaction wrote, by the transaction's place in the block.
//!
//! A reader at place `i` sees the last value written before `i`, be it final or not: who wrote it may
//! still run again. Balances that only grow (tips, plain transfers) are kept as credits, which are added
//! up when someone reads the balance.

use super::outcome::{Credit, Writes};
use crate::{
    database::{DatabaseError, bytecode},
    late::{Parent, Patience},
};
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map, U256Map},
};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, SlotChange, StateDiff, StateReader,
};
use revm::state::Bytecode;
use std::{
    collections::BTreeMap,
    sync::{
        RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// Place in the block: system calls and transactions in one sequence.
pub(crate) type Place = u32;

/// Locks over which accounts are spread: far more than threads, so that two rarely meet.
const STRIPE_COUNT: usize = 64;

/// See the module.
pub(crate) struct Memory<S> {
    reader: S,
    parent: Parent,
    stripes: Vec<RwLock<AddressMap<Cell>>>,
    codes: RwLock<B256Map<Bytecode>>,
    /// An account was read that breaks what credits rely on.
    irregular: AtomicBool,
}

/// All that is known of one account.
#[derive(Debug, Default)]
struct Cell {
    /// In the parent state; the outer `None` is not read yet.
    before: Option<Option<Account>>,
    versions: Vec<(Place, Option<Account>)>,
    credits: Vec<(Place, U256)>,
    wipes: Vec<Place>,
    /// Whether the parent state has storage of it; `None` is not read yet.
    stored: Option<bool>,
    slots: U256Map<SlotCell>,
}

#[derive(Debug, Default)]
struct SlotCell {
    /// In the parent state; `None` is not read yet.
    before: Option<U256>,
    versions: Vec<(Place, U256)>,
}

impl<S: StateReader> Memory<S> {
    pub(crate) fn new(reader: S, parent: Parent) -> Self {
        Self {
            reader,
            parent,
            stripes: (0..STRIPE_COUNT).map(|_| RwLock::default()).collect(),
            codes: RwLock::default(),
            irregular: AtomicBool::new(false),
        }
    }

    /// Whether an account was read that exists and is empty (EIP-161 leftovers in made-up states), or
    /// whose balance could overflow: blocks on such a state run serially.
    pub(crate) fn is_irregular(&self) -> bool {
        self.irregular.load(Ordering::Relaxed)
    }

    /// The account as a transaction at `place` sees it.
    pub(crate) fn account(
        &self,
        address: Address,
        place: Place,
    ) -> Result<Option<Account>, DatabaseError> {
        if let Some(account) = self.read(address).get(&address).and_then(|c| c.account(place)) {
            return Ok(account);
        }
        let before = self.account_before(address)?;
        let mut stripe = self.write(address);
        let cell = stripe.entry(address).or_default();
        cell.before = Some(before);
        Ok(cell.account(place).expect("its first value is known"))
    }

    /// Whether the account has code, without adding up its credits.
    pub(crate) fn has_code(&self, address: Address, place: Place) -> Result<bool, DatabaseError> {
        let known = |cell: &Cell| cell.version(place).map(|(_, a)| a.is_some_and(|a| a.has_code()));
        if let Some(answer) = self.read(address).get(&address).and_then(known) {
            return Ok(answer);
        }
        Ok(self.account(address, place)?.is_some_and(|account| account.has_code()))
    }

    /// The slot as a transaction at `place` sees it; see [`Parent::resolve`] for what may stand there.
    pub(crate) fn slot(
        &self,
        address: Address,
        slot: U256,
        place: Place,
    ) -> Result<U256, DatabaseError> {
        if let Some(value) = self.read(address).get(&address).and_then(|c| c.slot(slot, place)) {
            return Ok(value);
        }
        // Makes sure that the account itself is known: without one there is no storage to read.
        if self.account(address, 0)?.is_none() {
            let mut stripe = self.write(address);
            let cell = stripe.entry(address).or_default();
            cell.slots.entry(slot).or_default().before = Some(U256::ZERO);
            return Ok(cell.slot(slot, place).expect("its first value is known"));
        }
        let before = self.reader.storage(address, slot)?;
        let mut stripe = self.write(address);
        let cell = stripe.entry(address).or_default();
        cell.slots.entry(slot).or_default().before = Some(before);
        Ok(cell.slot(slot, place).expect("its first value is known"))
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

    /// BLOCKHASH.
    pub(crate) fn block_hash(
        &self,
        number: u64,
        patience: Patience,
    ) -> Result<B256, DatabaseError> {
        let hash = self.parent.hash_of(number, patience);
        hash.unwrap_or_else(|| Ok(self.reader.block_hash(number)?))
    }

    /// The parent block.
    pub(crate) fn parent(&self) -> &Parent {
        &self.parent
    }

    /// The parent state.
    pub(crate) fn reader(&self) -> &S {
        &self.reader
    }

    /// Makes writes visible to all later places.
    pub(crate) fn publish(&self, place: Place, writes: &Writes) {
        if !writes.codes.is_empty() {
            // First: whoever sees the account must find its code.
            self.codes.write().expect(UNPOISONED).extend(writes.codes.iter().cloned());
        }
        for write in &writes.accounts {
            self.write(write.address).entry(write.address).or_default().publish(place, write);
        }
        for Credit { address, wei } in &writes.credits {
            let mut stripe = self.write(*address);
            let credits = &mut stripe.entry(*address).or_default().credits;
            let at = credits.partition_point(|(p, _)| *p < place);
            match credits.get_mut(at) {
                Some((p, credited)) if *p == place => *credited += *wei,
                _ => credits.insert(at, (place, *wei)),
            }
        }
    }

    /// Takes back what `place` published.
    pub(crate) fn retract(&self, place: Place, writes: &Writes) {
        for write in &writes.accounts {
            if let Some(cell) = self.write(write.address).get_mut(&write.address) {
                cell.retract(place, write);
            }
        }
        for Credit { address, .. } in &writes.credits {
            if let Some(cell) = self.write(*address).get_mut(address) {
                remove(&mut cell.credits, place);
            }
        }
    }

    /// What all places together changed.
    pub(crate) fn into_diff(self) -> Result<StateDiff, DatabaseError> {
        let mut accounts = Vec::new();
        let mut codes: BTreeMap<B256, Bytes> = BTreeMap::new();
        let known = self.codes.into_inner().expect(UNPOISONED);
        for stripe in self.stripes {
            for (address, mut cell) in stripe.into_inner().expect(UNPOISONED) {
                if !cell.is_written() {
                    continue;
                }
                if cell.before.is_none() {
                    // Credited and never looked at.
                    cell.before = Some(self.reader.account(address)?);
                }
                let Some((diff, code_hash)) = cell.into_diff(address) else { continue };
                if let Some(code_hash) = code_hash {
                    let code = known.get(&code_hash).expect("code is published with its account");
                    codes.insert(code_hash, code.original_bytes());
                }
                accounts.push(diff);
            }
        }
        accounts.sort_unstable_by_key(|account: &AccountDiff| account.address);
        let mut diff = StateDiff { accounts, codes: codes.into_values().collect() };
        self.parent.complete(&mut diff)?;
        Ok(diff)
    }

    fn account_before(&self, address: Address) -> Result<Option<Account>, DatabaseError> {
        let account = self.reader.account(address)?;
        if account.is_some_and(|a| a.is_empty() || a.balance.bit_len() > 192) {
            self.irregular.store(true, Ordering::Relaxed);
        }
        Ok(account)
    }

    fn read(&self, address: Address) -> RwLockReadGuard<'_, AddressMap<Cell>> {
        self.stripes[stripe_of(address)].read().expect(UNPOISONED)
    }

    fn write(&self, address: Address) -> RwLockWriteGuard<'_, AddressMap<Cell>> {
        self.stripes[stripe_of(address)].write().expect(UNPOISONED)
    }
}

/// Readers of the parent state, which may panic, are never called under a lock.
const UNPOISONED: &str = "nothing panics under this lock";

fn stripe_of(address: Address) -> usize {
    usize::from(address[0] ^ address[19]) % STRIPE_COUNT
}

impl Cell {
    /// The last account version before `place`, the parent's included; `None` where that is not read yet.
    fn version(&self, place: Place) -> Option<(Option<Place>, Option<Account>)> {
        match last_before(&self.versions, place) {
            Some((at, account)) => Some((Some(at), account)),
            None => self.before.map(|account| (None, account)),
        }
    }

    fn account(&self, place: Place) -> Option<Option<Account>> {
        let (at, mut account) = self.version(place)?;
        if !self.credits.is_empty() {
            let end = self.credits.partition_point(|(p, _)| *p < place);
            // What was credited by the place that wrote the version came on top of it.
            let from = at.map_or(0, |at| self.credits.partition_point(|(p, _)| *p < at));
            let credited: U256 =
                self.credits[from..end.max(from)].iter().map(|(_, wei)| *wei).sum();
            if !credited.is_zero() {
                account.get_or_insert_default().balance += credited;
            }
        }
        Some(account)
    }

    fn slot(&self, slot: U256, place: Place) -> Option<U256> {
        let cell = self.slots.get(&slot);
        let version = cell.and_then(|cell| last_before(&cell.versions, place));
        let wipe = match self.wipes.partition_point(|p| *p < place) {
            0 => None,
            n => Some(self.wipes[n - 1]),
        };
        match (version, wipe) {
            // Who wipes and writes in one go, wiped first.
            (Some((at, value)), wipe) if wipe.is_none_or(|wipe| at >= wipe) => Some(value),
            (_, Some(_)) => Some(U256::ZERO),
            (_, None) => cell?.before,
        }
    }

    fn has_storage(&self, place: Place) -> Option<bool> {
        let wiped = self.wipes.first().is_some_and(|wipe| *wipe < place);
        if wiped { Some(false) } else { self.stored }
    }

    fn publish(&mut self, place: Place, write: &AccountDiff) {
        match write.change {
            AccountChange::Unchanged => {}
            AccountChange::Deleted => insert(&mut self.versions, place, None),
            AccountChange::Set(account) => insert(&mut self.versions, place, Some(account)),
        }
        if write.storage_wiped {
            let at = self.wipes.partition_point(|p| *p < place);
            self.wipes.insert(at, place);
        }
        for SlotChange { slot, value } in &write.storage {
            insert(&mut self.slots.entry(*slot).or_default().versions, place, *value);
        }
    }

    fn retract(&mut self, place: Place, write: &AccountDiff) {
        remove(&mut self.versions, place);
        self.wipes.retain(|p| *p != place);
        for SlotChange { slot, .. } in &write.storage {
            if let Some(slot) = self.slots.get_mut(slot) {
                remove(&mut slot.versions, place);
            }
        }
    }

    fn is_written(&self) -> bool {
        !self.versions.is_empty()
            || !self.credits.is_empty()
            || !self.wipes.is_empty()
            || self.slots.values().any(|slot| !slot.versions.is_empty())
    }

    /// The net change, and the hash of the code if that is new.
    fn into_diff(self, address: Address) -> Option<(AccountDiff, Option<B256>)> {
        let before = self.before.expect("loaded by the caller");
        let Some(now) = self.account(Place::MAX).expect("loaded by the caller") else {
            let change = AccountChange::Deleted;
            let diff = AccountDiff { address, change, storage_wiped: true, storage: Vec::new() };
            return before.map(|_| (diff, None));
        };
        let storage_wiped = before.is_some() && !self.wipes.is_empty();
        let starts_empty = storage_wiped || before.is_none();
        let mut storage: Vec<SlotChange> = self
            .slots
            .iter()
            .filter(|(_, cell)| !cell.versions.is_empty())
            .filter_map(|(slot, cell)| {
                let value = self.slot(*slot, Place::MAX).expect("it has a version");
                let first = if starts_empty { Some(U256::ZERO) } else { cell.before };
                (first != Some(value)).then_some(SlotChange { slot: *slot, value })
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

fn last_before<T: Copy>(versions: &[(Place, T)], place: Place) -> Option<(Place, T)> {
    let end = versions.partition_point(|(p, _)| *p < place);
    end.checked_sub(1).map(|last| versions[last])
}

fn insert<T>(versions: &mut Vec<(Place, T)>, place: Place, value: T) {
    let at = versions.partition_point(|(p, _)| *p < place);
    match versions.get_mut(at) {
        Some((p, old)) if *p == place => *old = value,
        _ => versions.insert(at, (place, value)),
    }
}

fn remove<T>(versions: &mut Vec<(Place, T)>, place: Place) {
    versions.retain(|(p, _)| *p != place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::Header;
    use blockraft_primitives::MemoryState;

    const ALICE: Address = Address::repeat_byte(0xa1);
    const BOB: Address = Address::repeat_byte(0xb0);

    fn with(nonce: u64, balance: u64) -> Account {
        Account { nonce, balance: U256::from(balance), ..Default::default() }
    }

    /// Alice has nonce 1 and 100 wei, and 7 in slot 7; Bob is not there.
    fn memory() -> Memory<MemoryState> {
        let mut state = MemoryState::default();
        state.accounts.insert(ALICE, with(1, 100));
        state.storage.entry(ALICE).or_default().insert(U256::from(7), U256::from(7));
        Memory::new(state, Parent::of(&Header::default(), None))
    }

    fn set(account: Account, slots: &[(u64, u64)]) -> Writes {
        write(AccountChange::Set(account), false, slots)
    }

    fn write(change: AccountChange, storage_wiped: bool, slots: &[(u64, u64)]) -> Writes {
        let slot = |&(slot, value)| SlotChange { slot: U256::from(slot), value: U256::from(value) };
        let storage = slots.iter().map(slot).collect();
        let accounts = vec![AccountDiff { address: ALICE, change, storage_wiped, storage }];
        Writes { accounts, ..Writes::default() }
    }

    fn credit(address: Address, wei: u64) -> Writes {
        Writes { credits: vec![Credit { address, wei: U256::from(wei) }], ..Writes::default() }
    }

    fn slot(memory: &Memory<MemoryState>, slot: u64, place: Place) -> u64 {
        memory.slot(ALICE, U256::from(slot), place).unwrap().to()
    }

    #[test]
    fn reader_sees_the_last_version_before_its_place() {
        let memory = memory();
        memory.publish(5, &set(with(3, 50), &[(7, 50)]));
        memory.publish(3, &set(with(2, 30), &[(7, 30)]));
        let seen: Vec<_> = [0, 3, 4, 5, 6]
            .map(|place| {
                (memory.account(ALICE, place).unwrap().unwrap().nonce, slot(&memory, 7, place))
            })
            .to_vec();
        assert_eq!(seen, [(1, 7), (1, 7), (2, 30), (2, 30), (3, 50)]);
    }

    #[test]
    fn retracted_version_was_never_there() {
        let memory = memory();
        let writes = set(with(2, 30), &[(7, 30), (8, 30)]);
        memory.publish(3, &writes);
        memory.retract(3, &writes);
        assert_eq!(memory.account(ALICE, 9).unwrap(), Some(with(1, 100)));
        assert_eq!((slot(&memory, 7, 9), slot(&memory, 8, 9)), (7, 0));
        assert_eq!(memory.into_diff().unwrap(), StateDiff::default());
    }

    #[test]
    fn credits_add_up_from_the_last_version_on() {
        let memory = memory();
        memory.publish(2, &credit(ALICE, 1));
        memory.publish(4, &credit(ALICE, 10));
        memory.publish(4, &set(with(2, 50), &[]));
        memory.publish(6, &credit(ALICE, 100));
        let balance = |place| memory.account(ALICE, place).unwrap().unwrap().balance.to::<u64>();
        assert_eq!([2, 3, 4, 5, 6, 7].map(balance), [100, 101, 101, 60, 60, 160]);
    }

    #[test]
    fn credit_creates_an_account_that_nobody_read() {
        let memory = memory();
        memory.publish(2, &credit(BOB, 5));
        let expected = AccountDiff {
            address: BOB,
            change: AccountChange::Set(with(0, 5)),
            storage_wiped: false,
            storage: vec![],
        };
        assert_eq!(memory.into_diff().unwrap().accounts, [expected]);
    }

    #[test]
    fn wipe_hides_older_slots_and_not_those_written_with_it() {
        let memory = memory();
        memory.publish(2, &set(with(1, 100), &[(8, 8)]));
        memory.publish(4, &write(AccountChange::Set(with(1, 0)), true, &[(9, 9)]));
        let seen = |place| [7, 8, 9].map(|number| slot(&memory, number, place));
        assert_eq!((seen(4), seen(5)), ([7, 8, 0], [0, 0, 9]));
        memory.publish(6, &set(with(1, 0), &[(7, 1)]));
        assert_eq!(seen(7), [1, 0, 9]);
    }

    #[test]
    fn value_that_comes_back_is_no_change() {
        let memory = memory();
        assert_eq!(slot(&memory, 7, 1), 7);
        memory.account(ALICE, 1).unwrap();
        memory.publish(1, &set(with(2, 1), &[(7, 0)]));
        memory.publish(2, &set(with(1, 100), &[(7, 7)]));
        assert_eq!(memory.into_diff().unwrap(), StateDiff::default());
    }

    #[test]
    fn deleted_account_is_gone_with_its_slots() {
        let memory = memory();
        memory.publish(2, &write(AccountChange::Deleted, true, &[]));
        assert_eq!((memory.account(ALICE, 3).unwrap(), slot(&memory, 7, 3)), (None, 0));
        let diff = memory.into_diff().unwrap();
        assert_eq!(diff.accounts[0].change, AccountChange::Deleted);
    }

    #[test]
    fn empty_account_in_the_parent_state_is_irregular() {
        let mut state = MemoryState::default();
        state.accounts.insert(BOB, Account::default());
        let memory = Memory::new(state, Parent::of(&Header::default(), None));
        memory.account(ALICE, 1).unwrap();
        assert!(!memory.is_irregular());
        memory.account(BOB, 1).unwrap();
        assert!(memory.is_irregular());
    }
}
