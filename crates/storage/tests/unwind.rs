//! Taking blocks back: everything reads as if they had never been, also after a crash in the middle.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use blockraft_primitives::{
    AdmissionId, Applied, LogPosition, PoolChange, StateError, StateReader,
};
use blockraft_storage::{StorageError, Store};
use common::{Chain, addresses, options};
use rand::Rng;

const HISTORY: u64 = 20;

/// The chain that the oracle goes on from, and what the pool's records change to.
fn take_back(chain: &mut Chain, to: u64) -> Vec<PoolChange> {
    let kept = chain.pools[to as usize].clone();
    let gone = chain.pool.keys().filter(|id| kept.iter().all(|record| record.id != **id));
    let mut changes: Vec<PoolChange> = gone.map(|id| PoolChange::Remove(*id)).collect();
    changes.extend(kept.iter().cloned().map(PoolChange::Put));
    chain.pool = kept.into_iter().map(|record| (record.id, record)).collect();
    chain.steps.truncate(to as usize);
    let count = to as usize + 1;
    chain.states.truncate(count);
    chain.blocks.truncate(count);
    chain.pools.truncate(count);
    changes
}

fn position(chain: &Chain, index: u64) -> Applied {
    let position = Some(LogPosition { term: 4, leader: 1, index });
    Applied { position, membership: vec![9], next_admission: AdmissionId(chain.next_admission) }
}

#[test]
fn the_chain_reads_as_if_the_blocks_had_never_been() {
    let seed = std::env::var("SEED").map_or(0x75, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut chain = Chain::new(seed, 4);
    let datadir = tempfile::tempdir().unwrap();
    chain.init(datadir.path());
    let mut store = Store::open_with(datadir.path(), options(HISTORY)).unwrap();
    for round in 0..30 {
        for _ in 0..chain.rng.random_range(1..5) {
            store.apply(chain.extend());
            if chain.rng.random_ratio(1, 3) {
                store.persist().unwrap();
            }
        }
        let head = chain.head();
        let deepest = store.oldest_state().max(head.saturating_sub(6));
        let to = chain.rng.random_range(deepest..=head);
        let (stays, goes) = (store.view(to).unwrap(), store.view(head).unwrap());
        let gone: Vec<_> = chain.blocks[to as usize + 1..].to_vec();
        let pool = take_back(&mut chain, to);
        store.unwind(to, position(&chain, 1000 + round), pool).unwrap();

        assert_eq!((store.head().number, store.applied()), (to, position(&chain, 1000 + round)));
        assert_eq!(store.persisted(), position(&chain, 1000 + round));
        chain.check_store(&store, store.oldest_state());
        chain.check_flat_state(&store, to);
        chain.check_state(&stays, to);
        for block in gone {
            assert_eq!(store.number_of(&block.hash()).unwrap(), None);
            for tx in &block.transactions {
                assert_eq!(store.transaction(tx.tx_hash()).unwrap(), None);
            }
        }
        if head > to {
            let read = goes.account(addresses()[0]);
            assert!(matches!(read, Err(StateError::UnknownBlock(n)) if n == head), "{read:?}");
        }
        if chain.rng.random_ratio(1, 4) {
            drop((store, stays, goes));
            store = Store::open_with(datadir.path(), options(HISTORY)).unwrap();
            chain.check_store(&store, store.oldest_state());
            assert_eq!(store.pool_records().unwrap(), chain.pools[to as usize]);
        }
    }
}

#[test]
fn it_goes_back_no_further_than_the_history() {
    let mut chain = Chain::new(7, 1);
    let datadir = tempfile::tempdir().unwrap();
    chain.init(datadir.path());
    let store = Store::open_with(datadir.path(), options(3)).unwrap();
    for _ in 0..10 {
        store.apply(chain.extend());
        store.persist().unwrap();
    }
    assert_eq!(store.oldest_state(), 7);
    for to in [6, 11] {
        let refused = store.unwind(to, position(&chain, 1000), Vec::new());
        assert!(
            matches!(refused, Err(StorageError::Unwind { oldest: 7, head: 10, .. })),
            "{refused:?}"
        );
    }
    chain.check_store(&store, 7);
}
