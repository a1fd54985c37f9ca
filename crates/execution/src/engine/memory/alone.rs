//! Writing to the memory while nobody else has it: without locks, whose every turn waits for the one before it
//! to arrive in all of the machine.

use super::{Memory, Place, SlotKey, UNPOISONED, is_unfit, mix, mix_slot, stripe_of};
use crate::{
    database::DatabaseError,
    engine::{
        outcome::{Difference, Writes},
        sync::{RwLock, atomic::AtomicU32},
    },
};
use blockraft_primitives::{AccountChange, SlotChange, StateReader};

impl<S: StateReader> Memory<S> {
    /// [`Self::publish`] of an outcome from elsewhere, with [`Self::load_credited`].
    pub(crate) fn merge(&mut self, place: Place, writes: &Writes) -> Result<(), DatabaseError> {
        if !writes.codes.is_empty() {
            let codes = self.codes.get_mut().expect(UNPOISONED);
            codes.extend(writes.codes.iter().cloned());
        }
        for write in &writes.accounts {
            let address = write.address;
            if write.change != AccountChange::Unchanged || write.storage_wiped {
                let mixed = mix(address);
                let at = self.mark_of(mixed);
                let cell = stripe(&mut self.accounts, mixed).entry(address).or_default();
                cell.publish(place, write);
                leave_mark(&mut self.marks[at]);
                leave_mark(&mut self.marks[at ^ 1]);
                if write.storage_wiped {
                    leave_mark(&mut self.wipes);
                }
            }
            for SlotChange { slot, value } in &write.storage {
                let mixed = mix_slot(address, *slot);
                let at = self.mark_of(mixed);
                let cell = stripe(&mut self.slots, mixed).entry(SlotKey { address, slot: *slot });
                cell.or_default().versions.insert(place, *value);
                leave_mark(&mut self.marks[at]);
            }
        }
        writes
            .differences
            .iter()
            .try_for_each(|difference| self.merge_difference(place, difference))
    }

    #[inline]
    fn merge_difference(
        &mut self,
        place: Place,
        Difference { address, wei }: &Difference,
    ) -> Result<(), DatabaseError> {
        if *address == self.tips.recipient && self.tips.add(place, *wei) {
            return Ok(());
        }
        let mixed = mix(*address);
        let at = self.mark_of(mixed);
        let cell = stripe(&mut self.accounts, mixed).entry(*address).or_default();
        if cell.before.is_none() {
            let before = self.reader.account(*address)?;
            cell.before = Some(before);
            if before.is_some_and(is_unfit) {
                *self.irregular.get_mut() = true;
            }
        }
        cell.add(place, *wei);
        leave_mark(&mut self.marks[at ^ 1]);
        Ok(())
    }
}

#[inline]
fn stripe<T>(stripes: &mut [RwLock<T>], mixed: u64) -> &mut T {
    stripes[stripe_of(mixed)].get_mut().expect(UNPOISONED)
}

#[inline]
fn leave_mark(mark: &mut AtomicU32) {
    let count = mark.get_mut();
    *count = count.wrapping_add(1);
}
