//! Once faults stop, the chain grows, all nodes come to the same head, every client is answered, and
//! every nonce that was submitted is used.

use super::{Fact, Invariant};

#[derive(Debug)]
pub(super) struct Progress;

impl Invariant for Progress {
    fn name(&self) -> &'static str {
        "progress"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::End(end) = fact else { return Ok(()) };
        if end.unanswered > 0 {
            return Err(format!("{} transactions are not settled", end.unanswered));
        }
        for (node, chain) in end.nodes.iter().enumerate() {
            let (head, first) = (chain.head(), end.nodes[0].head());
            if head != first {
                return Err(format!(
                    "node {node} is at {}, node 0 at {}",
                    head.number, first.number
                ));
            }
            if head.number <= end.height_at_peace {
                return Err(format!("no block after {}", end.height_at_peace));
            }
            for (sender, planned) in &end.planned {
                let nonce = chain.state.accounts.get(sender).map_or(0, |account| account.nonce);
                if nonce != *planned {
                    return Err(format!("{sender} has used nonces to {nonce}, not {planned}"));
                }
            }
            if chain.pool.status() != (0, 0) {
                return Err(format!("node {node}: the pool still has {:?}", chain.pool.status()));
            }
        }
        Ok(())
    }
}
