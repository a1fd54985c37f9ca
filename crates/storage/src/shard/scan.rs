//! Reading a shard in distrust: every record against its key, the history against the reverse diffs, and
//! one shard against another.

use super::{Shard, decode_diff, hash_slot};
use crate::{
    Damage, StorageError,
    codec::{
        decode_account, decode_slot, decode_u64, encode_previous_account, encode_previous_slot,
        history_key, slot_key,
    },
    env::{ReadTx, Record, TableCursor},
    tables::{ACCOUNT_HISTORY, ACCOUNTS, CODES, REVERSE_DIFFS, STORAGE, STORAGE_HISTORY, Table},
};
use alloy_primitives::{B256, U256, keccak256};
use blockraft_primitives::{Account, AccountChange};
use signet_libmdbx::Ro;
use std::cmp::Ordering;

/// Damage of one kind beyond this is counted, not listed.
const DAMAGE_LISTED_MAX: usize = 64;

/// What [`Shard::scan_partition`] calls for each account whose record is whole.
pub(crate) type ScanVisitor<'f> = dyn FnMut(B256, Account, Vec<(B256, U256)>) + 'f;

/// Records of the flat tables that were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Accounts.
    pub accounts: usize,
    /// Slots.
    pub slots: usize,
}

impl Shard {
    /// Reads one partition of the flat state: keys in order, values that decode and belong to their
    /// keys. `visit` gets the accounts of which that holds.
    pub(crate) fn scan_partition(
        &self,
        partition: u8,
        visit: &mut ScanVisitor<'_>,
        damage: &mut Vec<Damage>,
    ) -> Scanned {
        let mut scanned = Scanned::default();
        if let Err(error) = self.try_scan(partition, visit, damage, &mut scanned) {
            let place = Damage { partition: Some(partition), ..Damage::default() };
            damage.push(Damage { shard: Some(self.index), problem: error.to_string(), ..place });
        }
        scanned
    }

    fn try_scan(
        &self,
        partition: u8,
        visit: &mut ScanVisitor<'_>,
        damage: &mut Vec<Damage>,
        scanned: &mut Scanned,
    ) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        let mut accounts = Walk::new(&tx, ACCOUNTS, self.index, partition)?;
        let mut slots = Walk::new(&tx, STORAGE, self.index, partition)?;
        let mut slot = slots.next(damage)?.map(|record| self.slot(&record, damage));
        while let Some(record) = accounts.next(damage)? {
            scanned.accounts += 1;
            let Some((hashed, account)) = self.account(&record, damage) else { continue };
            let mut found = Vec::new();
            while let Some(next) = slot.take() {
                if next.is_some_and(|(of, ..)| of > hashed) {
                    slot = Some(next);
                    break;
                }
                scanned.slots += 1;
                found.extend(next.filter(|(of, ..)| *of == hashed).map(|(_, k, v)| (k, v)));
                slot = slots.next(damage)?.map(|record| self.slot(&record, damage));
            }
            visit(hashed, account, found);
        }
        while slot.take().is_some() {
            scanned.slots += 1;
            slot = slots.next(damage)?.map(|record| self.slot(&record, damage));
        }
        Ok(())
    }

    fn account(
        &self,
        (key, value): &Record<'_>,
        damage: &mut Vec<Damage>,
    ) -> Option<(B256, Account)> {
        let mut bad = |problem: String| {
            damage.push(Damage::at_key(self.index, ACCOUNTS.name, key, problem));
            None
        };
        let Ok(hashed) = B256::try_from(&key[..]) else {
            return bad("the key has a wrong length".to_owned());
        };
        match decode_account(value) {
            Ok((address, _)) if keccak256(address) != hashed => {
                bad(format!("the key is not the hash of the address {address} beside it"))
            }
            Ok((_, account)) => Some((hashed, account)),
            Err(error) => bad(error.to_string()),
        }
    }

    fn slot(
        &self,
        (key, value): &Record<'_>,
        damage: &mut Vec<Damage>,
    ) -> Option<(B256, B256, U256)> {
        let mut bad = |problem: String| {
            damage.push(Damage::at_key(self.index, STORAGE.name, key, problem));
            None
        };
        if key.len() != 64 {
            return bad("the key has a wrong length".to_owned());
        }
        let hashed = B256::from_slice(&key[32..]);
        match decode_slot(value) {
            Ok((slot, _)) if hash_slot(slot) != hashed => {
                bad(format!("the key is not the hash of the slot {slot:#x} beside it"))
            }
            Ok((_, value)) if value.is_zero() => bad("the value is zero".to_owned()),
            Ok((_, value)) => Some((B256::from_slice(&key[..32]), hashed, value)),
            Err(error) => bad(error.to_string()),
        }
    }

    /// Everything but the flat state: codes against their hashes, the history against the reverse diffs,
    /// and the number of flat records against `scanned`, what the scans of all partitions saw.
    pub(crate) fn scan_rest(&self, scanned: Scanned) -> Vec<Damage> {
        let mut damage = Vec::new();
        for (table, scan) in [
            (CODES, Self::scan_codes as fn(&Self, &mut Vec<Damage>) -> Result<(), StorageError>),
            (REVERSE_DIFFS, Self::scan_history),
        ] {
            if let Err(error) = scan(self, &mut damage) {
                damage.push(Damage::error(self.index, table.name, &error));
            }
        }
        for (table, seen) in [(ACCOUNTS, scanned.accounts), (STORAGE, scanned.slots)] {
            self.check_count(table, seen, &mut damage);
        }
        damage
    }

    fn check_count(&self, table: Table, seen: usize, damage: &mut Vec<Damage>) {
        match self.env.read().and_then(|tx| tx.table_size(table)) {
            Ok(size) if size.entries == seen as u64 => {}
            Ok(size) => {
                let problem = format!("{seen} records were found, {} are told of", size.entries);
                damage.push(Damage::in_table(self.index, table.name, problem));
            }
            Err(error) => damage.push(Damage::error(self.index, table.name, &error)),
        }
    }

    fn scan_codes(&self, damage: &mut Vec<Damage>) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        let mut codes = tx.cursor(CODES)?;
        let mut next = codes.first()?;
        while let Some((key, code)) = next {
            if keccak256(&code)[..] != key[..] {
                let problem = "the key is not the hash of the code";
                damage.push(Damage::at_key(self.index, CODES.name, &key, problem));
            }
            next = codes.next()?;
        }
        Ok(())
    }

    /// Every previous value is stored twice: in the reverse diff of its block and in the history of its
    /// key. A difference shows that one of them is wrong.
    fn scan_history(&self, damage: &mut Vec<Damage>) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        let marker = self.marker()?.map_or((0, 0), |marker| (marker.oldest, marker.number));
        let (mut accounts, mut slots) = (tx.cursor(ACCOUNT_HISTORY)?, tx.cursor(STORAGE_HISTORY)?);
        let (mut account_count, mut slot_count) = (0, 0);
        let mut diffs = tx.cursor(REVERSE_DIFFS)?;
        let mut next = diffs.first()?;
        while let Some((key, value)) = next {
            let block = decode_u64("reverse diff key", &key)?;
            let at = |table: Table, key: &[u8], problem: &str| Damage {
                block: Some(block),
                ..Damage::at_key(self.index, table.name, key, problem)
            };
            let mut bad = |table: Table, key: &[u8], problem: &str| {
                if damage.len() < DAMAGE_LISTED_MAX {
                    damage.push(at(table, key, problem));
                }
            };
            if block <= marker.0 || block > marker.1 {
                bad(REVERSE_DIFFS, &[], "the block lies outside of the history");
            }
            match decode_diff(block, &value) {
                Err(error) => bad(REVERSE_DIFFS, &[], &error.to_string()),
                Ok(diff) => {
                    const DIFFERS: &str = "differs from the reverse diff of its block";
                    for account in &diff.accounts {
                        let hashed = keccak256(account.address);
                        if account.change != AccountChange::Unchanged {
                            account_count += 1;
                            let previous = match &account.change {
                                AccountChange::Set(account) => Some(account),
                                _ => None,
                            };
                            let stored = accounts.get(&history_key(hashed.as_slice(), block))?;
                            if stored.as_deref() != Some(&encode_previous_account(previous)[..]) {
                                bad(ACCOUNT_HISTORY, hashed.as_slice(), DIFFERS);
                            }
                        }
                        for change in &account.storage {
                            slot_count += 1;
                            let key = slot_key(&hashed, &hash_slot(change.slot));
                            let stored = slots.get(&history_key(&key, block))?;
                            if stored.as_deref() != Some(&encode_previous_slot(change.value)[..]) {
                                bad(STORAGE_HISTORY, &key, DIFFERS);
                            }
                        }
                    }
                }
            }
            next = diffs.next()?;
        }
        self.check_count(ACCOUNT_HISTORY, account_count, damage);
        self.check_count(STORAGE_HISTORY, slot_count, damage);
        Ok(())
    }

    /// Where the flat state of this shard differs from that of another, which is right.
    pub(crate) fn compare(&self, right: &Self) -> Vec<Damage> {
        let mut damage = Vec::new();
        for table in [ACCOUNTS, STORAGE, CODES] {
            if let Err(error) = self.compare_table(right, table, &mut damage) {
                damage.push(Damage::error(self.index, table.name, &error));
            }
        }
        damage
    }

    fn compare_table(
        &self,
        right: &Self,
        table: Table,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StorageError> {
        let (here, there) = (self.env.read()?, right.env.read()?);
        let (mut here, mut there) = (here.cursor(table)?, there.cursor(table)?);
        let (mut got, mut expected) = (here.first()?, there.first()?);
        let key = |record: &Option<Record<'_>>| record.as_ref().map(|(key, _)| key.to_vec());
        while damage.len() < DAMAGE_LISTED_MAX {
            let (got_key, expected_key) = (key(&got), key(&expected));
            let (order, at) = match (got_key, expected_key) {
                (None, None) => break,
                (Some(got), None) => (Ordering::Less, got),
                (None, Some(expected)) => (Ordering::Greater, expected),
                (Some(got), Some(expected)) => {
                    let order = got.cmp(&expected);
                    (order, if order == Ordering::Less { got } else { expected })
                }
            };
            let problem = match order {
                Ordering::Less => Some("there is a record that should not be there"),
                Ordering::Greater => Some("a record is missing"),
                Ordering::Equal
                    if got.as_ref().map(|r| &r.1) == expected.as_ref().map(|r| &r.1) =>
                {
                    None
                }
                Ordering::Equal => Some("the value is not the one that the chain gives"),
            };
            damage.extend(problem.map(|p| Damage::at_key(self.index, table.name, &at, p)));
            if order != Ordering::Greater {
                got = here.next()?;
            }
            if order != Ordering::Less {
                expected = there.next()?;
            }
        }
        Ok(())
    }
}

/// A walk over one partition of a table that reports keys out of order and leaves them out.
struct Walk<'tx> {
    cursor: TableCursor<'tx, Ro>,
    table: Table,
    shard: usize,
    partition: u8,
    next: Option<Record<'tx>>,
    last: Option<Vec<u8>>,
}

impl<'tx> Walk<'tx> {
    fn new(
        tx: &'tx ReadTx<'_>,
        table: Table,
        shard: usize,
        partition: u8,
    ) -> Result<Self, StorageError> {
        let mut cursor = tx.cursor(table)?;
        let next = cursor.seek(&[partition])?;
        Ok(Self { cursor, table, shard, partition, next, last: None })
    }

    fn next(&mut self, damage: &mut Vec<Damage>) -> Result<Option<Record<'tx>>, StorageError> {
        loop {
            let Some((key, value)) = self.next.take() else { return Ok(None) };
            let in_order = self.last.as_ref().is_none_or(|last| last[..] < key[..]);
            if in_order && key.first() != Some(&self.partition) {
                // A key that strayed looks like the end; what follows a real end lies behind it.
                let behind = self.cursor.next()?;
                if behind.as_ref().is_none_or(|(behind, _)| behind[..] > key[..]) {
                    return Ok(None);
                }
                self.next = behind;
            } else {
                self.next = self.cursor.next()?;
                if in_order {
                    self.last = Some(key.to_vec());
                    return Ok(Some((key, value)));
                }
            }
            damage.push(Damage {
                partition: Some(self.partition),
                ..Damage::at_key(self.shard, self.table.name, &key, "the key is out of order")
            });
        }
    }
}
