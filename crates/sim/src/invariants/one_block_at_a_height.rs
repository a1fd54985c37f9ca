//! Every node has the same block at a height. The hash covers the state root, and applying a block
//! checks the root against the node's own trie, so the same hash is the same state.
//!
//! Stronger, because applying forgives it: the log never has a second block for a height that was
//! proposed by a leader in its own term. Such a leader ignored the barrier, or its first block.

use super::{Fact, Invariant};
use alloy_primitives::B256;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct OneBlockAtAHeight {
    blocks: BTreeMap<u64, B256>,
}

impl OneBlockAtAHeight {
    fn compare(&mut self, number: u64, hash: B256) -> Result<(), String> {
        let first = *self.blocks.entry(number).or_insert(hash);
        if first == hash {
            return Ok(());
        }
        Err(format!("block {number} is {first} and {hash}"))
    }
}

impl Invariant for OneBlockAtAHeight {
    fn name(&self) -> &'static str {
        "one_block_at_a_height"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        match *fact {
            Fact::BlockApplied { block } => self.compare(block.number(), block.hash()),
            Fact::At { head: (number, hash), .. } => self.compare(number, hash),
            // A block that was built before an election and proposed after it is left out by design.
            Fact::BlockLeftOut { number, hash, built_in_term, logged_in_term }
                if built_in_term == logged_in_term =>
            {
                Err(format!(
                    "a second block {number} ({hash}) was proposed in term {logged_in_term}"
                ))
            }
            _ => Ok(()),
        }
    }
}
