//! All that is known of one location.

use super::{Place, tips::Tips};
use crate::{database::DatabaseError, engine::versions::Versions};
use alloy_primitives::U256;
use blockraft_primitives::{Account, AccountChange, AccountDiff};

/// An account but for its slots.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// In the parent state; the outer `None` is not read yet.
    pub(super) before: Option<Option<Account>>,
    versions: Versions<Option<Account>>,
    /// Modulo 2^256: negative ones are there too.
    differences: Versions<U256>,
    rare: Option<Box<Rare>>,
}

/// What most accounts of a block have not.
#[derive(Debug, Default)]
struct Rare {
    wipes: Vec<Place>,
    /// Whether the parent state has storage of it; `None` is not read yet.
    stored: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct SlotCell {
    /// In the parent state; `None` is not read yet.
    pub(super) before: Option<U256>,
    pub(super) versions: Versions<U256>,
}

/// What a reader sees, if it is known: the last version if that was not wiped since, else the parent's
/// value. Who wipes and writes in one go, wiped first.
pub(super) fn slot_value(
    (version, before): (Option<(Place, U256)>, Option<U256>),
    wipe: Option<Place>,
) -> Option<U256> {
    match (version, wipe) {
        (Some((at, value)), wipe) if wipe.is_none_or(|wipe| at >= wipe) => Some(value),
        (_, Some(_)) => Some(U256::ZERO),
        (_, None) => before,
    }
}

impl SlotCell {
    /// The last version before `place`, and the parent's value.
    pub(super) fn value(&self, place: Place) -> (Option<(Place, U256)>, Option<U256>) {
        (self.versions.last_before(place), self.before)
    }

    /// The last value, if it is another one than the parent's; who finds an account without storage starts
    /// from zero.
    pub(super) fn changed(
        &self,
        starts_empty: bool,
        wipe: Option<Place>,
        read_before: impl FnOnce() -> Result<U256, DatabaseError>,
    ) -> Result<Option<U256>, DatabaseError> {
        let last = self.versions.last_before(Place::MAX);
        let Some(value) = last.and_then(|last| slot_value((Some(last), None), wipe)) else {
            return Ok(None);
        };
        let before = match self.before {
            _ if starts_empty => U256::ZERO,
            Some(before) => before,
            // One change, by somebody who saw another value.
            None if self.versions.only().is_some() => return Ok(Some(value)),
            None => read_before()?,
        };
        Ok((before != value).then_some(value))
    }
}

impl Cell {
    /// The last account version before `place`, the parent's included; `None` where that is not read yet.
    pub(super) fn version(&self, place: Place) -> Option<(Option<Place>, Option<Account>)> {
        match self.versions.last_before(place) {
            Some((at, account)) => Some((Some(at), account)),
            None => self.before.map(|account| (None, account)),
        }
    }

    /// The account before `place`, with what came and went.
    pub(super) fn account(&self, place: Place, tips: &Option<&Tips>) -> Option<Option<Account>> {
        Some(self.with_credits(self.version(place)?, place, tips))
    }

    /// The account in the end, where it began as `before`.
    pub(super) fn last(&self, before: Option<Account>, tips: &Option<&Tips>) -> Option<Account> {
        let last = self.versions.last_before(Place::MAX);
        let version = last.map_or((None, before), |(at, account)| (Some(at), account));
        self.with_credits(version, Place::MAX, tips)
    }

    fn with_credits(
        &self,
        (at, mut account): (Option<Place>, Option<Account>),
        place: Place,
        tips: &Option<&Tips>,
    ) -> Option<Account> {
        if !self.differences.is_empty() || tips.is_some() {
            // What the place that wrote the version added came on top of it.
            let from = at.unwrap_or_default();
            let sum = self.differences.between(from, place).fold(U256::ZERO, U256::wrapping_add);
            let tipped = tips.map_or(U256::ZERO, |tips| tips.sum(from, place));
            let sum = sum.wrapping_add(tipped);
            if !sum.is_zero() {
                let account = account.get_or_insert_default();
                account.balance = account.balance.wrapping_add(sum);
            }
        }
        account
    }

    pub(super) fn has_storage(&self, place: Place) -> Option<bool> {
        let rare = self.rare.as_ref()?;
        let wiped = rare.wipes.first().is_some_and(|wipe| *wipe < place);
        if wiped { Some(false) } else { rare.stored }
    }

    pub(super) fn set_stored(&mut self, stored: bool) {
        self.rare.get_or_insert_default().stored = Some(stored);
    }

    /// The last place before `place` at which its storage was wiped.
    pub(super) fn last_wipe(&self, place: Place) -> Option<Place> {
        let wipes = self.wipes();
        wipes.partition_point(|p| *p < place).checked_sub(1).map(|last| wipes[last])
    }

    /// The last place before `place` that wrote to it.
    pub(super) fn writer(&self, place: Place) -> Option<Place> {
        let credited = self.differences.last_before(place).map(|(at, _)| at);
        credited.max(self.versions.last_before(place).map(|(at, _)| at))
    }

    #[inline]
    pub(super) fn publish(&mut self, place: Place, write: &AccountDiff) {
        match write.change {
            AccountChange::Unchanged => {}
            AccountChange::Deleted => self.versions.insert(place, None),
            AccountChange::Set(account) => self.versions.insert(place, Some(account)),
        }
        if write.storage_wiped {
            let wipes = &mut self.rare.get_or_insert_default().wipes;
            let at = wipes.partition_point(|p| *p < place);
            wipes.insert(at, place);
        }
    }

    #[inline]
    pub(super) fn add(&mut self, place: Place, wei: U256) {
        self.differences.merge(place, wei, U256::wrapping_add);
    }

    /// Takes back what `place` published but for its differences.
    pub(super) fn retract(&mut self, place: Place) {
        self.versions.remove(place);
        if let Some(rare) = &mut self.rare {
            rare.wipes.retain(|p| *p != place);
        }
    }

    pub(super) fn retract_difference(&mut self, place: Place) {
        self.differences.remove(place);
    }

    #[inline]
    pub(super) fn is_written(&self) -> bool {
        !self.versions.is_empty() || !self.differences.is_empty() || !self.wipes().is_empty()
    }

    /// Whether no place before `place` has written to it, credits apart if they do not matter.
    #[inline]
    pub(super) fn is_unwritten(&self, place: Place, but_credits: bool) -> bool {
        self.versions.last_before(place).is_none()
            && (but_credits || self.differences.last_before(place).is_none())
    }

    /// What it was set to, if all that was done to it was to set it once.
    pub(super) fn set_once(&self) -> Option<Account> {
        let alone = self.differences.is_empty() && self.wipes().is_empty();
        self.versions.only().filter(|_| alone).flatten()
    }

    #[inline]
    fn wipes(&self) -> &[Place] {
        self.rare.as_ref().map_or(&[], |rare| &rare.wipes)
    }
}
