//! Whether what a transaction read is what it would read now.

use super::{Memory, Place, SlotKey, mix, mix_slot};
use crate::{
    database::DatabaseError,
    engine::{
        Basis,
        outcome::{Difference, Outcome, Read},
        sync::atomic::{AtomicU32, Ordering::Acquire},
    },
    late::Patience,
};
use alloy_primitives::{Address, U256};
use blockraft_primitives::StateReader;

impl<S: StateReader> Memory<S> {
    /// The first of an outcome's reads that would give something else at `place` now.
    pub(crate) fn stale<'o>(
        &self,
        outcome: &'o Outcome,
        place: Place,
    ) -> Result<Option<&'o Read>, DatabaseError> {
        let marked = outcome.wipe_count == self.wipe_count();
        for index in 0..outcome.reads.len() {
            let seen = outcome.seen.get(index).filter(|_| marked);
            if seen.is_some_and(|seen| self.is_unmoved(*seen)) {
                continue;
            }
            let read = &outcome.reads[index];
            if !self.holds(read, place)? {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    /// [`Self::stale`] of an outcome from elsewhere. If it was computed on the block's very parent state, what it
    /// saw of that is what is there, as long as nobody has written it.
    pub(crate) fn stale_seed<'o>(
        &self,
        outcome: &'o Outcome,
        place: Place,
        basis: Basis,
    ) -> Result<Option<&'o Read>, DatabaseError> {
        if basis == Basis::Unknown {
            return self.stale(outcome, place);
        }
        let mut inner = outcome.inner.iter().copied().peekable();
        for (index, read) in (0_u32..).zip(&outcome.reads) {
            let is_inner = inner.next_if_eq(&index).is_some();
            let is_unwritten = !is_inner && self.is_as_in_parent(read, place);
            if !is_unwritten && !self.holds(read, place)? {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    fn holds(&self, read: &Read, place: Place) -> Result<bool, DatabaseError> {
        Ok(match read {
            Read::Account(address, seen) => self.account(*address, place)? == *seen,
            Read::Shape(address, code_hash, at_least) => {
                let account = if at_least.is_zero() {
                    self.shape(*address, place)?
                } else {
                    self.account(*address, place)?
                };
                account.is_some_and(|account| {
                    account.code_hash == *code_hash
                        && account.balance >= *at_least
                        && !account.is_empty()
                })
            }
            Read::Codeless(address) => !self.has_code(*address, place)?,
            Read::Slot(address, slot, seen) => {
                let value = self.slot(*address, *slot, place)?;
                self.parent().resolve(*address, value, Patience::Wait)? == *seen
            }
            Read::HasStorage(address, seen) => self.has_storage(*address, place)? == *seen,
        })
    }

    /// Whether a transaction at `place` would read what the parent state has, as the one did that read this:
    /// nobody before it has written there. No value is looked at, neither here nor in the parent state.
    /// `false` may also mean that only values can tell.
    #[inline]
    pub(crate) fn is_as_in_parent(&self, read: &Read, place: Place) -> bool {
        match read {
            Read::Account(address, account) => {
                self.judge_fitness(*account);
                self.is_account_unwritten(*address, place, read.ignores_balance())
            }
            Read::Shape(address, ..) | Read::Codeless(address) => {
                self.is_account_unwritten(*address, place, read.ignores_balance())
            }
            Read::Slot(address, slot, _) => self.is_slot_unwritten(*address, *slot, place),
            Read::HasStorage(..) => false,
        }
    }

    /// Reads what of the parent state an outcome adds to without having looked at it: it must be there, and fit
    /// to be added to.
    pub(crate) fn load_credited(&self, differences: &[Difference]) -> Result<(), DatabaseError> {
        for Difference { address, .. } in differences {
            // Who is tipped was read when the block began.
            if *address != self.tips.recipient {
                self.look(*address, |cell| cell.before.map(|_| ()))?;
            }
        }
        Ok(())
    }

    #[inline]
    fn is_account_unwritten(&self, address: Address, place: Place, but_credits: bool) -> bool {
        // Tips leave no marks.
        if address == self.tips.recipient && !but_credits {
            return false;
        }
        let [shape, value] = self.account_marks(self.mark_of(mix(address)));
        if is_unmarked(if but_credits { shape } else { value }) {
            return true;
        }
        let stripe = self.read(address);
        stripe.get(&address).is_none_or(|cell| cell.is_unwritten(place, but_credits))
    }

    #[inline]
    fn is_slot_unwritten(&self, address: Address, slot: U256, place: Place) -> bool {
        if self.last_wipe(address, place).is_some() {
            return false;
        }
        if is_unmarked(&self.marks[self.mark_of(mix_slot(address, slot))]) {
            return true;
        }
        let key = SlotKey { address, slot };
        let stripe = self.read_slots(key);
        stripe.get(&key).is_none_or(|cell| cell.versions.last_before(place).is_none())
    }
}

/// Whether nothing was ever written where this counter counts.
#[inline]
fn is_unmarked(mark: &AtomicU32) -> bool {
    mark.load(Acquire) == 0
}
