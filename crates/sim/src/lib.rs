//! Whole clusters in one thread, from one seed (DESIGN sections 7 and 9).
//!
//! **Door**: [`run`] plays one seed and answers what came of it. The real pure crates run: the protocol's
//! `Leader` and `Pool`, block building and serial execution, the state trie, and the encodings of log
//! entries, pool records and messages. Raft, disks, network, clocks and clients are simulated; the shell
//! between (`node.rs`, `producer.rs`, `gateway.rs`, `chain.rs`) mirrors the `node` crate, as small as can be.
//!
//! A run has two phases, as TigerBeetle's simulator has: first anything goes wrong (crashes with an
//! unsynced tail lost, restarts, partitions in both or one direction, loss, duplication and reordering,
//! pauses, clock jumps, outcomes that nobody hears of), then the faults stop, and the cluster must settle.
//!
//! **Invariants**: `src/invariants/`, one file a property. The same seed gives the same trace, bit for
//! bit. [`Mutant`]s are bugs planted into the simulated shell: a simulator that does not find them would
//! not find real ones.

mod chain;
mod faults;
mod gateway;
mod invariants;
mod network;
mod node;
mod producer;
mod raft;
mod rng;
mod trace;
mod workload;
mod world;

use world::World;

/// A bug in the simulated shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A client gets its hash when the batch is proposed, not when it is applied.
    AckBeforeCommit,
    /// A new leader builds blocks before it has applied what was committed.
    NoBarrier,
    /// A block whose fate is unknown counts as not proposed, so another is built in its place.
    SecondBlock,
    /// A block is executed on the head's state, although it stands on one that is not applied yet.
    StateOfTheHead,
    /// A block is proposed before the one that it stands on.
    ChildBeforeParent,
    /// A node starts with an empty pool.
    PoolNotRestored,
    /// Log entries count as durable before they are synced.
    TailLostAfterAck,
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The bug to plant.
    pub mutant: Option<Mutant>,
    /// Keep every line of the trace, not only the last ones.
    pub whole_trace: bool,
}

/// How much happened in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Height of the chain at the end.
    pub blocks: u64,
    /// Transactions in it.
    pub transactions: usize,
    /// Blocks that were begun on one which was not applied yet.
    pub pipelined: u64,
    /// The last Raft term.
    pub terms: u64,
    /// Simulated milliseconds.
    pub virtual_ms: u64,
}

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first invariant that was violated, and how; `None` after a good run.
    pub violation: Option<(&'static str, String)>,
    /// Of all that happened: equal for equal runs.
    pub trace_hash: u64,
    /// The trace, or its end.
    pub trace: Vec<String>,
    /// How much happened.
    pub summary: Summary,
}

/// Plays one seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = World::new(seed, options);
    world.run();
    Outcome {
        summary: world.summary(),
        violation: world.watch.violation.take(),
        trace_hash: world.watch.trace.hash,
        trace: std::mem::take(&mut world.watch.trace.lines).into(),
    }
}
