//! What execution and hashing over machines have in common: a leader sends parts of a block's work to members as
//! fenced units, takes answers that fit, repeats a late unit once elsewhere, and ends the gathering in time,
//! whatever happens. What has no answer then falls to the leader.
//!
//! **Invariants**: an answer is kept only while its gathering is open, from whom the unit was sent to, once a
//! share, and only if it repeats the unit's whole name; of two that differ meanwhile neither is kept; when this
//! node is deposed all units are forgotten; a gathering is closed at most two times
//! [`HEDGE_US_MAX`](limits::HEDGE_US_MAX), [`UNIT_RUN_US_MAX`](limits::UNIT_RUN_US_MAX) and
//! [`UNIT_PARENT_WAIT_MS`](limits::UNIT_PARENT_WAIT_MS) after it was opened, if the timer comes when it was asked for.

mod executors;
mod open;
mod paces;

use self::open::{Found, Open, Verdict};
use crate::{
    plan::{Distribution, Lane, LocalReason},
    units::{Fence, UnitId, UnitRefused},
};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{NodeId, limits};
use executors::Executors;
pub(crate) use executors::Return;
use paces::{Pace, Paces};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

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

/// Counted since the start, by name, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DispatchCounters {
    /// What became of units: `sent`, `answered`, `late`, `hedged`, `refused`, `lost`, `stray`, `given_up`,
    /// `alarm`, `probed`, `probe_answered`.
    pub units: BTreeMap<&'static str, u64>,
    /// Refusals by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Blocks by decision: `distributed`, or why not.
    pub decisions: BTreeMap<&'static str, u64>,
}

impl DispatchCounters {
    fn unit(&mut self, event: &'static str) {
        *self.units.entry(event).or_default() += 1;
    }

    fn refused(&mut self, reason: &'static str) {
        *self.refusals.entry(reason).or_default() += 1;
    }

    fn decided(&mut self, decision: &'static str) {
        *self.decisions.entry(decision).or_default() += 1;
    }
}

/// Work on one block, which can be parted.
pub(crate) trait Work {
    /// A member's part of it.
    type Part: Clone + fmt::Debug;
    /// What is sent to a member.
    type Unit: fmt::Debug;
    /// What is kept where two members contradict each other.
    type Evidence: Clone + fmt::Debug;
    /// How a member that failed comes to be given work again.
    const RETURN: Return;

    /// The unit of a part.
    fn unit(&self, id: UnitId, part: &Self::Part) -> Self::Unit;

    /// Two answers to one part.
    fn evidence(
        &self,
        fence: Fence,
        part: &Self::Part,
        answers: [(NodeId, Bytes); 2],
    ) -> Self::Evidence;
}

/// What came of a unit, whatever it was about.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) echo: UnitId,
    pub(crate) from: NodeId,
    /// How long it took, microseconds, waiting not counted.
    pub(crate) run_us: u64,
    pub(crate) bytes: Bytes,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Step<W: Work> {
    Send { to: NodeId, unit: W::Unit },
    Keep { gather: u64, share: u32, part: W::Part, bytes: Bytes },
    Discard { gather: u64, share: u32 },
    Wake { at: Micros },
    Close { gather: u64 },
    Alarm(W::Evidence),
}

/// See the module. What it orders goes into a list of its user's own commands.
#[derive(Debug)]
pub(crate) struct Gatherer<W: Work> {
    pub(crate) node: NodeId,
    cluster: B256,
    pub(crate) distribution: Distribution,
    leading: Option<u64>,
    pub(crate) members: Vec<NodeId>,
    executors: Executors,
    open: Option<Open<W>>,
    /// Closed gatherings that somebody may still answer to.
    recent: VecDeque<Open<W>>,
    next_gather: u64,
    paces: Paces,
    /// Height of the last block that this node has applied.
    applied: u64,
    /// How long a parent that was not applied here was awaited lately, microseconds.
    parent_wait_us: u64,
    evidence: VecDeque<W::Evidence>,
    counters: DispatchCounters,
}

impl<W: Work> Gatherer<W> {
    /// Of a node that does not lead yet.
    pub(crate) fn new(node: NodeId, cluster: B256, distribution: Distribution) -> Self {
        Self {
            node,
            cluster,
            distribution,
            leading: None,
            members: vec![node],
            executors: Executors::new(W::RETURN),
            open: None,
            recent: VecDeque::new(),
            next_gather: 0,
            paces: Paces::default(),
            applied: 0,
            parent_wait_us: 0,
            evidence: VecDeque::new(),
            counters: DispatchCounters::default(),
        }
    }

    pub(crate) const fn counters(&self) -> &DispatchCounters {
        &self.counters
    }

    /// Contradictions that were found, the latest last; older ones beyond a limit are forgotten.
    pub(crate) fn evidence(&self) -> impl Iterator<Item = &W::Evidence> {
        self.evidence.iter()
    }

    /// Whether no block would be shared out, whatever is in it.
    pub(crate) const fn declines(&self) -> Option<LocalReason> {
        match (self.distribution, self.members.len()) {
            (Distribution::Off, _) => Some(LocalReason::Off),
            (_, ..2) => Some(LocalReason::Alone),
            _ => None,
        }
    }

    /// Who else is there, and the term in which this node leads, if it does. Whether that is another one
    /// than before.
    pub(crate) fn role<C: From<Step<W>>>(
        &mut self,
        leading: Option<u64>,
        others: Vec<NodeId>,
        out: &mut Vec<C>,
    ) -> bool {
        let changed = leading != self.leading;
        if changed {
            // Nothing that was sent in another term counts any more.
            if let Some(open) = self.open.take() {
                out.push(Step::Close { gather: open.gather() }.into());
            }
            self.recent.clear();
            self.leading = leading;
        }
        self.members = others;
        self.members.retain(|member| *member != self.node);
        self.members.push(self.node);
        self.members.sort_unstable();
        self.members.dedup();
        self.executors.retain(&self.members);
        changed
    }

    /// This node has applied a block. Members have, or will at once: those that were to wait for it may be late now.
    pub(crate) fn applied<C: From<Step<W>>>(&mut self, now: Micros, height: u64, out: &mut Vec<C>) {
        self.applied = height;
        for closed in &mut self.recent {
            closed.parent_applied(now, height);
        }
        let Some(open) = &mut self.open else { return };
        if let Some(waited_us) = open.parent_applied(now, height) {
            self.parent_wait_us = self.parent_wait_us.midpoint(waited_us);
            self.finish(out);
        }
    }

    /// Whether a block's parent is still on its way.
    const fn lacks_parent(&self, height: u64) -> bool {
        self.applied.saturating_add(1) < height
    }

    /// Who may be given work of a term on a block of some height now: this node first. Work that belongs to no term is
    /// anybody's. While the parent is on its way, only this node can begin.
    pub(crate) fn lanes(
        &mut self,
        now: Micros,
        term: Option<u64>,
        height: u64,
    ) -> Result<Vec<Lane>, LocalReason> {
        if self.distribution == Distribution::Off {
            return Err(LocalReason::Off);
        }
        if term.is_some_and(|term| self.leading != Some(term)) {
            return Err(LocalReason::Deposed);
        }
        let mut lanes = self.executors.lanes(self.node, &self.members, now);
        if self.lacks_parent(height) {
            for lane in &mut lanes[1..] {
                lane.overhead_ns += self.parent_wait_us * 1000;
            }
        }
        if lanes.len() < 2 { Err(LocalReason::Alone) } else { Ok(lanes) }
    }

    /// A block's work is not shared out.
    pub(crate) fn alone(&mut self, reason: LocalReason) {
        self.counters.decided(reason.name());
        if reason == LocalReason::NoGain && W::RETURN == Return::AtOnce {
            self.executors.fade();
        }
    }

    /// Opens a gathering and sends members their parts, each with what it should cost this node,
    /// microseconds, as its own part should cost `own_cost_us`. [`Self::finish`] must follow.
    pub(crate) fn begin<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        place: Place,
        (work, own_cost_us): (W, u64),
        parts: impl Iterator<Item = (NodeId, W::Part, u64)>,
        out: &mut Vec<C>,
    ) -> u64 {
        self.counters.decided("distributed");
        let (gather, fence) = self.next(place);
        self.paces.begin(gather, own_cost_us);
        let mut open = Open::new(gather, fence, work);
        if self.lacks_parent(place.height) {
            open.hold_for_parent(now);
        }
        for (to, part, cost_us) in parts {
            let patience = self.executors.patience_us(to, cost_us);
            let unit = open.add(to, part, cost_us, now, patience);
            self.executors.asked(to, now);
            self.counters.unit("sent");
            out.push(Step::Send { to, unit }.into());
        }
        self.open = Some(open);
        gather
    }

    /// Whoever was asked nothing for a while is sent a little, which nobody waits for: so a member that was stopped or
    /// slow is found to be quick again without costing a wait. `little` is work, a part and what that should cost this
    /// node, microseconds.
    pub(crate) fn probe<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        place: Place,
        little: Option<(W, W::Part, u64)>,
        out: &mut Vec<C>,
    ) {
        let Some((work, part, cost_us)) = little else { return };
        let due = self.executors.due_for_probe(self.node, &self.members, now);
        if due.is_empty() {
            return;
        }
        let (gather, fence) = self.next(place);
        let mut open = Open::probe(gather, fence, work);
        if self.lacks_parent(place.height) {
            open.hold_for_parent(now);
        }
        for to in due {
            let unit = open.add(to, part.clone(), cost_us, now, 0);
            self.executors.asked(to, now);
            self.counters.unit("probed");
            out.push(Step::Send { to, unit }.into());
        }
        self.remember(open);
    }

    /// The name of what is opened next.
    fn next(&mut self, place: Place) -> (u64, Fence) {
        let Place { term, height, parent, epoch } = place;
        let fence = Fence { cluster: self.cluster, term, leader: self.node, height, parent, epoch };
        let gather = self.next_gather;
        self.next_gather += 1;
        (gather, fence)
    }

    /// This node has done its own part. Where that took longer than was thought, nobody else is late yet, nor while this
    /// node would still be busy with what is missing.
    pub(crate) fn own_done<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        gather: u64,
        took_us: u64,
        out: &mut Vec<C>,
    ) {
        self.paces.leader(gather, took_us, &mut self.executors);
        let Some(open) = self.open.as_mut().filter(|open| open.gather() == gather) else { return };
        let (paces, executors) = (&self.paces, &self.executors);
        open.own_done(
            now,
            |to, cost_us| executors.patience_us(to, paces.actual_us(cost_us)),
            |cost_us| paces.actual_us(cost_us),
        );
        self.finish(out);
    }

    pub(crate) fn answered<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        answer: Answer,
        out: &mut Vec<C>,
    ) {
        let Some(found) = self.find(&answer.echo, answer.from) else {
            return self.counters.unit("stray");
        };
        let Found { sent_at, cost_us, first_time, is_probe } = found;
        let is_open = self.is_open(&answer.echo);
        if first_time && is_probe {
            self.counters.unit("probe_answered");
            let (latency_us, cost_us) = (now.since(sent_at), self.paces.actual_us(cost_us));
            self.executors.probed(answer.from, latency_us, answer.run_us, cost_us);
        } else if first_time {
            self.counters.unit(if is_open { "answered" } else { "late" });
            let latency_us = now.since(sent_at);
            let Answer { from: node, run_us, .. } = answer;
            self.executors.answered(node, latency_us, run_us, is_open);
            self.paces.member(Pace { node, run_us, cost_us }, is_open, &mut self.executors);
        }
        let UnitId { gather, share, .. } = answer.echo;
        let Some(open) = self.gathering(&answer.echo) else { return };
        match open.take_answer(&answer) {
            Verdict::First { part } if is_open => {
                out.push(Step::Keep { gather, share, part, bytes: answer.bytes }.into());
                self.finish(out);
            }
            Verdict::First { .. } | Verdict::Same => {}
            Verdict::Differs { evidence, was_believed } => {
                self.counters.unit("alarm");
                if is_open && was_believed {
                    out.push(Step::Discard { gather, share }.into());
                }
                while self.evidence.len() >= limits::UNIT_EVIDENCE_COUNT_MAX {
                    self.evidence.pop_front();
                }
                self.evidence.push_back(evidence.clone());
                out.push(Step::Alarm(evidence).into());
            }
        }
    }

    pub(crate) fn refused<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        refused: &UnitRefused,
        out: &mut Vec<C>,
    ) {
        if !self.is_news(&refused.echo, refused.executor) {
            return self.counters.unit("stray");
        }
        self.counters.unit("refused");
        self.counters.refused(refused.refusal.name());
        self.failed(now, refused.executor, &refused.echo, out);
    }

    pub(crate) fn lost<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        to: NodeId,
        unit: &UnitId,
        out: &mut Vec<C>,
    ) {
        if self.is_news(unit, to) {
            self.counters.unit("lost");
            self.failed(now, to, unit, out);
        }
    }

    /// The moment that was last asked for has come.
    pub(crate) fn overdue<C: From<Step<W>>>(&mut self, now: Micros, out: &mut Vec<C>) {
        let Some(open) = &self.open else { return };
        for (share, member) in open.overdue(now) {
            self.executors.failed(member, now);
            self.repeat(now, share, out);
        }
        self.finish(out);
    }

    /// Closes the gathering when nothing is awaited any more, else sets the timer.
    pub(crate) fn finish<C: From<Step<W>>>(&mut self, out: &mut Vec<C>) {
        match &self.open {
            Some(open) if open.is_complete() => self.close(out),
            Some(open) => out.extend(open.next_deadline().map(|at| Step::Wake { at }.into())),
            None => {}
        }
    }

    /// Waits for nothing more.
    pub(crate) fn close<C: From<Step<W>>>(&mut self, out: &mut Vec<C>) {
        let Some(open) = self.open.take() else { return };
        out.push(Step::Close { gather: open.gather() }.into());
        if open.expects_answers() {
            self.remember(open);
        }
    }

    fn remember(&mut self, open: Open<W>) {
        while self.recent.len() >= limits::CLOSED_GATHER_COUNT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(open);
    }

    /// No answer will come for this attempt: another one goes out at once, or its share falls to the leader.
    fn failed<C: From<Step<W>>>(
        &mut self,
        now: Micros,
        member: NodeId,
        unit: &UnitId,
        out: &mut Vec<C>,
    ) {
        self.executors.failed(member, now);
        let is_open = self.is_open(unit);
        let Some(open) = self.gathering(unit) else { return };
        let pending = open.end_attempt(unit);
        if is_open && pending {
            self.repeat(now, unit.share, out);
            self.finish(out);
        }
    }

    /// Sends a share to somebody else, once; after that it falls to the leader.
    fn repeat<C: From<Step<W>>>(&mut self, now: Micros, share: u32, out: &mut Vec<C>) {
        let Some(open) = &mut self.open else { return };
        let others = self.members.iter().copied().filter(|member| *member != self.node);
        let idle = others.filter(|member| open.may_repeat_at(share, *member));
        let cost_us = self.paces.actual_us(open.cost_us(share));
        let quickest = self.executors.quickest(idle, now, cost_us);
        let Some((to, patience_us)) = quickest else {
            open.give_up(share);
            return self.counters.unit("given_up");
        };
        let unit = open.repeat(share, to, now, patience_us);
        self.executors.asked(to, now);
        self.counters.unit("sent");
        self.counters.unit("hedged");
        out.push(Step::Send { to, unit }.into());
    }

    fn is_open(&self, unit: &UnitId) -> bool {
        self.open.as_ref().is_some_and(|open| open.gather() == unit.gather)
    }

    /// Whether a unit was sent to a member that was not heard of since.
    fn is_news(&mut self, unit: &UnitId, member: NodeId) -> bool {
        self.find(unit, member).is_some_and(|found| found.first_time)
    }

    fn find(&mut self, unit: &UnitId, member: NodeId) -> Option<Found> {
        self.gathering(unit)?.find(unit, member)
    }

    fn gathering(&mut self, unit: &UnitId) -> Option<&mut Open<W>> {
        let all = self.open.iter_mut().chain(&mut self.recent);
        all.into_iter().find(|open| open.is_of(unit))
    }
}

/// The block that a gathering is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) term: u64,
    pub(crate) height: u64,
    pub(crate) parent: B256,
    /// Of the partition map.
    pub(crate) epoch: u64,
}
