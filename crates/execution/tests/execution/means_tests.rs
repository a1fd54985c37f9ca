//! What a block can be run with: a parent hash that comes late, a watchdog, a sink.

use crate::{
    chain::{Chain, call, from, osaka, user},
    contracts::deploy,
    engine_tests::with_late,
};
use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, U256, address, bytes};
use blockraft_execution::{
    Basis, BlockInput, BuildInput, ExecutionError, LateParent, LateValues, Means, Watchdog,
    build_block, build_with, encode_outcomes, execute_share, execute_share_with, execute_with,
};
use blockraft_primitives::{
    Account, DropReason, MemoryState, StateError, StateReader, Transaction,
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Adds one to the caller's slot.
const COUNTER: Address = address!("0000000000000000000000000000000000c00002");
/// Keeps the hash of the parent.
const KEEPER: Address = address!("0000000000000000000000000000000000c00010");
const ENDLESS: Address = address!("0000000000000000000000000000000000d00001");
/// In a loop: asks for the hash of the grandparent and forgets it.
const ENDLESS_CODE: Bytes = bytes!("5b6002430340505f56");

/// Calls to the counter by many, with `special` in between.
fn block_around(special: Transaction) -> Vec<Transaction> {
    let input = bytes!("01");
    let count = |n| from(user(n), TxEip1559 { input: input.clone(), ..call(0, COUNTER, 0) });
    let mut txs: Vec<_> = (1..40).map(count).collect();
    txs.insert(20, special);
    txs
}

/// A state in which time passes whenever somebody asks for an old block's hash.
struct Slow<'a> {
    state: MemoryState,
    watchdog: &'a Watchdog,
}

impl StateReader for Slow<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.state.account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.state.storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.state.has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.state.code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        self.watchdog.tick();
        self.state.block_hash(number)
    }
}

/// A chain with a contract that never ends, and a block with a call to it.
fn endless() -> (Chain, Vec<Transaction>) {
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    chain.deploy(ENDLESS, ENDLESS_CODE);
    for _ in 0..3 {
        chain.build(&[]);
    }
    let call = TxEip1559 { gas_limit: 10_000_000, ..call(0, ENDLESS, 1) };
    let txs = block_around(from(user(50), call));
    (chain, txs)
}

#[test]
fn endless_transaction_is_dropped_from_a_block_that_is_built() {
    let (chain, txs) = endless();
    let without: Vec<_> = txs.iter().filter(|tx| tx.signer() != user(50)).cloned().collect();
    let attributes = chain.attributes();
    let expected =
        build_block(&chain.spec, &chain.state, &chain.head, &attributes, &without).unwrap();
    for threads in [1, 2, 4] {
        let watchdog = Watchdog::new(100);
        let state = Slow { state: chain.state.clone(), watchdog: &watchdog };
        let input = BuildInput {
            spec: &chain.spec,
            parent: &chain.head,
            attributes: &attributes,
            candidates: &txs,
        };
        let means = Means { watchdog: Some(watchdog.clone()), ..Means::threads(threads) };
        let built = build_with(&input, &state, means).unwrap().block;
        assert_eq!(built.dropped, [(20, DropReason::Poison)]);
        assert_eq!((built.header, built.diff), (expected.header.clone(), expected.diff.clone()));
    }
}

#[test]
fn endless_transaction_of_a_given_block_is_named() {
    let (mut chain, txs) = endless();
    let parent = chain.state.clone();
    let block = chain.build(&txs);
    let input = BlockInput {
        spec: &chain.spec,
        header: &block.header,
        transactions: &block.transactions,
        ommers: &[],
        withdrawals: &[],
    };
    for threads in [1, 2, 4] {
        let watchdog = Watchdog::new(100);
        let state = Slow { state: parent.clone(), watchdog: &watchdog };
        let means = Means { watchdog: Some(watchdog.clone()), ..Means::threads(threads) };
        match execute_with(&input, &state, means) {
            Err(ExecutionError::Poison { index: 20, reason, .. }) => {
                assert_eq!(reason, "ran past its time");
            }
            other => panic!("{threads} threads: {other:?}"),
        }
    }
}

#[test]
fn watchdog_that_sleeps_changes_nothing() {
    let (mut chain, txs) = endless();
    let parent = chain.state.clone();
    let block = chain.build(&txs);
    let input = BlockInput {
        spec: &chain.spec,
        header: &block.header,
        transactions: &block.transactions,
        ommers: &[],
        withdrawals: &[],
    };
    for threads in [1, 2] {
        let means = Means { watchdog: Some(Watchdog::new(0)), ..Means::threads(threads) };
        assert_eq!(execute_with(&input, &parent, means).unwrap().block.diff, block.diff);
    }
}

#[test]
fn time_that_passed_before_a_block_is_not_its_own() {
    let (chain, txs) = endless();
    let attributes = chain.attributes();
    let candidates: Vec<_> = txs.into_iter().filter(|tx| tx.signer() != user(50)).collect();
    let (spec, parent) = (&chain.spec, &chain.head);
    let expected = build_block(spec, &chain.state, parent, &attributes, &candidates).unwrap();
    let input = BuildInput { spec, parent, attributes: &attributes, candidates: &candidates };
    for threads in [1, 2] {
        let watchdog = Watchdog::new(3);
        (0..100).for_each(|_| watchdog.tick());
        let means = Means { watchdog: Some(watchdog), ..Means::threads(threads) };
        assert_eq!(build_with(&input, &chain.state, means).unwrap().block, expected);
    }
}

/// A state that tells of every read of an account, and of a slot with its number.
struct Told<F> {
    state: MemoryState,
    tell: F,
}

impl<F: Fn(Address, Option<U256>) + Send + Sync> StateReader for Told<F> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        (self.tell)(address, None);
        self.state.account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        (self.tell)(address, Some(slot));
        self.state.storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.state.has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.state.code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        self.state.block_hash(number)
    }
}

/// The promise is kept only after every sender but those behind the waiting transaction was looked up: the
/// block must get that far without it.
#[test]
fn only_who_asks_for_the_hash_waits() {
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let txs = block_around(from(user(50), call(0, KEEPER, 0)));
    let parent = chain.state.clone();
    let head = chain.head.clone();
    let attributes = chain.attributes();
    let expected = chain.build(&txs);
    let input =
        BuildInput { spec: &chain.spec, parent: &head, attributes: &attributes, candidates: &txs };
    // One thread gets to the transaction that asks, two run past it to the end.
    for (threads, reads_before) in [(1, 20), (2, 40)] {
        let (promise, late) = LateParent::new();
        let reads = AtomicUsize::new(0);
        let waiting = late.clone();
        let tell = |_, slot: Option<U256>| {
            if slot.is_none() && !waiting.is_settled() {
                reads.fetch_add(1, Ordering::Relaxed);
            }
        };
        let state = Told { state: parent.clone(), tell };
        let values = LateValues { parent_hash: head.hash(), prev_randao: None };
        let built = std::thread::scope(|scope| {
            scope.spawn(|| {
                while reads.load(Ordering::Relaxed) < reads_before {
                    std::thread::yield_now();
                }
                promise.keep(values);
            });
            let means = Means { parent: Some(late), ..Means::threads(threads) };
            build_with(&input, &state, means).unwrap()
        });
        assert_eq!(built.block, expected, "{threads} threads");
    }
}

#[test]
fn executor_with_a_late_parent_gives_the_same_outcomes() {
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let parent = chain.state.clone();
    let block = chain.build(&block_around(from(user(50), call(0, KEEPER, 0))));
    let input = BlockInput {
        spec: &chain.spec,
        header: &block.header,
        transactions: &block.transactions,
        ommers: &[],
        withdrawals: &[],
    };
    let indices: Vec<usize> = (10..30).collect();
    let expected = execute_share(&input, &parent, &indices).unwrap();
    let header = alloy_consensus::Header { parent_hash: B256::ZERO, ..block.header.clone() };
    let late_input = BlockInput { header: &header, ..input };
    let values = LateValues { parent_hash: block.header.parent_hash, prev_randao: None };
    let outcomes = with_late(values, |late| {
        let means = Means { parent: Some(late), ..Means::default() };
        execute_share_with(&late_input, &parent, &indices, means).unwrap()
    });
    assert_eq!(encode_outcomes(&outcomes), encode_outcomes(&expected));
}

#[test]
fn broken_promise_is_an_error() {
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let txs = block_around(from(user(50), call(0, KEEPER, 0)));
    let attributes = chain.attributes();
    let input = BuildInput {
        spec: &chain.spec,
        parent: &chain.head,
        attributes: &attributes,
        candidates: &txs,
    };
    for threads in [1, 2] {
        let (promise, late) = LateParent::new();
        drop(promise);
        let means = Means { parent: Some(late), ..Means::threads(threads) };
        let error = build_with(&input, &chain.state, means).unwrap_err();
        assert_eq!(error.to_string(), "the hash of the parent block is not known");
    }
}

#[test]
fn what_executors_saw_of_the_parent_state_is_not_read_again() {
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let reads = AtomicUsize::new(0);
    let tell = |address, slot: Option<U256>| {
        if address == COUNTER && slot.is_some() {
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let state = Told { state: chain.state.clone(), tell };
    let block = chain.build(&block_around(from(user(50), call(0, KEEPER, 0))));
    let input = BlockInput {
        spec: &chain.spec,
        header: &block.header,
        transactions: &block.transactions,
        ommers: &[],
        withdrawals: &[],
    };
    let mut seeds = Vec::new();
    for share in [0..15, 15..40] {
        let share: Vec<usize> = share.collect();
        seeds.extend(execute_share(&input, &state.state, &share).unwrap());
    }
    for (basis, read) in [(Basis::Parent, 0), (Basis::Unknown, 39)] {
        reads.store(0, Ordering::Relaxed);
        let means = Means { seeds: seeds.clone(), basis, ..Means::threads(2) };
        let result = execute_with(&input, &state, means).unwrap();
        assert_eq!((result.block.diff, result.seeds_kept), (block.diff.clone(), 40), "{basis:?}");
        assert_eq!(reads.load(Ordering::Relaxed), read, "{basis:?}");
    }
}
