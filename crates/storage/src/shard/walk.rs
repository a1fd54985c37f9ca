//! Walks over the flat state: beside one another, within bounds, and as it was at an earlier block.

use super::{Shard, hash_of};
use crate::{
    AccountVisitor, StorageError,
    codec::{
        decode_account, decode_previous_account, decode_previous_slot, decode_slot, decode_u64,
        history_key, slot_key,
    },
    env::{ReadTx, Record, TableCursor},
    tables::{ACCOUNT_HISTORY, ACCOUNTS, STORAGE, STORAGE_HISTORY, Table},
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::{Account, StateError};
use signet_libmdbx::Ro;
use std::borrow::Cow;

/// The storage table, walked beside the accounts table.
pub(super) struct SlotWalk<'tx> {
    pub(super) cursor: TableCursor<'tx, Ro>,
    pub(super) next: Option<SlotRecord>,
    /// The first error of an iterator, which itself can only end.
    pub(super) error: Option<StorageError>,
}

/// A slot of the table.
pub(super) struct SlotRecord {
    account: B256,
    slot: B256,
    value: U256,
}

impl SlotRecord {
    pub(super) fn new((key, value): Record<'_>) -> Result<Self, StorageError> {
        let (account, slot) = key.split_at_checked(32).unwrap_or_default();
        let (_, value) = decode_slot(&value)?;
        Ok(Self { account: hash_of(account, "storage")?, slot: hash_of(slot, "storage")?, value })
    }
}

impl SlotWalk<'_> {
    /// Leaves behind what is before an account: slots that the visitor did not take.
    pub(super) fn skip_to(&mut self, account: &B256) -> Result<(), StorageError> {
        if self.next.as_ref().is_some_and(|next| next.account < *account) {
            self.next = self.cursor.seek(account.as_slice())?.map(SlotRecord::new).transpose()?;
        }
        Ok(())
    }

    /// The next slot of an account.
    pub(super) fn pop(&mut self, account: &B256) -> Option<(B256, U256)> {
        let record = self.next.take_if(|next| next.account == *account)?;
        match self.cursor.next().and_then(|next| next.map(SlotRecord::new).transpose()) {
            Ok(next) => self.next = next,
            Err(error) => self.error = Some(error),
        }
        Some((record.slot, record.value))
    }
}

impl Shard {
    /// Accounts with hashed addresses from `from` to `to`, inclusive, in order.
    pub(crate) fn accounts_between(
        &self,
        from: &B256,
        to: &B256,
        visit: &mut dyn FnMut(B256, Account),
    ) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        let mut accounts = tx.cursor(ACCOUNTS)?;
        let mut next = accounts.seek(from.as_slice())?;
        while let Some((key, value)) = next.filter(|(key, _)| key[..] <= to[..]) {
            visit(hash_of(&key, "accounts")?, decode_account(&value)?.1);
            next = accounts.next()?;
        }
        Ok(())
    }

    /// Slots of an account with hashes from `from` to `to`, inclusive, in order.
    pub(crate) fn slots_between(
        &self,
        account: &B256,
        from: &B256,
        to: &B256,
        visit: &mut dyn FnMut(B256, U256),
    ) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        let last = slot_key(account, to);
        let mut slots = tx.cursor(STORAGE)?;
        let mut next = slots.seek(&slot_key(account, from))?;
        while let Some(record) = next.filter(|(key, _)| key[..] <= last[..]) {
            let SlotRecord { slot, value, .. } = SlotRecord::new(record)?;
            visit(slot, value);
            next = slots.next()?;
        }
        Ok(())
    }

    /// As [`Self::for_each_account`], as the state was after block `number`.
    pub(crate) fn for_each_account_at(
        &self,
        partition: u8,
        number: u64,
        visit: &mut AccountVisitor<'_>,
    ) -> Result<(), StateError> {
        let tx = self.env.read()?;
        self.needs_history(&tx, number)?;
        let mut accounts = Past::new(&tx, (ACCOUNTS, ACCOUNT_HISTORY), 32, partition, number)?;
        let mut slots = Past::new(&tx, (STORAGE, STORAGE_HISTORY), 64, partition, number)?;
        let mut slot = slots.next_slot()?;
        while let Some((hashed, account)) = accounts.next_account()? {
            let mut of_account = Vec::new();
            while let Some((of, key, value)) = slot.filter(|(of, ..)| *of <= hashed) {
                if of == hashed {
                    of_account.push((key, value));
                }
                slot = slots.next_slot()?;
            }
            visit(hashed, account, &mut of_account.into_iter());
        }
        Ok(())
    }
}

/// What a key held.
enum Held<'tx> {
    /// It still does: a value of the flat table.
    Flat(Cow<'tx, [u8]>),
    /// A value of the history table.
    Previous(Cow<'tx, [u8]>),
}

/// A walk over the keys of one partition, those that are gone today with them.
struct Past<'tx> {
    flat: TableCursor<'tx, Ro>,
    history: TableCursor<'tx, Ro>,
    flat_next: Option<Record<'tx>>,
    history_next: Option<Record<'tx>>,
    key_len: usize,
    partition: u8,
    number: u64,
}

impl<'tx> Past<'tx> {
    fn new(
        tx: &'tx ReadTx<'_>,
        (flat, history): (Table, Table),
        key_len: usize,
        partition: u8,
        number: u64,
    ) -> Result<Self, StorageError> {
        let (mut flat, mut history) = (tx.cursor(flat)?, tx.cursor(history)?);
        let (flat_next, history_next) = (flat.seek(&[partition])?, history.seek(&[partition])?);
        Ok(Self { flat, history, flat_next, history_next, key_len, partition, number })
    }

    /// The next key and what it held.
    fn next(&mut self) -> Result<Option<(Vec<u8>, Held<'tx>)>, StorageError> {
        loop {
            let within = |record: &Option<Record<'tx>>| {
                let key = record.as_ref().map(|(key, _)| key)?;
                (key.first() == Some(&self.partition)).then(|| key.to_vec())
            };
            let changed = within(&self.history_next)
                .map(|mut key| {
                    let block = key.split_off(self.key_len.min(key.len()));
                    decode_u64("history key", &block).map(|block| (key, block))
                })
                .transpose()?;
            let flat = within(&self.flat_next);
            let key = match (&flat, &changed) {
                (None, None) => return Ok(None),
                (Some(key), None) | (None, Some((key, _))) => key.clone(),
                (Some(flat), Some((changed, _))) => flat.min(changed).clone(),
            };
            let mut held = None;
            if let Some((_, block)) = changed.filter(|(changed, _)| *changed == key) {
                held = self.previous(&key, block)?;
            }
            if flat.is_some_and(|flat| flat == key) {
                let next = self.flat.next()?;
                let value = std::mem::replace(&mut self.flat_next, next);
                let value = value.map(|(_, value)| Held::Flat(value));
                held = held.or(value);
            }
            if let Some(held) = held {
                return Ok(Some((key, held)));
            }
        }
    }

    /// The value before the first change of `key` after the block, of which the first change is at
    /// `block`; leaves the key behind.
    fn previous(&mut self, key: &[u8], block: u64) -> Result<Option<Held<'tx>>, StorageError> {
        let found = if block > self.number {
            self.history_next.take()
        } else {
            self.history.seek(&history_key(key, self.number + 1))?
        };
        let found = found.filter(|(at, _)| at.starts_with(key));
        self.history_next = self.history.seek(&history_key(key, u64::MAX))?;
        Ok(found.map(|(_, value)| Held::Previous(value)))
    }

    fn next_account(&mut self) -> Result<Option<(B256, Account)>, StorageError> {
        while let Some((key, held)) = self.next()? {
            let account = match held {
                Held::Flat(value) => Some(decode_account(&value)?.1),
                Held::Previous(value) => decode_previous_account(&value)?,
            };
            if let Some(account) = account {
                return Ok(Some((hash_of(&key, "accounts")?, account)));
            }
        }
        Ok(None)
    }

    fn next_slot(&mut self) -> Result<Option<(B256, B256, U256)>, StorageError> {
        while let Some((key, held)) = self.next()? {
            let value = match held {
                Held::Flat(value) => decode_slot(&value)?.1,
                Held::Previous(value) => decode_previous_slot(&value)?,
            };
            if !value.is_zero() {
                let (account, slot) = key.split_at_checked(32).unwrap_or_default();
                return Ok(Some((hash_of(account, "storage")?, hash_of(slot, "storage")?, value)));
            }
        }
        Ok(None)
    }
}
