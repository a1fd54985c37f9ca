//! A transaction whose hash a client was given ends in exactly one block, or stays in every pool. The
//! exceptions are on record: replaced by its sender, its nonce used by another, or dropped by a block.
//!
//! And the same raw transaction, sent twice, anywhere, gives the same hash (DESIGN section 6): no node
//! refuses later what was acknowledged and included.

use super::{Fact, Invariant, in_every_pool};
use alloy_primitives::B256;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct NoAckedTxLost {
    acked: BTreeSet<B256>,
    refused_later: BTreeMap<B256, String>,
    excused: BTreeSet<B256>,
}

impl Invariant for NoAckedTxLost {
    fn name(&self) -> &'static str {
        "no_acked_tx_lost"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Acked { hash } => {
                self.acked.insert(*hash);
            }
            Fact::Replaced { hash } | Fact::Dropped { hash } => {
                self.excused.insert(*hash);
            }
            Fact::Refused { hash, error } if self.acked.contains(hash) => {
                self.refused_later.insert(*hash, error.clone());
            }
            Fact::End(end) => {
                let Some(chain) = end.nodes.first() else { return Ok(()) };
                let mut included = BTreeMap::<B256, u64>::new();
                for tx in chain.blocks.iter().flat_map(|block| &block.transactions) {
                    *included.entry(*tx.tx_hash()).or_default() += 1;
                }
                for hash in &self.acked {
                    match included.get(hash) {
                        Some(1) => {
                            // One that was replaced, and then included by a block that was cut
                            // before, was rightly refused in between.
                            if let Some(error) = self.refused_later.get(hash)
                                && !self.excused.contains(hash)
                            {
                                return Err(format!("{hash} was included and refused: {error}"));
                            }
                        }
                        Some(count) => return Err(format!("{hash} is in {count} blocks")),
                        None if self.excused.contains(hash) => {}
                        None if in_every_pool(&end.nodes, hash) => {}
                        None => return Err(format!("{hash} was acknowledged and is nowhere")),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
