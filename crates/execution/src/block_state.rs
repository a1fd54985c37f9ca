//! The state while a block runs: what was read, what it was before, what it is now.

use crate::{
    codes::{CodeCache, code_of},
    collision,
    database::{DatabaseError, account_info},
    engine::Balances,
    instructions::BlockDatabase,
    late::{Parent, Patience},
    transfer::TransferRules,
    watchdog::Watch,
};
use alloy_consensus::{TxEnvelope, transaction::Recovered};
use alloy_primitives::{
    Address, B256, Bytes, U256,
    map::{AddressMap, B256Map, Entry, U256Map},
};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, SlotChange, StateDiff, StateReader,
};
use revm::{
    DatabaseCommit,
    database_interface::Database,
    state::{Account as EvmAccount, AccountInfo, Bytecode, EvmStorage},
};
use std::{collections::BTreeMap, fmt};

/// A cache over the parent state that transactions are written into one after the other. It keeps the
/// parent's values beside the present ones, so that the block's net change falls out of it.
pub(crate) struct BlockState<S> {
    reader: S,
    /// BLOCKHASH must know it before any store does.
    parent: Parent,
    watch: Watch,
    accounts: AddressMap<CachedAccount>,
    codes: B256Map<Bytecode>,
    code_cache: Option<CodeCache>,
    /// The first failure of the reader: alloy-evm turns those inside system calls into text.
    failure: Option<DatabaseError>,
}

/// alloy-evm asks for it; the reader below need not have one.
impl<S> fmt::Debug for BlockState<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockState")
            .field("parent", &self.parent)
            .field("accounts", &self.accounts.len())
            .field("codes", &self.codes.len())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct CachedAccount {
    before: Option<Account>,
    now: Option<Account>,
    /// The parent's storage is gone; the slots below are all that there are.
    wiped: bool,
    /// Whether the parent has storage of it; `None` where nobody asked.
    stored: Option<bool>,
    storage: U256Map<CachedSlot>,
}

#[derive(Clone, Copy, Debug)]
struct CachedSlot {
    before: U256,
    now: U256,
}

impl<S: StateReader> BlockState<S> {
    /// Nothing read yet. `account_count` is a guess at how many accounts the block will touch.
    pub(crate) fn new(
        reader: S,
        parent: Parent,
        watch: Watch,
        code_cache: Option<CodeCache>,
        account_count: usize,
    ) -> Self {
        Self {
            reader,
            parent,
            watch,
            accounts: AddressMap::with_capacity_and_hasher(account_count, Default::default()),
            codes: B256Map::default(),
            code_cache,
            failure: None,
        }
    }

    /// The parent state.
    pub(crate) fn reader(&self) -> &S {
        &self.reader
    }

    /// The parent block.
    pub(crate) fn parent(&self) -> &Parent {
        &self.parent
    }

    /// A transaction starts.
    pub(crate) fn restart_watch(&mut self) {
        self.watch.restart();
    }

    /// The reader's failure, if there was one: then no result of this block can be trusted.
    pub(crate) fn take_failure(&mut self) -> Option<DatabaseError> {
        self.failure.take()
    }

    /// What the block changed: only what differs from the parent state.
    pub(crate) fn into_diff(self) -> Result<StateDiff, DatabaseError> {
        let mut accounts = Vec::with_capacity(self.accounts.len());
        let mut codes: BTreeMap<B256, Bytes> = BTreeMap::new();
        for (address, account) in self.accounts {
            if let Some(code_hash) = account.new_code_hash() {
                let code = self.codes.get(&code_hash).expect("new code is written through here");
                codes.insert(code_hash, code.original_bytes());
            }
            accounts.extend(account.into_diff(address));
        }
        accounts.sort_unstable_by_key(|account: &AccountDiff| account.address);
        let mut diff = StateDiff { accounts, codes: codes.into_values().collect() };
        self.parent.complete(&mut diff)?;
        Ok(diff)
    }

    /// Everything that was looked at, with its present values, changed or not: applied on top of an
    /// earlier one, it takes back what went back to what it was.
    pub(crate) fn touched(&self) -> Result<StateDiff, DatabaseError> {
        let mut accounts: Vec<AccountDiff> =
            self.accounts.iter().map(|(address, account)| account.touched(*address)).collect();
        accounts.sort_unstable_by_key(|account| account.address);
        let mut diff = StateDiff { accounts, codes: Vec::new() };
        self.parent.complete(&mut diff)?;
        Ok(diff)
    }

    /// Runs a plain transfer without the EVM; `None`, and nothing changed, where it is not plainly one.
    pub(crate) fn transfer(
        &mut self,
        rules: &TransferRules,
        tx: &Recovered<TxEnvelope>,
    ) -> Result<Option<()>, DatabaseError> {
        let Some(receiver) = rules.receiver_of(tx) else { return Ok(None) };
        let Some(sender) = self.load(tx.signer())?.now else { return Ok(None) };
        let receiver_now = self.load(receiver)?.now;
        let fee_recipient = self.load(rules.fee_recipient())?.now;
        let Some(transfer) = rules.resolve(tx, &sender) else { return Ok(None) };
        let received = transfer.value.saturating_add(transfer.tip);
        // A touched empty account vanishes (EIP-161), a balance may not overflow: rare, so the EVM's.
        let plain = |account: Option<Account>, wei: U256| {
            account.is_none_or(|account| {
                (!wei.is_zero() || !account.is_empty())
                    && account.balance.checked_add(received).is_some()
            })
        };
        let codeless = receiver_now.is_none_or(|account| !account.has_code());
        if !codeless || !plain(receiver_now, transfer.value) || !plain(fee_recipient, transfer.tip)
        {
            return Ok(None);
        }
        self.update(tx.signer(), |account| {
            account.nonce += 1;
            account.balance -= transfer.value + transfer.fee;
        });
        self.credit(receiver, transfer.value);
        self.credit(rules.fee_recipient(), transfer.tip);
        Ok(Some(()))
    }

    fn credit(&mut self, address: Address, wei: U256) {
        if !wei.is_zero() {
            self.update(address, |account| account.balance += wei);
        }
    }

    /// Changes an account that was loaded before.
    fn update(&mut self, address: Address, change: impl FnOnce(&mut Account)) {
        let cached = self.accounts.get_mut(&address).expect("loaded before");
        change(cached.now.get_or_insert_default());
    }

    fn load(&mut self, address: Address) -> Result<&mut CachedAccount, DatabaseError> {
        match self.accounts.entry(address) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => match self.reader.account(address) {
                Ok(account) => Ok(entry.insert(CachedAccount::new(account))),
                Err(error) => Err(note(&mut self.failure, error)),
            },
        }
    }

    /// Whether an account without nonce and code, loaded before, has storage (EIP-7610).
    fn has_storage(&mut self, address: Address) -> Result<bool, DatabaseError> {
        let cached = self.accounts.get_mut(&address).expect("loaded before");
        if cached.storage.values().any(|slot| !slot.now.is_zero()) {
            return Ok(true);
        }
        if cached.starts_empty() {
            return Ok(false);
        }
        if let Some(stored) = cached.stored {
            return Ok(stored);
        }
        let stored = self.reader.has_storage(address);
        let stored = stored.map_err(|error| note(&mut self.failure, error))?;
        cached.stored = Some(stored);
        Ok(stored)
    }

    /// Applies what a transaction left of one account. revm marks accounts so that this rule holds in
    /// every fork: touched and empty is gone (EIP-161), unless it was created.
    fn write(&mut self, address: Address, account: EvmAccount) {
        if !account.is_touched() {
            return;
        }
        let cached = match self.accounts.entry(address) {
            Entry::Occupied(entry) => entry.into_mut(),
            // revm reads an account through us before it touches it.
            Entry::Vacant(_) => unreachable!("account {address} was written without being read"),
        };
        let created = account.is_created();
        if account.is_selfdestructed() || (account.is_empty() && !created) {
            cached.now = None;
            cached.wipe_storage();
            return;
        }
        if created {
            cached.wipe_storage();
        }
        cached.write_slots(account.storage);
        let code_hash = collision::code_hash(&account.info);
        let AccountInfo { balance, nonce, code, .. } = account.info;
        if let Some(code) = code.filter(|_| cached.now.is_none_or(|a| a.code_hash != code_hash)) {
            self.codes.entry(code_hash).or_insert(code);
        }
        cached.now = Some(Account { nonce, balance, code_hash });
    }
}

impl CachedAccount {
    fn new(before: Option<Account>) -> Self {
        let storage = U256Map::default();
        Self { before, now: before, wiped: false, stored: None, storage }
    }

    /// Whether a slot that is not cached is known to be zero.
    fn starts_empty(&self) -> bool {
        self.wiped || self.before.is_none()
    }

    fn wipe_storage(&mut self) {
        self.wiped |= self.before.is_some();
        self.storage.clear();
    }

    fn write_slots(&mut self, storage: EvmStorage) {
        let starts_empty = self.starts_empty();
        for (slot, value) in storage {
            if !value.is_changed() {
                continue;
            }
            let before = if starts_empty { U256::ZERO } else { value.original_value };
            let cached = CachedSlot { before, now: value.present_value };
            self.storage.entry(slot).and_modify(|s| s.now = cached.now).or_insert(cached);
        }
    }

    fn new_code_hash(&self) -> Option<B256> {
        let now = self.now.filter(Account::has_code)?;
        let known = self.before.is_some_and(|before| before.code_hash == now.code_hash);
        (!known).then_some(now.code_hash)
    }

    fn touched(&self, address: Address) -> AccountDiff {
        let change = self.now.map_or(AccountChange::Deleted, AccountChange::Set);
        let mut storage = Vec::new();
        if self.now.is_some() {
            let slots = self.storage.iter();
            storage.extend(slots.map(|(slot, value)| SlotChange { slot: *slot, value: value.now }));
            storage.sort_unstable_by_key(|change| change.slot);
        }
        // Where the parent has no storage, the cache knows every slot that there is.
        AccountDiff { address, change, storage_wiped: self.starts_empty(), storage }
    }

    fn into_diff(self, address: Address) -> Option<AccountDiff> {
        let Some(now) = self.now else {
            let deleted = AccountDiff {
                address,
                change: AccountChange::Deleted,
                storage_wiped: true,
                storage: Vec::new(),
            };
            return self.before.map(|_| deleted);
        };
        let unchanged = self.before == Some(now);
        let mut storage: Vec<SlotChange> = self
            .storage
            .into_iter()
            .filter(|(_, value)| value.now != value.before)
            .map(|(slot, value)| SlotChange { slot, value: value.now })
            .collect();
        if unchanged && !self.wiped && storage.is_empty() {
            return None;
        }
        storage.sort_unstable_by_key(|change| change.slot);
        let change = if unchanged { AccountChange::Unchanged } else { AccountChange::Set(now) };
        Some(AccountDiff { address, change, storage_wiped: self.wiped, storage })
    }
}

impl<S: StateReader> Database for BlockState<S> {
    type Error = DatabaseError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        let Some(account) = self.load(address)?.now else { return Ok(None) };
        let taken = collision::is_open(&account) && self.has_storage(address)?;
        Ok(Some(account_info(account, taken)))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        match self.codes.entry(code_hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => {
                let code = code_of(self.code_cache.as_ref(), &self.reader, code_hash);
                let code = code.map_err(|error| note(&mut self.failure, error))?;
                Ok(entry.insert(code).clone())
            }
        }
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        let account = self.load(address)?;
        if let Some(CachedSlot { now, .. }) = account.storage.get(&slot).copied() {
            return self.parent.resolve(address, now, Patience::Wait);
        }
        if account.starts_empty() {
            return Ok(U256::ZERO);
        }
        match self.reader.storage(address, slot) {
            Ok(value) => {
                let cached = CachedSlot { before: value, now: value };
                self.load(address)?.storage.insert(slot, cached);
                Ok(value)
            }
            Err(error) => Err(note(&mut self.failure, error)),
        }
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        let waits = !self.parent.is_settled();
        if let Some(hash) = self.parent.hash_of(number, Patience::Wait) {
            if waits {
                self.watch.restart();
            }
            return hash;
        }
        self.reader.block_hash(number).map_err(|error| note(&mut self.failure, error))
    }
}

impl<S: StateReader> BlockDatabase for BlockState<S> {
    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn balances(&mut self) -> Option<&mut Balances> {
        None
    }

    fn is_late(&self) -> bool {
        self.parent.is_late()
    }

    fn prev_randao(&mut self) -> Result<Option<B256>, DatabaseError> {
        let waits = !self.parent.is_settled();
        let value = self.parent.prev_randao(Patience::Wait);
        if waits {
            self.watch.restart();
        }
        value
    }
}

impl<S: StateReader> DatabaseCommit for BlockState<S> {
    fn commit(&mut self, changes: AddressMap<EvmAccount>) {
        for (address, account) in changes {
            self.write(address, account);
        }
    }

    fn commit_iter(&mut self, changes: &mut dyn Iterator<Item = (Address, EvmAccount)>) {
        for (address, account) in changes {
            self.write(address, account);
        }
    }
}

fn note(failure: &mut Option<DatabaseError>, error: impl Into<DatabaseError>) -> DatabaseError {
    let error = error.into();
    failure.get_or_insert_with(|| error.clone());
    error
}
