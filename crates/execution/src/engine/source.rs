//! Where transactions read from and write to while a block runs.

use super::{
    memory::{Mark, Memory, Place, Seen},
    outcome::Writes,
};
use crate::{database::DatabaseError, late::Parent};
use alloy_primitives::{Address, B256, U256};
use blockraft_primitives::{Account, StateReader};
use revm::state::Bytecode;

/// The block's state at each place: the multi-version [`Memory`], which threads share, or the
/// [`Ledger`](super::ledger::Ledger) of an executor that runs its share in order.
pub(crate) trait Source {
    /// Reads the parent state.
    type Reader: StateReader;
    /// Whether others write while one reads, so that what was read must be looked at again.
    const IS_SHARED: bool;

    fn reader(&self) -> &Self::Reader;
    /// The parent block.
    fn parent(&self) -> &Parent;
    /// The account as a transaction at `place` sees it.
    fn account(&self, address: Address, place: Place) -> Result<Option<Account>, DatabaseError>;
    /// As [`Self::account`], and whether no place has written to the account: then it is the parent's.
    fn account_and_stillness(
        &self,
        address: Address,
        place: Place,
    ) -> Result<(Option<Account>, bool), DatabaseError>;
    /// Whether the account has code.
    fn has_code(&self, address: Address, place: Place) -> Result<bool, DatabaseError>;
    /// Whether an account without nonce and code has storage.
    fn has_storage(&self, address: Address, place: Place) -> Result<bool, DatabaseError>;
    /// The slot as a transaction at `place` sees it (see [`Parent::resolve`] for what may stand there), and
    /// whether that is certainly what the parent state has; it never is where others write meanwhile.
    /// `is_there` may know that the account is in the parent state.
    fn slot_and_stillness(
        &self,
        address: Address,
        slot: U256,
        place: Place,
        is_there: impl FnOnce() -> bool,
    ) -> Result<(U256, bool), DatabaseError>;
    /// Code by its hash.
    fn code(&self, code_hash: B256) -> Result<Bytecode, DatabaseError>;
    /// An account's counters. To be taken before the account is read.
    fn account_mark(&self, address: Address) -> Mark;
    /// What says that the account as it was with this mark is still the same.
    fn seen_value(&self, address: Address, mark: Mark) -> Seen;
    /// A slot's counter. To be taken before the slot is read.
    fn slot_mark(&self, address: Address, slot: U256) -> Mark;
    /// Counts how often storage was wiped. To be taken before anything is read.
    fn wipe_count(&self) -> u32;
    /// Makes writes visible to all later places.
    fn publish(&self, place: Place, writes: &Writes);
}

impl<S: StateReader> Source for Memory<S> {
    type Reader = S;
    const IS_SHARED: bool = true;

    fn reader(&self) -> &S {
        self.reader()
    }

    fn parent(&self) -> &Parent {
        self.parent()
    }

    fn account(&self, address: Address, place: Place) -> Result<Option<Account>, DatabaseError> {
        self.account(address, place)
    }

    fn account_and_stillness(
        &self,
        address: Address,
        place: Place,
    ) -> Result<(Option<Account>, bool), DatabaseError> {
        self.account_and_stillness(address, place)
    }

    fn has_code(&self, address: Address, place: Place) -> Result<bool, DatabaseError> {
        self.has_code(address, place)
    }

    fn has_storage(&self, address: Address, place: Place) -> Result<bool, DatabaseError> {
        self.has_storage(address, place)
    }

    fn slot_and_stillness(
        &self,
        address: Address,
        slot: U256,
        place: Place,
        is_there: impl FnOnce() -> bool,
    ) -> Result<(U256, bool), DatabaseError> {
        Ok((self.slot_of(address, slot, place, is_there)?, false))
    }

    fn code(&self, code_hash: B256) -> Result<Bytecode, DatabaseError> {
        self.code(code_hash)
    }

    fn account_mark(&self, address: Address) -> Mark {
        self.account_mark(address)
    }

    fn seen_value(&self, address: Address, mark: Mark) -> Seen {
        self.seen_value(address, mark)
    }

    fn slot_mark(&self, address: Address, slot: U256) -> Mark {
        self.slot_mark(address, slot)
    }

    fn wipe_count(&self) -> u32 {
        self.wipe_count()
    }

    fn publish(&self, place: Place, writes: &Writes) {
        self.publish(place, writes);
    }
}
