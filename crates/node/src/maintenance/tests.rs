//! Bits flipped in the files of a real directory.

use super::{
    Damage, FETCH_KIND, Maintenance, SnapshotPeer, Source, StoreOptions, answer_fetch,
    fetch_snapshot, locate, repair, scrub,
};
use crate::chain::tests::{World, open};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, U256, keccak256};
use blockraft_primitives::{MemoryState, NodeId, StateReader};
use blockraft_raft::{Handler, Plane, Refused, Spawner, Transport, TransportConfig};
use blockraft_storage::{Identity, Store};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const SHARDS: usize = 4;
const FORKS: &[(&str, u64)] = &[("shanghai", 0), ("cancun", 0), ("prague", 0)];

/// A directory with some blocks on disk, closed.
struct Closed {
    dir: tempfile::TempDir,
    head: Sealed<Header>,
    oracle: MemoryState,
    funded: Vec<Address>,
}

impl Closed {
    /// `snapshot_at`: the block after which a snapshot is written and the log is cut.
    fn new(seed: u64, blocks: u64, snapshot_at: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(&dir.path().join("data"), FORKS, seed);
        world.logged = true;
        for number in 1..=blocks {
            world.admit_some();
            let entry = world.build().entry;
            world.apply_block(&entry);
            if snapshot_at == Some(number) {
                let store = &world.chain.store;
                store.persist().unwrap();
                store.write_snapshot().unwrap();
                let index = store.persisted().position.unwrap().index;
                store.raft_log().purge_to(index, b"purged").unwrap();
            }
        }
        let store = &world.chain.store;
        while store.backlog().blocks > 0 {
            store.persist().unwrap();
        }
        let head = store.head();
        let funded = world.keys.iter().map(alloy_signer_local::PrivateKeySigner::address).collect();
        Self { dir, head, oracle: world.oracle, funded }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn open(&self) -> Maintenance {
        Maintenance::open(&self.path(), StoreOptions::default()).unwrap()
    }

    fn shard_file(&self, shard: usize) -> PathBuf {
        self.path().join(format!("state-{shard:02}")).join("mdbx.dat")
    }

    /// Flips a bit `offset` bytes behind the account's address in its flat record, wherever it lies.
    fn flip(&self, address: Address, offset: usize) {
        let file = self.shard_file(shard_of(address));
        let mut bytes = fs::read(&file).unwrap();
        // The value follows its key.
        let record = [keccak256(address).as_slice(), address.as_slice()].concat();
        let places: Vec<usize> = bytes
            .windows(record.len())
            .enumerate()
            .filter(|(_, window)| *window == record)
            .map(|(place, _)| place + 32)
            .collect();
        assert!(!places.is_empty(), "{address} is in its shard");
        for place in places {
            bytes[place + offset] ^= 1;
        }
        write(&file, &bytes);
    }

    /// Scrubs and says what is wrong where.
    fn damage(&self) -> Vec<Damage> {
        let mut maintenance = self.open();
        let mut report = scrub(&maintenance, |_| {}).unwrap();
        locate(&mut maintenance, &mut report).unwrap();
        report.damage
    }

    fn repair(&self) -> (Vec<usize>, Option<Source>) {
        let mut maintenance = self.open();
        let mut report = scrub(&maintenance, |_| {}).unwrap();
        locate(&mut maintenance, &mut report).unwrap();
        let repaired = repair(&mut maintenance, &report, None, |_| {}).unwrap();
        assert_eq!(repaired.report.damage, []);
        assert!(repaired.report.root_matches());
        (repaired.shards, repaired.source)
    }

    /// A node starts over the directory and reads the state that was there before.
    fn check_state(&self) {
        let chain = open(&self.path());
        assert_eq!(chain.store.head(), self.head);
        let view = chain.store.view(self.head.number).unwrap();
        for (address, account) in &self.oracle.accounts {
            assert_eq!(view.account(*address).unwrap(), Some(*account), "{address}");
        }
        for (address, slots) in &self.oracle.storage {
            for (slot, value) in slots {
                assert_eq!(view.storage(*address, U256::from(*slot)).unwrap(), *value);
            }
        }
    }
}

fn write(file: &Path, bytes: &[u8]) {
    fs::write(file, bytes).unwrap();
}

fn shard_of(address: Address) -> usize {
    usize::from(keccak256(address)[0]) * SHARDS / 256
}

/// Of a record of the accounts table.
fn place(damage: &Damage) -> (Option<usize>, Option<u8>, Option<&'static str>, Option<B256>) {
    (damage.shard, damage.partition, damage.table, damage.key)
}

fn expected_place(
    address: Address,
) -> (Option<usize>, Option<u8>, Option<&'static str>, Option<B256>) {
    let hashed = keccak256(address);
    (Some(shard_of(address)), Some(hashed[0]), Some("accounts"), Some(hashed))
}

#[test]
fn a_directory_without_damage_is_clean() {
    let closed = Closed::new(11, 8, None);
    assert_eq!(closed.damage(), []);
    assert_eq!(closed.open().check(), []);
    assert_eq!(closed.repair(), (vec![], None));
    closed.check_state();
}

#[test]
fn a_flipped_bit_of_an_account_is_found_with_its_place_and_healed() {
    // Offset 0 is the address beside the key, offset 31 a byte of the balance: only the root tells.
    for (seed, offset) in [(12, 0), (13, 31)] {
        let closed = Closed::new(seed, 8, None);
        let address = closed.funded[2];
        closed.flip(address, offset);
        let damage = closed.damage();
        let places: Vec<_> = damage.iter().map(place).collect();
        assert_eq!(places, [expected_place(address)], "{damage:?}");
        assert_eq!(closed.repair(), (vec![shard_of(address)], Some(Source::Genesis)));
        assert_eq!(closed.damage(), []);
        closed.check_state();
    }
}

#[test]
fn a_shard_is_rebuilt_from_a_snapshot_and_the_log_behind_it() {
    let closed = Closed::new(14, 12, Some(7));
    let address = closed.funded[0];
    closed.flip(address, 31);
    let snapshot = closed.open().snapshots().unwrap()[0].clone();
    assert_eq!(closed.repair(), (vec![shard_of(address)], Some(Source::Snapshot(snapshot))));
    closed.check_state();
}

#[test]
fn files_that_cannot_be_opened_are_damage_of_their_shard_and_are_replaced() {
    let closed = Closed::new(15, 6, None);
    fs::remove_dir_all(closed.shard_file(1).parent().unwrap()).unwrap();
    let mut bytes = fs::read(closed.shard_file(3)).unwrap();
    // The meta pages: what an environment begins with.
    bytes[..3 * 4096].fill(0xaa);
    write(&closed.shard_file(3), &bytes);
    let shards: Vec<_> = closed.open().check().iter().map(|damage| damage.shard).collect();
    assert_eq!(shards, [Some(1), Some(3)]);
    assert_eq!(closed.repair(), (vec![1, 3], Some(Source::Genesis)));
    closed.check_state();
}

#[test]
fn a_repair_without_anything_to_rebuild_from_says_so_and_changes_nothing() {
    let closed = Closed::new(16, 9, Some(5));
    let address = closed.funded[1];
    let snapshot = closed.open().snapshots().unwrap()[0].clone();
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    write(&snapshot, &bytes);
    closed.flip(address, 31);
    let before = fs::read(closed.shard_file(shard_of(address))).unwrap();
    let mut maintenance = closed.open();
    let mut report = scrub(&maintenance, |_| {}).unwrap();
    locate(&mut maintenance, &mut report).unwrap();
    assert!(report.damage.iter().any(|d| d.problem.contains("the place cannot be told")));
    let error = repair(&mut maintenance, &report, None, |_| {}).unwrap_err().to_string();
    assert!(error.contains("no longer in the log"), "{error}");
    assert!(error.contains(".snapshot"), "{error}");
    drop(maintenance);
    assert_eq!(fs::read(closed.shard_file(shard_of(address))).unwrap().len(), before.len());
}

#[test]
fn a_flipped_bit_of_the_history_is_found() {
    let closed = Closed::new(17, 10, None);
    let address = closed.funded[3];
    let hashed = keccak256(address);
    let file = closed.shard_file(shard_of(address));
    let mut bytes = fs::read(&file).unwrap();
    // A record of a reverse diff: its kind, the hashed address, its length, no trail, the account.
    let record = [&[1], &hashed[..], &[0]].concat();
    let places: Vec<usize> =
        (0..bytes.len() - 40).filter(|at| bytes[*at..].starts_with(&record)).collect();
    assert!(!places.is_empty(), "the account changed");
    for place in places {
        bytes[place + record.len() + 1 + 1 + 2] ^= 1;
    }
    write(&file, &bytes);
    let damage = closed.damage();
    assert!(!damage.is_empty());
    assert!(damage.iter().all(|d| d.table == Some("reverse_diffs")), "{damage:?}");
    assert!(damage.iter().all(|d| d.shard == Some(shard_of(address)) && d.block.is_some()));
    assert_eq!(closed.repair().0, [shard_of(address)]);
    assert_eq!(closed.damage(), []);
}

/// Serves its store's snapshots as a running member does.
struct Peer(Store);

impl Handler for Peer {
    fn handle(
        &self,
        _peer: NodeId,
        plane: Plane,
        kind: u8,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        assert_eq!((plane, kind), (Plane::Data, FETCH_KIND));
        std::future::ready(answer_fetch(&self.0, &payload)).boxed()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_healed_from_another_member() {
    let closed = Closed::new(19, 9, Some(5));
    let peer_dir = tempfile::tempdir().unwrap();
    copy(&closed.path(), &peer_dir.path().join("data"));
    // Neither snapshot nor whole log are left here.
    fs::remove_dir_all(closed.path().join("snapshots")).unwrap();
    let address = closed.funded[4];
    closed.flip(address, 31);

    let store = Store::open(&peer_dir.path().join("data")).unwrap();
    let identity = Identity { node_id: 2, ..*store.identity() };
    let spawner = Spawner::default();
    let transport = Transport::new(identity, TransportConfig::default(), spawner.clone());
    let listener = Transport::bind("127.0.0.1:0").await.unwrap();
    let listening = listener.local_addr().unwrap();
    transport.serve(listener, Arc::new(Peer(store))).unwrap();

    let mut maintenance = closed.open();
    let report = scrub(&maintenance, |_| {}).unwrap();
    assert!(!report.root_matches());
    assert!(repair(&mut maintenance, &report, None, |_| {}).is_err());
    let peer = SnapshotPeer { id: 2, address: listening.to_string() };
    let file = fetch_snapshot(&maintenance, &peer, |_, _| {}).await.unwrap();
    let repaired = repair(&mut maintenance, &report, Some(&file), |_| {}).unwrap();
    assert_eq!(repaired.report.damage, []);
    spawner.stop.cancel();
    drop(maintenance);
    assert_eq!(closed.damage(), []);
    closed.check_state();
}

#[test]
fn a_directory_in_use_is_refused() {
    let closed = Closed::new(18, 1, None);
    let _chain = open(&closed.path());
    let error = Maintenance::open(&closed.path(), StoreOptions::default()).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}
