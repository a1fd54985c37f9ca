//! The leader's side of distributed execution, as a state machine: it plans a block, sends units of work,
//! takes answers that fit, repeats a late unit once elsewhere, and ends the gathering in time whatever
//! happens. What has no outcome then, the leader runs. A block that a consensus client names is shared out
//! in the same way by whichever member was asked about it.
//!
//! # How a shell drives it
//!
//! | Command | What the shell does | Event that follows |
//! |---|---|---|
//! | `RunAlone` | builds the block without seeds | |
//! | `Send` | sends the unit | `Answered`, `Refused` or `Lost` |
//! | `RunOwn` | runs these transactions meanwhile, as an executor does | `OwnRun` |
//! | `Keep` | keeps these outcomes as seeds | |
//! | `Discard` | forgets the seeds of a share | |
//! | `Wake` | sets its one timer | `Timer` |
//! | `Close` | builds the block with the seeds that it has | |
//! | `Alarm` | tells the operator: two members disagree about one unit | |
//!
//! Afterwards it reports what the block turned out to be ([`Dispatcher::settle`]).
//!
//! What holds of a gathering stands in `gathering.rs`.

use crate::{
    gathering::{Answer, DispatchCounters, Gatherer, Micros, Place, Return, Step, Work},
    partition::PartitionMap,
    plan::{Distribution, Footprint, LocalReason, Plan, Planner},
    units::{Fence, GivenWork, PooledWork, Unit, UnitAnswer, UnitId, UnitRefused, UnitWork},
};
use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes};
use blockraft_primitives::{AdmissionId, NodeId, Transaction};
use std::{collections::BTreeMap, sync::Arc};

/// Blocks after which the partition map is looked at.
const REBALANCE_INTERVAL: u64 = 32;
/// What a probe should cost the leader, nanoseconds.
const PROBE_NS: u64 = 2_000_000;
/// Transactions in a probe.
const PROBE_TX_COUNT_MAX: usize = 64;

/// A block that is to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockWork {
    /// Height.
    pub height: u64,
    /// Hash of the block before it.
    pub parent: B256,
    /// Where it comes from.
    pub source: WorkSource,
    /// In block order.
    pub transactions: Vec<Transaction>,
}

/// Where a block comes from, and what executors must know of it.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkSource {
    /// This node makes it, as leader.
    Cut(CutBlock),
    /// A consensus client named it, or wants it made. Leadership has no part in that.
    Given(Arc<Header>),
}

/// A block that is cut from the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct CutBlock {
    /// The term that it is built in.
    pub term: u64,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// The header's.
    pub fee_recipient: Address,
    /// The header's.
    pub gas_limit: u64,
    /// Index of a log entry after which every member's pool holds the transactions.
    pub pool_index: u64,
    /// Names of the transactions.
    pub ids: Vec<AdmissionId>,
}

impl BlockWork {
    /// The term that it belongs to; `None` where it belongs to none.
    fn term(&self) -> Option<u64> {
        match &self.source {
            WorkSource::Cut(block) => Some(block.term),
            WorkSource::Given(_) => None,
        }
    }
}

/// What the leader's node tells its dispatcher.
#[derive(Clone, Debug, PartialEq)]
pub enum DispatchEvent {
    /// Who else could work, and the term in which this node leads, if it does.
    Role {
        /// The term.
        leading: Option<u64>,
        /// The other members.
        others: Vec<NodeId>,
    },
    /// This node has applied a block.
    Applied {
        /// Its height.
        height: u64,
    },
    /// A block is to be run.
    Block(BlockWork),
    /// This node has run its own share.
    OwnRun {
        /// The gathering.
        gather: u64,
        /// How long that took, microseconds.
        took_us: u64,
    },
    /// An executor has run a unit.
    Answered(UnitAnswer),
    /// An executor has not.
    Refused(UnitRefused),
    /// The unit or its answer did not get through.
    Lost {
        /// Who was asked.
        to: NodeId,
        /// The unit.
        unit: UnitId,
    },
    /// The moment of the last `Wake` has come.
    Timer,
}

/// What the leader's node is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum DispatchCommand {
    /// Build without help.
    RunAlone {
        /// Why.
        reason: LocalReason,
    },
    /// Send a unit.
    Send {
        /// To whom.
        to: NodeId,
        /// It.
        unit: Unit,
    },
    /// A gathering is open: run the leader's own share of it.
    RunOwn {
        /// The gathering.
        gather: u64,
        /// Places in the block; may be none.
        indices: Vec<usize>,
    },
    /// Keep the outcomes of a share as seeds.
    Keep {
        /// The gathering.
        gather: u64,
        /// Which share.
        share: u32,
        /// Places in the block, one for each place in the unit.
        indices: Vec<usize>,
        /// As the executor encoded them.
        outcomes: Bytes,
    },
    /// Forget the seeds of a share.
    Discard {
        /// The gathering.
        gather: u64,
        /// Which share.
        share: u32,
    },
    /// Send `Timer` at a moment, and not at the one asked for before.
    Wake {
        /// When.
        at: Micros,
    },
    /// Wait for nothing more.
    Close {
        /// The gathering.
        gather: u64,
    },
    /// Two answers to one unit differ.
    Alarm(Box<Evidence>),
}

/// Two different answers to one unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The unit's place; attempts may differ.
    pub fence: Fence,
    /// Hashes of the transactions that were run.
    pub transactions: Vec<B256>,
    /// Who said what.
    pub answers: [(NodeId, Bytes); 2],
}

/// How a block came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// Gas used by place in the block, of some or all that are in it.
    pub gas_used: Vec<(usize, u64)>,
    /// What was written, by place, where that is known.
    pub footprints: BTreeMap<usize, Footprint>,
    /// What the leader ran itself, and how long it took, nanoseconds.
    pub own: Option<(Vec<usize>, u64)>,
    /// Other members had a part in it.
    pub shared: bool,
}

/// What a gathering is about: the block without what its fence says.
#[derive(Debug)]
struct Pending {
    source: WorkSource,
    transactions: Vec<Transaction>,
}

impl Work for Pending {
    type Part = Vec<usize>;
    type Unit = Unit;
    type Evidence = Evidence;
    const RETURN: Return = Return::WhenProbed;

    fn unit(&self, id: UnitId, indices: &Vec<usize>) -> Unit {
        let work = match &self.source {
            WorkSource::Cut(block) => UnitWork::Pooled(PooledWork {
                timestamp: block.timestamp,
                fee_recipient: block.fee_recipient,
                gas_limit: block.gas_limit,
                pool_index: block.pool_index,
                transactions: indices.iter().map(|index| block.ids[*index]).collect(),
            }),
            WorkSource::Given(header) => UnitWork::Given(GivenWork {
                header: header.clone(),
                transactions: indices.iter().map(|i| self.transactions[*i].clone()).collect(),
            }),
        };
        Unit { id, work }
    }

    fn evidence(
        &self,
        fence: Fence,
        indices: &Vec<usize>,
        answers: [(NodeId, Bytes); 2],
    ) -> Evidence {
        let transactions = indices.iter().map(|i| *self.transactions[*i].tx_hash()).collect();
        Evidence { fence, transactions, answers }
    }
}

impl From<Step<Pending>> for DispatchCommand {
    fn from(step: Step<Pending>) -> Self {
        match step {
            Step::Send { to, unit } => Self::Send { to, unit },
            Step::Keep { gather, share, part: indices, bytes: outcomes } => {
                Self::Keep { gather, share, indices, outcomes }
            }
            Step::Discard { gather, share } => Self::Discard { gather, share },
            Step::Wake { at } => Self::Wake { at },
            Step::Close { gather } => Self::Close { gather },
            Step::Alarm(evidence) => Self::Alarm(Box::new(evidence)),
        }
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Dispatcher {
    gatherer: Gatherer<Pending>,
    threads: usize,
    map: Option<PartitionMap>,
    planner: Planner,
    blocks: u64,
}

impl Dispatcher {
    /// A dispatcher of a node that does not lead yet and runs blocks on `threads` threads.
    pub fn new(node: NodeId, cluster: B256, threads: usize, distribution: Distribution) -> Self {
        Self {
            gatherer: Gatherer::new(node, cluster, distribution),
            threads,
            map: None,
            planner: Planner::default(),
            blocks: 0,
        }
    }

    /// Takes one event and says what to do about it, in order.
    pub fn step(&mut self, now: Micros, event: DispatchEvent) -> Vec<DispatchCommand> {
        let mut out = Vec::new();
        match event {
            DispatchEvent::Role { leading, others } => {
                if self.gatherer.role(leading, others, &mut out) {
                    self.map = None;
                }
            }
            DispatchEvent::Applied { height } => self.gatherer.applied(now, height, &mut out),
            DispatchEvent::Block(work) => self.block(now, work, &mut out),
            DispatchEvent::OwnRun { gather, took_us } => {
                self.gatherer.own_done(now, gather, took_us, &mut out);
            }
            DispatchEvent::Answered(answer) => {
                let UnitAnswer { echo, executor: from, run_us, outcomes: bytes } = answer;
                self.gatherer.answered(now, Answer { echo, from, run_us, bytes }, &mut out);
            }
            DispatchEvent::Refused(refused) => self.gatherer.refused(now, &refused, &mut out),
            DispatchEvent::Lost { to, unit } => self.gatherer.lost(now, to, &unit, &mut out),
            DispatchEvent::Timer => self.gatherer.overdue(now, &mut out),
        }
        out
    }

    /// Learns from a block that was built.
    pub fn settle(&mut self, transactions: &[Transaction], settled: &Settled) {
        for (index, gas_used) in &settled.gas_used {
            let Some(tx) = transactions.get(*index) else { continue };
            self.planner.learn(tx, *gas_used, settled.footprints.get(index));
        }
        if let Some((indices, ns)) = &settled.own {
            let own = indices.iter().filter_map(|index| transactions.get(*index));
            self.planner.calibrate(own, *ns);
        }
        if settled.shared {
            self.planner.charge(transactions);
        }
    }

    /// Whether no block would be shared out, whatever is in it; if so, that is counted as the decision on
    /// one.
    pub fn declines(&mut self) -> Option<LocalReason> {
        let reason = self.gatherer.declines();
        if let Some(reason) = reason {
            self.gatherer.alone(reason);
        }
        reason
    }

    /// What happened so far.
    pub fn counters(&self) -> &DispatchCounters {
        self.gatherer.counters()
    }

    /// Disagreements that were found, the latest last; older ones beyond a limit are forgotten.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.gatherer.evidence()
    }

    /// The partition map of the present term, once a block was shared out.
    pub fn map(&self) -> Option<&PartitionMap> {
        self.map.as_ref()
    }

    fn block(&mut self, now: Micros, work: BlockWork, out: &mut Vec<DispatchCommand>) {
        self.gatherer.close(out);
        let plan = self.plan(now, &work);
        let place = Place {
            term: work.term().unwrap_or_default(),
            height: work.height,
            parent: work.parent,
            epoch: self.map.as_ref().map_or(0, PartitionMap::epoch),
        };
        let shares = match plan {
            Plan::Shares(shares) => shares,
            Plan::Local(reason) => {
                if matches!(reason, LocalReason::NoGain | LocalReason::Alone) {
                    let all = 0..work.transactions.len();
                    self.gatherer.probe(now, place, self.little(&work, all), out);
                }
                self.gatherer.alone(reason);
                return out.push(DispatchCommand::RunAlone { reason });
            }
        };
        let (own, others): (Vec<_>, Vec<_>) =
            shares.into_iter().partition(|share| share.node == self.gatherer.node);
        let own_cost_us = own.iter().map(|share| share.cost_ns / 1000).sum();
        let some = own.first().or_else(|| others.first()).map_or(&[][..], |share| &share.indices);
        let little = self.little(&work, some.iter().copied());
        let others = others.into_iter().map(|s| (s.node, s.indices, s.cost_ns / 1000));
        let BlockWork { source, transactions, .. } = work;
        let pending = Pending { source, transactions };
        let gather = self.gatherer.begin(now, place, (pending, own_cost_us), others, out);
        let indices = own.into_iter().flat_map(|share| share.indices).collect();
        out.push(DispatchCommand::RunOwn { gather, indices });
        self.gatherer.probe(now, place, little, out);
        self.gatherer.finish(out);
    }

    /// The first of some transactions of a block, for a probe, and what they should cost.
    fn little(
        &self,
        work: &BlockWork,
        indices: impl Iterator<Item = usize>,
    ) -> Option<(Pending, Vec<usize>, u64)> {
        let mut cost_ns = 0;
        let mut taken = Vec::new();
        for index in indices.take(PROBE_TX_COUNT_MAX) {
            taken.push(index);
            cost_ns += self.planner.cost_ns(&work.transactions[index]);
            if cost_ns >= PROBE_NS {
                break;
            }
        }
        let transactions = taken.iter().map(|index| work.transactions[*index].clone());
        let transactions: Vec<_> = transactions.collect();
        let source = match &work.source {
            WorkSource::Cut(block) => {
                let ids = taken.iter().map(|index| block.ids[*index]).collect();
                WorkSource::Cut(CutBlock { ids, ..*block })
            }
            given @ WorkSource::Given(_) => given.clone(),
        };
        let part = (0..transactions.len()).collect();
        (!taken.is_empty()).then_some((Pending { source, transactions }, part, cost_ns / 1000))
    }

    fn plan(&mut self, now: Micros, work: &BlockWork) -> Plan {
        let lanes = match self.gatherer.lanes(now, work.term(), work.height) {
            Ok(lanes) => lanes,
            Err(reason) => return Plan::Local(reason),
        };
        self.blocks += 1;
        let costs = self.planner.partition_costs();
        let members = &self.gatherer.members;
        let map = match self.map.take() {
            None => PartitionMap::even(members),
            Some(map) if self.blocks.is_multiple_of(REBALANCE_INTERVAL) => {
                map.rebalanced(costs, members).unwrap_or(map)
            }
            Some(map) => map,
        };
        let how = (self.gatherer.distribution, self.threads);
        let plan = self.planner.plan(&work.transactions, &map, &lanes, how);
        self.map = Some(map);
        match plan {
            Plan::Shares(shares) if shares.iter().all(|s| s.node == self.gatherer.node) => {
                Plan::Local(LocalReason::NoGain)
            }
            plan => plan,
        }
    }
}

#[cfg(test)]
mod tests;
