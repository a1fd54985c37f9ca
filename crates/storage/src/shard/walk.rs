//! Walks over the flat state: beside one another, within bounds, and as it was at an earlier block.

use super::{Shard, hash_of, history::History};
use crate::{
    AccountVisitor, StorageError,
    codec::{decode_account, decode_slot, slot_key},
    env::{ReadTx, Record, TableCursor},
    tables::{ACCOUNTS, STORAGE},
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::Account;
use signet_libmdbx::Ro;

/// A walk over slots that hold something.
pub(super) struct SlotWalk<'tx> {
    cursor: TableCursor<'tx, Ro>,
    history: Option<History<'tx>>,
    /// The next record, perhaps of a slot that holds nothing.
    next: Option<Record<'tx>>,
}

impl<'tx> SlotWalk<'tx> {
    /// From the first slot at or after a key; with `past` as they were after that block.
    pub(super) fn new(
        tx: &'tx ReadTx<'_>,
        from: &[u8],
        past: Option<u64>,
    ) -> Result<Self, StorageError> {
        let mut cursor = tx.cursor(STORAGE)?;
        let next = cursor.seek(from)?;
        let history = past.map(|number| History::new(tx, number)).transpose()?;
        Ok(Self { cursor, history, next })
    }

    /// Leaves behind what is before an account: slots that the visitor did not take.
    fn skip_to(&mut self, account: &B256) -> Result<(), StorageError> {
        if self.next.as_ref().is_some_and(|(key, _)| key[..] < account[..]) {
            self.next = self.cursor.seek(account.as_slice())?;
        }
        Ok(())
    }

    /// The next slot of an account.
    pub(super) fn pop(&mut self, account: &B256) -> Result<Option<(B256, U256)>, StorageError> {
        while let Some((key, value)) =
            self.next.take_if(|(key, _)| key.starts_with(account.as_slice()))
        {
            self.next = self.cursor.next()?;
            let slot = hash_of(&key[32..], "storage")?;
            let flat = decode_slot(&value)?;
            let held = match &mut self.history {
                Some(history) => history.slot(account, &slot, flat.value, flat.trail)?,
                None => flat.value,
            };
            if !held.is_zero() {
                return Ok(Some((slot, held)));
            }
        }
        Ok(None)
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
            if let Some(account) = decode_account(&value)?.value {
                visit(hash_of(&key, "accounts")?, account);
            }
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
        let mut slots = SlotWalk::new(&tx, &slot_key(account, from), None)?;
        while let Some((slot, value)) = slots.pop(account)?.filter(|(slot, _)| slot <= to) {
            visit(slot, value);
        }
        Ok(())
    }

    /// The accounts of a partition and their slots; with `past` as they were after that block.
    pub(super) fn walk_partition(
        &self,
        tx: &ReadTx<'_>,
        partition: u8,
        past: Option<u64>,
        visit: &mut AccountVisitor<'_>,
    ) -> Result<(), StorageError> {
        let mut accounts = tx.cursor(ACCOUNTS)?;
        let mut history = past.map(|number| History::new(tx, number)).transpose()?;
        let mut slots = SlotWalk::new(tx, &[partition], past)?;
        let mut next = accounts.seek(&[partition])?;
        while let Some((key, value)) = next.filter(|(key, _)| key[0] == partition) {
            let hashed = hash_of(&key, "accounts")?;
            let flat = decode_account(&value)?;
            let account = match &mut history {
                Some(history) => history.account(&hashed, flat.value, flat.trail)?,
                None => flat.value,
            };
            if let Some(account) = account {
                slots.skip_to(&hashed)?;
                // The first error of the iterator, which itself can only end.
                let mut failed = None;
                let pop = || match slots.pop(&hashed) {
                    Ok(slot) => slot,
                    Err(error) => {
                        failed = Some(error);
                        None
                    }
                };
                visit(hashed, account, &mut std::iter::from_fn(pop));
                if let Some(error) = failed {
                    return Err(error);
                }
            }
            next = accounts.next()?;
        }
        Ok(())
    }
}
