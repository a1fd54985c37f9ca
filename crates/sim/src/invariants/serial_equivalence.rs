//! The final chain, executed serially from genesis, gives every receipt and every state root that its
//! blocks carry, and the state that every node ended with.

use super::{End, Fact, Invariant};
use blockraft_execution::execute_block;
use blockraft_primitives::MemoryState;
use blockraft_trie::StateTrie;

#[derive(Debug)]
pub(super) struct SerialEquivalence;

impl Invariant for SerialEquivalence {
    fn name(&self) -> &'static str {
        "serial_equivalence"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::End(end) = fact else { return Ok(()) };
        let state = replay(end)?;
        for (node, chain) in end.nodes.iter().enumerate() {
            if chain.state != state {
                return Err(format!("node {node}: the state is not that of serial execution"));
            }
        }
        Ok(())
    }
}

fn replay(end: &End<'_>) -> Result<MemoryState, String> {
    let mut state = MemoryState::default();
    let mut trie = StateTrie::new();
    let allocation = end.genesis.state();
    state.apply(&allocation);
    state.block_hashes.insert(0, end.genesis.hash());
    trie.update(&allocation);
    for block in end.nodes.first().into_iter().flat_map(|node| &node.blocks) {
        let number = block.number();
        let executed =
            execute_block(&end.genesis.spec, &state, &block.header, &block.transactions, &[], &[])
                .map_err(|error| format!("block {number}: {error}"))?;
        if executed.receipts != block.receipts {
            return Err(format!("block {number}: receipts differ"));
        }
        state.apply(&executed.diff);
        state.block_hashes.insert(number, block.hash());
        trie.update(&executed.diff);
        trie.check_root(block.header.state_root).map_err(|e| format!("block {number}: {e}"))?;
    }
    Ok(state)
}
