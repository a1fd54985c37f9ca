//! Who runs which transactions of a block, and whether sharing them out pays at all.
//!
//! Placement only: a wrong guess costs time, never correctness, because every outcome is validated in block
//! order. [`Predictor`] guesses what a transaction costs and writes, from what earlier ones of its kind did;
//! [`Planner::plan`] keeps together what will likely meet, packs the groups largest first, and compares the
//! result with running the block alone.
//!
//! **Terms**: a transaction's *anchor* is the contract that it calls, or its sender where it calls none;
//! its *kind* is callee and selector; a *spot* is a place in the state that it is predicted to write; a
//! *lane* is a member that may be given work, the leader included.

mod place;
mod predict;

pub use predict::{Footprint, Kind, Predictor, WriteLocation};

use crate::partition::{PARTITION_COUNT, PartitionId, PartitionMap};
use alloy_consensus::Transaction as _;
use alloy_primitives::Address;
use blockraft_primitives::{NodeId, Transaction};
use place::{Item, place, stale_cost};

/// Below this much predicted work a block is not worth a message, nanoseconds.
const WORK_NS_MIN: u64 = 1_000_000;
/// What the leader does for a transaction that another member ran: reading and validating its outcome.
const SEED_NS: u64 = 1_500;
/// What the leader does for every transaction besides running it (admission, log, trie): the others help
/// only with the rest.
const LEADER_NS: u64 = 6_000;
/// A distributed block must promise at least this part of the time saved, percent.
const GAIN_PERCENT_MIN: u64 = 10;
/// How much later than the least loaded lane the owner of an anchor may end and still be given the work,
/// percent of a fair share.
const OWNER_SLACK_PERCENT: u64 = 25;
/// How many of the blocks' costs a partition remembers: each block takes one part of this away.
const COST_MEMORY: u64 = 16;

/// A member as the plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Who.
    pub node: NodeId,
    /// Time that it takes, against the leader's; 1000 is the same.
    pub slowness_permille: u64,
    /// What giving it anything costs: the way there and back, nanoseconds.
    pub overhead_ns: u64,
}

/// A member's part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub node: NodeId,
    /// Ascending places in the block.
    pub indices: Vec<usize>,
    /// What running it would take the leader, nanoseconds.
    pub cost_ns: u64,
}

/// Whether blocks are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Never.
    Off,
    /// Where that promises to pay.
    #[default]
    Auto,
    /// Wherever there is somebody to help: for tests and measurements.
    Always,
}

/// Why the leader runs a block by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocalReason {
    /// It is switched off.
    Off,
    /// There is nobody to help, or nobody quick enough.
    Alone,
    /// Too little work.
    Light,
    /// The parts would be in each other's way, or the way to the others is too long.
    NoGain,
    /// This node does not lead in the term that the block is built in.
    Deposed,
}

impl LocalReason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Off, Self::Alone, Self::Light, Self::NoGain, Self::Deposed];

    /// In one word, for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Alone => "alone",
            Self::Light => "light",
            Self::NoGain => "no_gain",
            Self::Deposed => "deposed",
        }
    }
}

/// What is to be done with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The leader runs it.
    Local(LocalReason),
    /// Shares of others and the leader's own, each in the order of its lane; none is empty.
    Shares(Vec<Share>),
}

/// Where a contract call or a transfer happens.
pub fn anchor(tx: &Transaction) -> Address {
    match tx.to() {
        Some(to) if !tx.input().is_empty() => to,
        Some(_) | None => tx.signer(),
    }
}

/// Plans blocks and learns from them.
#[derive(Clone, Debug)]
pub struct Planner {
    predictor: Predictor,
    /// What was run in each partition lately, nanoseconds.
    partition_costs: Vec<u64>,
}

impl Default for Planner {
    fn default() -> Self {
        Self { predictor: Predictor::default(), partition_costs: vec![0; PARTITION_COUNT] }
    }
}

impl Planner {
    /// Plans a block. `lanes` begins with the leader's own, `threads` are those that it runs a block on
    /// when it runs it alone.
    pub fn plan(
        &self,
        transactions: &[Transaction],
        map: &PartitionMap,
        lanes: &[Lane],
        (distribution, threads): (Distribution, usize),
    ) -> Plan {
        if lanes.len() < 2 {
            return Plan::Local(LocalReason::Alone);
        }
        let costs: Vec<u64> = transactions.iter().map(|tx| self.predictor.cost_ns(tx)).collect();
        let work: u64 = costs.iter().sum();
        let adaptive = distribution != Distribution::Always;
        if transactions.is_empty() || adaptive && work < WORK_NS_MIN {
            return Plan::Local(LocalReason::Light);
        }
        let count = transactions.len() as u64;
        let threads = threads.max(1) as u64;
        let alone = work / threads + count * LEADER_NS;
        let bound = alone * (100 - GAIN_PERCENT_MIN);
        let saved: u64 = costs.iter().map(|cost| (cost / threads).saturating_sub(SEED_NS)).sum();
        if adaptive && (alone - saved) * 100 > bound {
            return Plan::Local(LocalReason::NoGain);
        }
        let items: Vec<Item> = transactions
            .iter()
            .zip(&costs)
            .map(|(tx, cost_ns)| Item {
                cost_ns: *cost_ns,
                spots: self.predictor.spots(tx),
                owner: map.owner(PartitionId::of(anchor(tx))),
            })
            .collect();
        let placement = if adaptive {
            place(&items, lanes, count * LEADER_NS)
        } else {
            let free: Vec<Lane> =
                lanes.iter().map(|lane| Lane { overhead_ns: 0, ..*lane }).collect();
            place(&items, &free, 0)
        };
        let stale = stale_cost(&items, &placement.lane_of);
        let seeds = placement.lane_of.iter().filter(|lane| **lane > 0).count() as u64;
        let shared = placement.finish_ns.max(placement.leader_ns + seeds * SEED_NS + stale);
        if adaptive && shared * 100 > bound {
            return Plan::Local(LocalReason::NoGain);
        }
        Plan::Shares(shares_of(&costs, &placement.lane_of, lanes))
    }

    /// What a transaction is thought to cost, nanoseconds.
    pub fn cost_ns(&self, tx: &Transaction) -> u64 {
        self.predictor.cost_ns(tx)
    }

    /// A transaction was run, and this is what it used and wrote; the writes are `None` if nobody looked.
    pub fn learn(&mut self, tx: &Transaction, gas_used: u64, footprint: Option<&Footprint>) {
        self.predictor.learn(tx, gas_used, footprint);
    }

    /// The leader itself took `actual_ns` of one thread for these.
    pub fn calibrate<'a>(
        &mut self,
        transactions: impl Iterator<Item = &'a Transaction> + Clone,
        actual_ns: u64,
    ) {
        self.predictor.calibrate(transactions, actual_ns);
    }

    /// Notes where a block's work was.
    pub fn charge(&mut self, transactions: &[Transaction]) {
        for cost in &mut self.partition_costs {
            *cost -= *cost / COST_MEMORY;
        }
        for tx in transactions {
            let partition = usize::from(PartitionId::of(anchor(tx)).0);
            self.partition_costs[partition] += self.predictor.cost_ns(tx);
        }
    }

    /// Work by partition.
    pub fn partition_costs(&self) -> &[u64] {
        &self.partition_costs
    }
}

fn shares_of(costs: &[u64], lane_of: &[usize], lanes: &[Lane]) -> Vec<Share> {
    let empty = |lane: &Lane| Share { node: lane.node, indices: Vec::new(), cost_ns: 0 };
    let mut shares: Vec<Share> = lanes.iter().map(empty).collect();
    for (index, lane) in lane_of.iter().enumerate() {
        shares[*lane].indices.push(index);
        shares[*lane].cost_ns += costs[index];
    }
    shares.retain(|share| !share.indices.is_empty());
    shares
}

#[cfg(test)]
mod tests;
