//! The flat state as revm reads it.

use crate::collision::{TAKEN, is_open};
use alloy_primitives::{Address, B256, Bytes, U256};
use blockraft_primitives::{Account, StateError, StateReader};
use revm::{
    context::DBErrorMarker,
    database_interface::DatabaseRef,
    state::{AccountInfo, Bytecode},
};
use std::sync::Arc;

/// The state could not be read. Shared, because revm passes its database's errors on by value while
/// the block's state keeps the first one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The store below could not answer.
    #[error(transparent)]
    State(Arc<StateError>),
    /// The parent's hash was asked for before it was there, or will never be.
    #[error("the hash of the parent block is not known")]
    ParentHash,
}

impl DBErrorMarker for DatabaseError {}

impl From<StateError> for DatabaseError {
    fn from(error: StateError) -> Self {
        Self::State(Arc::new(error))
    }
}

/// A [`StateReader`] as a revm database: read-only, nothing cached. Calls that change nothing run on it
/// through revm's `CacheDB` or `State`.
#[derive(Clone, Copy, Debug)]
pub struct StateDatabase<S>(pub S);

impl<S: StateReader> DatabaseRef for StateDatabase<S> {
    type Error = DatabaseError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        let Some(account) = self.0.account(address)? else { return Ok(None) };
        let taken = is_open(&account) && self.0.has_storage(address)?;
        Ok(Some(account_info(account, taken)))
    }

    fn code_by_hash_ref(&self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        Ok(bytecode(self.0.code(code_hash)?))
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        Ok(self.0.storage(address, slot)?)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Self::Error> {
        Ok(self.0.block_hash(number)?)
    }
}

/// Without code: revm asks for it by hash when it is run. `taken` is whether storage alone keeps contracts
/// from being created there.
pub(crate) fn account_info(account: Account, taken: bool) -> AccountInfo {
    AccountInfo {
        balance: account.balance,
        nonce: account.nonce,
        code_hash: if taken { TAKEN } else { account.code_hash },
        account_id: None,
        code: None,
    }
}

/// Analysed code. Bytes that only look like an EIP-7702 delegation were deployed before London (EIP-3541)
/// and run as ordinary code.
pub(crate) fn bytecode(code: Bytes) -> Bytecode {
    Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code))
}
