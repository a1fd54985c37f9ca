//! Units of work: what an executor runs for a leader, how it decides whether it may, and what it answers.
//!
//! A unit names all that its result depends on: the cluster, who leads in which term, the height and the
//! parent, the epoch of the partition map, the share of the block and the attempt. An executor refuses
//! what does not fit its own state; a leader counts an answer only if it repeats the unit's name.
//!
//! A block that a consensus client names may be shared out by any member that is asked about it, leader or
//! not: its header and its transactions are in the unit, so leadership and pool have no say in what comes out.

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes};
use blockraft_primitives::{AdmissionId, NodeId, PartitionSet, Transaction};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What fences a unit off from all that it could be mistaken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    /// The cluster.
    pub cluster: B256,
    /// The term of the leader that ordered it; 0 for a part of a given block.
    pub term: u64,
    /// That leader, or who was given the block.
    pub leader: NodeId,
    /// Height of the block.
    pub height: u64,
    /// Hash of the block before it.
    pub parent: B256,
    /// Of the partition map that the work was placed by.
    pub epoch: u64,
}

/// Names a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnitId {
    /// Where it belongs.
    pub fence: Fence,
    /// Which gathering of this leader's process: a block may be built twice on one parent.
    pub gather: u64,
    /// Which part of the block.
    pub share: u32,
    /// 1, or 2 for the one repetition.
    pub attempt: u32,
}

/// A part of a block to be run on the state of the block's parent.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Its name, for the answer to repeat.
    pub id: UnitId,
    /// What to run.
    pub work: UnitWork,
}

/// What a unit has run.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitWork {
    /// A part of a block that a leader makes.
    Pooled(PooledWork),
    /// A part of a block that came from elsewhere.
    Given(GivenWork),
}

impl UnitWork {
    /// How many transactions there are to run.
    pub fn transaction_count(&self) -> usize {
        match self {
            Self::Pooled(work) => work.transactions.len(),
            Self::Given(work) => work.transactions.len(),
        }
    }

    /// Index of a log entry that must have been applied before.
    fn pool_index(&self) -> u64 {
        match self {
            Self::Pooled(work) => work.pool_index,
            Self::Given(_) => 0,
        }
    }
}

/// Transactions of a given block.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenWork {
    /// The block's, as far as transactions can see it.
    pub header: Arc<Header>,
    /// In block order.
    pub transactions: Vec<Transaction>,
}

/// Transactions of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PooledWork {
    /// The block's, seconds since 1970.
    pub timestamp: u64,
    /// The block's.
    pub fee_recipient: Address,
    /// The block's.
    pub gas_limit: u64,
    /// Index of a log entry after which the pool holds the transactions.
    pub pool_index: u64,
    /// In block order; bytes and senders are in every member's pool.
    pub transactions: Vec<AdmissionId>,
}

/// What came of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitAnswer {
    /// The unit's name.
    pub echo: UnitId,
    /// Who ran it.
    pub executor: NodeId,
    /// How long that took, microseconds, waiting not counted.
    pub run_us: u64,
    /// The outcomes by place in the unit, as the execution crate encodes them.
    pub outcomes: Bytes,
}

/// A unit that was not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRefused {
    /// The unit's name.
    pub echo: UnitId,
    /// Who refused it.
    pub executor: NodeId,
    /// Why.
    pub refusal: UnitRefusal,
}

/// Subtries to be hashed after a block that has run, on the state of the block's parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootUnit {
    /// Its name, for the answer to repeat.
    pub id: UnitId,
    /// What is to be hashed.
    pub partitions: PartitionSet,
    /// What the block changes there, as the primitives crate encodes a diff.
    pub changes: Bytes,
}

/// What came of a unit of hashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootAnswer {
    /// The unit's name.
    pub echo: UnitId,
    /// Who hashed.
    pub owner: NodeId,
    /// How long that took, microseconds, waiting not counted.
    pub run_us: u64,
    /// The subtries' roots in the order of the partitions, as the trie crate encodes them.
    pub roots: Bytes,
}

/// Why an executor does not run a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UnitRefusal {
    /// For another cluster.
    #[error("cluster id {expected} expected")]
    Cluster {
        /// The executor's own.
        expected: B256,
    },
    /// Of a leader whose time is over.
    #[error("term {known} has begun")]
    Term {
        /// A later term.
        known: u64,
    },
    /// Somebody else leads in that term.
    #[error("node {known} leads in that term")]
    Leader {
        /// Who does.
        known: NodeId,
    },
    /// Placed by a map that was replaced.
    #[error("epoch {known} of the partition map is in force")]
    Epoch {
        /// The newer one.
        known: u64,
    },
    /// The parent, or the pool that the block was cut from, did not get here in time.
    #[error("no further than block {height} and log entry {applied}")]
    Lagging {
        /// The executor's head.
        height: u64,
        /// The last log entry that it applied.
        applied: u64,
    },
    /// The block has been decided already.
    #[error("at block {height} already")]
    Passed {
        /// The executor's head.
        height: u64,
    },
    /// Another block stands in the parent's place.
    #[error("the block before is {got}")]
    Parent {
        /// What stands there.
        got: B256,
    },
    /// The pool does not hold a transaction.
    #[error("transaction {id} is not in the pool")]
    Transaction {
        /// The first such.
        id: AdmissionId,
    },
    /// Too many units wait already, or this one is too long.
    #[error("busy")]
    Busy,
    /// The state could not be read.
    #[error("failed")]
    Failed,
}

impl UnitRefusal {
    /// The reason in one word, for metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "cluster",
            Self::Term { .. } => "term",
            Self::Leader { .. } => "leader",
            Self::Epoch { .. } => "epoch",
            Self::Lagging { .. } => "lagging",
            Self::Passed { .. } => "passed",
            Self::Parent { .. } => "parent",
            Self::Transaction { .. } => "transaction",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// Where an executor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its cluster.
    pub cluster: B256,
    /// The latest term that it knows.
    pub term: u64,
    /// Who leads in it, if that is known.
    pub leader: Option<NodeId>,
    /// Height of the last block that it applied.
    pub height: u64,
    /// Hash of that block.
    pub head: B256,
    /// The last log entry that it applied.
    pub applied: u64,
}

/// What is to be done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admittance {
    /// Run it on the state of the block's parent.
    Run,
    /// Look again when more has been applied; without end that is [`Standing::lagging`].
    Wait,
    /// Never.
    Refuse(UnitRefusal),
}

/// The newest leadership that an executor has worked for.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    newest: Option<(u64, NodeId, u64)>,
}

impl Gate {
    /// Whether a unit may run where the executor stands. What it names and is newer than what was known is
    /// remembered: nothing older is let in afterwards. Of a given block, which any member may ask about, only
    /// cluster and parent must be this executor's; the parent may lie below its head.
    pub fn check(&mut self, unit: &Unit, standing: &Standing) -> Admittance {
        if let UnitWork::Given(_) = unit.work {
            return given(&unit.id.fence, standing);
        }
        self.check_fence(&unit.id.fence, unit.work.pool_index(), standing)
    }

    /// The same for a unit of hashing, by a gate of its own: its maps are counted apart.
    pub fn check_root(&mut self, unit: &RootUnit, standing: &Standing) -> Admittance {
        self.check_fence(&unit.id.fence, 0, standing)
    }

    fn check_fence(&mut self, fence: &Fence, pool_index: u64, standing: &Standing) -> Admittance {
        match self.refusal(fence, standing) {
            Some(refusal) => return Admittance::Refuse(refusal),
            None => self.remember(fence),
        }
        let Fence { height, parent, .. } = *fence;
        if standing.height >= height {
            return Admittance::Refuse(UnitRefusal::Passed { height: standing.height });
        }
        if standing.height + 1 < height {
            return Admittance::Wait;
        }
        if standing.head != parent {
            return Admittance::Refuse(UnitRefusal::Parent { got: standing.head });
        }
        if standing.applied < pool_index { Admittance::Wait } else { Admittance::Run }
    }

    fn refusal(&self, fence: &Fence, standing: &Standing) -> Option<UnitRefusal> {
        if fence.cluster != standing.cluster {
            return Some(UnitRefusal::Cluster { expected: standing.cluster });
        }
        let (term, leader, epoch) = self.newest.unwrap_or_default();
        let known = term.max(standing.term);
        if fence.term < known {
            return Some(UnitRefusal::Term { known });
        }
        let seen = (fence.term == term).then_some(leader);
        let told = standing.leader.filter(|_| fence.term == standing.term);
        if let Some(known) = seen.or(told).filter(|known| *known != fence.leader) {
            return Some(UnitRefusal::Leader { known });
        }
        (fence.term == term && fence.epoch < epoch).then_some(UnitRefusal::Epoch { known: epoch })
    }

    fn remember(&mut self, fence: &Fence) {
        self.newest = Some((fence.term, fence.leader, fence.epoch));
    }
}

fn given(fence: &Fence, standing: &Standing) -> Admittance {
    if fence.cluster != standing.cluster {
        return Admittance::Refuse(UnitRefusal::Cluster { expected: standing.cluster });
    }
    if standing.height + 1 < fence.height { Admittance::Wait } else { Admittance::Run }
}

impl Standing {
    /// What to answer when waiting has been no use.
    pub const fn lagging(&self) -> UnitRefusal {
        UnitRefusal::Lagging { height: self.height, applied: self.applied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: B256 = B256::repeat_byte(1);
    const PARENT: B256 = B256::repeat_byte(9);

    fn standing() -> Standing {
        Standing { cluster: OURS, term: 5, leader: Some(1), height: 9, head: PARENT, applied: 40 }
    }

    fn unit(change: impl FnOnce(&mut Unit)) -> Unit {
        let fence =
            Fence { cluster: OURS, term: 5, leader: 1, height: 10, parent: PARENT, epoch: 3 };
        let mut unit = Unit {
            id: UnitId { fence, gather: 0, share: 0, attempt: 1 },
            work: UnitWork::Pooled(PooledWork {
                timestamp: 7,
                fee_recipient: Address::ZERO,
                gas_limit: 30_000_000,
                pool_index: 40,
                transactions: vec![AdmissionId(3)],
            }),
        };
        change(&mut unit);
        unit
    }

    fn pool_index(unit: &mut Unit) -> &mut u64 {
        match &mut unit.work {
            UnitWork::Pooled(work) => &mut work.pool_index,
            UnitWork::Given(_) => panic!("not of the pool"),
        }
    }

    #[test]
    fn each_mismatch_has_its_answer() {
        use Admittance::{Refuse, Run, Wait};
        type Change = fn(&mut Unit);
        let rows: [(Change, Admittance); 10] = [
            (|_| {}, Run),
            (|u| u.id.fence.cluster = B256::ZERO, Refuse(UnitRefusal::Cluster { expected: OURS })),
            (|u| u.id.fence.term = 4, Refuse(UnitRefusal::Term { known: 5 })),
            (|u| u.id.fence.leader = 2, Refuse(UnitRefusal::Leader { known: 1 })),
            // Its leader was elected before this node has heard of it.
            (|u| (u.id.fence.term, u.id.fence.leader) = (6, 2), Run),
            (|u| u.id.fence.height = 11, Wait),
            (|u| u.id.fence.height = 9, Refuse(UnitRefusal::Passed { height: 9 })),
            (|u| u.id.fence.parent = OURS, Refuse(UnitRefusal::Parent { got: PARENT })),
            (|u| *pool_index(u) = 41, Wait),
            (|u| u.id.attempt = 2, Run),
        ];
        for (row, (change, expected)) in rows.into_iter().enumerate() {
            assert_eq!(Gate::default().check(&unit(change), &standing()), expected, "row {row}");
        }
    }

    #[test]
    fn nothing_older_is_let_in_after_something_newer() {
        let refused = Admittance::Refuse;
        let mut gate = Gate::default();
        assert_eq!(gate.check(&unit(|_| {}), &standing()), Admittance::Run);
        let older_map = unit(|u| u.id.fence.epoch = 2);
        let known = UnitRefusal::Epoch { known: 3 };
        assert_eq!(gate.check(&older_map, &standing()), refused(known));
        // A new leader counts its maps from the beginning.
        let next = unit(|u| (u.id.fence.term, u.id.fence.leader, u.id.fence.epoch) = (6, 2, 1));
        assert_eq!(gate.check(&next, &standing()), Admittance::Run);
        let known = UnitRefusal::Term { known: 6 };
        assert_eq!(gate.check(&unit(|_| {}), &standing()), refused(known));
        let rival = unit(|u| (u.id.fence.term, u.id.fence.leader) = (6, 3));
        let known = UnitRefusal::Leader { known: 2 };
        assert_eq!(gate.check(&rival, &standing()), refused(known));
    }

    #[test]
    fn a_given_block_needs_its_parent_and_no_leader() {
        use Admittance::{Refuse, Run, Wait};
        type Change = fn(&mut Fence);
        let rows: [(Change, Admittance); 6] = [
            (|_| {}, Run),
            (|f| f.cluster = B256::ZERO, Refuse(UnitRefusal::Cluster { expected: OURS })),
            (|f| (f.term, f.leader, f.epoch) = (0, 3, 0), Run),
            (|f| f.height = 11, Wait),
            // Whether it is in the chain is looked up when it runs.
            (|f| f.height = 8, Run),
            (|f| f.parent = OURS, Run),
        ];
        for (row, (change, expected)) in rows.into_iter().enumerate() {
            let header = Arc::new(Header::default());
            let work = UnitWork::Given(GivenWork { header, transactions: Vec::new() });
            let given = unit(|u| {
                u.work = work;
                change(&mut u.id.fence);
            });
            let mut gate = Gate::default();
            assert_eq!(gate.check(&given, &standing()), expected, "row {row}");
            // It teaches nothing of leaders.
            assert_eq!(gate.newest, None);
        }
    }

    #[test]
    fn a_refused_unit_teaches_nothing() {
        let mut gate = Gate::default();
        let foreign = unit(|u| (u.id.fence.cluster, u.id.fence.term) = (B256::ZERO, 99));
        assert!(matches!(gate.check(&foreign, &standing()), Admittance::Refuse(_)));
        assert_eq!(gate.check(&unit(|_| {}), &standing()), Admittance::Run);
    }
}
