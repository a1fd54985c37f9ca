//! Handing on what is final while later transactions still run.
//!
//! What the frontier has passed never changes, so the values that a reader at the frontier's place sees are
//! the block's so far. They go out in chunks: applied in order, the chunks give the block's change.

use super::{
    memory::{Memory, Place},
    outcome::Writes,
};
use crate::{DatabaseError, late::is_placeholder};
use alloy_primitives::{Address, B256, Bytes, U256, map::AddressMap};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, SlotChange, StateDiff, StateReader,
};
use std::{collections::BTreeMap, fmt};

/// Locations in a chunk: enough to be worth handing on, few enough to be at work on soon.
const CHUNK_LEN: usize = 512;

/// Takes chunks of a block's change, in order.
pub(crate) type Sink<'a> = &'a mut (dyn FnMut(StateDiff) + Send);

/// See the module.
pub(crate) struct Stream<'a> {
    sink: Sink<'a>,
    /// Where the chunk underway starts.
    from: Place,
    dirty: AddressMap<Dirty>,
    /// Locations in `dirty`, some perhaps counted twice.
    len: usize,
    /// Whether any chunk went out.
    pub(crate) is_started: bool,
}

/// What was written of an account since the chunk began.
#[derive(Debug, Default)]
struct Dirty {
    wiped: bool,
    slots: Vec<U256>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(sink: Sink<'a>) -> Self {
        Self { sink, from: 0, dirty: AddressMap::default(), len: 0, is_started: false }
    }

    /// Takes the writes of the place that just became final.
    pub(crate) fn add<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
        writes: &Writes,
    ) {
        self.note(writes);
        if self.len >= CHUNK_LEN {
            // A chunk that cannot be read goes out with the next one, which says so if it is the last.
            let _unread = self.flush(memory, place + 1);
        }
    }

    /// Takes writes without handing them on yet.
    pub(crate) fn note(&mut self, writes: &Writes) {
        for write in &writes.accounts {
            let dirty = self.dirty.entry(write.address).or_default();
            if write.storage_wiped {
                dirty.wiped = true;
                dirty.slots.clear();
            }
            dirty.slots.extend(write.storage.iter().map(|change| change.slot));
            self.len += 1 + write.storage.len();
        }
        for difference in &writes.differences {
            self.dirty.entry(difference.address).or_default();
        }
        self.len += writes.differences.len();
    }

    /// Hands on what was written before `place`. Nothing goes out of a block that may have to start anew.
    pub(crate) fn flush<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
    ) -> Result<(), DatabaseError> {
        if memory.is_irregular() {
            return Ok(());
        }
        let mut accounts = Vec::with_capacity(self.dirty.len());
        let mut codes: BTreeMap<B256, Bytes> = BTreeMap::new();
        for (address, dirty) in &self.dirty {
            let before = memory.account(*address, self.from)?;
            let now = memory.account(*address, place)?;
            if memory.is_irregular() {
                return Ok(());
            }
            let Some(change) = change(before, now) else { continue };
            let code_hash = now.filter(Account::has_code).map(|account| account.code_hash);
            if let Some(code_hash) = code_hash.filter(|h| before.is_none_or(|b| b.code_hash != *h))
            {
                codes.insert(code_hash, memory.code(code_hash)?.original_bytes());
            }
            let storage_wiped = now.is_none() || (dirty.wiped && before.is_some());
            let storage = match now {
                Some(_) => dirty.values(memory, *address, place)?,
                None => Vec::new(),
            };
            if change != AccountChange::Unchanged || storage_wiped || !storage.is_empty() {
                accounts.push(AccountDiff { address: *address, change, storage_wiped, storage });
            }
        }
        accounts.sort_unstable_by_key(|account| account.address);
        self.dirty.clear();
        self.len = 0;
        self.from = place;
        self.push(StateDiff { accounts, codes: codes.into_values().collect() });
        Ok(())
    }

    /// Hands on one account of a diff.
    pub(crate) fn push_account(&mut self, diff: &StateDiff, address: Address) {
        let found = diff.accounts.iter().filter(|account| account.address == address);
        let accounts = found.cloned().collect();
        self.push(StateDiff { accounts, codes: Vec::new() });
    }

    /// Hands on a chunk.
    pub(crate) fn push(&mut self, diff: StateDiff) {
        self.is_started = true;
        (self.sink)(diff);
    }
}

impl Dirty {
    /// The slots as they are before `place`. One that waits for the parent's hash is left for the end.
    fn values<S: StateReader>(
        &self,
        memory: &Memory<S>,
        address: Address,
        place: Place,
    ) -> Result<Vec<SlotChange>, DatabaseError> {
        let mut slots = self.slots.clone();
        slots.sort_unstable();
        slots.dedup();
        let mut changes = Vec::with_capacity(slots.len());
        for slot in slots {
            let value = memory.slot(address, slot, place)?;
            if !is_placeholder(address, value) {
                changes.push(SlotChange { slot, value });
            }
        }
        Ok(changes)
    }
}

/// `None` where there was no account and is none.
fn change(before: Option<Account>, now: Option<Account>) -> Option<AccountChange> {
    match (before, now) {
        (None, None) => None,
        (Some(_), None) => Some(AccountChange::Deleted),
        (before, Some(now)) if before == Some(now) => Some(AccountChange::Unchanged),
        (_, Some(now)) => Some(AccountChange::Set(now)),
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("from", &self.from).finish_non_exhaustive()
    }
}
