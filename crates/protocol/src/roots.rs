//! The leader's side of hashing that is shared out, as a state machine: who hashes which subtries of a block
//! that has run, whether that pays, and what to do about owners that are late, gone or wrong (decision 0018).
//!
//! # How a shell drives it
//!
//! | Command | What the shell does | Event that follows |
//! |---|---|---|
//! | `HashAlone` | hashes everything itself | |
//! | `Send` | sends the unit with the block's changes in these partitions | `Answered`, `Refused` or `Lost` |
//! | `HashOwn` | hashes these partitions meanwhile | |
//! | `Keep` | keeps these roots | |
//! | `Discard` | forgets the roots of a share | |
//! | `Wake` | sets its one timer | `Timer` |
//! | `Close` | hashes what it has no roots of, and puts the state root together | |
//! | `Alarm` | tells the operator: two members disagree about one unit | |
//!
//! Afterwards it reports how long its own hashing took ([`RootSharer::hashed`]).
//!
//! **Invariants**: roots are kept only while their gathering is open, from whom the unit was sent to, and only
//! if the answer repeats the unit's whole name; of two answers that differ meanwhile neither is kept; when this
//! node is deposed all units are forgotten; a gathering is closed at most two times
//! [`HEDGE_US_MAX`](limits::HEDGE_US_MAX) after it was opened, if `Timer` comes when `Wake` said; a partition that
//! changes is hashed by one of those asked or by the leader.

mod open;

use crate::{
    dispatch::{DispatchCounters, Executors, Micros},
    partition::{PARTITION_COUNT, PartitionId, PartitionMap},
    plan::{Distribution, Lane, LocalReason},
    units::{Fence, RootAnswer, UnitId, UnitRefused},
};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{NodeId, PartitionSet, limits};
use open::{Open, Verdict};
use std::collections::VecDeque;

/// Fewer changed keys are not worth a message.
const KEY_COUNT_MIN: u64 = 2_000;
/// What writing and hashing a key takes one thread, before it was measured, nanoseconds.
const KEY_NS_DEFAULT: u64 = 4_000;
/// What the leader does for a key that another member hashes: picking it out and sending it.
const SEND_NS: u64 = 300;
/// At least this part of the time must be saved, percent.
const GAIN_PERCENT_MIN: u64 = 10;
/// How much a single measurement counts: one part of this.
const SMOOTHING: u64 = 8;
/// Own hashing of fewer keys says nothing about speed.
const TELLING_KEY_COUNT: u64 = 200;

/// A block that has run and has no root yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootWork {
    /// The term that it is built in.
    pub term: u64,
    /// Height.
    pub height: u64,
    /// Hash of the block before it.
    pub parent: B256,
    /// Keys that it changes, by partition: [`PARTITION_COUNT`] of them.
    pub keys: Vec<u32>,
}

/// What the leader's node tells its sharer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootEvent {
    /// Who else could hash, and the term in which this node leads, if it does.
    Role {
        /// The term.
        leading: Option<u64>,
        /// The other members.
        others: Vec<NodeId>,
    },
    /// A block has run.
    Block(RootWork),
    /// An owner has hashed.
    Answered(RootAnswer),
    /// An owner has not.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCommand {
    /// Hash without help.
    HashAlone {
        /// Why.
        reason: LocalReason,
    },
    /// Send a unit.
    Send {
        /// To whom.
        to: NodeId,
        /// Its name.
        unit: UnitId,
        /// What it covers.
        partitions: PartitionSet,
    },
    /// A gathering is open: hash the leader's own partitions.
    HashOwn {
        /// The gathering.
        gather: u64,
        /// They; may be none.
        partitions: PartitionSet,
    },
    /// Keep the roots of a share.
    Keep {
        /// The gathering.
        gather: u64,
        /// Which share.
        share: u32,
        /// Of what.
        partitions: PartitionSet,
        /// As the owner encoded them.
        roots: Bytes,
    },
    /// Forget the roots of a share.
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
    Alarm(Box<RootEvidence>),
}

/// Two different answers to one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootEvidence {
    /// The unit's place; attempts may differ.
    pub fence: Fence,
    /// What was hashed.
    pub partitions: PartitionSet,
    /// Who said what.
    pub answers: [(NodeId, Bytes); 2],
}

/// The state machine.
#[derive(Debug)]
pub struct RootSharer {
    node: NodeId,
    cluster: B256,
    distribution: Distribution,
    threads: u64,
    leading: Option<u64>,
    members: Vec<NodeId>,
    map: Option<PartitionMap>,
    /// Whom the map was drawn up for.
    mapped: Vec<NodeId>,
    executors: Executors,
    open: Option<Open>,
    /// Closed gatherings that somebody may still answer to.
    recent: VecDeque<Open>,
    next_gather: u64,
    key_ns: u64,
    evidence: VecDeque<RootEvidence>,
    counters: DispatchCounters,
}

impl RootSharer {
    /// A sharer of a node that does not lead yet and hashes on `threads` threads.
    pub fn new(node: NodeId, cluster: B256, threads: usize, distribution: Distribution) -> Self {
        Self {
            node,
            cluster,
            distribution,
            threads: threads.max(1) as u64,
            leading: None,
            members: vec![node],
            map: None,
            mapped: Vec::new(),
            executors: Executors::default(),
            open: None,
            recent: VecDeque::new(),
            next_gather: 0,
            key_ns: KEY_NS_DEFAULT,
            evidence: VecDeque::new(),
            counters: DispatchCounters::default(),
        }
    }

    /// Takes one event and says what to do about it, in order.
    pub fn step(&mut self, now: Micros, event: RootEvent) -> Vec<RootCommand> {
        let mut out = Vec::new();
        match event {
            RootEvent::Role { leading, others } => self.role(leading, others, &mut out),
            RootEvent::Block(work) => self.block(now, &work, &mut out),
            RootEvent::Answered(answer) => self.answered(now, &answer, &mut out),
            RootEvent::Refused(refused) => self.refused(now, &refused, &mut out),
            RootEvent::Lost { to, unit } => self.lost(now, to, &unit, &mut out),
            RootEvent::Timer => self.overdue(now, &mut out),
        }
        out
    }

    /// Whether no block's hashing would be shared out, whatever it changes.
    pub fn declines(&self) -> Option<LocalReason> {
        match (self.distribution, self.members.len()) {
            (Distribution::Off, _) => Some(LocalReason::Off),
            (_, ..2) => Some(LocalReason::Alone),
            _ => None,
        }
    }

    /// Learns how long this node's own writing and hashing took.
    pub fn hashed(&mut self, keys: u64, took_ns: u64) {
        if keys >= TELLING_KEY_COUNT {
            let sample = took_ns.saturating_mul(self.threads) / keys;
            self.key_ns = (self.key_ns * (SMOOTHING - 1)).saturating_add(sample) / SMOOTHING;
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &DispatchCounters {
        &self.counters
    }

    /// Disagreements that were found, the latest last; older ones beyond a limit are forgotten.
    pub fn evidence(&self) -> impl Iterator<Item = &RootEvidence> {
        self.evidence.iter()
    }

    /// The partition map of the present term, once hashing was shared out.
    pub fn map(&self) -> Option<&PartitionMap> {
        self.map.as_ref()
    }

    fn role(&mut self, leading: Option<u64>, others: Vec<NodeId>, out: &mut Vec<RootCommand>) {
        if leading != self.leading {
            // Nothing that was sent in another term counts any more.
            if let Some(open) = self.open.take() {
                out.push(RootCommand::Close { gather: open.gather() });
            }
            self.recent.clear();
            self.map = None;
            self.mapped.clear();
            self.leading = leading;
        }
        self.members = others;
        self.members.retain(|member| *member != self.node);
        self.members.push(self.node);
        self.members.sort_unstable();
        self.members.dedup();
        self.executors.retain(&self.members);
    }

    fn block(&mut self, now: Micros, work: &RootWork, out: &mut Vec<RootCommand>) {
        self.close(out);
        match self.plan(now, work) {
            Ok(shares) => {
                self.counters.decided("distributed");
                self.send(now, work, shares, out);
            }
            Err(reason) => {
                self.counters.decided(reason.name());
                if reason == LocalReason::NoGain {
                    self.executors.fade();
                }
                out.push(RootCommand::HashAlone { reason });
            }
        }
    }

    /// Who hashes what, and how many keys that is: the leader first.
    fn plan(&mut self, now: Micros, work: &RootWork) -> Result<Vec<Portion>, LocalReason> {
        if self.distribution == Distribution::Off {
            return Err(LocalReason::Off);
        }
        if self.leading != Some(work.term) {
            return Err(LocalReason::Deposed);
        }
        let lanes = self.executors.lanes(self.node, &self.members, now);
        if lanes.len() < 2 {
            return Err(LocalReason::Alone);
        }
        let keys: u64 = work.keys.iter().map(|keys| u64::from(*keys)).sum();
        if self.distribution == Distribution::Auto && keys < KEY_COUNT_MIN {
            return Err(LocalReason::Light);
        }
        self.draw_map(&lanes);
        let portions = self.portions(&lanes, &work.keys);
        if self.distribution == Distribution::Auto && !self.pays(keys, &portions) {
            return Err(LocalReason::NoGain);
        }
        Ok(portions)
    }

    /// Partitions stay where they are warm, unless who has them is not to be asked, or somebody new is.
    fn draw_map(&mut self, lanes: &[Lane]) {
        let nodes: Vec<NodeId> = lanes.iter().map(|lane| lane.node).collect();
        let map = match self.map.take() {
            None => PartitionMap::even(&nodes),
            Some(map) if nodes != self.mapped => {
                map.rebalanced(&[1; PARTITION_COUNT], &nodes).unwrap_or(map)
            }
            Some(map) => map,
        };
        self.map = Some(map);
        self.mapped = nodes;
    }

    fn portions(&self, lanes: &[Lane], keys: &[u32]) -> Vec<Portion> {
        let map = self.map.as_ref().expect("it was drawn up before");
        let portion = |lane: &Lane| {
            let owned = map.owned_by(lane.node);
            let keys = owned.iter().map(|PartitionId(p)| u64::from(keys[usize::from(*p)])).sum();
            let partitions = owned.into_iter().map(|PartitionId(partition)| partition).collect();
            Portion { lane: *lane, partitions, keys }
        };
        lanes.iter().map(portion).collect()
    }

    fn pays(&self, keys: u64, portions: &[Portion]) -> bool {
        let alone_ns = self.cost_ns(keys);
        let others = keys - portions[0].keys;
        let time_ns = |portion: &Portion| {
            let Lane { slowness_permille, overhead_ns, .. } = portion.lane;
            overhead_ns + self.cost_ns(portion.keys).saturating_mul(slowness_permille) / 1000
        };
        let longest_ns = portions.iter().map(time_ns).max().unwrap_or_default();
        longest_ns + others * SEND_NS <= alone_ns * (100 - GAIN_PERCENT_MIN) / 100
    }

    fn cost_ns(&self, keys: u64) -> u64 {
        keys.saturating_mul(self.key_ns) / self.threads
    }

    fn send(
        &mut self,
        now: Micros,
        work: &RootWork,
        portions: Vec<Portion>,
        out: &mut Vec<RootCommand>,
    ) {
        let fence = Fence {
            cluster: self.cluster,
            term: work.term,
            leader: self.node,
            height: work.height,
            parent: work.parent,
            epoch: self.map.as_ref().map_or(0, PartitionMap::epoch),
        };
        let mut open = Open::new(self.next_gather, fence);
        self.next_gather += 1;
        let mut own = PartitionSet::NONE;
        for Portion { lane: Lane { node, .. }, partitions, keys } in portions {
            if node == self.node {
                own = partitions;
                continue;
            }
            // What does not change has the root that it had.
            if keys == 0 {
                continue;
            }
            let cost_us = self.cost_ns(keys) / 1000;
            let patience = self.executors.patience_us(node, cost_us);
            let unit = open.add(node, partitions, cost_us, now, now.after(patience));
            self.counters.unit("sent");
            out.push(RootCommand::Send { to: node, unit, partitions });
        }
        out.push(RootCommand::HashOwn { gather: open.gather(), partitions: own });
        self.open = Some(open);
        self.finish(out);
    }

    fn answered(&mut self, now: Micros, answer: &RootAnswer, out: &mut Vec<RootCommand>) {
        let Some(found) = self.find(&answer.echo, answer.owner) else {
            return self.counters.unit("stray");
        };
        let is_open = self.is_open(&answer.echo);
        if found.first_time {
            self.counters.unit(if is_open { "answered" } else { "late" });
            let latency_us = now.since(found.sent_at);
            let (run_us, cost_us) = (answer.run_us, found.cost_us);
            self.executors.answered(answer.owner, latency_us, run_us, cost_us, is_open);
        }
        let UnitId { gather, share, .. } = answer.echo;
        let Some(open) = self.gathering(&answer.echo) else { return };
        match open.take_answer(answer) {
            Verdict::First { partitions } if is_open => {
                let roots = answer.roots.clone();
                out.push(RootCommand::Keep { gather, share, partitions, roots });
                self.finish(out);
            }
            Verdict::First { .. } | Verdict::Same => {}
            Verdict::Differs(evidence) => {
                self.counters.unit("alarm");
                if is_open {
                    out.push(RootCommand::Discard { gather, share });
                }
                while self.evidence.len() >= limits::UNIT_EVIDENCE_COUNT_MAX {
                    self.evidence.pop_front();
                }
                self.evidence.push_back(evidence.clone());
                out.push(RootCommand::Alarm(Box::new(evidence)));
            }
        }
    }

    fn refused(&mut self, now: Micros, refused: &UnitRefused, out: &mut Vec<RootCommand>) {
        if !self.find(&refused.echo, refused.executor).is_some_and(|found| found.first_time) {
            return self.counters.unit("stray");
        }
        self.counters.unit("refused");
        self.counters.refused(refused.refusal.name());
        self.failed(now, refused.executor, &refused.echo, out);
    }

    fn lost(&mut self, now: Micros, to: NodeId, unit: &UnitId, out: &mut Vec<RootCommand>) {
        if self.find(unit, to).is_some_and(|found| found.first_time) {
            self.counters.unit("lost");
            self.failed(now, to, unit, out);
        }
    }

    /// No answer will come for this attempt: another one goes out at once, or the leader hashes the share.
    fn failed(&mut self, now: Micros, owner: NodeId, unit: &UnitId, out: &mut Vec<RootCommand>) {
        self.executors.failed(owner, now);
        let is_open = self.is_open(unit);
        let Some(open) = self.gathering(unit) else { return };
        let pending = open.end_attempt(unit);
        if is_open && pending {
            self.repeat(now, unit.share, out);
            self.finish(out);
        }
    }

    fn overdue(&mut self, now: Micros, out: &mut Vec<RootCommand>) {
        let Some(open) = &mut self.open else { return };
        for (share, owner) in open.overdue(now) {
            self.executors.failed(owner, now);
            self.repeat(now, share, out);
        }
        self.finish(out);
    }

    /// Sends a share to somebody else, once; after that the leader hashes it.
    fn repeat(&mut self, now: Micros, share: u32, out: &mut Vec<RootCommand>) {
        let Some(open) = &mut self.open else { return };
        let others = self.members.iter().copied().filter(|member| *member != self.node);
        let idle = others.filter(|member| open.may_repeat_at(share, *member));
        let quickest = self.executors.quickest(idle, now, open.cost_us(share));
        let Some((to, patience_us)) = quickest else {
            open.give_up(share);
            return self.counters.unit("given_up");
        };
        let (unit, partitions) = open.repeat(share, to, now, now.after(patience_us));
        self.counters.unit("sent");
        self.counters.unit("hedged");
        out.push(RootCommand::Send { to, unit, partitions });
    }

    /// Closes the gathering when nothing is awaited any more, else sets the timer.
    fn finish(&mut self, out: &mut Vec<RootCommand>) {
        match &self.open {
            Some(open) if open.is_complete() => self.close(out),
            Some(open) => out.extend(open.next_deadline().map(|at| RootCommand::Wake { at })),
            None => {}
        }
    }

    fn close(&mut self, out: &mut Vec<RootCommand>) {
        let Some(open) = self.open.take() else { return };
        out.push(RootCommand::Close { gather: open.gather() });
        if open.expects_answers() {
            while self.recent.len() >= limits::CLOSED_GATHER_COUNT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(open);
        }
    }

    fn is_open(&self, unit: &UnitId) -> bool {
        self.open.as_ref().is_some_and(|open| open.gather() == unit.gather)
    }

    fn find(&mut self, unit: &UnitId, owner: NodeId) -> Option<open::Found> {
        self.gathering(unit)?.find(unit, owner)
    }

    fn gathering(&mut self, unit: &UnitId) -> Option<&mut Open> {
        let all = self.open.iter_mut().chain(&mut self.recent);
        all.into_iter().find(|open| open.is_of(unit))
    }
}

/// A member's part of a block's hashing.
#[derive(Clone, Copy, Debug)]
struct Portion {
    lane: Lane,
    partitions: PartitionSet,
    keys: u64,
}

#[cfg(test)]
mod tests;
