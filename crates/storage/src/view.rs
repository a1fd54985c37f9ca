//! The state at one block.

use crate::database::Database;
use alloy_primitives::{Address, B256, Bytes, U256};
use blockraft_primitives::{Account, StateError, StateReader};
use std::{fmt, sync::Arc};

/// The state at one block, whatever is applied, persisted or installed meanwhile. It holds no MDBX
/// transaction between calls, so it may live long; once its block falls out of the history window it
/// answers [`StateError::Pruned`], and [`StateError::UnknownBlock`] once its block was taken back.
#[derive(Clone)]
pub struct StateView {
    database: Arc<Database>,
    number: u64,
    /// Unwinds of the chain before this view.
    unwinds: usize,
}

impl StateView {
    pub(crate) fn new(database: Arc<Database>, number: u64) -> Result<Self, StateError> {
        let unwinds = database.unwinds.count();
        database.check_height(number)?;
        Ok(Self { database, number, unwinds })
    }

    /// What was read, unless the block was taken back meanwhile.
    fn checked<T>(&self, read: T) -> Result<T, StateError> {
        self.database.unwinds.check(self.unwinds, self.number)?;
        Ok(read)
    }

    /// The block.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Debug for StateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateView").field("number", &self.number).finish_non_exhaustive()
    }
}

impl StateReader for StateView {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.checked(self.database.account(&address, self.number)?)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.checked(self.database.storage(&address, slot, self.number)?)
    }

    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.checked(self.database.has_storage(&address, self.number)?)
    }

    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.database.code(&code_hash)
    }

    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        if number > self.number {
            return Ok(B256::ZERO);
        }
        self.checked(self.database.hash(number)?.unwrap_or_default())
    }
}
