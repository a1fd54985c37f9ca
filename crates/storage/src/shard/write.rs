//! What a run of blocks does to a shard's tables.

use super::{Change, GENESIS, hash_of};
use crate::{
    StorageError,
    codec::{
        decode_account, decode_slot, encode_account, encode_previous_account, encode_slot,
        put_trimmed, slot_key,
    },
    env::{TableCursor, WriteTx},
    reverse::{Key, ReverseDiffs, chunk_key},
    tables::{ACCOUNTS, REMOVALS, STORAGE},
    trail::Trail,
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::{AccountChange, AccountDiff};
use signet_libmdbx::Rw;
use std::collections::BTreeMap;

/// A slot and what a block sets it to.
struct SlotVersion {
    hashed: B256,
    number: u64,
    slot: U256,
    value: U256,
}

/// The tables that changes go to. Keys come in order.
pub(super) struct Writer<'tx> {
    accounts: TableCursor<'tx, Rw>,
    storage: TableCursor<'tx, Rw>,
    reverse: ReverseDiffs,
    /// Blocks and keys that they removed.
    removals: Vec<(u64, Key)>,
    /// The oldest block that is asked for from now on.
    oldest: u64,
    key: KeyWriter,
}

/// What is at hand for one key after the other, so that none needs memory of its own.
#[derive(Default)]
struct KeyWriter {
    trail: Trail,
    record: Vec<u8>,
    value: Vec<u8>,
}

impl<'tx> Writer<'tx> {
    /// For the blocks from `first` to `last`.
    pub(super) fn new(
        tx: &'tx WriteTx<'_>,
        (first, last): (u64, u64),
        oldest: u64,
    ) -> Result<Self, StorageError> {
        Ok(Self {
            accounts: tx.cursor(ACCOUNTS)?,
            storage: tx.cursor(STORAGE)?,
            reverse: ReverseDiffs::new(first, last),
            removals: Vec::new(),
            oldest,
            key: KeyWriter::default(),
        })
    }

    /// Writes what a run of blocks does to one account and its slots.
    pub(super) fn write(&mut self, group: &[Change<'_>]) -> Result<(), StorageError> {
        self.write_account(group)?;
        if group.iter().any(|change| wipes(change.diff) || !change.diff.storage.is_empty()) {
            self.write_storage(group)?;
        }
        Ok(())
    }

    /// Appends what was gathered on the way.
    pub(super) fn finish(mut self, tx: &WriteTx<'_>) -> Result<(), StorageError> {
        self.reverse.append(tx)?;
        self.removals.sort_unstable();
        let mut table = tx.cursor(REMOVALS)?;
        self.removals
            .iter()
            .try_for_each(|(number, key)| table.append(&chunk_key(*number, key), &[]))
    }

    fn write_account(&mut self, group: &[Change<'_>]) -> Result<(), StorageError> {
        let named = |change: &&Change<'_>| change.diff.change != AccountChange::Unchanged;
        let mut group = group.iter().filter(named).peekable();
        let Some(&&Change { hashed, diff: AccountDiff { address, .. }, .. }) = group.peek() else {
            return Ok(());
        };
        let KeyWriter { trail, record, value } = &mut self.key;
        let stored = self.accounts.get(hashed.as_slice())?;
        let stored = stored.as_ref().map(|bytes| decode_account(bytes)).transpose()?;
        trail.read(stored.map_or(&[], |stored| stored.trail))?;
        let mut current = stored.and_then(|stored| stored.value);
        let mut changed = false;
        for change in group {
            let next = match change.diff.change {
                AccountChange::Set(account) => Some(account),
                _ => None,
            };
            if next == current {
                continue;
            }
            if change.number > GENESIS {
                record.clear();
                trail.push(change.number, record);
                encode_previous_account(current.as_ref(), record);
                self.reverse.push(change.number, (hashed, None), record);
                if next.is_none() {
                    self.removals.push((change.number, (hashed, None)));
                }
            }
            (current, changed) = (next, true);
        }
        if !changed {
            return Ok(());
        }
        trail.trim(self.oldest);
        value.clear();
        encode_account(address, current.as_ref(), value);
        trail.write(value);
        put(&mut self.accounts, stored.is_some(), hashed.as_slice(), value)
    }

    fn write_storage(&mut self, group: &[Change<'_>]) -> Result<(), StorageError> {
        let account = group[0].hashed;
        let mut versions = if group.iter().any(|change| wipes(change.diff)) {
            versions_with_wipes(&mut self.storage, &account, group)?
        } else {
            group.iter().flat_map(versions_of).collect()
        };
        versions.sort_unstable_by_key(|version| (version.hashed, version.number));
        let KeyWriter { trail, record, value } = &mut self.key;
        for versions in versions.chunk_by(|a, b| a.hashed == b.hashed) {
            let SlotVersion { hashed, slot, .. } = versions[0];
            let key = slot_key(&account, &hashed);
            let stored = self.storage.get(&key)?;
            let stored = stored.as_ref().map(|bytes| decode_slot(bytes)).transpose()?;
            trail.read(stored.map_or(&[], |stored| stored.trail))?;
            let mut current = stored.map_or(U256::ZERO, |stored| stored.value);
            let mut changed = false;
            for version in versions {
                if version.value == current {
                    continue;
                }
                if version.number > GENESIS {
                    record.clear();
                    trail.push(version.number, record);
                    put_trimmed(current, record);
                    let key = (account, Some(hashed));
                    self.reverse.push(version.number, key, record);
                    if version.value.is_zero() {
                        self.removals.push((version.number, key));
                    }
                }
                (current, changed) = (version.value, true);
            }
            if changed {
                trail.trim(self.oldest);
                value.clear();
                encode_slot(slot, current, value);
                trail.write(value);
                put(&mut self.storage, stored.is_some(), &key, value)?;
            }
        }
        Ok(())
    }
}

/// Puts a value where the cursor is, if the key was found there.
fn put(
    table: &mut TableCursor<'_, Rw>,
    found: bool,
    key: &[u8],
    value: &[u8],
) -> Result<(), StorageError> {
    if found { table.put_here(key, value) } else { table.put(key, value) }
}

fn wipes(diff: &AccountDiff) -> bool {
    diff.storage_wiped || diff.change == AccountChange::Deleted
}

fn versions_of<'a>(change: &'a Change<'_>) -> impl Iterator<Item = SlotVersion> + 'a {
    let number = change.number;
    change.diff.storage.iter().zip(change.slots).map(move |(change, &hashed)| SlotVersion {
        hashed,
        number,
        slot: change.slot,
        value: change.value,
    })
}

/// A wipe is written as a zero for every slot that may hold something by then.
fn versions_with_wipes(
    flat: &mut TableCursor<'_, Rw>,
    account: &B256,
    group: &[Change<'_>],
) -> Result<Vec<SlotVersion>, StorageError> {
    let mut known = BTreeMap::new();
    let mut next = flat.seek(account.as_slice())?;
    while let Some((key, value)) = next.filter(|(key, _)| key.starts_with(account.as_slice())) {
        let slot = decode_slot(&value)?;
        if !slot.value.is_zero() {
            known.insert(hash_of(&key[32..], "storage")?, slot.name);
        }
        next = flat.next()?;
    }
    let mut versions = Vec::new();
    for change in group {
        let own: Vec<SlotVersion> = versions_of(change).collect();
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
