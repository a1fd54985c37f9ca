//! One state shard: a contiguous range of partitions, with its history, in one MDBX environment.
//!
//! **Invariant: the marker tells the truth.** It is written in the MDBX transaction that brings the
//! data to it, and every read looks at the marker of the very snapshot it reads from.

mod history;
mod scan;
mod walk;
mod write;

pub use self::scan::Scanned;
use self::{
    history::{History, block_before, keys_after, prune, unwind},
    walk::SlotWalk,
    write::Writer,
};
use crate::{
    AccountVisitor, StorageError,
    codec::{decode_account, decode_slot, slot_key},
    env::{Env, ReadTx, WriteTx},
    tables::{ACCOUNTS, CODES, FORMAT_VERSION, SHARD_META, SHARD_TABLES, STORAGE},
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256, map::B256Set};
use blockraft_primitives::{Account, AccountDiff, StateDiff, StateError};
use signet_libmdbx::SyncMode;
use std::path::Path;

const MARKER: &[u8] = b"marker";
/// Nobody asks for the state before this block, and it is never taken back.
const GENESIS: u64 = 0;
const MARKER_BYTES: usize = 4 + 1 + 1 + 8 + 32 + 8;

/// An open shard.
#[derive(Debug)]
pub(crate) struct Shard {
    env: Env,
    index: usize,
    count: usize,
}

/// Where a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The flat tables are the state after this block.
    pub(crate) number: u64,
    /// Its hash.
    pub(crate) hash: B256,
    /// The oldest block whose state the history still gives.
    pub(crate) oldest: u64,
}

/// What one block does to one account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// keccak256 of the address.
    pub(crate) hashed: B256,
    /// The block.
    pub(crate) number: u64,
    /// The change.
    pub(crate) diff: &'a AccountDiff,
    /// keccak256 of each slot of the change, in its order.
    pub(crate) slots: &'a [B256],
}

/// The shard of `count` that holds a hashed key.
pub(crate) fn shard_of(hashed: &B256, count: usize) -> usize {
    usize::from(hashed[0]) * count / 256
}

impl Shard {
    pub(crate) fn open(
        path: &Path,
        index: usize,
        count: usize,
        map_bytes_max: usize,
    ) -> Result<Self, StorageError> {
        let env = Env::open(path, SHARD_TABLES, SyncMode::SafeNoSync, map_bytes_max)?;
        Ok(Self { env, index, count })
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// The marker, or `None` in a shard that was never written.
    pub(crate) fn marker(&self) -> Result<Option<Marker>, StorageError> {
        let tx = self.env.read()?;
        let bytes = tx.get(SHARD_META, MARKER)?;
        bytes.map(|bytes| self.decode_marker(&bytes)).transpose()
    }

    /// Writes the changes of the blocks after the marker's, up to `to`, sorted by hashed address and
    /// block; those of earlier blocks are passed over. Drops the history that `to.oldest` ends.
    pub(crate) fn write(
        &self,
        changes: &[Change<'_>],
        codes: &[(B256, &Bytes)],
        to: Marker,
    ) -> Result<(), StorageError> {
        let at = self.marker()?;
        let tx = self.env.write()?;
        let first = at.map_or(GENESIS + 1, |at| at.number + 1);
        let mut writer = Writer::new(&tx, (first, to.number), to.oldest)?;
        for group in changes.chunk_by(|a, b| a.hashed == b.hashed) {
            // Those of a block that is there come first: blocks are in order within a group.
            let is_old = |change: &Change<'_>| at.is_some_and(|at| change.number <= at.number);
            let new = &group[group.partition_point(is_old)..];
            if !new.is_empty() {
                writer.write(new)?;
            }
        }
        writer.finish(&tx)?;
        for (hash, code) in codes {
            if tx.get(CODES, hash.as_slice())?.is_none() {
                tx.put(CODES, hash.as_slice(), code)?;
            }
        }
        if at.is_some_and(|at| at.oldest < to.oldest) {
            prune(&tx, to.oldest)?;
        }
        self.put_marker(&tx, to)?;
        fail::fail_point!("persist-shard-before-commit", |_| Err(StorageError::Injected {
            point: "persist-shard-before-commit"
        }));
        tx.commit()
    }

    /// Takes back the blocks above `number`, whose hash is `hash`.
    pub(crate) fn unwind(&self, number: u64, hash: B256) -> Result<(), StorageError> {
        let place = || format!("state shard {}", self.index);
        let Some(at) = self.marker()? else {
            return Err(StorageError::corrupt(place(), "has no marker"));
        };
        if number < at.oldest {
            let problem =
                format!("cannot go back to block {number}, the history begins at {}", at.oldest);
            return Err(StorageError::corrupt(place(), problem));
        }
        let tx = self.env.write()?;
        unwind(&tx, (at.number, number), at.oldest)?;
        self.put_marker(&tx, Marker { number, hash, oldest: at.oldest })?;
        tx.commit()
    }

    /// The account after block `number`, which must not be above the head.
    pub(crate) fn account_at(
        &self,
        hashed: &B256,
        number: u64,
    ) -> Result<Option<Account>, StateError> {
        let tx = self.env.read()?;
        let past = self.needs_history(&tx, number)?;
        let Some(bytes) = tx.get(ACCOUNTS, hashed.as_slice())? else { return Ok(None) };
        let flat = decode_account(&bytes)?;
        if past {
            return Ok(History::new(&tx, number)?.account(hashed, flat.value, flat.trail)?);
        }
        Ok(flat.value)
    }

    /// The slot after block `number`, which must not be above the head.
    pub(crate) fn slot_at(
        &self,
        address: &B256,
        slot: &B256,
        number: u64,
    ) -> Result<U256, StateError> {
        let tx = self.env.read()?;
        let past = self.needs_history(&tx, number)?;
        let Some(bytes) = tx.get(STORAGE, &slot_key(address, slot))? else { return Ok(U256::ZERO) };
        let flat = decode_slot(&bytes)?;
        if past {
            return Ok(History::new(&tx, number)?.slot(address, slot, flat.value, flat.trail)?);
        }
        Ok(flat.value)
    }

    /// Whether the account has a slot after block `number`, which must not be above the head.
    pub(crate) fn has_storage_at(&self, address: &B256, number: u64) -> Result<bool, StateError> {
        let tx = self.env.read()?;
        let past = self.needs_history(&tx, number)?;
        let mut slots = SlotWalk::new(&tx, address.as_slice(), past.then_some(number))?;
        Ok(slots.pop(address)?.is_some())
    }

    /// Code by its hash.
    pub(crate) fn code(&self, hash: &B256) -> Result<Option<Bytes>, StorageError> {
        let tx = self.env.read()?;
        let code = tx.get(CODES, hash.as_slice())?;
        Ok(code.map(|code| Bytes::copy_from_slice(&code)))
    }

    /// Collects what the persisted blocks after `number` changed, and the slots in the flat table of
    /// the accounts that `enumerate` names, in one snapshot. Newest block first; `collect` returns
    /// `false` to stop.
    pub(crate) fn changes_after(
        &self,
        number: u64,
        enumerate: &[B256],
        collect: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), StateError> {
        let tx = self.env.read()?;
        self.needs_history(&tx, number)?;
        let (mut accounts, mut storage) = (tx.cursor(ACCOUNTS)?, tx.cursor(STORAGE)?);
        for address in enumerate {
            let mut next = storage.seek(address.as_slice())?;
            while let Some((_, value)) = next.filter(|(key, _)| key.starts_with(address.as_slice()))
            {
                if !collect(Found::Slot(*address, decode_slot(&value)?.name)) {
                    return Ok(());
                }
                next = storage.next()?;
            }
        }
        let unknown = || StorageError::corrupt("reverse_diffs", "speaks of an unknown key");
        let mut name = |hashed: &B256| {
            let bytes = accounts.get(hashed.as_slice())?.ok_or_else(unknown)?;
            decode_account(&bytes).map(|flat| flat.name)
        };
        let mut seen = B256Set::default();
        let mut account: Option<(B256, Address)> = None;
        keys_after(&tx, number, &mut |block, (hashed, slot)| {
            let address = match account.filter(|(last, _)| *last == hashed) {
                Some((_, address)) => address,
                None => account.insert((hashed, name(&hashed)?)).1,
            };
            let Some(slot) = slot else {
                return Ok(!seen.insert(hashed) || collect(Found::Change(block, address, None)));
            };
            let key = slot_key(&hashed, &slot);
            let bytes = storage.get(&key)?.ok_or_else(unknown)?;
            Ok(collect(Found::Change(block, address, Some(decode_slot(&bytes)?.name))))
        })?;
        Ok(())
    }

    /// What undoes one block, this shard's part; empty where the block changed nothing here.
    pub(crate) fn reverse_diff(&self, number: u64) -> Result<StateDiff, StorageError> {
        let tx = self.env.read()?;
        block_before(&tx, number)
    }

    /// Walks the accounts of one partition and their slots, in order of hashed keys.
    pub(crate) fn for_each_account(
        &self,
        partition: u8,
        visit: &mut AccountVisitor<'_>,
    ) -> Result<(), StorageError> {
        let tx = self.env.read()?;
        self.walk_partition(&tx, partition, None, visit)
    }

    /// As [`Self::for_each_account`], as the state was after block `number`.
    pub(crate) fn for_each_account_at(
        &self,
        partition: u8,
        number: u64,
        visit: &mut AccountVisitor<'_>,
    ) -> Result<(), StateError> {
        let tx = self.env.read()?;
        let past = self.needs_history(&tx, number)?;
        Ok(self.walk_partition(&tx, partition, past.then_some(number), visit)?)
    }

    fn needs_history(&self, tx: &ReadTx<'_>, number: u64) -> Result<bool, StateError> {
        let (at, oldest) = tx.note(|tx| {
            let bytes = tx.get(SHARD_META, MARKER)?;
            let bytes = bytes.ok_or_else(|| {
                StorageError::corrupt(format!("state shard {}", self.index), "has no marker")
            })?;
            let marker = self.decode_marker(&bytes)?;
            Ok((marker.number, marker.oldest))
        })?;
        if number < oldest {
            return Err(StateError::Pruned { requested: number, oldest });
        }
        Ok(number < at)
    }

    fn put_marker(&self, tx: &WriteTx<'_>, marker: Marker) -> Result<(), StorageError> {
        let mut bytes = Vec::with_capacity(MARKER_BYTES);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&[self.index as u8, self.count as u8]);
        bytes.extend_from_slice(&marker.number.to_be_bytes());
        bytes.extend_from_slice(marker.hash.as_slice());
        bytes.extend_from_slice(&marker.oldest.to_be_bytes());
        tx.put(SHARD_META, MARKER, &bytes)
    }

    fn decode_marker(&self, bytes: &[u8]) -> Result<Marker, StorageError> {
        let place = || format!("state shard {} marker", self.index);
        if bytes.len() != MARKER_BYTES {
            return Err(StorageError::corrupt(place(), "wrong length"));
        }
        let number = |at: usize| {
            u64::from_be_bytes(bytes[at..at + 8].try_into().expect("the length was checked"))
        };
        let version = u32::from_be_bytes(bytes[..4].try_into().expect("the length was checked"));
        if version != FORMAT_VERSION {
            return Err(StorageError::Version {
                place: place(),
                got: version,
                expected: FORMAT_VERSION,
            });
        }
        if bytes[4..6] != [self.index as u8, self.count as u8] {
            let problem = format!(
                "is of shard {} of {}, expected {} of {}",
                bytes[4], bytes[5], self.index, self.count
            );
            return Err(StorageError::corrupt(place(), problem));
        }
        Ok(Marker { number: number(6), hash: B256::from_slice(&bytes[14..46]), oldest: number(46) })
    }
}

/// What [`Shard::changes_after`] finds.
pub(crate) enum Found {
    /// A slot of one of the enumerated accounts.
    Slot(B256, U256),
    /// A block changed an account, or one of its slots.
    Change(u64, Address, Option<U256>),
}

/// keccak256 of a slot's number.
pub(crate) fn hash_slot(slot: U256) -> B256 {
    keccak256(slot.to_be_bytes::<32>())
}

/// keccak256 of an address.
pub(crate) fn hash_address(address: &Address) -> B256 {
    keccak256(address)
}

fn hash_of(key: &[u8], table: &str) -> Result<B256, StorageError> {
    B256::try_from(key).map_err(|_| StorageError::corrupt(table, "key has a wrong length"))
}
