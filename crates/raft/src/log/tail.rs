//! The recent part of the log in memory: everything that is not durable yet, and as much of the
//! rest as fits, so that replication and apply seldom read from disk.

use crate::{
    codec::entry_bytes,
    config::LOG_CACHE_BYTES_MAX,
    types::{Entry, LogId, Vote},
};
use std::{collections::VecDeque, ops::Range};

/// Shared by the store (which writes), its writer (which says what is durable) and the readers.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Contiguous up to `last`.
    entries: VecDeque<Entry>,
    /// What `entries` weigh.
    bytes: usize,
    /// Entries below this index are on disk as they are here.
    durable_next: u64,
    /// Index of the first entry of the log, or of the next one when it is empty.
    first: u64,
    /// The last entry of the log, or what was purged last when it is empty.
    last: Option<LogId>,
    /// The last entry that was purged.
    purged: Option<LogId>,
    /// As last saved.
    pub(super) vote: Option<Vote>,
    /// As last saved.
    pub(super) committed: Option<LogId>,
}

impl Tail {
    /// The state of a log that was just opened: nothing in memory.
    pub(super) fn opened(
        first: Option<u64>,
        last: Option<LogId>,
        purged: Option<LogId>,
        vote: Option<Vote>,
        committed: Option<LogId>,
    ) -> Self {
        let last = last.or(purged);
        let durable_next = next_index(&last);
        let first = first.unwrap_or(durable_next);
        let (entries, bytes) = (VecDeque::new(), 0);
        Self { entries, bytes, durable_next, first, last, purged, vote, committed }
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// Index of the first entry in memory: everything from here on is.
    fn first_cached(&self) -> u64 {
        self.entries.front().map_or_else(|| next_index(&self.last), |entry| entry.log_id.index)
    }

    /// Adds the entry after the last one.
    pub(super) fn push(&mut self, entry: Entry) {
        let expected = next_index(&self.last);
        assert!(
            self.last.is_none() || entry.log_id.index == expected,
            "entry {} appended to a log that ends before {expected}",
            entry.log_id.index
        );
        // An empty log that was never purged begins anywhere.
        if self.last.is_none() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
        self.evict();
    }

    /// Entries below `next` are on disk.
    pub(super) fn set_durable(&mut self, next: u64) {
        self.durable_next = self.durable_next.max(next);
        self.evict();
    }

    fn evict(&mut self) {
        while self.bytes > LOG_CACHE_BYTES_MAX
            && self.entries.front().is_some_and(|entry| entry.log_id.index < self.durable_next)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
        }
    }

    /// Drops everything after `last`.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let next = next_index(&last);
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= next) {
            let entry = self.entries.pop_back().expect("there is a last one");
            self.bytes -= entry_bytes(&entry);
        }
        self.durable_next = self.durable_next.min(next);
        if next < next_index(&self.last) {
            self.last = last.or(self.purged);
        }
    }

    /// Drops everything up to `upto`. False when that was done before.
    pub(super) fn purge(&mut self, upto: LogId) -> bool {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return false;
        }
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.purged = Some(upto);
        self.first = upto.index + 1;
        if next_index(&self.last) <= upto.index {
            self.last = Some(upto);
            self.durable_next = upto.index + 1;
        }
        true
    }

    /// What is in memory of `range`, up to `bytes_max` (at least one entry), and the part of the
    /// range below it that has to come from disk.
    pub(super) fn read(&self, range: Range<u64>, bytes_max: usize) -> TailRead {
        let start = range.start.max(self.first);
        let end = range.end.min(next_index(&self.last));
        let first_cached = self.first_cached();
        let on_disk = start..end.min(first_cached);
        let mut entries = Vec::new();
        if start.max(first_cached) < end {
            let skip = (start.max(first_cached) - first_cached) as usize;
            let mut bytes = 0;
            for entry in self.entries.iter().skip(skip) {
                bytes += entry_bytes(entry);
                if entry.log_id.index >= end || (bytes > bytes_max && !entries.is_empty()) {
                    break;
                }
                entries.push(entry.clone());
            }
        }
        TailRead { on_disk, cached: entries }
    }
}

/// The two parts of a read.
#[derive(Debug, PartialEq)]
pub(super) struct TailRead {
    /// To be read from disk; may be empty.
    pub(super) on_disk: Range<u64>,
    /// What follows it.
    pub(super) cached: Vec<Entry>,
}

pub(super) fn next_index(id: &Option<LogId>) -> u64 {
    id.as_ref().map_or(0, |id| id.index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CommittedLeaderId, EntryData, EntryPayload};
    use bytes::Bytes;

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1), index)
    }

    fn entry(index: u64, bytes: usize) -> Entry {
        let payload = EntryPayload::Normal(EntryData(Bytes::from(vec![0; bytes])));
        Entry { log_id: id(index), payload }
    }

    fn tail(range: Range<u64>) -> Tail {
        let mut tail = Tail::opened(None, None, None, None, None);
        for index in range {
            tail.push(entry(index, 10));
        }
        tail
    }

    #[track_caller]
    fn check(tail: &Tail, range: Range<u64>, bytes_max: usize, disk: Range<u64>, mem: Range<u64>) {
        let read = tail.read(range, bytes_max);
        let cached: Vec<u64> = read.cached.iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(cached, mem.collect::<Vec<u64>>());
        assert_eq!(read.on_disk.is_empty(), disk.is_empty());
        assert!(disk.is_empty() || read.on_disk == disk, "{:?}", read.on_disk);
    }

    #[test]
    fn read_is_cut_to_what_the_log_holds_and_to_the_byte_limit() {
        let tail = tail(3..10);
        check(&tail, 0..100, usize::MAX, 0..0, 3..10);
        check(&tail, 5..7, usize::MAX, 0..0, 5..7);
        check(&tail, 5..9, 45, 0..0, 5..7);
        check(&tail, 5..9, 1, 0..0, 5..6);
        check(&tail, 10..20, 1, 0..0, 0..0);
    }

    #[test]
    fn what_was_there_before_the_start_comes_from_disk() {
        let mut tail = Tail::opened(Some(2), Some(id(5)), Some(id(1)), None, None);
        check(&tail, 0..100, usize::MAX, 2..6, 0..0);
        tail.push(entry(6, 10));
        check(&tail, 0..100, usize::MAX, 2..6, 6..7);
        check(&tail, 6..7, usize::MAX, 0..0, 6..7);
    }

    #[test]
    fn truncation_and_purge_move_the_ends() {
        let mut tail = tail(0..10);
        tail.truncate_after(Some(id(6)));
        assert_eq!(tail.last(), Some(id(6)));
        assert!(tail.purge(id(3)));
        assert!(!tail.purge(id(3)), "done before");
        check(&tail, 0..100, usize::MAX, 0..0, 4..7);
        // A snapshot beyond the log: the log goes on behind it.
        assert!(tail.purge(id(20)));
        assert_eq!((tail.last(), tail.purged()), (Some(id(20)), Some(id(20))));
        tail.push(entry(21, 10));
        check(&tail, 0..100, usize::MAX, 0..0, 21..22);
        tail.truncate_after(Some(id(30)));
        assert_eq!(tail.last(), Some(id(21)));
        tail.truncate_after(None);
        assert_eq!(tail.last(), Some(id(20)));
    }

    #[test]
    fn only_durable_entries_leave_memory() {
        let third = LOG_CACHE_BYTES_MAX / 3;
        let mut tail = Tail::opened(None, None, None, None, None);
        for index in 0..6 {
            tail.push(entry(index, third));
        }
        check(&tail, 0..6, usize::MAX, 0..0, 0..6);
        tail.set_durable(2);
        check(&tail, 0..6, usize::MAX, 0..2, 2..6);
        tail.set_durable(6);
        check(&tail, 0..6, usize::MAX, 0..4, 4..6);
    }
}
