//! Every node has the same block at a height. The hash covers the state root, and applying a block
//! checks the root against the node's own trie, so the same hash is the same state.
//!
//! Stronger, because applying forgives it: of the blocks that a leader proposes in its own term, the log
//! never has two on one parent (such a leader ignored the barrier, or its first block), and none before
//! its parent. What stands on a block that the log has refused is left out, and that is all right.

use super::{Fact, Invariant};
use alloy_primitives::B256;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct OneBlockAtAHeight {
    blocks: BTreeMap<u64, B256>,
    /// What blocks stand on that were left out before their parent came.
    missing: BTreeSet<B256>,
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
            Fact::BlockApplied { block } if self.missing.contains(&block.hash()) => {
                let (number, hash) = (block.number(), block.hash());
                Err(format!("a block was proposed before block {number} ({hash}), its parent"))
            }
            Fact::BlockApplied { block } => self.compare(block.number(), block.hash()),
            Fact::At { head: (number, hash), .. } => self.compare(number, hash),
            // A block that was built before an election and proposed after it is left out by design.
            Fact::BlockLeftOut { number, hash, parent, built_in_term, logged_in_term }
                if built_in_term == logged_in_term =>
            {
                if number.checked_sub(1).and_then(|n| self.blocks.get(&n)) != Some(&parent) {
                    self.missing.insert(parent);
                    return Ok(());
                }
                Err(format!(
                    "a second block {number} ({hash}) was proposed in term {logged_in_term}"
                ))
            }
            _ => Ok(()),
        }
    }
}
