//! A stopped node's chain once more, serially, from its genesis on a state of its own.

use anyhow::{Context, ensure};
use blockraft_execution::execute_block;
use blockraft_primitives::MemoryState;
use blockraft_storage::Store;
use blockraft_trie::StateTrie;
use std::path::Path;

/// Executes every block of a data directory and holds gas used, receipts, receipts root, bloom and state root
/// against what the node has. The number of blocks. Errors name the first block and what differs.
pub(crate) fn replay(datadir: &Path) -> anyhow::Result<u64> {
    let store = Store::open(datadir).with_context(|| datadir.display().to_string())?;
    let genesis = store.genesis();
    let allocation = genesis.state();
    let mut state = MemoryState::default();
    state.apply(&allocation);
    state.block_hashes.insert(0, genesis.hash());
    let mut trie = StateTrie::new();
    trie.push(&allocation)?;
    let head = store.head().number;
    for number in 1..=head {
        let block = store.block(number)?.with_context(|| format!("block {number} is missing"))?;
        let withdrawals = block.withdrawals.as_deref().map_or(&[][..], |w| w.as_slice());
        let executed = execute_block(
            &genesis.spec,
            &state,
            &block.header,
            &block.transactions,
            &block.ommers,
            withdrawals,
        )
        .with_context(|| format!("block {number}"))?;
        ensure!(executed.receipts == block.receipts, "block {number}: receipts differ");
        trie.push(&executed.diff)?;
        let (got, expected) = (trie.root(), block.header.state_root);
        ensure!(got == expected, "block {number}: state root {got} and not {expected}");
        state.apply(&executed.diff);
        state.block_hashes.insert(number, block.hash());
    }
    Ok(head)
}
