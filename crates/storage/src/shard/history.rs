//! What keys held after earlier blocks; going back to one; and letting go of the oldest.

use crate::{
    StorageError,
    codec::{
        decode_account, decode_previous_account, decode_previous_slot, decode_slot, encode_account,
        encode_slot, slot_key,
    },
    env::{ReadTx, TableCursor, WriteTx},
    reverse::{Key, Previous, Records, block_of, find},
    tables::{ACCOUNTS, REMOVALS, REVERSE_DIFFS, STORAGE},
    trail::{Trail, first_after, narrow},
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange, StateDiff};
use signet_libmdbx::{Ro, Rw};

/// Reads values of earlier blocks in one snapshot.
pub(super) struct History<'tx> {
    diffs: TableCursor<'tx, Ro>,
    number: u64,
}

impl<'tx> History<'tx> {
    /// As of the state after block `number`.
    pub(super) fn new(tx: &'tx ReadTx<'_>, number: u64) -> Result<Self, StorageError> {
        Ok(Self { diffs: tx.cursor(REVERSE_DIFFS)?, number })
    }

    /// What the key of a flat record held; `now` is what it holds, `trail` its trail.
    pub(super) fn account(
        &mut self,
        hashed: &B256,
        now: Option<Account>,
        trail: &[u8],
    ) -> Result<Option<Account>, StorageError> {
        self.read(&(*hashed, None), now, trail, decode_previous_account)
    }

    /// As [`Self::account`].
    pub(super) fn slot(
        &mut self,
        account: &B256,
        slot: &B256,
        now: U256,
        trail: &[u8],
    ) -> Result<U256, StorageError> {
        self.read(&(*account, Some(*slot)), now, trail, decode_previous_slot)
    }

    fn read<T>(
        &mut self,
        key: &Key,
        now: T,
        trail: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let Some(mut lead) = first_after(trail, self.number)? else { return Ok(now) };
        while lead.below > 0 {
            let number = self.number;
            let on = |previous: Previous<'_>| narrow(lead, previous.carried, number);
            lead = find(&mut self.diffs, lead.block, key, on)?;
        }
        find(&mut self.diffs, lead.block, key, |previous| decode(previous.value))
    }

    /// The block of the first change of a key, if it is found where its trail says.
    pub(super) fn first_change(
        &mut self,
        key: &Key,
        trail: &[u8],
    ) -> Result<Option<u64>, StorageError> {
        let Some(mut lead) = first_after(trail, self.number)? else { return Ok(None) };
        loop {
            let number = self.number;
            let on = |previous: Previous<'_>| match lead.below {
                0 => Ok(None),
                _ => narrow(lead, previous.carried, number).map(Some),
            };
            match find(&mut self.diffs, lead.block, key, on)? {
                Some(narrowed) => lead = narrowed,
                None => return Ok(Some(lead.block)),
            }
        }
    }

    /// Goes to another block.
    pub(super) fn go_to(&mut self, number: u64) {
        self.number = number;
    }
}

/// Takes back the blocks above `to`; nobody goes back beyond `oldest`.
pub(super) fn unwind(
    tx: &WriteTx<'_>,
    (head, to): (u64, u64),
    oldest: u64,
) -> Result<(), StorageError> {
    let mut diffs = tx.cursor(REVERSE_DIFFS)?;
    let mut accounts = tx.cursor(ACCOUNTS)?;
    let mut storage = tx.cursor(STORAGE)?;
    for number in (to + 1..=head).rev() {
        while let Some((key, chunk)) = diffs.seek(&number.to_be_bytes())? {
            if block_of(&key)? != number {
                break;
            }
            let mut records = Records::checked(number, &chunk)?;
            while let Some(previous) = records.next()? {
                match previous.key {
                    (_, None) => unwind_account(&mut accounts, number, &previous, oldest)?,
                    (_, Some(_)) => unwind_slot(&mut storage, number, &previous, oldest)?,
                }
            }
            diffs.delete(&key)?;
        }
    }
    let mut removals = tx.cursor(REMOVALS)?;
    while removals.seek(&(to + 1).to_be_bytes())?.is_some() {
        removals.delete_here()?;
    }
    Ok(())
}

fn unwind_account(
    table: &mut TableCursor<'_, Rw>,
    number: u64,
    previous: &Previous<'_>,
    oldest: u64,
) -> Result<(), StorageError> {
    let (hashed, _) = previous.key;
    let stored = table.get(hashed.as_slice())?.ok_or_else(|| unknown(number, &hashed))?;
    let flat = decode_account(&stored)?;
    let trail = trail_before(flat.trail, number, previous, oldest)?;
    let account = decode_previous_account(previous.value)?;
    if account.is_none() && trail.newest().is_none() {
        return table.delete_here();
    }
    let mut value = Vec::new();
    encode_account(&flat.name, account.as_ref(), &mut value);
    trail.write(&mut value);
    table.put_here(hashed.as_slice(), &value)
}

fn unwind_slot(
    table: &mut TableCursor<'_, Rw>,
    number: u64,
    previous: &Previous<'_>,
    oldest: u64,
) -> Result<(), StorageError> {
    let (account, slot) = previous.key;
    let key = slot_key(&account, &slot.unwrap_or_default());
    let stored = table.get(&key)?.ok_or_else(|| unknown(number, &account))?;
    let flat = decode_slot(&stored)?;
    let trail = trail_before(flat.trail, number, previous, oldest)?;
    let held = decode_previous_slot(previous.value)?;
    if held.is_zero() && trail.newest().is_none() {
        return table.delete_here();
    }
    let mut value = Vec::new();
    encode_slot(flat.name, held, &mut value);
    trail.write(&mut value);
    table.put_here(&key, &value)
}

fn trail_before(
    bytes: &[u8],
    number: u64,
    previous: &Previous<'_>,
    oldest: u64,
) -> Result<Trail, StorageError> {
    let mut trail = Trail::default();
    trail.read(bytes)?;
    trail.pop(number, previous.carried)?;
    trail.trim(oldest);
    Ok(trail)
}

fn unknown(number: u64, hashed: &B256) -> StorageError {
    let place = format!("reverse diff of block {number}");
    StorageError::corrupt(place, format!("speaks of {hashed}, of which there is no record"))
}

/// Lets go of the history of the blocks up to `to`, and of tombstones that only it needed.
pub(super) fn prune(tx: &WriteTx<'_>, to: u64) -> Result<(), StorageError> {
    let mut diffs = tx.cursor(REVERSE_DIFFS)?;
    while let Some((key, _)) = diffs.first()? {
        if block_of(&key)? > to {
            break;
        }
        diffs.delete_here()?;
    }
    let mut removals = tx.cursor(REMOVALS)?;
    let mut accounts = tx.cursor(ACCOUNTS)?;
    let mut storage = tx.cursor(STORAGE)?;
    while let Some((key, _)) = removals.first()? {
        let number = block_of(&key)?;
        if number > to {
            break;
        }
        let key = &key[8..];
        if key.len() == 32 {
            drop_tombstone(&mut accounts, key, number, |bytes| {
                decode_account(bytes).map(|flat| (flat.value.is_none(), flat.trail))
            })?;
        } else {
            drop_tombstone(&mut storage, key, number, |bytes| {
                decode_slot(bytes).map(|flat| (flat.value.is_zero(), flat.trail))
            })?;
        }
        removals.delete_here()?;
    }
    Ok(())
}

/// Deletes a flat record that is a tombstone since a block.
fn drop_tombstone(
    table: &mut TableCursor<'_, Rw>,
    key: &[u8],
    number: u64,
    decode: impl Fn(&[u8]) -> Result<(bool, &[u8]), StorageError>,
) -> Result<(), StorageError> {
    let Some(bytes) = table.get(key)? else { return Ok(()) };
    let (is_tombstone, trail) = decode(&bytes)?;
    // Of all changes, the newest is the only one that may be the last.
    if is_tombstone && first_after(trail, number)?.is_none() {
        table.delete_here()?;
    }
    Ok(())
}

/// What a block changed, as it was before, in the order of hashed keys.
pub(super) fn block_before(tx: &ReadTx<'_>, number: u64) -> Result<StateDiff, StorageError> {
    let (mut accounts, mut storage) = (tx.cursor(ACCOUNTS)?, tx.cursor(STORAGE)?);
    let mut diffs = tx.cursor(REVERSE_DIFFS)?;
    let mut last = None;
    let mut diff = StateDiff::default();
    let mut next = diffs.seek(&number.to_be_bytes())?;
    while let Some((key, chunk)) = next {
        if block_of(&key)? != number {
            break;
        }
        let mut records = Records::checked(number, &chunk)?;
        while let Some(Previous { key: (hashed, slot), value, .. }) = records.next()? {
            let missing = || unknown(number, &hashed);
            if last != Some(hashed) {
                let flat = accounts.get(hashed.as_slice())?.ok_or_else(missing)?;
                let (address, change) = (decode_account(&flat)?.name, AccountChange::Unchanged);
                let storage = Vec::new();
                diff.accounts.push(AccountDiff { address, change, storage_wiped: false, storage });
                last = Some(hashed);
            }
            let account = diff.accounts.last_mut().expect("added above, or before");
            match slot {
                None => {
                    let before = decode_previous_account(value)?;
                    account.change = before.map_or(AccountChange::Deleted, AccountChange::Set);
                }
                Some(slot) => {
                    let flat = storage.get(&slot_key(&hashed, &slot))?.ok_or_else(missing)?;
                    let (slot, value) = (decode_slot(&flat)?.name, decode_previous_slot(value)?);
                    account.storage.push(SlotChange { slot, value });
                }
            }
        }
        next = diffs.next()?;
    }
    for account in &mut diff.accounts {
        account.storage.sort_unstable_by_key(|change| change.slot);
    }
    Ok(diff)
}

/// The keys that the blocks after `number` changed, newest block first, until `visit` says `false`.
pub(super) fn keys_after(
    tx: &ReadTx<'_>,
    number: u64,
    visit: &mut dyn FnMut(u64, Key) -> Result<bool, StorageError>,
) -> Result<(), StorageError> {
    let mut diffs = tx.cursor(REVERSE_DIFFS)?;
    let mut next = diffs.last()?;
    while let Some((key, chunk)) = next {
        let block = block_of(&key)?;
        if block <= number {
            break;
        }
        let mut records = Records::checked(block, &chunk)?;
        while let Some(previous) = records.next()? {
            if !visit(block, previous.key)? {
                return Ok(());
            }
        }
        next = diffs.previous()?;
    }
    Ok(())
}
