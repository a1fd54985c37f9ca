//! How quick each member is, and whom to leave alone for a while.

use super::Micros;
use crate::plan::Lane;
use blockraft_primitives::{
    NodeId,
    limits::{HEDGE_US_MAX, HEDGE_US_MIN},
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
const TELLING_RUN_US: u64 = 500;
/// How long a member that failed is left alone the first time; doubles with each further failure.
const EXCLUSION_US: u64 = 250_000;
/// The longest exclusion is this many doublings.
const EXCLUSION_DOUBLINGS_MAX: u32 = 7;

/// What is known of the members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Executors {
    by_node: BTreeMap<NodeId, Record>,
}

#[derive(Clone, Debug)]
struct Record {
    /// The way there and back without the run, microseconds: the latest ones, and their running mean.
    samples: VecDeque<u64>,
    overhead_us: u64,
    slowness_permille: u64,
    failures: u32,
    excluded_until: Option<Micros>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            samples: VecDeque::new(),
            overhead_us: OVERHEAD_US_DEFAULT,
            slowness_permille: EQUAL_PERMILLE,
            failures: 0,
            excluded_until: None,
        }
    }
}

impl Executors {
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
            record.pardon(now);
            if record.excluded_until.is_none() {
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
        let trusted = nodes
            .filter(|node| self.by_node.get(node).is_some_and(|record| !record.is_excluded(now)));
        let patience = trusted.map(|node| (self.patience_us(node, cost_us), node));
        patience.min().map(|(patience_us, node)| (node, patience_us))
    }

    /// A member has answered, in time or too late.
    pub(crate) fn answered(
        &mut self,
        node: NodeId,
        latency_us: u64,
        run_us: u64,
        cost_us: u64,
        in_time: bool,
    ) {
        let Some(record) = self.by_node.get_mut(&node) else { return };
        let overhead_us = latency_us.saturating_sub(run_us);
        if record.samples.len() >= SAMPLE_COUNT_MAX {
            record.samples.pop_front();
        }
        record.samples.push_back(overhead_us);
        record.overhead_us = smoothed(record.overhead_us, overhead_us);
        if run_us.max(cost_us) >= TELLING_RUN_US {
            let slowness = run_us.saturating_mul(1000) / cost_us.max(1);
            let slowness = slowness.clamp(EQUAL_PERMILLE / 8, EQUAL_PERMILLE * 64);
            record.slowness_permille = smoothed(record.slowness_permille, slowness);
        }
        if in_time {
            record.failures = 0;
        }
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

    /// After an exclusion a member starts afresh, but for the length of the next exclusion.
    fn pardon(&mut self, now: Micros) {
        if self.excluded_until.is_some() && !self.is_excluded(now) {
            *self = Self { failures: self.failures, ..Self::default() };
        }
    }

    fn patience_us(&self, cost_us: u64) -> u64 {
        let longest = self.samples.iter().max().copied().unwrap_or(4 * OVERHEAD_US_DEFAULT);
        let run_us = cost_us.saturating_mul(self.slowness_permille) / 1000;
        // A run may take half as long again as expected.
        (longest + run_us + run_us / 2).clamp(HEDGE_US_MIN, HEDGE_US_MAX)
    }
}

fn smoothed(before: u64, sample: u64) -> u64 {
    (before * (SMOOTHING - 1)).saturating_add(sample) / SMOOTHING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Executors {
        let mut executors = Executors::default();
        assert_eq!(executors.lanes(1, &[1, 2, 3], Micros(0)).len(), 3);
        executors
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
        executors.answered(2, 900, 500, 500, true);
        executors.failed(2, Micros(0));
        assert_eq!(nodes(&mut executors, EXCLUSION_US), [1, 2, 3]);
    }

    #[test]
    fn patience_is_the_longest_way_and_the_run_at_the_members_pace() {
        let mut executors = known();
        assert_eq!(executors.patience_us(2, 10_000), 4_000 + 15_000);
        for _ in 0..100 {
            executors.answered(2, 21_000, 20_000, 10_000, true);
        }
        executors.answered(2, 23_000, 20_000, 10_000, true);
        let patience = executors.patience_us(2, 10_000);
        assert!((32_500..=33_000).contains(&patience), "{patience}");
        assert_eq!(executors.patience_us(2, u64::MAX), HEDGE_US_MAX);
        assert_eq!(executors.quickest([2, 3].into_iter(), Micros(0), 10_000).unwrap().0, 3);
    }

    #[test]
    fn a_bad_impression_fades() {
        let mut executors = known();
        for _ in 0..50 {
            executors.answered(2, 900_000, 1_000, 1_000, true);
        }
        assert!(executors.by_node[&2].overhead_us > 500_000);
        (0..100).for_each(|_| executors.fade());
        assert!(executors.by_node[&2].overhead_us < OVERHEAD_US_DEFAULT + SMOOTHING);
    }
}
