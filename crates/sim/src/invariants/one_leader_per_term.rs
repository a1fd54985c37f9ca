//! At most one node leads in a term (Raft's election safety): the simulated Raft's own check.

use super::{Fact, Invariant};
use blockraft_primitives::NodeId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct OneLeaderPerTerm {
    leaders: BTreeMap<u64, NodeId>,
}

impl Invariant for OneLeaderPerTerm {
    fn name(&self) -> &'static str {
        "one_leader_per_term"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Elected { node, term } = *fact else { return Ok(()) };
        let first = *self.leaders.entry(term).or_insert(node);
        if first == node { Ok(()) } else { Err(format!("nodes {first} and {node} lead in {term}")) }
    }
}
