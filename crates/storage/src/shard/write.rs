//! What a run of blocks does to a shard's tables, and how it is taken back.

use super::{Change, GENESIS, decode_diff, hash_of, hash_slot};
use crate::{
    StorageError,
    codec::{
        decode_account, decode_slot, encode_account, encode_previous_account, encode_previous_slot,
        encode_slot, history_key, slot_key,
    },
    env::{TableCursor, WriteTx},
    tables::{ACCOUNT_HISTORY, ACCOUNTS, REVERSE_DIFFS, STORAGE, STORAGE_HISTORY},
    undo::UndoLog,
};
use alloy_primitives::{B256, U256, keccak256};
use blockraft_primitives::{AccountChange, AccountDiff, StateDiff};
use signet_libmdbx::Rw;
use std::collections::BTreeMap;

/// A slot and what a block sets it to.
struct SlotVersion {
    hashed: B256,
    number: u64,
    slot: U256,
    value: U256,
}
/// A flat table and its history.
pub(super) type Tables<'tx> = (TableCursor<'tx, Rw>, TableCursor<'tx, Rw>);

/// Writes one account's own fields through a run of blocks.
pub(super) fn write_account<'a>(
    (flat, history): &mut Tables<'_>,
    group: impl Iterator<Item = &'a Change<'a>>,
    undo: &mut UndoLog,
) -> Result<(), StorageError> {
    let mut group =
        group.filter(|change| change.diff.change != AccountChange::Unchanged).peekable();
    let Some(&Change { hashed, diff: AccountDiff { address, .. }, .. }) = group.peek() else {
        return Ok(());
    };
    let stored = flat.get(hashed.as_slice())?.map(|bytes| decode_account(&bytes)).transpose()?;
    let stored = stored.map(|(_, account)| account);
    let mut current = stored;
    for change in group {
        let next = match change.diff.change {
            AccountChange::Set(account) => Some(account),
            _ => None,
        };
        if next == current {
            continue;
        }
        if change.number > GENESIS {
            let previous = encode_previous_account(current.as_ref());
            history.put(&history_key(hashed.as_slice(), change.number), &previous)?;
            undo.account(change.number, *address, current);
        }
        current = next;
    }
    match current {
        _ if current == stored => Ok(()),
        Some(account) => flat.put(hashed.as_slice(), &encode_account(address, &account)),
        None => flat.delete(hashed.as_slice()).map(drop),
    }
}

/// Writes one account's slots through a run of blocks.
pub(super) fn write_storage(
    (flat, history): &mut Tables<'_>,
    group: &[&Change<'_>],
    undo: &mut UndoLog,
) -> Result<(), StorageError> {
    let Some(&Change { hashed: account, diff: AccountDiff { address, .. }, .. }) =
        group.first().copied()
    else {
        return Ok(());
    };
    let mut versions = if group.iter().any(|change| wipes(change.diff)) {
        versions_with_wipes(flat, &account, group)?
    } else {
        versions_of(group)
    };
    versions.sort_unstable_by_key(|version| (version.hashed, version.number));
    for versions in versions.chunk_by(|a, b| a.hashed == b.hashed) {
        let SlotVersion { hashed, slot, .. } = versions[0];
        let key = slot_key(&account, &hashed);
        let stored = flat.get(&key)?.map(|bytes| decode_slot(&bytes)).transpose()?;
        let stored = stored.map_or(U256::ZERO, |(_, value)| value);
        let mut current = stored;
        for version in versions.iter() {
            if version.value == current {
                continue;
            }
            if version.number > GENESIS {
                history.put(&history_key(&key, version.number), &encode_previous_slot(current))?;
                undo.slot(version.number, *address, slot, current);
            }
            current = version.value;
        }
        if current == stored {
            continue;
        }
        if current.is_zero() {
            flat.delete(&key)?;
        } else {
            flat.put(&key, &encode_slot(slot, current))?;
        }
    }
    Ok(())
}

fn wipes(diff: &AccountDiff) -> bool {
    diff.storage_wiped || diff.change == AccountChange::Deleted
}

fn versions_of(group: &[&Change<'_>]) -> Vec<SlotVersion> {
    let changes =
        group.iter().flat_map(|change| change.diff.storage.iter().map(|s| (change.number, s)));
    changes
        .map(|(number, change)| SlotVersion {
            hashed: hash_slot(change.slot),
            number,
            slot: change.slot,
            value: change.value,
        })
        .collect()
}

/// A wipe is written as a zero for every slot that may hold something by then.
fn versions_with_wipes(
    flat: &mut TableCursor<'_, Rw>,
    account: &B256,
    group: &[&Change<'_>],
) -> Result<Vec<SlotVersion>, StorageError> {
    let mut known = BTreeMap::new();
    let mut next = flat.seek(account.as_slice())?;
    while let Some((key, value)) = next.filter(|(key, _)| key.starts_with(account.as_slice())) {
        known.insert(hash_of(&key[32..], "storage")?, decode_slot(&value)?.0);
        next = flat.next()?;
    }
    let mut versions = Vec::new();
    for change in group {
        let own = versions_of(&[change]);
        if wipes(change.diff) {
            let named: BTreeMap<B256, ()> = own.iter().map(|v| (v.hashed, ())).collect();
            let zeros = known.iter().filter(|(hashed, _)| !named.contains_key(*hashed));
            versions.extend(zeros.map(|(&hashed, &slot)| SlotVersion {
                hashed,
                number: change.number,
                slot,
                value: U256::ZERO,
            }));
        }
        known.extend(own.iter().map(|version| (version.hashed, version.slot)));
        versions.extend(own);
    }
    Ok(versions)
}

/// Deletes the history entries of the blocks after `from` up to `to`.
pub(super) fn prune(tx: &WriteTx<'_>, from: u64, to: u64) -> Result<(), StorageError> {
    let mut accounts = Vec::new();
    let mut slots = Vec::new();
    let mut diffs = tx.cursor(REVERSE_DIFFS)?;
    for number in from + 1..=to {
        let Some(bytes) = diffs.get(&number.to_be_bytes())? else { continue };
        let diff = decode_diff(number, &bytes)?;
        history_keys(number, &diff, &mut accounts, &mut slots);
        diffs.delete(&number.to_be_bytes())?;
    }
    for (table, mut keys) in [(ACCOUNT_HISTORY, accounts), (STORAGE_HISTORY, slots)] {
        keys.sort_unstable();
        let mut table = tx.cursor(table)?;
        for key in keys {
            table.delete(&key)?;
        }
    }
    Ok(())
}

/// Takes back one block.
pub(super) fn unwind_block(tx: &WriteTx<'_>, number: u64) -> Result<(), StorageError> {
    let Some(bytes) = tx.get(REVERSE_DIFFS, &number.to_be_bytes())? else { return Ok(()) };
    let diff = decode_diff(number, &bytes)?;
    for account in &diff.accounts {
        let hashed = keccak256(account.address);
        match account.change {
            AccountChange::Unchanged => {}
            AccountChange::Deleted => drop(tx.delete(ACCOUNTS, hashed.as_slice())?),
            AccountChange::Set(value) => {
                tx.put(ACCOUNTS, hashed.as_slice(), &encode_account(&account.address, &value))?;
            }
        }
        for change in &account.storage {
            let key = slot_key(&hashed, &hash_slot(change.slot));
            if change.value.is_zero() {
                tx.delete(STORAGE, &key)?;
            } else {
                tx.put(STORAGE, &key, &encode_slot(change.slot, change.value))?;
            }
        }
    }
    let (mut accounts, mut slots) = (Vec::new(), Vec::new());
    history_keys(number, &diff, &mut accounts, &mut slots);
    for key in accounts {
        tx.delete(ACCOUNT_HISTORY, &key)?;
    }
    for key in slots {
        tx.delete(STORAGE_HISTORY, &key)?;
    }
    tx.delete(REVERSE_DIFFS, &number.to_be_bytes()).map(drop)
}

/// The keys under which a block's previous values are kept.
fn history_keys(
    number: u64,
    diff: &StateDiff,
    accounts: &mut Vec<Vec<u8>>,
    slots: &mut Vec<Vec<u8>>,
) {
    for account in &diff.accounts {
        let hashed = keccak256(account.address);
        if account.change != AccountChange::Unchanged {
            accounts.push(history_key(hashed.as_slice(), number));
        }
        for change in &account.storage {
            slots.push(history_key(&slot_key(&hashed, &hash_slot(change.slot)), number));
        }
    }
}
