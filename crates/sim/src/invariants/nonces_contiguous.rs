//! In the chain, each sender's nonces count up from zero without a gap or a repetition.

use super::{Fact, Invariant};
use alloy_consensus::Transaction as _;
use alloy_primitives::Address;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct NoncesContiguous {
    height: u64,
    next: BTreeMap<Address, u64>,
}

impl Invariant for NoncesContiguous {
    fn name(&self) -> &'static str {
        "nonces_contiguous"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::BlockApplied { block } = fact else { return Ok(()) };
        if block.number() <= self.height {
            return Ok(());
        }
        if block.number() != self.height + 1 {
            return Err(format!("block {} after {}", block.number(), self.height));
        }
        self.height = block.number();
        for tx in &block.transactions {
            let next = self.next.entry(tx.signer()).or_default();
            if tx.nonce() != *next {
                let (number, sender, nonce) = (block.number(), tx.signer(), tx.nonce());
                return Err(format!("block {number}: {sender} has nonce {nonce}, expected {next}"));
            }
            *next += 1;
        }
        Ok(())
    }
}
