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
//! | `RunOwn` | runs these transactions meanwhile, as an executor does | |
//! | `Keep` | keeps these outcomes as seeds | |
//! | `Discard` | forgets the seeds of a share | |
//! | `Wake` | sets its one timer | `Timer` |
//! | `Close` | builds the block with the seeds that it has | |
//! | `Alarm` | tells the operator: two members disagree about one unit | |
//!
//! Afterwards it reports what the block turned out to be ([`Dispatcher::settle`]).
//!
//! **Invariants**: outcomes are kept only while their gathering is open, from whom the unit was sent to, once
//! a share, and only if the answer repeats the unit's whole name; when this node is deposed all units are
//! forgotten; a gathering is closed at most two times [`HEDGE_US_MAX`](limits::HEDGE_US_MAX) after it was
//! opened, if `Timer` comes when `Wake` said.

mod executors;
mod open;

use crate::{
    partition::PartitionMap,
    plan::{Distribution, Footprint, LocalReason, Plan, Planner, Share},
    units::{Fence, Unit, UnitAnswer, UnitId, UnitRefused},
};
use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes};
use blockraft_primitives::{AdmissionId, NodeId, Transaction, limits};
pub(crate) use executors::Executors;
use open::{Found, Open, Verdict};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Blocks after which the partition map is looked at.
const REBALANCE_INTERVAL: u64 = 32;

/// Microseconds on a node's own monotonic clock, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// The moment `micros` later.
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds since an earlier moment.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

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
    /// A block is to be run.
    Block(BlockWork),
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

/// Counted since the start, by name, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounters {
    /// What became of units: `sent`, `answered`, `late`, `hedged`, `refused`, `lost`, `stray`, `given_up`,
    /// `alarm`.
    pub units: BTreeMap<&'static str, u64>,
    /// Refusals by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Blocks by decision: `distributed`, or why not.
    pub decisions: BTreeMap<&'static str, u64>,
}

impl DispatchCounters {
    pub(crate) fn unit(&mut self, event: &'static str) {
        *self.units.entry(event).or_default() += 1;
    }

    pub(crate) fn refused(&mut self, reason: &'static str) {
        *self.refusals.entry(reason).or_default() += 1;
    }

    pub(crate) fn decided(&mut self, decision: &'static str) {
        *self.decisions.entry(decision).or_default() += 1;
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Dispatcher {
    node: NodeId,
    cluster: B256,
    distribution: Distribution,
    threads: usize,
    leading: Option<u64>,
    members: Vec<NodeId>,
    map: Option<PartitionMap>,
    planner: Planner,
    executors: Executors,
    open: Option<Open>,
    /// Closed gatherings that somebody may still answer to.
    recent: VecDeque<Open>,
    next_gather: u64,
    blocks: u64,
    evidence: VecDeque<Evidence>,
    counters: DispatchCounters,
}

impl Dispatcher {
    /// A dispatcher of a node that does not lead yet and runs blocks on `threads` threads.
    pub fn new(node: NodeId, cluster: B256, threads: usize, distribution: Distribution) -> Self {
        Self {
            node,
            cluster,
            distribution,
            threads,
            leading: None,
            members: vec![node],
            map: None,
            planner: Planner::default(),
            executors: Executors::default(),
            open: None,
            recent: VecDeque::new(),
            next_gather: 0,
            blocks: 0,
            evidence: VecDeque::new(),
            counters: DispatchCounters::default(),
        }
    }

    /// Takes one event and says what to do about it, in order.
    pub fn step(&mut self, now: Micros, event: DispatchEvent) -> Vec<DispatchCommand> {
        let mut out = Vec::new();
        match event {
            DispatchEvent::Role { leading, others } => self.role(leading, others, &mut out),
            DispatchEvent::Block(work) => self.block(now, work, &mut out),
            DispatchEvent::Answered(answer) => self.answered(now, answer, &mut out),
            DispatchEvent::Refused(refused) => self.refused(now, &refused, &mut out),
            DispatchEvent::Lost { to, unit } => self.lost(now, to, &unit, &mut out),
            DispatchEvent::Timer => self.overdue(now, &mut out),
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
        let reason = match (self.distribution, self.members.len()) {
            (Distribution::Off, _) => LocalReason::Off,
            (_, ..2) => LocalReason::Alone,
            _ => return None,
        };
        self.counters.decided(reason.name());
        Some(reason)
    }

    /// What happened so far.
    pub fn counters(&self) -> &DispatchCounters {
        &self.counters
    }

    /// Disagreements that were found, the latest last; older ones beyond a limit are forgotten.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.iter()
    }

    /// The partition map of the present term, once a block was shared out.
    pub fn map(&self) -> Option<&PartitionMap> {
        self.map.as_ref()
    }

    fn role(&mut self, leading: Option<u64>, others: Vec<NodeId>, out: &mut Vec<DispatchCommand>) {
        if leading != self.leading {
            // Nothing that was sent in another term counts any more.
            if let Some(open) = self.open.take() {
                out.push(DispatchCommand::Close { gather: open.gather() });
            }
            self.recent.clear();
            self.map = None;
            self.leading = leading;
        }
        self.members = others;
        self.members.retain(|member| *member != self.node);
        self.members.push(self.node);
        self.members.sort_unstable();
        self.members.dedup();
        self.executors.retain(&self.members);
    }

    fn block(&mut self, now: Micros, work: BlockWork, out: &mut Vec<DispatchCommand>) {
        self.close(out);
        match self.plan(now, &work) {
            Plan::Local(reason) => {
                self.counters.decided(reason.name());
                if reason == LocalReason::NoGain {
                    self.executors.fade();
                }
                out.push(DispatchCommand::RunAlone { reason });
            }
            Plan::Shares(shares) => {
                self.counters.decided("distributed");
                self.send_shares(now, work, shares, out);
            }
        }
    }

    fn plan(&mut self, now: Micros, work: &BlockWork) -> Plan {
        if self.distribution == Distribution::Off {
            return Plan::Local(LocalReason::Off);
        }
        if work.term().is_some_and(|term| self.leading != Some(term)) {
            return Plan::Local(LocalReason::Deposed);
        }
        self.blocks += 1;
        let lanes = self.executors.lanes(self.node, &self.members, now);
        if lanes.len() < 2 {
            return Plan::Local(LocalReason::Alone);
        }
        let costs = self.planner.partition_costs();
        let map = match self.map.take() {
            None => PartitionMap::even(&self.members),
            Some(map) if self.blocks.is_multiple_of(REBALANCE_INTERVAL) => {
                map.rebalanced(costs, &self.members).unwrap_or(map)
            }
            Some(map) => map,
        };
        let how = (self.distribution, self.threads);
        let plan = self.planner.plan(&work.transactions, &map, &lanes, how);
        self.map = Some(map);
        match plan {
            Plan::Shares(shares) if shares.iter().all(|share| share.node == self.node) => {
                Plan::Local(LocalReason::NoGain)
            }
            plan => plan,
        }
    }

    fn send_shares(
        &mut self,
        now: Micros,
        work: BlockWork,
        shares: Vec<Share>,
        out: &mut Vec<DispatchCommand>,
    ) {
        let epoch = self.map.as_ref().map_or(0, PartitionMap::epoch);
        let fence = Fence {
            cluster: self.cluster,
            term: work.term().unwrap_or_default(),
            leader: self.node,
            height: work.height,
            parent: work.parent,
            epoch,
        };
        let mut open = Open::new(self.next_gather, fence, work);
        self.next_gather += 1;
        let mut own = Vec::new();
        for share in shares {
            if share.node == self.node {
                own = share.indices;
                continue;
            }
            let cost_us = share.cost_ns / 1000;
            let patience = self.executors.patience_us(share.node, cost_us);
            let unit = open.add(share.node, share.indices, cost_us, now, now.after(patience));
            self.counters.unit("sent");
            out.push(DispatchCommand::Send { to: share.node, unit });
        }
        out.push(DispatchCommand::RunOwn { gather: open.gather(), indices: own });
        self.open = Some(open);
        self.set_timer(out);
    }

    fn answered(&mut self, now: Micros, answer: UnitAnswer, out: &mut Vec<DispatchCommand>) {
        let Some(found) = self.find(&answer.echo, answer.executor) else {
            return self.counters.unit("stray");
        };
        let Found { sent_at, cost_us, first_time } = found;
        let is_open = self.is_open(&answer.echo);
        if first_time {
            self.counters.unit(if is_open { "answered" } else { "late" });
            let latency_us = now.since(sent_at);
            self.executors.answered(answer.executor, latency_us, answer.run_us, cost_us, is_open);
        }
        let Some(open) = self.gathering(&answer.echo) else { return };
        match open.take_answer(&answer) {
            Verdict::First { indices } if is_open => {
                let UnitId { gather, share, .. } = answer.echo;
                let outcomes = answer.outcomes;
                out.push(DispatchCommand::Keep { gather, share, indices, outcomes });
                self.finish(out);
            }
            Verdict::First { .. } | Verdict::Same => {}
            Verdict::Differs(evidence) => self.disagreement(&answer.echo, is_open, evidence, out),
        }
    }

    fn disagreement(
        &mut self,
        unit: &UnitId,
        is_open: bool,
        evidence: Evidence,
        out: &mut Vec<DispatchCommand>,
    ) {
        self.counters.unit("alarm");
        if is_open {
            out.push(DispatchCommand::Discard { gather: unit.gather, share: unit.share });
        }
        while self.evidence.len() >= limits::UNIT_EVIDENCE_COUNT_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back(evidence.clone());
        out.push(DispatchCommand::Alarm(Box::new(evidence)));
    }

    fn refused(&mut self, now: Micros, refused: &UnitRefused, out: &mut Vec<DispatchCommand>) {
        let found = self.find(&refused.echo, refused.executor);
        let Some(Found { first_time: true, .. }) = found else {
            return self.counters.unit("stray");
        };
        self.counters.unit("refused");
        self.counters.refused(refused.refusal.name());
        self.failed(now, refused.executor, &refused.echo, out);
    }

    fn lost(&mut self, now: Micros, to: NodeId, unit: &UnitId, out: &mut Vec<DispatchCommand>) {
        let Some(Found { first_time: true, .. }) = self.find(unit, to) else { return };
        self.counters.unit("lost");
        self.failed(now, to, unit, out);
    }

    /// No answer will come for this attempt: another one goes out at once, or the leader runs the share.
    fn failed(
        &mut self,
        now: Micros,
        executor: NodeId,
        unit: &UnitId,
        out: &mut Vec<DispatchCommand>,
    ) {
        self.executors.failed(executor, now);
        let is_open = self.is_open(unit);
        let Some(open) = self.gathering(unit) else { return };
        let pending = open.end_attempt(unit);
        if is_open && pending {
            self.repeat(now, unit.share, out);
            self.finish(out);
        }
    }

    fn overdue(&mut self, now: Micros, out: &mut Vec<DispatchCommand>) {
        let Some(open) = &mut self.open else { return };
        let overdue = open.overdue(now);
        for (share, executor) in overdue {
            self.executors.failed(executor, now);
            self.repeat(now, share, out);
        }
        self.finish(out);
    }

    /// Sends a share to somebody else, once; after that the leader runs it.
    fn repeat(&mut self, now: Micros, share: u32, out: &mut Vec<DispatchCommand>) {
        let Some(open) = &mut self.open else { return };
        let others: Vec<NodeId> =
            self.members.iter().copied().filter(|member| *member != self.node).collect();
        let idle = others.into_iter().filter(|member| open.may_repeat_at(share, *member));
        let Some((to, patience_us)) = self.executors.quickest(idle, now, open.cost_us(share))
        else {
            open.give_up(share);
            return self.counters.unit("given_up");
        };
        let unit = open.repeat(share, to, now, now.after(patience_us));
        self.counters.unit("sent");
        self.counters.unit("hedged");
        out.push(DispatchCommand::Send { to, unit });
    }

    /// Closes the gathering when nothing is awaited any more, else sets the timer.
    fn finish(&mut self, out: &mut Vec<DispatchCommand>) {
        match &self.open {
            Some(open) if open.is_complete() => self.close(out),
            _ => self.set_timer(out),
        }
    }

    fn close(&mut self, out: &mut Vec<DispatchCommand>) {
        let Some(open) = self.open.take() else { return };
        out.push(DispatchCommand::Close { gather: open.gather() });
        if open.expects_answers() {
            while self.recent.len() >= limits::CLOSED_GATHER_COUNT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(open);
        }
    }

    fn set_timer(&self, out: &mut Vec<DispatchCommand>) {
        if let Some(at) = self.open.as_ref().and_then(Open::next_deadline) {
            out.push(DispatchCommand::Wake { at });
        }
    }

    fn is_open(&self, unit: &UnitId) -> bool {
        self.open.as_ref().is_some_and(|open| open.gather() == unit.gather)
    }

    fn find(&mut self, unit: &UnitId, executor: NodeId) -> Option<Found> {
        self.gathering(unit)?.find(unit, executor)
    }

    fn gathering(&mut self, unit: &UnitId) -> Option<&mut Open> {
        let all = self.open.iter_mut().chain(&mut self.recent);
        all.into_iter().find(|open| open.is_of(unit))
    }
}

#[cfg(test)]
mod tests;
