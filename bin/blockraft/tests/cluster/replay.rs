//! A stopped node's chain, run once more: serially, from nothing but its genesis and its transactions.

use blockraft_execution::execute_block;
use blockraft_primitives::MemoryState;
use blockraft_storage::Store;
use blockraft_trie::StateTrie;
use std::{path::Path, time::Duration};

/// What was run.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) height: u64,
    pub(crate) transactions: u64,
}

/// Runs every block and asserts that it gives the header's root, receipts and gas.
pub(crate) fn serially(datadir: &Path) -> Replayed {
    let store = open(datadir);
    let genesis = store.genesis();
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    state.apply(&genesis.state());
    state.block_hashes.insert(0, genesis.hash());
    trie.update(&genesis.state());
    assert_eq!(trie.root(), genesis.header.state_root);
    let mut replayed = Replayed { height: 0, transactions: 0 };
    for number in 1..=store.head().number {
        let block = store.block(number).unwrap().expect("every height has a block");
        let header = &block.header;
        let withdrawals: &[_] = block.withdrawals.as_deref().map_or(&[], Vec::as_slice);
        let executed =
            execute_block(&genesis.spec, &state, header, &block.transactions, &[], withdrawals)
                .unwrap_or_else(|error| panic!("block {number}: {error}"));
        assert_eq!(executed.receipts, block.receipts, "receipts of block {number}");
        assert_eq!(executed.gas_used, header.gas_used, "gas of block {number}");
        trie.push(&executed.diff).unwrap();
        assert_eq!(trie.root(), header.state_root, "state root of block {number}");
        state.apply(&executed.diff);
        state.block_hashes.insert(number, header.hash());
        replayed.height = number;
        replayed.transactions += block.transactions.len() as u64;
    }
    replayed
}

/// The process that was stopped may hold the directory a little longer.
fn open(datadir: &Path) -> Store {
    for _ in 0..200 {
        match Store::open(datadir) {
            Err(blockraft_storage::StorageError::Locked { .. }) => {
                std::thread::sleep(Duration::from_millis(50));
            }
            opened => return opened.expect("a store"),
        }
    }
    panic!("{} stays locked", datadir.display());
}
