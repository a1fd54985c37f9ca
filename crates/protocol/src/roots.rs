//! The leader's side of hashing that is shared out, as a state machine: who hashes which subtries of a block
//! that has run, whether that pays, and what to do about owners that are late, gone or wrong (decision 0018).
//!
//! # How a shell drives it
//!
//! | Command | What the shell does | Event that follows |
//! |---|---|---|
//! | `HashAlone` | hashes everything itself | |
//! | `Send` | sends the unit with the block's changes in these partitions | `Answered`, `Refused` or `Lost` |
//! | `HashOwn` | hashes these partitions meanwhile | `OwnHashed` |
//! | `Keep` | keeps these roots | |
//! | `Discard` | forgets the roots of a share | |
//! | `Wake` | sets its one timer | `Timer` |
//! | `Close` | hashes what it has no roots of, and puts the state root together | |
//! | `Alarm` | tells the operator: two members disagree about one unit | |
//!
//! Afterwards it reports how long its own hashing took ([`RootSharer::hashed`]).
//!
//! **Invariant**: a partition that changes is hashed by one of those asked or by the leader. What else holds of a
//! gathering stands in `gathering.rs`.

use crate::{
    gathering::{Answer, DispatchCounters, Gatherer, Micros, Place, Return, Step, Work},
    partition::{PARTITION_COUNT, PartitionId, PartitionMap},
    plan::{Distribution, Lane, LocalReason},
    units::{Fence, RootAnswer, UnitId, UnitRefused},
};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{NodeId, PartitionSet};

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
    /// This node has applied a block.
    Applied {
        /// Its height.
        height: u64,
    },
    /// A block has run.
    Block(RootWork),
    /// This node has hashed its own partitions.
    OwnHashed {
        /// The gathering.
        gather: u64,
        /// How long that took, microseconds.
        took_us: u64,
    },
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

/// What a gathering is about; all that there is to know of it goes with the units.
#[derive(Debug)]
struct Hashing;

impl Work for Hashing {
    type Part = PartitionSet;
    type Unit = (UnitId, PartitionSet);
    type Evidence = RootEvidence;
    // What an owner hashes it must keep up to date: nothing to try it with.
    const RETURN: Return = Return::AtOnce;

    fn unit(&self, id: UnitId, partitions: &PartitionSet) -> (UnitId, PartitionSet) {
        (id, *partitions)
    }

    fn evidence(
        &self,
        fence: Fence,
        partitions: &PartitionSet,
        answers: [(NodeId, Bytes); 2],
    ) -> RootEvidence {
        RootEvidence { fence, partitions: *partitions, answers }
    }
}

impl From<Step<Hashing>> for RootCommand {
    fn from(step: Step<Hashing>) -> Self {
        match step {
            Step::Send { to, unit: (unit, partitions) } => Self::Send { to, unit, partitions },
            Step::Keep { gather, share, part: partitions, bytes: roots } => {
                Self::Keep { gather, share, partitions, roots }
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
pub struct RootSharer {
    gatherer: Gatherer<Hashing>,
    threads: u64,
    map: Option<PartitionMap>,
    /// Whom the map was drawn up for.
    mapped: Vec<NodeId>,
    key_ns: u64,
}

impl RootSharer {
    /// A sharer of a node that does not lead yet and hashes on `threads` threads.
    pub fn new(node: NodeId, cluster: B256, threads: usize, distribution: Distribution) -> Self {
        Self {
            gatherer: Gatherer::new(node, cluster, distribution),
            threads: threads.max(1) as u64,
            map: None,
            mapped: Vec::new(),
            key_ns: KEY_NS_DEFAULT,
        }
    }

    /// Takes one event and says what to do about it, in order.
    pub fn step(&mut self, now: Micros, event: RootEvent) -> Vec<RootCommand> {
        let mut out = Vec::new();
        match event {
            RootEvent::Role { leading, others } => {
                if self.gatherer.role(leading, others, &mut out) {
                    self.map = None;
                    self.mapped.clear();
                }
            }
            RootEvent::Applied { height } => self.gatherer.applied(now, height, &mut out),
            RootEvent::Block(work) => self.block(now, &work, &mut out),
            RootEvent::OwnHashed { gather, took_us } => {
                self.gatherer.own_done(now, gather, took_us, &mut out);
            }
            RootEvent::Answered(answer) => {
                let RootAnswer { echo, owner: from, run_us, roots: bytes } = answer;
                self.gatherer.answered(now, Answer { echo, from, run_us, bytes }, &mut out);
            }
            RootEvent::Refused(refused) => self.gatherer.refused(now, &refused, &mut out),
            RootEvent::Lost { to, unit } => self.gatherer.lost(now, to, &unit, &mut out),
            RootEvent::Timer => self.gatherer.overdue(now, &mut out),
        }
        out
    }

    /// Whether no block's hashing would be shared out, whatever it changes.
    pub fn declines(&self) -> Option<LocalReason> {
        self.gatherer.declines()
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
        self.gatherer.counters()
    }

    /// Disagreements that were found, the latest last; older ones beyond a limit are forgotten.
    pub fn evidence(&self) -> impl Iterator<Item = &RootEvidence> {
        self.gatherer.evidence()
    }

    /// The partition map of the present term, once hashing was shared out.
    pub fn map(&self) -> Option<&PartitionMap> {
        self.map.as_ref()
    }

    fn block(&mut self, now: Micros, work: &RootWork, out: &mut Vec<RootCommand>) {
        self.gatherer.close(out);
        match self.plan(now, work) {
            Ok(portions) => self.send(now, work, portions, out),
            Err(reason) => {
                self.gatherer.alone(reason);
                out.push(RootCommand::HashAlone { reason });
            }
        }
    }

    /// Who hashes what, and how many keys that is: the leader first.
    fn plan(&mut self, now: Micros, work: &RootWork) -> Result<Vec<Portion>, LocalReason> {
        let lanes = self.gatherer.lanes(now, Some(work.term), work.height)?;
        let auto = self.gatherer.distribution == Distribution::Auto;
        let keys: u64 = work.keys.iter().map(|keys| u64::from(*keys)).sum();
        if auto && keys < KEY_COUNT_MIN {
            return Err(LocalReason::Light);
        }
        self.draw_map(&lanes);
        let portions = self.portions(&lanes, &work.keys);
        if auto && !self.pays(keys, &portions) {
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
        let place = Place {
            term: work.term,
            height: work.height,
            parent: work.parent,
            epoch: self.map.as_ref().map_or(0, PartitionMap::epoch),
        };
        let (own, others) = portions.split_first().expect("the leader has a portion");
        // What does not change has the root that it had.
        let others = others.iter().filter(|portion| portion.keys > 0);
        let parts: Vec<_> =
            others.map(|p| (p.lane.node, p.partitions, self.cost_ns(p.keys) / 1000)).collect();
        let own_cost_us = self.cost_ns(own.keys) / 1000;
        let work = (Hashing, own_cost_us);
        let gather = self.gatherer.begin(now, place, work, parts.into_iter(), out);
        out.push(RootCommand::HashOwn { gather, partitions: own.partitions });
        self.gatherer.finish(out);
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
