//! The public blockchain tests through `execute_block`, with a state root from scratch after each block.
//! Only valid blocks are run: what makes the others invalid is mostly the header, which is not looked at
//! here.

use crate::{
    chain::state_root,
    engine_tests,
    fixtures::{BlockchainTest, tests_of},
};
use blockraft_execution::{
    Basis, BlockInput, ExecutedBlock, Means, execute, execute_block, execute_with,
};
use blockraft_primitives::{AccountChange, MemoryState, StateDiff, StateReader};
use rand::{SeedableRng, rngs::SmallRng};
use rayon::iter::{ParallelBridge, ParallelIterator};
use std::collections::BTreeMap;

/// EIP-7610: creation at an address that has storage, but neither code nor nonce, must fail. Such an
/// account cannot come about on a chain, and neither revm nor [`StateReader`] can tell that it has
/// storage.
const EXCUSED: [&str; 3] = [
    "eip7610_create_collision",
    "create2collisionStorageParis",
    "dynamicAccountOverwriteEmpty_Paris",
];

/// A second opinion on a block that the oracle has run.
type Engine = fn(&BlockInput<'_>, &MemoryState, &ExecutedBlock) -> Result<(), String>;

/// Runs a test's valid blocks, each on its parent; returns how many there were.
fn run(test: &BlockchainTest, engine: Engine) -> Result<usize, String> {
    let spec = test.spec();
    let genesis = test.state();
    assert_eq!(state_root(&genesis), test.genesis_block_header.state_root, "genesis state");
    let mut states = BTreeMap::from([(test.genesis_block_header.hash, genesis)]);
    let mut count = 0;
    for block in test.blocks.iter().filter(|block| block.expect_exception.is_none()) {
        let (block, transactions) = block.decode().ok_or("block does not decode")?;
        let header = &block.header;
        let parent = states.get(&header.parent_hash).ok_or("parent unknown")?;
        let withdrawals = block.body.withdrawals.unwrap_or_default();
        let executed =
            execute_block(&spec, parent, header, &transactions, &block.body.ommers, &withdrawals)
                .map_err(|error| format!("block {}: {error}", header.number))?;
        check_net(parent, &executed.diff);
        let input = BlockInput {
            spec: &spec,
            header,
            transactions: &transactions,
            ommers: &block.body.ommers,
            withdrawals: &withdrawals,
        };
        engine(&input, parent, &executed)?;
        let mut state = parent.clone();
        state.apply(&executed.diff);
        let root = state_root(&state);
        if root != header.state_root {
            return Err(format!("block {}: state root {root}", header.number));
        }
        let hash = header.hash_slow();
        state.block_hashes.insert(header.number, hash);
        states.insert(hash, state);
        count += 1;
    }
    Ok(count)
}

/// A diff is sorted and names nothing that did not change.
fn check_net(parent: &MemoryState, diff: &StateDiff) {
    diff.assert_sorted();
    for account in &diff.accounts {
        let before = parent.accounts.get(&account.address).copied();
        match account.change {
            AccountChange::Unchanged => {
                assert!(account.storage_wiped || !account.storage.is_empty(), "{account:?}");
            }
            AccountChange::Deleted => assert!(before.is_some(), "{account:?}"),
            AccountChange::Set(now) => assert_ne!(before, Some(now), "{account:?}"),
        }
        for change in &account.storage {
            let before = parent.storage(account.address, change.slot).unwrap();
            assert!(account.storage_wiped || before != change.value, "{account:?} {change:?}");
        }
    }
}

fn check(pack: &str, at_least: usize, engine: Engine) {
    let Some(tests) = tests_of(pack) else { return };
    let results: Vec<(String, Result<usize, String>)> = tests
        .filter(|(name, _)| !EXCUSED.iter().any(|excused| name.contains(excused)))
        .par_bridge()
        .map(|(name, test)| {
            let result = std::panic::catch_unwind(|| run(&test, engine));
            (name, result.unwrap_or_else(|_| Err("panic".to_owned())))
        })
        .collect();
    let blocks: usize = results.iter().filter_map(|(_, result)| result.as_ref().ok()).sum();
    let failures: Vec<_> =
        results.iter().filter_map(|(name, r)| Some((name, r.as_ref().err()?))).collect();
    println!("{pack}: {} tests, {blocks} valid blocks, {} failed", results.len(), failures.len());
    assert!(failures.is_empty(), "{:#?}", &failures[..failures.len().min(20)]);
    assert!(blocks >= at_least, "only {blocks} blocks were run");
}

#[test]
fn conflict_blocks_give_their_state_roots() {
    check("conflict-blocks.tar.zst", 47, |input, parent, expected| {
        engine_tests::check(&mut SmallRng::seed_from_u64(1), input, parent);
        for (executors, threads) in [(1, 1), (1, 2), (1, 4), (4, 1), (4, 2), (4, 4)] {
            let seeds = engine_tests::dealt(input, parent, executors);
            for basis in [Basis::Unknown, Basis::Parent] {
                let seeds = seeds.clone();
                let means = Means { seeds, basis, ..Means::threads(threads) };
                let result = execute_with(input, parent, means).map_err(|e| e.to_string())?;
                if result.block != *expected {
                    let means = format!("{executors} executors, {basis:?}, {threads} threads");
                    return Err(format!("{means}: engine differs"));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn execution_spec_tests_give_their_state_roots() {
    check("eest-blockchain.tar.zst", 16_000, |input, parent, expected| {
        let result = execute(input, parent, Vec::new(), 2).map_err(|e| e.to_string())?;
        if result.block == *expected { Ok(()) } else { Err("engine differs".to_owned()) }
    });
}
