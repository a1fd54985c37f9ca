//! A walk over the storage table beside one over the accounts table.

use super::hash_of;
use crate::{
    StorageError,
    codec::decode_slot,
    env::{Record, TableCursor},
};
use alloy_primitives::{B256, U256};

/// The storage table, walked beside the accounts table.
pub(super) struct SlotWalk<'tx> {
    pub(super) cursor: TableCursor<'tx, signet_libmdbx::Ro>,
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
