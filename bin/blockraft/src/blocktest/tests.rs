//! The suites' blocks into a data directory: the same head and the same refusals as in memory.

use super::{BlockTest, TestBlock, genesis_of};
use alloy_primitives::B256;
use blockraft_node::import::{MemoryChain, StoredChain, Workers};
use blockraft_primitives::{ClusterGenesis, StateReader};
use blockraft_storage::{Identity, Store};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Which tests are in the sample: every so many, from this one on.
const STEP: usize = 19;
const SEED: usize = 4;

#[test]
fn a_data_directory_follows_the_same_branch_as_a_chain_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tests) = block_tests(dir.path()) else { return };
    // Where branches compete there is most to get wrong: all of those.
    let chosen = tests.iter().enumerate().filter(|(index, (_, test))| {
        index % STEP == SEED || (test.blocks.len() < 60 && has_branches(test))
    });
    let mut count = 0;
    for (index, (name, test)) in chosen {
        println!("{name}");
        check(test, &dir.path().join(index.to_string()));
        count += 1;
    }
    assert!(count > 40, "only {count} tests were run");
}

/// All block tests of the older suite, by name.
fn block_tests(target: &Path) -> Option<BTreeMap<String, BlockTest>> {
    let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let pack = packs.join("ethereum-tests.tar.zst");
    if !pack.exists() {
        eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", pack.display());
        return None;
    }
    let unpacked = Command::new("tar")
        .args(["--zstd", "--wildcards", "-xf"])
        .arg(&pack)
        .arg("-C")
        .arg(target)
        .arg("*/BlockchainTests/*.json")
        .status();
    assert!(unpacked.unwrap().success(), "cannot unpack {}", pack.display());
    let mut tests = BTreeMap::new();
    collect(target, &mut tests);
    Some(tests)
}

fn collect(path: &Path, tests: &mut BTreeMap<String, BlockTest>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), tests);
        }
        return;
    }
    let text = std::fs::read(path).unwrap();
    if let Ok(found) = serde_json::from_slice::<BTreeMap<String, BlockTest>>(&text) {
        tests.extend(found);
    }
}

/// Whether a block does not follow the one before it in the file.
fn has_branches(test: &BlockTest) -> bool {
    let parent = |block: &TestBlock| {
        let mut at = block.rlp.as_ref();
        alloy_rlp::Header::decode(&mut at).ok()?;
        alloy_rlp::Header::decode(&mut at).ok()?;
        <B256 as alloy_rlp::Decodable>::decode(&mut at).ok()
    };
    let parents: Vec<B256> = test.blocks.iter().filter_map(parent).collect();
    let mut unique = parents.clone();
    unique.sort_unstable();
    unique.dedup();
    unique.len() < parents.len()
}

fn check(test: &BlockTest, datadir: &Path) {
    let genesis = ClusterGenesis::new(genesis_of(test).unwrap()).unwrap();
    let mut memory = MemoryChain::new(&genesis, Workers { executors: 1, threads: 1 }).unwrap();
    let identity = Identity { cluster_id: B256::ZERO, node_id: 1 };
    blockraft_storage::init(datadir, &genesis, &identity).unwrap();
    let open = || {
        let store = Store::open(datadir).unwrap();
        let workers = Workers { executors: 2, threads: 1 };
        (StoredChain::open(store.clone(), &genesis, workers).unwrap(), store)
    };
    let (mut stored, store) = open();
    for (index, block) in test.blocks.iter().enumerate() {
        let expected = memory.import(&block.rlp).map_err(|error| error.to_string());
        let got = stored.import(&block.rlp).map_err(|error| error.to_string());
        assert_eq!(got, expected, "block {index}");
        assert_eq!(stored.head().hash(), memory.head().hash(), "after block {index}");
    }
    // All of it on disk, and read again.
    while store.backlog().blocks > 0 {
        store.persist().unwrap();
    }
    drop((stored, store));
    let (stored, store) = open();
    assert_eq!(stored.head(), memory.head());
    let view = store.view(stored.head().number).unwrap();
    for (address, account) in &memory.state().accounts {
        assert_eq!(view.account(*address).unwrap().as_ref(), Some(account), "{address}");
    }
    drop((stored, store, view));
    std::fs::remove_dir_all(datadir).unwrap();
}
