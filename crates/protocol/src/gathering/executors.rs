//! How quick each member is, and whom to leave alone for a while.

use super::Micros;
use crate::plan::Lane;
use blockraft_primitives::{
    NodeId,
    limits::{HEDGE_US_MAX, HEDGE_US_MIN, UNIT_RUN_US_MAX},
};
use std::collections::{BTreeMap, VecDeque};

/// What the way to a member and back is thought to take before it was measured, microseconds.
const OVERHEAD_US_DEFAULT: u64 = 1_000;
/// Times of the way that are remembered; with so few the 99th percentile is the longest.
const SAMPLE_COUNT_MAX: usize = 64;
/// How much a single measurement counts: one part of this.
const SMOOTHING: u64 = 8;
/// Speed of a member that is as quick as the leader.
const EQUAL_PERMILLE: u64 = 1_000;
/// Runs shorter than this say nothing about speed.
pub(super) const TELLING_RUN_US: u64 = 500;
/// How long a member that failed is left alone the first time; doubles with each further failure.
const EXCLUSION_US: u64 = 250_000;
/// The longest exclusion is this many doublings.
const EXCLUSION_DOUBLINGS_MAX: u32 = 7;
/// Who is slower than this against the leader is given nothing: the little that it would do is not worth waiting for.
const SLOWNESS_PERMILLE_MAX: u64 = 8_000;
/// Who was asked nothing for so long is probed.
const PROBE_INTERVAL_US: u64 = 1_000_000;

/// How a member that failed comes to be given work again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// When its exclusion is over, with a share like everybody's.
    AtOnce,
    /// When it has answered a probe, which nobody waits for.
    WhenProbed,
}

/// What is known of the members.
#[derive(Clone, Debug)]
pub(crate) struct Executors {
    by_node: BTreeMap<NodeId, Record>,
    back: Return,
}

#[derive(Clone, Debug)]
struct Record {
    /// The way there and back without the run, microseconds: the latest ones, and their running mean.
    samples: VecDeque<u64>,
    overhead_us: u64,
    slowness_permille: u64,
    failures: u32,
    excluded_until: Option<Micros>,
    asked_at: Option<Micros>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            samples: VecDeque::new(),
            overhead_us: OVERHEAD_US_DEFAULT,
            slowness_permille: EQUAL_PERMILLE,
            failures: 0,
            excluded_until: None,
            asked_at: None,
        }
    }
}

impl Executors {
    /// Nobody is known.
    pub(crate) const fn new(back: Return) -> Self {
        Self { by_node: BTreeMap::new(), back }
    }

    /// Forgets who is no member.
    pub(crate) fn retain(&mut self, members: &[NodeId]) {
        self.by_node.retain(|node, _| members.contains(node));
    }

    /// Who may be given work now: the leader first.
    pub(crate) fn lanes(&mut self, leader: NodeId, members: &[NodeId], now: Micros) -> Vec<Lane> {
        let mut lanes =
            vec![Lane { node: leader, slowness_permille: EQUAL_PERMILLE, overhead_ns: 0 }];
        for node in members.iter().filter(|node| **node != leader) {
            let record = self.by_node.entry(*node).or_default();
            if self.back == Return::AtOnce {
                record.pardon(now);
            }
            if record.is_trusted(self.back, now) {
                lanes.push(Lane {
                    node: *node,
                    slowness_permille: record.slowness_permille,
                    overhead_ns: record.overhead_us * 1000,
                });
            }
        }
        lanes
    }

    /// How long to wait for a member's answer before somebody else is asked.
    pub(crate) fn patience_us(&self, node: NodeId, cost_us: u64) -> u64 {
        self.by_node.get(&node).map_or(HEDGE_US_MAX, |record| record.patience_us(cost_us))
    }

    /// The quickest of some, and how long to wait for it.
    pub(crate) fn quickest(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        now: Micros,
        cost_us: u64,
    ) -> Option<(NodeId, u64)> {
        let is_trusted = |record: &Record| record.is_trusted(self.back, now);
        let trusted = nodes.filter(|node| self.by_node.get(node).is_some_and(is_trusted));
        let patience = trusted.map(|node| (self.patience_us(node, cost_us), node));
        patience.min().map(|(patience_us, node)| (node, patience_us))
    }

    /// Members that nothing was heard of lately because they were asked nothing.
    pub(crate) fn due_for_probe(
        &mut self,
        leader: NodeId,
        members: &[NodeId],
        now: Micros,
    ) -> Vec<NodeId> {
        let others = members.iter().copied().filter(|node| *node != leader);
        let is_due = |node: &NodeId| self.by_node.entry(*node).or_default().is_to_be_probed(now);
        others.filter(is_due).collect()
    }

    /// A member is sent something.
    pub(crate) fn asked(&mut self, node: NodeId, now: Micros) {
        if let Some(record) = self.by_node.get_mut(&node) {
            record.asked_at = Some(now);
        }
    }

    /// A member has answered a probe, that would have taken the leader `cost_us`, and may be given work again. That
    /// counts for half: what was known of it is old.
    pub(crate) fn probed(&mut self, node: NodeId, latency_us: u64, run_us: u64, cost_us: u64) {
        let Some(record) = self.by_node.get_mut(&node) else { return };
        // What it was sent before it came back says nothing of the way from now on.
        let overhead_us = latency_us.saturating_sub(run_us).min(HEDGE_US_MAX);
        if record.excluded_until.take().is_some() {
            record.samples.clear();
        }
        record.note_overhead(overhead_us);
        record.overhead_us = record.overhead_us.midpoint(overhead_us);
        record.slowness_permille = match slowness_permille(run_us, cost_us) {
            Some(slowness) => record.slowness_permille.midpoint(slowness),
            None => {
                record.slowness_permille.min(smoothed(record.slowness_permille, EQUAL_PERMILLE))
            }
        };
    }

    /// A member has answered, in time or too late.
    pub(crate) fn answered(&mut self, node: NodeId, latency_us: u64, run_us: u64, in_time: bool) {
        let Some(record) = self.by_node.get_mut(&node) else { return };
        let overhead_us = latency_us.saturating_sub(run_us);
        record.note_overhead(overhead_us);
        record.overhead_us = smoothed(record.overhead_us, overhead_us);
        if in_time {
            record.failures = 0;
        } else if record.failures == 1 {
            // It was only late, and now its pace is known.
            record.excluded_until = None;
        }
    }

    /// A member has taken `run_us` for what would have taken the leader `cost_us`.
    pub(crate) fn paced(&mut self, node: NodeId, run_us: u64, cost_us: u64, in_time: bool) {
        let Some(record) = self.by_node.get_mut(&node) else { return };
        let known = record.slowness_permille;
        record.slowness_permille = match slowness_permille(run_us, cost_us) {
            // It has cost a wait, which is not to happen again.
            Some(slowness) if !in_time => known.max(slowness),
            Some(slowness) => smoothed(known, slowness),
            // Who was given so little that it says nothing is tried with a little more.
            None => known.min(smoothed(known, EQUAL_PERMILLE)),
        };
    }

    /// A member was too late, refused, or could not be reached.
    pub(crate) fn failed(&mut self, node: NodeId, now: Micros) {
        let Some(record) = self.by_node.get_mut(&node) else { return };
        let pause_us = EXCLUSION_US << record.failures.min(EXCLUSION_DOUBLINGS_MAX);
        record.failures += 1;
        record.excluded_until = Some(now.after(pause_us));
    }

    /// Nobody was asked because the way seemed too long: that is believed a little less each time, or
    /// nobody would ever be asked again.
    pub(crate) fn fade(&mut self) {
        for record in self.by_node.values_mut() {
            record.overhead_us =
                record.overhead_us.min(smoothed(record.overhead_us, OVERHEAD_US_DEFAULT));
            record.slowness_permille =
                record.slowness_permille.min(smoothed(record.slowness_permille, EQUAL_PERMILLE));
        }
    }
}

impl Record {
    fn is_excluded(&self, now: Micros) -> bool {
        self.excluded_until.is_some_and(|until| now < until)
    }

    /// Whether it may be given work.
    fn is_trusted(&self, back: Return, now: Micros) -> bool {
        match back {
            Return::AtOnce => !self.is_excluded(now),
            Return::WhenProbed => {
                self.excluded_until.is_none() && self.slowness_permille <= SLOWNESS_PERMILLE_MAX
            }
        }
    }

    fn is_to_be_probed(&self, now: Micros) -> bool {
        !self.is_excluded(now)
            && self.asked_at.is_none_or(|asked_at| now.since(asked_at) >= PROBE_INTERVAL_US)
    }

    fn note_overhead(&mut self, overhead_us: u64) {
        if self.samples.len() >= SAMPLE_COUNT_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(overhead_us);
    }

    /// After an exclusion a member starts afresh, but for the length of the next exclusion and the pace that its
    /// late answers have shown.
    fn pardon(&mut self, now: Micros) {
        if self.excluded_until.is_some() && !self.is_excluded(now) {
            let Self { failures, slowness_permille, asked_at, .. } = *self;
            *self = Self { failures, slowness_permille, asked_at, ..Self::default() };
        }
    }

    fn patience_us(&self, cost_us: u64) -> u64 {
        let longest = self.samples.iter().max().copied().unwrap_or(4 * OVERHEAD_US_DEFAULT);
        let run_us = (cost_us.saturating_mul(self.slowness_permille) / 1000).min(UNIT_RUN_US_MAX);
        // A run may take half as long again as expected.
        run_us + (longest + run_us / 2).clamp(HEDGE_US_MIN, HEDGE_US_MAX)
    }
}

/// How slow a run was against the leader's; `None` for one that is too short to tell.
fn slowness_permille(run_us: u64, cost_us: u64) -> Option<u64> {
    let slowness = run_us.saturating_mul(1000) / cost_us.max(1);
    (run_us.max(cost_us) >= TELLING_RUN_US)
        .then_some(slowness.clamp(EQUAL_PERMILLE / 8, EQUAL_PERMILLE * 64))
}

fn smoothed(before: u64, sample: u64) -> u64 {
    (before * (SMOOTHING - 1)).saturating_add(sample) / SMOOTHING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known_to(back: Return) -> Executors {
        let mut executors = Executors::new(back);
        assert_eq!(executors.lanes(1, &[1, 2, 3], Micros(0)).len(), 3);
        executors
    }

    fn known() -> Executors {
        known_to(Return::AtOnce)
    }

    fn nodes(executors: &mut Executors, at: u64) -> Vec<NodeId> {
        executors.lanes(1, &[1, 2, 3], Micros(at)).iter().map(|lane| lane.node).collect()
    }

    #[test]
    fn who_fails_is_left_alone_longer_each_time() {
        let mut executors = known();
        executors.failed(2, Micros(0));
        assert_eq!(nodes(&mut executors, EXCLUSION_US - 1), [1, 3]);
        assert_eq!(nodes(&mut executors, EXCLUSION_US), [1, 2, 3]);
        executors.failed(2, Micros(0));
        assert_eq!(nodes(&mut executors, EXCLUSION_US), [1, 3]);
        assert_eq!(nodes(&mut executors, EXCLUSION_US * 2), [1, 2, 3]);
        // Success forgives.
        executors.answered(2, 900, 500, true);
        executors.failed(2, Micros(0));
        assert_eq!(nodes(&mut executors, EXCLUSION_US), [1, 2, 3]);
    }

    #[test]
    fn patience_is_the_longest_way_and_the_run_at_the_members_pace() {
        let mut executors = known();
        assert_eq!(executors.patience_us(2, 10_000), 4_000 + 15_000);
        for _ in 0..100 {
            executors.answered(2, 21_000, 20_000, true);
            executors.paced(2, 20_000, 10_000, true);
        }
        executors.answered(2, 23_000, 20_000, true);
        let patience = executors.patience_us(2, 10_000);
        assert!((32_500..=33_000).contains(&patience), "{patience}");
        assert_eq!(executors.patience_us(2, u64::MAX), UNIT_RUN_US_MAX + HEDGE_US_MAX);
        assert_eq!(executors.quickest([2, 3].into_iter(), Micros(0), 10_000).unwrap().0, 3);
    }

    #[test]
    fn who_was_late_is_known_to_be_slow_at_once_and_is_tried_again_with_little() {
        let pace = |executors: &Executors| executors.by_node[&2].slowness_permille;
        let mut executors = known();
        executors.failed(2, Micros(0));
        executors.paced(2, 200_000, 10_000, false);
        let lanes = executors.lanes(1, &[1, 2, 3], Micros(EXCLUSION_US));
        let slowness: Vec<_> = lanes.iter().map(|lane| lane.slowness_permille).collect();
        assert_eq!(slowness, [1000, 20_000, 1000]);
        // A share that is too small to tell makes it less, one that tells says what it is.
        executors.paced(2, 400, 20, true);
        assert!(pace(&executors) < 18_000);
        (0..60).for_each(|_| executors.paced(2, 1_000, 1_000, true));
        assert!(pace(&executors) < 1_020, "{}", pace(&executors));
    }

    #[test]
    fn who_was_late_once_is_back_when_it_has_answered() {
        let mut executors = known_to(Return::WhenProbed);
        for back in [true, false] {
            executors.failed(2, Micros(0));
            assert_eq!(nodes(&mut executors, 1), [1, 3]);
            executors.answered(2, 30_000, 20_000, false);
            assert_eq!(nodes(&mut executors, 1).contains(&2), back);
        }
    }

    #[test]
    fn where_probes_are_sent_who_failed_comes_back_by_answering_one() {
        let mut executors = known_to(Return::WhenProbed);
        let due =
            |executors: &mut Executors, at| executors.due_for_probe(1, &[1, 2, 3], Micros(at));
        assert_eq!(due(&mut executors, 0), [2, 3], "nothing is known of them");
        for node in [2, 3] {
            executors.asked(node, Micros(0));
        }
        assert_eq!(due(&mut executors, 10), [0; 0]);
        executors.failed(2, Micros(10));
        executors.asked(3, Micros(PROBE_INTERVAL_US));
        assert_eq!(nodes(&mut executors, 10 + EXCLUSION_US), [1, 3], "not by waiting");
        assert_eq!(due(&mut executors, PROBE_INTERVAL_US), [2]);
        executors.asked(2, Micros(PROBE_INTERVAL_US));
        executors.probed(2, 3_000, 2_000, 2_000);
        assert_eq!(nodes(&mut executors, PROBE_INTERVAL_US), [1, 2, 3]);
        // The next failure excludes it for longer all the same, until a share that counts was answered in time.
        executors.failed(2, Micros(PROBE_INTERVAL_US));
        let later = PROBE_INTERVAL_US + EXCLUSION_US * 5;
        assert_eq!(due(&mut executors, PROBE_INTERVAL_US + EXCLUSION_US * 2 - 1), [0; 0]);
        assert_eq!(due(&mut executors, later), [2, 3]);
    }

    #[test]
    fn who_is_much_slower_is_given_nothing_until_probes_say_otherwise() {
        let mut executors = known_to(Return::WhenProbed);
        executors.paced(2, 400_000, 20_000, false);
        assert_eq!(nodes(&mut executors, 0), [1, 3]);
        let none = executors.quickest([2].into_iter(), Micros(0), 10_000);
        assert_eq!(none, None, "nor what is late elsewhere");
        executors.probed(2, 41_000, 40_000, 2_000);
        assert_eq!(nodes(&mut executors, 0), [1, 3]);
        executors.probed(2, 3_000, 2_000, 2_000);
        executors.probed(2, 3_000, 2_000, 2_000);
        assert_eq!(nodes(&mut executors, 0), [1, 2, 3]);
    }

    #[test]
    fn a_bad_impression_fades() {
        let mut executors = known();
        for _ in 0..50 {
            executors.answered(2, 900_000, 1_000, true);
        }
        assert!(executors.by_node[&2].overhead_us > 500_000);
        (0..100).for_each(|_| executors.fade());
        assert!(executors.by_node[&2].overhead_us < OVERHEAD_US_DEFAULT + SMOOTHING);
    }
}
