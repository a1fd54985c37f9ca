//! What must hold in every run, one file a property. Each sees the facts of a run in their order and
//! complains about the first that contradicts it.

use crate::chain::Chain;
use alloy_primitives::B256;
use blockraft_primitives::{ClusterGenesis, NodeId, SealedBlock};
use blockraft_protocol::Pool;
use std::sync::Arc;

mod no_acked_tx_lost;
mod nonces_contiguous;
mod one_block_at_a_height;
mod one_leader_per_term;
mod pools_equal;
mod progress;
mod serial_equivalence;

pub(crate) use pools_equal::Fingerprint;

/// Something that happened and that a property may depend on.
#[derive(Debug)]
pub(crate) enum Fact<'a> {
    Elected {
        node: NodeId,
        term: u64,
    },
    /// A client was told that its transaction is taken on.
    Acked {
        hash: B256,
    },
    /// A client was told that its transaction cannot be taken on.
    Refused {
        hash: B256,
        error: String,
    },
    /// A node's state machine stands at this log index, by an entry, a restart or a snapshot.
    At {
        node: NodeId,
        index: u64,
        pool: Fingerprint,
        head: (u64, B256),
    },
    /// A transaction left the pool because a newer one has its nonce.
    Replaced {
        hash: B256,
    },
    /// A block has taken the transaction out of the pool on the record.
    Dropped {
        hash: B256,
    },
    BlockApplied {
        block: &'a Arc<SealedBlock>,
    },
    /// A committed block was left out because it does not build on the head.
    BlockLeftOut {
        number: u64,
        hash: B256,
        parent: B256,
        built_in_term: u64,
        logged_in_term: u64,
    },
    /// The run is over: faults had stopped and every client was content, or the time was up.
    End(&'a End<'a>),
}

/// A cluster at rest.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) genesis: &'a ClusterGenesis,
    pub(crate) nodes: Vec<&'a Chain>,
    /// Height when the faults stopped.
    pub(crate) height_at_peace: u64,
    /// Clients that still try.
    pub(crate) unanswered: usize,
    /// Nonces that each sender has used up.
    pub(crate) planned: Vec<(alloy_primitives::Address, u64)>,
}

/// A property of every run.
pub(crate) trait Invariant: std::fmt::Debug {
    fn name(&self) -> &'static str;
    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String>;
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Invariants(Vec<Box<dyn Invariant>>);

impl Invariants {
    pub(crate) fn new() -> Self {
        Self(vec![
            Box::new(one_leader_per_term::OneLeaderPerTerm::default()),
            Box::new(one_block_at_a_height::OneBlockAtAHeight::default()),
            Box::new(nonces_contiguous::NoncesContiguous::default()),
            Box::new(pools_equal::PoolsEqual::default()),
            Box::new(no_acked_tx_lost::NoAckedTxLost::default()),
            Box::new(serial_equivalence::SerialEquivalence),
            Box::new(progress::Progress),
        ])
    }

    /// The name of the first invariant that the fact contradicts, and how.
    pub(crate) fn see(&mut self, fact: &Fact<'_>) -> Result<(), (&'static str, String)> {
        for invariant in &mut self.0 {
            invariant.see(fact).map_err(|problem| (invariant.name(), problem))?;
        }
        Ok(())
    }
}

/// Whether every node's pool holds the transaction.
fn in_every_pool(nodes: &[&Chain], hash: &B256) -> bool {
    let holds = |pool: &Pool| pool.by_hash(hash).is_some();
    nodes.iter().all(|node| holds(&node.pool))
}
