//! What this node proposes as leader, kept decoded until the entry comes back to be applied: it need not read
//! its own bytes again.
//!
//! An entry is recognised by where its bytes lie, which are kept alive here: no other entry lies there meanwhile.
//! One that comes back from the disk lies elsewhere, and is decoded like any other.

use alloy_primitives::Bytes;
use blockraft_primitives::{LogEntry, limits::OWN_ENTRY_COUNT_MAX};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OwnEntries {
    /// In the order in which they were proposed.
    entries: Mutex<VecDeque<(Bytes, LogEntry)>>,
}

impl OwnEntries {
    /// `bytes` are proposed next, and decode to `entry`.
    pub(crate) fn keep(&self, bytes: Bytes, entry: LogEntry) {
        let mut entries = self.entries.lock();
        if entries.len() >= OWN_ENTRY_COUNT_MAX {
            entries.pop_front();
        }
        entries.push_back((bytes, entry));
    }

    /// What these bytes say, if they are those that were kept. Those proposed before them came to nothing.
    pub(crate) fn take(&self, bytes: &[u8]) -> Option<LogEntry> {
        let mut entries = self.entries.lock();
        let at = entries.iter().position(|(own, _)| std::ptr::eq::<[u8]>(&own[..], bytes))?;
        entries.drain(..=at).next_back().map(|(_, entry)| entry)
    }

    /// Nothing of this is proposed any more.
    pub(crate) fn clear(&self) {
        self.entries.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockraft_primitives::AdmitBatch;

    fn keep(own: &OwnEntries) -> Bytes {
        let batch = AdmitBatch::default();
        let bytes = batch.encode_entry();
        own.keep(bytes.clone(), LogEntry::Admit(batch));
        bytes
    }

    #[test]
    fn only_the_very_bytes_are_taken_and_once_and_in_order() {
        let own = OwnEntries::default();
        let [first, second, third] = [(); 3].map(|()| keep(&own));
        let elsewhere = Bytes::copy_from_slice(&second);
        assert_eq!(own.take(&elsewhere), None);
        assert_eq!(own.take(&second), Some(LogEntry::Admit(AdmitBatch::default())));
        assert_eq!(own.take(&second), None);
        assert_eq!(own.take(&first), None, "it came to nothing");
        own.clear();
        assert_eq!(own.take(&third), None);
    }

    #[test]
    fn few_are_kept() {
        let own = OwnEntries::default();
        let all: Vec<Bytes> = (0..=OWN_ENTRY_COUNT_MAX).map(|_| keep(&own)).collect();
        assert_eq!(own.take(&all[0]), None);
        assert!(own.take(&all[1]).is_some());
    }
}
