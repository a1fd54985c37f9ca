//! What was read of the parent state elsewhere, and whether it still stands here.

use super::{Memory, Place, SlotKey, mix, mix_slot};
use crate::{
    database::DatabaseError,
    engine::{
        outcome::Read,
        sync::atomic::{AtomicU32, Ordering::Acquire},
    },
};
use alloy_primitives::{Address, U256};
use blockraft_primitives::StateReader;

impl<S: StateReader> Memory<S> {
    /// Whether a transaction at `place` would read what the parent state has, as the one did that read this:
    /// nobody before it has written there. No value is looked at, neither here nor in the parent state.
    /// `false` may also mean that only values can tell.
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

    /// Reads an account of the parent state, if that was not done yet.
    pub(crate) fn load(&self, address: Address) -> Result<(), DatabaseError> {
        // Who is tipped was read when the block began.
        if address == self.tips.recipient {
            return Ok(());
        }
        self.look(address, |cell| cell.before.map(|_| ()))
    }

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
