//! How long members have worked, held against what the leader's own part of the same block says of the prediction: a
//! cost that was thought too low makes nobody slow, and nobody late.

use super::executors::{Executors, TELLING_RUN_US};
use blockraft_primitives::NodeId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Paces {
    /// The latest gathering, and what the leader's own part of it was thought to take, microseconds.
    gathering: Option<(u64, u64)>,
    /// Answers to it, until the leader has done its own part.
    waiting: Vec<Pace>,
    /// It has.
    told: bool,
    /// What the leader took, and what that had been thought to take, microseconds.
    leader: Option<(u64, u64)>,
}

/// A member's answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) node: NodeId,
    pub(super) run_us: u64,
    /// As it was predicted.
    pub(super) cost_us: u64,
}

impl Paces {
    /// A gathering begins.
    pub(super) fn begin(&mut self, gather: u64, own_cost_us: u64) {
        self.gathering = Some((gather, own_cost_us));
        self.waiting.clear();
        self.told = false;
    }

    /// The leader has done its own part of a gathering, which may be over by then.
    pub(super) fn leader(&mut self, gather: u64, took_us: u64, executors: &mut Executors) {
        let Some((_, thought_us)) = self.gathering.filter(|(of, _)| *of == gather) else { return };
        self.told = true;
        if took_us.min(thought_us) > 0 && took_us.max(thought_us) >= TELLING_RUN_US {
            self.leader = Some((took_us, thought_us));
        }
        for pace in std::mem::take(&mut self.waiting) {
            self.judge(pace, true, executors);
        }
    }

    /// A member has answered.
    pub(super) fn member(&mut self, pace: Pace, in_time: bool, executors: &mut Executors) {
        if in_time && !self.told {
            self.waiting.push(pace);
        } else {
            self.judge(pace, in_time, executors);
        }
    }

    /// What a prediction would have been, had it been right for the leader.
    pub(super) fn actual_us(&self, cost_us: u64) -> u64 {
        let (actual, thought) = self.leader.unwrap_or((1, 1));
        let cost_us = u128::from(cost_us) * u128::from(actual) / u128::from(thought);
        u64::try_from(cost_us).unwrap_or(u64::MAX)
    }

    fn judge(&self, pace: Pace, in_time: bool, executors: &mut Executors) {
        executors.paced(pace.node, pace.run_us, self.actual_us(pace.cost_us), in_time);
    }
}
