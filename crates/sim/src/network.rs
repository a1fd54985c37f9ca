//! How packets travel: late, out of order, twice, or not at all.

use crate::rng::Rng;
use blockraft_primitives::NodeId;
use std::{collections::BTreeSet, ops::RangeInclusive};

#[derive(Debug)]
pub(crate) struct Network {
    delay_ms: RangeInclusive<u64>,
    pub(crate) loss_permille: u64,
    duplicate_permille: u64,
    /// From and to: nothing passes in this direction.
    cut: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let slowest = [5, 20, 60][rng.index(3)];
        Self {
            delay_ms: 1..=slowest,
            loss_permille: 0,
            duplicate_permille: 20,
            cut: BTreeSet::new(),
        }
    }

    /// The delays of the copies that arrive.
    pub(crate) fn send(&self, from: NodeId, to: NodeId, rng: &mut Rng) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || rng.chance(self.loss_permille) {
            return Vec::new();
        }
        let copies = 1 + u64::from(rng.chance(self.duplicate_permille));
        (0..copies).map(|_| rng.within(self.delay_ms.clone())).collect()
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.loss_permille = 0;
    }
}
