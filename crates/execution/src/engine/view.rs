//! The memory as the EVM reads it at one place of the block.

use super::{
    access_list::{Location, loaded},
    balances::Balances,
    memory::{Mark, Memory, Place},
    outcome::{Read, Writes},
};
use crate::{
    collision::is_open,
    database::{DatabaseError, account_info},
    instructions::BlockDatabase,
    late::Patience,
    watchdog::Watch,
};
use alloy_primitives::{Address, B256, U256, map::AddressMap};
use blockraft_primitives::{Account, StateReader};
use revm::{
    DatabaseCommit,
    database_interface::Database,
    state::{Account as EvmAccount, AccountInfo, Bytecode},
};
use std::fmt;

/// A revm database at one place. Committing publishes at that place and moves on to the next, which is
/// how system calls follow one another.
pub(crate) struct View<'a, S> {
    pub(crate) memory: &'a Memory<S>,
    pub(crate) place: Place,
    /// What was read since it was last taken; stays empty where nobody asks.
    pub(crate) reads: Vec<Read>,
    /// The memory's counters before each read.
    pub(crate) marks: Vec<Mark>,
    pub(crate) balances: Balances,
    /// Whether to note reads.
    pub(crate) traced: bool,
    /// What to do when the parent's hash is asked for and not there.
    pub(crate) patience: Patience,
    pub(crate) watch: Watch,
    /// What was committed, in order.
    pub(crate) committed: Vec<Writes>,
    /// What was loaded for each of these; only noted if `traced`.
    pub(crate) loaded: Vec<Vec<Location>>,
    /// The first failure of the parent state's reader.
    pub(crate) failure: Option<DatabaseError>,
}

impl<'a, S: StateReader> View<'a, S> {
    pub(crate) fn new(memory: &'a Memory<S>, place: Place, watch: Watch) -> Self {
        Self {
            memory,
            place,
            reads: Vec::new(),
            marks: Vec::new(),
            balances: Balances::default(),
            traced: false,
            patience: Patience::Wait,
            watch,
            committed: Vec::new(),
            loaded: Vec::new(),
            failure: None,
        }
    }

    /// The account, noted as read.
    pub(crate) fn account(&mut self, address: Address) -> Result<Option<Account>, DatabaseError> {
        self.mark(|memory| memory.account_mark(address));
        let account = self.memory.account(address, self.place);
        let account = self.noting(account)?;
        self.note(Read::Account(address, account));
        Ok(account)
    }

    /// Whether the account has no code; only a yes is noted.
    pub(crate) fn is_codeless(&mut self, address: Address) -> Result<bool, DatabaseError> {
        let mark = self.memory.account_mark(address);
        let has_code = self.memory.has_code(address, self.place);
        let codeless = !self.noting(has_code)?;
        if codeless {
            self.mark(|_| mark);
            self.note(Read::Codeless(address));
        }
        Ok(codeless)
    }

    /// Whether an account without nonce and code has storage, noted as read.
    fn has_storage(&mut self, address: Address) -> Result<bool, DatabaseError> {
        self.mark(|memory| memory.account_mark(address));
        let has_storage = self.memory.has_storage(address, self.place);
        let has_storage = self.noting(has_storage)?;
        self.note(Read::HasStorage(address, has_storage));
        Ok(has_storage)
    }

    /// Takes the counters of what is read next; each call is followed by one of [`Self::note`], or the
    /// transaction fails.
    fn mark(&mut self, mark: impl FnOnce(&Memory<S>) -> Mark) {
        if self.traced {
            let mark = mark(self.memory);
            self.marks.push(mark);
        }
    }

    fn note(&mut self, read: Read) {
        if self.traced {
            self.reads.push(read);
        }
    }

    fn noting<T>(&mut self, result: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        if let Err(error) = &result {
            self.failure.get_or_insert_with(|| error.clone());
        }
        result
    }
}

impl<S> fmt::Debug for View<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<S: StateReader> Database for View<'_, S> {
    type Error = DatabaseError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        let Some(account) = self.account(address)? else { return Ok(None) };
        let taken = is_open(&account) && self.has_storage(address)?;
        Ok(Some(account_info(account, taken)))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        let code = self.memory.code(code_hash);
        self.noting(code)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        self.mark(|memory| memory.slot_mark(address, slot));
        let value = self.memory.slot(address, slot, self.place);
        let value =
            value.and_then(|value| self.memory.parent().resolve(address, value, self.patience));
        let value = self.noting(value)?;
        self.note(Read::Slot(address, slot, value));
        Ok(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        let waits = !self.memory.parent().is_settled();
        let hash = self.memory.block_hash(number, self.patience);
        if waits {
            self.watch.restart();
        }
        self.noting(hash)
    }
}

impl<S: StateReader> BlockDatabase for View<'_, S> {
    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn balances(&mut self) -> Option<&mut Balances> {
        Some(&mut self.balances)
    }

    fn is_late(&self) -> bool {
        self.memory.parent().is_late()
    }

    fn prev_randao(&mut self) -> Result<Option<B256>, DatabaseError> {
        let waits = !self.memory.parent().is_settled();
        let value = self.memory.parent().prev_randao(self.patience);
        if waits {
            self.watch.restart();
        }
        self.noting(value)
    }
}

impl<S: StateReader> DatabaseCommit for View<'_, S> {
    fn commit(&mut self, changes: AddressMap<EvmAccount>) {
        if self.traced {
            self.loaded.push(loaded(&changes));
        }
        let writes = Writes::from_evm(changes);
        self.memory.publish(self.place, &writes);
        self.committed.push(writes);
        self.place += 1;
    }
}
