use super::*;
use tempfile::TempDir;

const MAP_BYTES: usize = 1 << 30;

fn open(dir: &TempDir) -> RaftLog {
    let lock = Arc::new(DirLock::take(dir.path()).unwrap());
    RaftLog::open(&dir.path().join("log"), MAP_BYTES, lock).unwrap()
}

fn record(index: u64) -> LogRecord {
    LogRecord { index, bytes: Bytes::from(format!("entry {index}")) }
}

fn records(range: Range<u64>) -> Vec<LogRecord> {
    range.map(record).collect()
}

fn bounds(first: u64, last: u64) -> LogBounds {
    LogBounds { first: Some(first), last: Some(last) }
}

/// All that a log says of itself.
fn state(log: &RaftLog) -> (LogBounds, Vec<LogRecord>, [Option<Vec<u8>>; 3]) {
    let all = log.read(0..u64::MAX, usize::MAX).unwrap();
    (log.bounds().unwrap(), all, [log.read_vote(), log.read_committed(), log.purged()])
}

#[test]
fn an_empty_log_says_so() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    assert_eq!(state(&log), (LogBounds::default(), vec![], [None, None, None]));
    log.append(&[]).unwrap();
    log.truncate_from(0).unwrap();
    assert_eq!(log.bounds().unwrap(), LogBounds::default());
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.save_vote(b"vote 1").unwrap();
    log.append(&records(0..5)).unwrap();
    log.save_committed(b"committed 3").unwrap();
    log.append(&records(5..10)).unwrap();
    log.truncate_from(8).unwrap();
    log.purge_to(2, b"purged 2").unwrap();
    let expected = (
        bounds(3, 7),
        records(3..8),
        [b"vote 1".as_slice(), b"committed 3", b"purged 2"].map(|bytes| Some(bytes.to_vec())),
    );
    assert_eq!(state(&log), expected);
    drop(log);
    assert_eq!(state(&open(&dir)), expected);
}

#[test]
fn clones_see_each_others_writes() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let other = log.clone();
    log.append(&records(0..2)).unwrap();
    assert_eq!(other.read(0..9, usize::MAX).unwrap(), records(0..2));
    log.append(&records(2..4)).unwrap();
    assert_eq!(other.read(1..3, usize::MAX).unwrap(), records(1..3));
}

#[test]
fn entries_must_follow_the_log() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let gap = |result: Result<(), StorageError>| match result {
        Err(StorageError::LogGap { got, expected }) => (got, expected),
        other => panic!("expected a gap, got {other:?}"),
    };
    log.append(&records(2..4)).unwrap();
    assert_eq!(gap(log.append(&[record(5)])), (5, 4));
    assert_eq!(gap(log.append(&[record(3)])), (3, 4));
    assert_eq!(gap(log.append(&[record(4), record(6)])), (6, 5));
    assert_eq!(
        log.read(0..9, usize::MAX).unwrap(),
        records(2..4),
        "a refused append wrote nothing"
    );
    log.purge_to(9, b"9").unwrap();
    assert_eq!(gap(log.append(&[record(4)])), (4, 10));
    log.append(&records(10..12)).unwrap();
    assert_eq!(log.bounds().unwrap(), bounds(10, 11));
}

#[test]
fn truncated_entries_may_be_replaced() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.append(&records(0..6)).unwrap();
    log.truncate_from(3).unwrap();
    let replacement = LogRecord { index: 3, bytes: Bytes::from_static(b"another leader's") };
    log.append(std::slice::from_ref(&replacement)).unwrap();
    assert_eq!(log.read(3..9, usize::MAX).unwrap(), vec![replacement]);
    log.truncate_from(0).unwrap();
    assert_eq!(log.bounds().unwrap(), LogBounds::default());
}

#[test]
fn purging_backwards_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.append(&records(0..6)).unwrap();
    log.purge_to(4, b"4").unwrap();
    log.purge_to(2, b"2").unwrap();
    assert_eq!(log.purged(), Some(b"4".to_vec()));
    log.purge_to(5, b"5").unwrap();
    assert_eq!((log.bounds().unwrap(), log.purged()), (LogBounds::default(), Some(b"5".to_vec())));
}

#[test]
fn a_read_is_bounded_in_bytes_but_never_empty() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.append(&records(0..9)).unwrap();
    let length = record(0).bytes.len();
    for (bytes_max, expected) in [(0, 1), (length, 1), (3 * length - 1, 2), (3 * length, 3)] {
        let read = log.read(4..9, bytes_max).unwrap();
        assert_eq!(read, records(4..4 + expected), "at most {bytes_max} bytes");
    }
    assert_eq!(log.read(9..12, usize::MAX).unwrap(), vec![]);
    assert_eq!(log.read(4..4, usize::MAX).unwrap(), vec![]);
}

#[test]
fn large_entries_come_back_whole() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    let entries: Vec<LogRecord> = [0, 1, 4096, 1 << 20, 9 << 20]
        .into_iter()
        .enumerate()
        .map(|(index, length)| LogRecord {
            index: index as u64,
            bytes: Bytes::from(vec![index as u8; length]),
        })
        .collect();
    log.append(&entries).unwrap();
    assert_eq!(log.read(0..9, usize::MAX).unwrap(), entries);
}

#[test]
fn a_flipped_bit_anywhere_in_an_entry_is_found() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.append(&records(0..3)).unwrap();
    for byte in 0..CHECKSUM_BYTES + record(1).bytes.len() {
        log.flip_bit(1, byte);
        match log.read(0..3, usize::MAX) {
            Err(StorageError::Corrupt { place, .. }) => assert_eq!(place, "log entry 1"),
            other => panic!("byte {byte}: {other:?}"),
        }
        assert_eq!(log.read(2..3, usize::MAX).unwrap(), records(2..3));
        log.flip_bit(1, byte);
    }
    assert_eq!(log.read(0..3, usize::MAX).unwrap(), records(0..3));
}

#[test]
fn bytes_of_an_entry_are_frozen() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir);
    log.append(&[LogRecord { index: 258, bytes: Bytes::from_static(b"123456789") }]).unwrap();
    let tx = log.inner.env.read().unwrap();
    let (key, value) = tx.cursor(LOG_ENTRIES).unwrap().first().unwrap().unwrap();
    assert_eq!(key[..], [0, 0, 0, 0, 0, 0, 1, 2]);
    let checksum = crc32c::crc32c(b"\x00\x00\x00\x00\x00\x00\x01\x02123456789");
    assert_eq!(value[..], [&checksum.to_be_bytes()[..], b"123456789"].concat());
}
