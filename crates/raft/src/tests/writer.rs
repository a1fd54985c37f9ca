//! The log writer: group commit, order, and failure.

use super::memory::MemoryLog;
use crate::{
    Spawner,
    log::LogStore,
    node::Failure,
    types::{CommittedLeaderId, Entry, EntryData, EntryPayload, LogId, TypeConfig, Vote},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use openraft::{
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
    type_config::TypeConfigExt,
};
use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

fn entries(range: Range<u64>) -> Vec<Entry> {
    range
        .map(|index| Entry {
            log_id: LogId::new(CommittedLeaderId::new(1), index),
            payload: EntryPayload::Normal(EntryData(Bytes::from(vec![index as u8]))),
        })
        .collect()
}

fn open(log: &Arc<MemoryLog>) -> (LogStore, Failure) {
    let failure = Failure::default();
    let device = Arc::clone(log) as Arc<_>;
    let store = LogStore::open(device, Spawner::default(), failure.clone()).unwrap();
    (store, failure)
}

/// Appends and returns what resolves when the entries are on disk.
async fn append(
    store: &mut LogStore,
    range: Range<u64>,
) -> BoxFuture<'static, Result<(), std::io::Error>> {
    let (sender, flushed) = TypeConfig::oneshot();
    store.append(entries(range), IOFlushed::signal(sender)).await.unwrap();
    flushed.map(|flushed| flushed.unwrap()).boxed()
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_that_wait_become_one_write_and_are_readable_meanwhile() {
    let log = Arc::new(MemoryLog::default());
    let (mut store, _) = open(&log);
    append(&mut store, 0..1).await.await.unwrap();
    log.hold();
    let mut flushed = vec![append(&mut store, 1..2).await];
    for n in 2..10 {
        flushed.push(append(&mut store, n..n + 1).await);
    }
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(0..20).await.unwrap(), entries(0..10));
    for flushed in &mut flushed {
        assert!(flushed.now_or_never().is_none(), "durable before it was written");
    }
    log.release();
    for flushed in flushed {
        flushed.await.unwrap();
    }
    // The writer may have begun with the first before the others came.
    let writes = log.writes.lock().clone();
    assert!(writes.len() <= 3, "{writes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vote_and_truncation_keep_their_place_among_appends() {
    let log = Arc::new(MemoryLog::default());
    let (mut store, _) = open(&log);
    append(&mut store, 0..3).await.await.unwrap();
    store.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
    append(&mut store, 3..6).await.await.unwrap();
    let last = LogId::new(CommittedLeaderId::new(1), 3);
    store.truncate_after(Some(last)).await.unwrap();
    append(&mut store, 4..5).await.await.unwrap();
    store.purge(last).await.unwrap();
    append(&mut store, 5..6).await.await.unwrap();
    let expected = [
        "append [0, 1, 2]",
        "vote",
        "append [3, 4, 5]",
        "truncate from 4",
        "append [4]",
        "purge to 3",
        "append [5]",
    ];
    assert_eq!(*log.writes.lock(), expected);
    let mut reader = store.get_log_reader().await;
    assert_eq!(reader.try_get_log_entries(0..20).await.unwrap(), entries(4..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_write_is_reported_and_ends_the_log() {
    let log = Arc::new(MemoryLog::default());
    let (mut store, failure) = open(&log);
    append(&mut store, 0..1).await.await.unwrap();
    log.broken.store(true, Ordering::Relaxed);
    append(&mut store, 1..2).await.await.unwrap_err();
    store.save_vote(&Vote::new_committed(2, 1)).await.unwrap_err();
    let reported = failure.first().expect("the failure is on record");
    assert_eq!(reported.to_string(), "raft log failed");
    assert_eq!(*log.writes.lock(), ["append [0]", "append [1]"]);
}
