//! Reading a shard in distrust: every record against its key, the trails against the reverse diffs, and one
//! shard against another.

use super::{Shard, hash_slot, history::History};
use crate::{
    Damage, StorageError,
    codec::{decode_account, decode_slot, slot_key},
    env::{ReadTx, Record, TableCursor},
    reverse::{Key, Records, block_of},
    tables::{ACCOUNTS, CODES, REMOVALS, REVERSE_DIFFS, STORAGE, Table},
    trail::Trail,
};
use alloy_primitives::{B256, U256, keccak256};
use blockraft_primitives::Account;
use signet_libmdbx::Ro;
use std::{borrow::Cow, cmp::Ordering, ops::AddAssign};

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
    /// Tombstones of accounts and of slots, which the history needs.
    pub removed: (usize, usize),
}

impl AddAssign for Scanned {
    fn add_assign(&mut self, other: Self) {
        self.accounts += other.accounts;
        self.slots += other.slots;
        self.removed.0 += other.removed.0;
        self.removed.1 += other.removed.1;
    }
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
            let account = self.account(&record, damage);
            let hashed = account.map(|(hashed, _)| hashed);
            let mut found = Vec::new();
            while let Some(next) = slot.take() {
                if next.is_some_and(|(of, ..)| hashed.is_some_and(|hashed| of > hashed)) {
                    slot = Some(next);
                    break;
                }
                scanned.count_slot(&next);
                let of_account =
                    next.filter(|(of, _, value)| Some(*of) == hashed && !value.is_zero());
                found.extend(of_account.map(|(_, slot, value)| (slot, value)));
                slot = slots.next(damage)?.map(|record| self.slot(&record, damage));
            }
            match account {
                Some((_, None)) => scanned.removed.0 += 1,
                Some((hashed, Some(account))) => {
                    scanned.accounts += 1;
                    visit(hashed, account, found);
                }
                None => scanned.accounts += 1,
            }
        }
        while let Some(next) = slot.take() {
            scanned.count_slot(&next);
            slot = slots.next(damage)?.map(|record| self.slot(&record, damage));
        }
        Ok(())
    }

    fn account(
        &self,
        (key, value): &Record<'_>,
        damage: &mut Vec<Damage>,
    ) -> Option<(B256, Option<Account>)> {
        let mut bad = |problem: String| {
            damage.push(Damage::at_key(self.index, ACCOUNTS.name, key, problem));
            None
        };
        let Ok(hashed) = B256::try_from(&key[..]) else {
            return bad("the key has a wrong length".to_owned());
        };
        match decode_account(value) {
            Ok(flat) if keccak256(flat.name) != hashed => {
                bad(format!("the key is not the hash of the address {} beside it", flat.name))
            }
            Ok(flat) if flat.value.is_none() && flat.trail.is_empty() => {
                bad("there is neither an account nor a history of one".to_owned())
            }
            Ok(flat) => Some((hashed, flat.value)),
            Err(error) => bad(error.to_string()),
        }
    }

    fn slot(&self, (key, value): &Record<'_>, damage: &mut Vec<Damage>) -> ScannedSlot {
        let mut bad = |problem: String| {
            damage.push(Damage::at_key(self.index, STORAGE.name, key, problem));
            None
        };
        if key.len() != 64 {
            return bad("the key has a wrong length".to_owned());
        }
        let hashed = B256::from_slice(&key[32..]);
        match decode_slot(value) {
            Ok(flat) if hash_slot(flat.name) != hashed => {
                bad(format!("the key is not the hash of the slot {:#x} beside it", flat.name))
            }
            Ok(flat) if flat.value.is_zero() && flat.trail.is_empty() => {
                bad("there is neither a value nor a history of one".to_owned())
            }
            Ok(flat) => Some((B256::from_slice(&key[..32]), hashed, flat.value)),
            Err(error) => bad(error.to_string()),
        }
    }

    /// Everything but the flat state: codes against their hashes, trails against the reverse diffs,
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
        let accounts = scanned.accounts + scanned.removed.0;
        let slots = scanned.slots + scanned.removed.1;
        for (table, seen) in [(ACCOUNTS, accounts), (STORAGE, slots)] {
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

    /// Every reverse diff is as it was written, its key's trail leads to it, and every trail to one.
    fn scan_history(&self, damage: &mut Vec<Damage>) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        let (oldest, head) = self.marker()?.map_or((0, 0), |marker| (marker.oldest, marker.number));
        let mut scan = HistoryScan {
            shard: self.index,
            within: (oldest, head),
            accounts: tx.cursor(ACCOUNTS)?,
            storage: tx.cursor(STORAGE)?,
            history: History::new(&tx, head)?,
            trail: Trail::default(),
            damage,
        };
        let mut diffs = tx.cursor(REVERSE_DIFFS)?;
        let mut next = diffs.first()?;
        while let Some((key, chunk)) = next {
            scan.chunk(&key, &chunk);
            next = diffs.next()?;
        }
        for table in [ACCOUNTS, STORAGE] {
            let mut records = tx.cursor(table)?;
            let mut next = records.first()?;
            while let Some((key, value)) = next {
                scan.flat(&key, &value);
                next = records.next()?;
            }
        }
        let mut removals = tx.cursor(REMOVALS)?;
        let mut next = removals.first()?;
        while let Some((key, _)) = next {
            let block = block_of(&key)?;
            if block <= oldest || block > head {
                scan.bad(REMOVALS, block, &key[8..], OUTSIDE);
            }
            next = removals.next()?;
        }
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
        let (mut here, mut there) = (Living::new(&here, table)?, Living::new(&there, table)?);
        let (mut got, mut expected) = (here.next()?, there.next()?);
        while damage.len() < DAMAGE_LISTED_MAX {
            let order = match (&got, &expected) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((got, _)), Some((expected, _))) => got.cmp(expected),
            };
            let problem = match order {
                Ordering::Less => Some("there is a record that should not be there"),
                Ordering::Greater => Some("a record is missing"),
                Ordering::Equal if got == expected => None,
                Ordering::Equal => Some("the value is not the one that the chain gives"),
            };
            let at = if order == Ordering::Greater { &expected } else { &got };
            let at = at.as_ref().map_or(&[][..], |(key, _)| key);
            damage.extend(problem.map(|p| Damage::at_key(self.index, table.name, at, p)));
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

/// Hashed address, hashed slot and value; `None` for what is damaged.
type ScannedSlot = Option<(B256, B256, U256)>;

impl Scanned {
    fn count_slot(&mut self, slot: &ScannedSlot) {
        let removed = slot.is_some_and(|(.., value)| value.is_zero());
        *(if removed { &mut self.removed.1 } else { &mut self.slots }) += 1;
    }
}

const OUTSIDE: &str = "the block lies outside of the history";

/// Holds the history against the flat tables.
struct HistoryScan<'a, 'tx> {
    shard: usize,
    /// The oldest block that can be shown, and the last.
    within: (u64, u64),
    accounts: TableCursor<'tx, Ro>,
    storage: TableCursor<'tx, Ro>,
    history: History<'tx>,
    trail: Trail,
    damage: &'a mut Vec<Damage>,
}

impl<'tx> HistoryScan<'_, 'tx> {
    fn bad(&mut self, table: Table, block: u64, key: &[u8], problem: impl Into<String>) {
        if self.damage.len() < DAMAGE_LISTED_MAX {
            let at_key = Damage::at_key(self.shard, table.name, key, problem);
            self.damage.push(Damage { block: Some(block), ..at_key });
        }
    }

    fn chunk(&mut self, key: &[u8], chunk: &[u8]) {
        let block = match block_of(key) {
            Ok(block) => block,
            Err(error) => return self.bad(REVERSE_DIFFS, 0, &[], error.to_string()),
        };
        if block <= self.within.0 || block > self.within.1 {
            return self.bad(REVERSE_DIFFS, block, &[], OUTSIDE);
        }
        if let Err(error) = self.records(block, chunk) {
            self.bad(REVERSE_DIFFS, block, &key[8..], error.to_string());
        }
    }

    fn records(&mut self, block: u64, chunk: &[u8]) -> Result<(), StorageError> {
        let mut records = Records::checked(block, chunk)?;
        while let Some(previous) = records.next()? {
            let key = flat_key(&previous.key);
            let Some(flat) = self.flat_value(&previous.key, &key)? else {
                self.bad(REVERSE_DIFFS, block, &key, "speaks of a key that has no record");
                continue;
            };
            self.history.go_to(block - 1);
            if self.history.first_change(&previous.key, trail_of(&key, &flat)?)? != Some(block) {
                self.bad(REVERSE_DIFFS, block, &key, "the trail of the key does not lead here");
            }
        }
        Ok(())
    }

    fn flat_value(
        &mut self,
        (_, slot): &Key,
        key: &[u8],
    ) -> Result<Option<Cow<'tx, [u8]>>, StorageError> {
        if slot.is_some() { self.storage.get(key) } else { self.accounts.get(key) }
    }

    /// The last change of a key that the history holds. What cannot be decoded was told before.
    fn flat(&mut self, key: &[u8], value: &[u8]) {
        let Ok(trail) = trail_of(key, value) else { return };
        let table = if key.len() == 64 { STORAGE } else { ACCOUNTS };
        let at = |problem: String| Damage::at_key(self.shard, table.name, key, problem);
        if let Err(error) = self.trail.read(trail) {
            return self.damage.push(at(error.to_string()));
        }
        let Some(newest) = self.trail.newest().filter(|newest| *newest > self.within.0) else {
            return;
        };
        if newest > self.within.1 {
            return self.damage.push(at(format!("changed at block {newest}, which is to come")));
        }
        let (account, slot) = key.split_at(32);
        let slot = (!slot.is_empty()).then(|| B256::from_slice(slot));
        self.history.go_to(newest - 1);
        let found = self.history.first_change(&(B256::from_slice(account), slot), trail);
        if let Err(error) = found {
            self.bad(REVERSE_DIFFS, newest, key, error.to_string());
        }
    }
}

fn flat_key((account, slot): &Key) -> Vec<u8> {
    match slot {
        Some(slot) => slot_key(account, slot).to_vec(),
        None => account.to_vec(),
    }
}

/// The trail in a record of one of the flat tables, which the key's length tells apart.
fn trail_of<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StorageError> {
    match key.len() {
        32 => decode_account(value).map(|flat| flat.trail),
        64 => decode_slot(value).map(|flat| flat.trail),
        _ => Err(StorageError::corrupt("a key", "has a wrong length")),
    }
}

type KeyAndValue = (Vec<u8>, Vec<u8>);

/// The records of a table without what only the history needs: tombstones and trails.
struct Living<'tx> {
    cursor: TableCursor<'tx, Ro>,
    table: Table,
    begun: bool,
}

impl<'tx> Living<'tx> {
    fn new(tx: &'tx ReadTx<'_>, table: Table) -> Result<Self, StorageError> {
        Ok(Self { cursor: tx.cursor(table)?, table, begun: false })
    }

    fn next(&mut self) -> Result<Option<KeyAndValue>, StorageError> {
        loop {
            let next = if self.begun { self.cursor.next()? } else { self.cursor.first()? };
            self.begun = true;
            let Some((key, value)) = next else { return Ok(None) };
            let (removed, trail) = match self.table {
                ACCOUNTS => decode_account(&value).map(|flat| (flat.value.is_none(), flat.trail)),
                STORAGE => decode_slot(&value).map(|flat| (flat.value.is_zero(), flat.trail)),
                _ => Ok((false, &[][..])),
            }
            // A record that cannot be read is as good as any other one: it differs.
            .unwrap_or_default();
            if !removed {
                return Ok(Some((key.to_vec(), value[..value.len() - trail.len()].to_vec())));
            }
        }
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
