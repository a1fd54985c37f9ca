//! Blocks on their way: one that is being built, behind those that are proposed and not applied yet.

use super::{BuildId, Command, Head};
use blockraft_primitives::limits::PIPELINE_BLOCK_COUNT_MAX;
use std::collections::VecDeque;

#[derive(Clone, Debug, Default)]
pub(super) struct Pipeline {
    building: Option<BuildId>,
    /// In the order of the log, each on the one before it, the first on the head.
    proposed: VecDeque<Proposed>,
}

#[derive(Clone, Debug)]
struct Proposed {
    build: BuildId,
    head: Head,
    /// It may be in the log or not. Nothing is begun before it is applied, or another leads.
    unknown: bool,
}

impl Pipeline {
    /// What the next block stands on.
    pub(super) fn tip(&self, head: Head) -> Head {
        self.proposed.back().map_or(head, |block| block.head)
    }

    /// Whether another block may be begun.
    pub(super) fn has_room(&self) -> bool {
        self.building.is_none() && self.proposed.len() < PIPELINE_BLOCK_COUNT_MAX && self.is_sound()
    }

    /// Whether every proposed block is in the log, as far as is known.
    pub(super) fn is_sound(&self) -> bool {
        self.proposed.iter().all(|block| !block.unknown)
    }

    pub(super) fn begin(&mut self, build: BuildId) {
        assert!(self.has_room(), "one block is built at a time");
        self.building = Some(build);
    }

    /// Whether it is this block that is being built; it is no more.
    pub(super) fn finish(&mut self, build: BuildId) -> bool {
        self.building.take_if(|building| *building == build).is_some()
    }

    pub(super) fn propose(&mut self, build: BuildId, head: Head) {
        self.proposed.push_back(Proposed { build, head, unknown: false });
    }

    /// What is below the new head has left. A head that is none of these blocks makes all of them void.
    pub(super) fn applied(&mut self, head: Head, out: &mut Vec<Command>) {
        let mut own = true;
        while let Some(block) = self.proposed.pop_front_if(|block| block.head.number <= head.number)
        {
            own = block.head.number < head.number || block.head.hash == head.hash;
        }
        if !own {
            self.discard_from(0, out);
        }
    }

    /// The log has refused a block: it is void, and whatever stands on it. Says whether it was one of these.
    pub(super) fn refused(&mut self, build: BuildId, out: &mut Vec<Command>) -> bool {
        let at = self.proposed.iter().position(|block| block.build == build);
        at.is_some_and(|at| {
            self.discard_from(at, out);
            true
        })
    }

    /// Nobody knows whether the log has taken a block. Says whether it was one of these.
    pub(super) fn lost_sight_of(&mut self, build: BuildId) -> bool {
        let block = self.proposed.iter_mut().find(|block| block.build == build);
        block.is_some_and(|block| {
            block.unknown = true;
            true
        })
    }

    /// The newest first: each is the end of what is there when it goes.
    fn discard_from(&mut self, at: usize, out: &mut Vec<Command>) {
        // What is being built stands on these; its result is discarded when it comes.
        self.building = None;
        let void = self.proposed.drain(at..).rev();
        out.extend(void.map(|block| Command::DiscardBlock { build: block.build }));
    }
}
