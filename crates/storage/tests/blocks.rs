//! Blocks and their indices, the pool, and what a directory refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod common;

use alloy_primitives::{Address, B256};
use blockraft_primitives::{
    AdmissionId, Applied, LogPosition, PoolChange, PoolRecord, SealedBlock,
};
use blockraft_storage::{
    AppliedStep, Backlog, Identity, LogQuery, Persisted, StorageError, Store, init,
};
use common::{Chain, IDENTITY, addresses, options, topics};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;

fn matches(query: &LogQuery, block: &SealedBlock) -> bool {
    block.receipts.iter().flat_map(|receipt| &receipt.logs).any(|log| {
        (query.addresses.is_empty() || query.addresses.contains(&log.address))
            && query.topics.iter().enumerate().all(|(position, wanted)| {
                let topic = log.topics().get(position);
                wanted.is_empty() || topic.is_some_and(|topic| wanted.contains(topic))
            })
    })
}

#[test]
fn the_log_index_never_misses_a_block() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(1, 1);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    let mut rng = SmallRng::seed_from_u64(2);
    // More than one section, the end of it in memory.
    for block in 1..=2100u64 {
        let step = chain.extend_with(Default::default());
        store.apply(step);
        if block % 500 == 0 {
            store.persist().unwrap();
        }
    }
    let mut some = |count: usize, of: usize| -> Vec<usize> {
        (0..rng.random_range(0..=count)).map(|_| rng.random_range(0..of)).collect()
    };
    let mut exact = 0;
    let mut named = 0;
    for _ in 0..300 {
        let pick = |indices: Vec<usize>| indices.into_iter().map(|i| addresses()[i]).collect();
        let query = LogQuery {
            from: some(1, 2101).first().copied().unwrap_or(0) as u64,
            to: some(1, 2300).first().copied().unwrap_or(2100) as u64,
            addresses: pick(some(2, 24)),
            topics: std::array::from_fn(|position| {
                let indices = if position < 2 { some(2, 6) } else { vec![] };
                indices.into_iter().map(|i| topics()[i]).collect()
            }),
        };
        let found = store.blocks_with_logs(&query).unwrap();
        assert!(found.is_sorted_by(|a, b| a < b));
        let range = query.from..=query.to.min(2100);
        assert!(found.iter().all(|block| range.contains(block)));
        let expected: Vec<u64> =
            range.filter(|block| matches(&query, &chain.blocks[*block as usize])).collect();
        for block in &expected {
            assert!(found.contains(block), "{query:?} misses block {block}");
        }
        exact += expected.len();
        named += found.len();
    }
    assert!(named < exact * 3, "the index names {named} blocks where {exact} have the logs");
    let nowhere =
        LogQuery { from: 0, to: u64::MAX, addresses: vec![Address::ZERO], ..Default::default() };
    assert_eq!(store.blocks_with_logs(&nowhere).unwrap(), Vec::<u64>::new());
    let backwards = LogQuery { from: 9, to: 3, ..Default::default() };
    assert_eq!(store.blocks_with_logs(&backwards).unwrap(), Vec::<u64>::new());
}

#[test]
fn blocks_are_found_in_memory_and_on_disk() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(2, 2);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
    for block in 1..=300 {
        store.apply(chain.extend());
        if block % 70 == 0 {
            store.persist().unwrap();
        }
    }
    chain.check_store(&store, 0);
    assert_eq!(store.number_of(&B256::ZERO).unwrap(), None);
    assert_eq!(store.transaction(&B256::ZERO).unwrap(), None);
    store.persist().unwrap();
    drop(store);
    chain.check_store(&Store::open_with(dir.path(), options(u64::MAX)).unwrap(), 0);
}

#[test]
fn steps_without_a_block_move_the_position_and_the_pool() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(3, 2);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    assert_eq!(store.applied(), Applied::default());
    let record = |chain: &mut Chain, id| PoolRecord {
        id: AdmissionId(id),
        admitted_at: 1,
        replaced_at: None,
        transaction: chain.random_transaction(),
    };
    let (kept, gone) = (record(&mut chain, 4), record(&mut chain, 5));
    let step = |index, pool| AppliedStep {
        applied: Applied {
            position: Some(LogPosition { term: 1, leader: 2, index }),
            membership: vec![9],
            next_admission: AdmissionId(6),
        },
        block: None,
        pool,
    };
    store.apply(step(1, vec![PoolChange::Put(kept.clone()), PoolChange::Put(gone)]));
    store.apply(step(2, vec![PoolChange::Remove(AdmissionId(5))]));
    let last = step(3, vec![PoolChange::Remove(AdmissionId(77))]);
    store.apply(last.clone());
    assert_eq!(store.applied(), last.applied);
    assert_eq!(store.persisted(), Applied::default());
    assert_eq!(store.backlog(), Backlog::default());
    let persisted = Persisted { applied: last.applied.clone(), blocks: 0, keys: 0 };
    assert_eq!(store.persist_blocks().unwrap(), Persisted::default(), "no block waits");
    assert_eq!(store.persist().unwrap(), persisted);
    assert_eq!(store.persist().unwrap(), persisted, "nothing more to do");
    assert_eq!(store.pool_records().unwrap(), vec![kept.clone()]);
    drop(store);
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    assert_eq!(store.applied(), last.applied);
    assert_eq!(store.pool_records().unwrap(), vec![kept]);
    assert_eq!(store.head(), chain.genesis.header);
}

#[test]
fn what_came_behind_the_last_block_may_wait() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(8, 2);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    let blocks = [chain.extend(), chain.extend()];
    let mut behind = AppliedStep { block: None, pool: Vec::new(), ..blocks[1].clone() };
    behind.applied.position = Some(LogPosition { term: 3, leader: 1, index: 21 });
    let pools = chain.pools.clone();
    for step in blocks.iter().chain([&behind]) {
        store.apply(step.clone());
    }
    let persisted = store.persist_blocks().unwrap();
    assert_eq!((persisted.applied, persisted.blocks), (blocks[1].applied.clone(), 2));
    assert_eq!(store.backlog(), Backlog::default());
    assert_eq!(store.applied(), behind.applied);
    assert_eq!(store.pool_records().unwrap(), *pools.last().unwrap());
    assert_eq!(store.persist_blocks().unwrap().applied, blocks[1].applied, "no block waits");
    assert_eq!(store.persist().unwrap().applied, behind.applied);
}

#[test]
fn the_backlog_counts_blocks_and_keys() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(4, 2);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    let mut expected = Backlog::default();
    for _ in 0..5 {
        let step = chain.extend();
        expected.blocks += 1;
        expected.keys += step.block.as_ref().unwrap().diff.key_count();
        store.apply(step);
        assert_eq!(store.backlog(), expected);
    }
    store.persist().unwrap();
    assert_eq!(store.backlog(), Backlog::default());
}

#[test]
#[should_panic(expected = "a block joins the chain at its head")]
fn a_block_that_is_not_next_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(5, 2);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    chain.extend();
    store.apply(chain.extend());
}

#[test]
fn a_directory_belongs_to_one_process() {
    let dir = TempDir::new().unwrap();
    let chain = Chain::new(6, 1);
    chain.init(dir.path());
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    let refused = Store::open_with(dir.path(), options(8)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("data directory {} is in use by another process", dir.path().display())
    );
    let refused = init(dir.path(), &chain.genesis, &IDENTITY);
    assert!(matches!(refused, Err(StorageError::Locked { .. })));
    let log = store.raft_log();
    drop(store);
    let refused = Store::open_with(dir.path(), options(8));
    assert!(matches!(refused, Err(StorageError::Locked { .. })), "its log is still open");
    drop(log);
    Store::open_with(dir.path(), options(8)).unwrap();
}

#[test]
fn init_is_repeatable_and_refuses_another_chain() {
    let dir = TempDir::new().unwrap();
    let chain = Chain::new(7, 2);
    chain.init(dir.path());
    let other = Identity { node_id: 8, ..IDENTITY };
    init(dir.path(), &chain.genesis, &other).unwrap();
    let store = Store::open_with(dir.path(), options(8)).unwrap();
    assert_eq!(*store.identity(), IDENTITY, "the first identity stays");
    assert_eq!(store.genesis().hash(), chain.genesis.hash());
    assert_eq!(store.head(), chain.genesis.header);
    drop(store);

    let mut text = serde_json::to_value(&chain.genesis.genesis).unwrap();
    text["timestamp"] = "0x7".into();
    let another = blockraft_primitives::ClusterGenesis::from_json(&text.to_string()).unwrap();
    let refused = init(dir.path(), &another, &IDENTITY).unwrap_err().to_string();
    for hash in [chain.genesis.hash(), another.hash()] {
        assert!(refused.contains(&hash.to_string()), "{refused}");
    }
}

#[test]
fn a_directory_that_is_none_says_so() {
    let dir = TempDir::new().unwrap();
    for datadir in [dir.path().to_owned(), dir.path().join("missing")] {
        let refused = Store::open_with(&datadir, options(8));
        assert!(matches!(refused, Err(StorageError::NotInitialised { .. })), "{refused:?}");
    }
    assert!(!dir.path().join("missing").exists(), "asking makes nothing");

    let chain = Chain::new(8, 1);
    chain.init(dir.path());
    std::fs::remove_file(dir.path().join("genesis.json")).unwrap();
    let refused = Store::open_with(dir.path(), options(8));
    assert!(matches!(refused, Err(StorageError::NotInitialised { .. })), "{refused:?}");
    let refused = init(dir.path(), &chain.genesis, &IDENTITY);
    assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "a chain is not overwritten");
}

#[test]
fn another_genesis_file_beside_the_chain_is_refused() {
    let dir = TempDir::new().unwrap();
    let chain = Chain::new(9, 1);
    chain.init(dir.path());
    let path = dir.path().join("genesis.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace("\"gasLimit\": \"0x1c9c380\"", "\"gasLimit\": \"0x1c9c381\"");
    assert_ne!(text, other);
    std::fs::write(&path, other).unwrap();
    let refused = Store::open_with(dir.path(), options(8));
    assert!(matches!(refused, Err(StorageError::AnotherGenesis { .. })), "{refused:?}");
}

#[test]
fn a_full_database_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let mut chain = Chain::new(10, 1);
    chain.init(dir.path());
    let small =
        blockraft_storage::StoreOptions { history_blocks: u64::MAX, map_bytes_max: 1 << 20 };
    let store = Store::open_with(dir.path(), small).unwrap();
    let mut full = None;
    for _ in 0..40_000 {
        for _ in 0..50 {
            store.apply(chain.extend());
        }
        if let Err(error) = store.persist() {
            full = Some(error);
            break;
        }
    }
    let full = full.expect("a megabyte does not hold it all");
    assert!(matches!(full, StorageError::MapFull { .. }), "{full:?}");
    assert!(full.is_full());
    assert!(store.persist().unwrap_err().is_full(), "still full");
    let head = store.head().number;
    for number in [head, head - 10, head / 2, 0] {
        chain.check_state(&store.view(number).unwrap(), number);
        chain.check_block(&store, number);
    }
    let durable = store.persisted().position.map_or(0, |position| position.index / 10);
    drop(store);
    // More space heals it: the log brings back what was not persisted.
    let store = Store::open_with(dir.path(), options(u64::MAX)).unwrap();
    assert_eq!(store.head().number, durable);
    for step in &chain.steps[durable as usize..] {
        store.apply(step.clone());
    }
    store.persist().unwrap();
    chain.check_flat_state(&store, head);
    chain.check_state(&store.view(head).unwrap(), head);
}
