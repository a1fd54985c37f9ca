//! A leader and its executors with a network that delays, reorders, repeats and loses, on a chain that
//! moves, under leaders that change.

use super::{super::*, CLUSTER, OPEN_US_MAX, leading, pooled, work};
use crate::units::{Admittance, Gate, Standing};
use proptest::prelude::*;
use std::collections::BTreeSet;

const OTHERS: [NodeId; 3] = [2, 3, 4];

#[derive(Clone, Debug)]
enum Step {
    /// The leader builds the next block; the last one is applied everywhere but on these.
    Build { laggards: Vec<NodeId> },
    /// The leader has run its own share of this gathering, or says so of an earlier one.
    OwnRun { late: u64, took_us: u64 },
    /// The leader notices that it has applied the block before.
    Applied,
    /// So many microseconds pass.
    Pass(u64),
    /// A message in flight arrives; it may stay in flight too.
    Deliver { which: prop::sample::Index, repeated: bool },
    /// A message in flight is lost, and the sender may hear of that.
    Lose { which: prop::sample::Index, told: bool },
    /// The leader is deposed, and elected in a later term.
    Election,
}

fn step() -> impl Strategy<Value = Step> {
    let laggards = prop::collection::vec(prop::sample::select(OTHERS.to_vec()), 0..2);
    let which = || any::<prop::sample::Index>();
    prop_oneof![
        2 => laggards.prop_map(|laggards| Step::Build { laggards }),
        2 => (0..2u64, 0..2_000_000u64).prop_map(|(late, took_us)| Step::OwnRun { late, took_us }),
        2 => Just(Step::Applied),
        4 => (0..80_000u64).prop_map(Step::Pass),
        8 => (which(), prop::bool::weighted(0.2))
            .prop_map(|(which, repeated)| Step::Deliver { which, repeated }),
        2 => (which(), any::<bool>()).prop_map(|(which, told)| Step::Lose { which, told }),
        1 => Just(Step::Election),
    ]
}

#[derive(Clone, Debug)]
enum Message {
    Order { to: NodeId, unit: Unit },
    Reply(DispatchEvent),
}

struct Executor {
    gate: Gate,
    height: u64,
}

struct World {
    now: Micros,
    term: u64,
    height: u64,
    dispatcher: Dispatcher,
    executors: BTreeMap<NodeId, Executor>,
    network: Vec<Message>,
    wake: Option<Micros>,
    /// The open gathering: its fence, when it was opened, and what is settled already.
    open: Option<Gathering>,
    units: Vec<Unit>,
}

struct Gathering {
    gather: u64,
    opened: Micros,
    count: usize,
    kept: BTreeSet<usize>,
    own: BTreeSet<usize>,
}

fn hash_at(height: u64) -> B256 {
    // As `work` names the parent of the block after it.
    B256::with_last_byte((height + 1) as u8)
}

/// What running a unit gives, wherever it is run.
fn digest(unit: &Unit) -> Bytes {
    let of = (unit.id.fence.parent, pooled(unit).transactions.iter().map(|id| id.0).sum::<u64>());
    [of.0.as_slice(), &of.1.to_be_bytes()].concat().into()
}

impl World {
    fn new() -> Self {
        let mut dispatcher = Dispatcher::new(1, CLUSTER, 1, Distribution::Auto);
        dispatcher.step(Micros(0), leading(1, &OTHERS));
        let executor = |node| (node, Executor { gate: Gate::default(), height: 0 });
        Self {
            now: Micros(0),
            term: 1,
            height: 0,
            dispatcher,
            executors: OTHERS.into_iter().map(executor).collect(),
            network: Vec::new(),
            wake: None,
            open: None,
            units: Vec::new(),
        }
    }

    fn event(&mut self, event: DispatchEvent) {
        let commands = self.dispatcher.step(self.now, event);
        for command in commands {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: DispatchCommand) {
        match command {
            DispatchCommand::RunAlone { .. } => assert!(self.open.is_none(), "two at once"),
            DispatchCommand::Send { to, unit } => {
                assert_eq!(unit.id.fence.term, self.term, "a unit of another term");
                assert_eq!(unit.id.fence.parent, hash_at(self.height), "a unit on another parent");
                self.units.push(unit.clone());
                self.network.push(Message::Order { to, unit });
            }
            DispatchCommand::RunOwn { gather, indices } => {
                assert!(self.open.is_none(), "two gatherings at once");
                self.open = Some(Gathering {
                    gather,
                    opened: self.now,
                    count: 600,
                    kept: BTreeSet::new(),
                    own: indices.into_iter().collect(),
                });
            }
            DispatchCommand::Keep { gather, share, indices, outcomes } => {
                let open = self.open.as_mut().expect("kept while nothing is open");
                assert_eq!(open.gather, gather, "kept for another gathering");
                let name = |unit: &&Unit| (unit.id.gather, unit.id.share) == (gather, share);
                let unit = self.units.iter().find(name).expect("outcomes of a unit");
                assert_eq!(outcomes, digest(unit), "outcomes of another unit");
                assert_eq!(
                    (unit.id.fence.term, unit.id.fence.height),
                    (self.term, self.height + 1)
                );
                assert_eq!(unit.work.transaction_count(), indices.len());
                for index in indices {
                    assert!(index < open.count && !open.own.contains(&index));
                    assert!(open.kept.insert(index), "kept twice");
                }
            }
            DispatchCommand::Discard { .. } | DispatchCommand::Alarm(_) => {
                panic!("nobody lies here")
            }
            DispatchCommand::Wake { at } => self.wake = Some(at),
            DispatchCommand::Close { gather } => {
                let open = self.open.take().expect("closed what is open");
                assert_eq!(open.gather, gather);
                assert!(self.now.since(open.opened) <= OPEN_US_MAX, "a stall");
                self.wake = None;
            }
        }
    }

    fn pass(&mut self, micros: u64) {
        let end = self.now.after(micros);
        while let Some(at) = self.wake.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.wake = None;
            self.event(DispatchEvent::Timer);
        }
        self.now = end;
    }

    fn build(&mut self, laggards: &[NodeId]) {
        if let Some(open) = &self.open {
            // One block at a time: this gathering ends first.
            let left = OPEN_US_MAX - self.now.since(open.opened);
            self.pass(left);
            assert!(self.open.is_none(), "open for ever");
        }
        self.height += 1;
        for (node, executor) in &mut self.executors {
            if !laggards.contains(node) {
                executor.height = self.height;
            }
        }
        self.event(DispatchEvent::Block(work(self.term, self.height + 1, 600)));
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Reply(event) => self.event(event),
            Message::Order { to, unit } => {
                let reply = self.execute(to, &unit);
                self.network.push(Message::Reply(reply));
            }
        }
    }

    fn execute(&mut self, node: NodeId, unit: &Unit) -> DispatchEvent {
        let executor = self.executors.get_mut(&node).expect("a member");
        let standing = Standing {
            cluster: CLUSTER,
            term: 0,
            leader: None,
            height: executor.height,
            head: hash_at(executor.height),
            applied: 100,
        };
        let refuse = |refusal| {
            DispatchEvent::Refused(UnitRefused { echo: unit.id, executor: node, refusal })
        };
        match executor.gate.check(unit, &standing) {
            Admittance::Refuse(refusal) => refuse(refusal),
            Admittance::Wait => refuse(standing.lagging()),
            Admittance::Run => {
                assert_eq!(unit.id.fence.height, executor.height + 1);
                assert_eq!(unit.id.fence.parent, hash_at(executor.height), "ran on another state");
                DispatchEvent::Answered(UnitAnswer {
                    echo: unit.id,
                    executor: node,
                    run_us: 1_000,
                    outcomes: digest(unit),
                })
            }
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Build { laggards } => self.build(&laggards),
            Step::OwnRun { late, took_us } => {
                if let Some(open) = &self.open {
                    let gather = open.gather.saturating_sub(late);
                    self.event(DispatchEvent::OwnRun { gather, took_us });
                }
            }
            Step::Applied => self.event(DispatchEvent::Applied { height: self.height }),
            Step::Pass(micros) => self.pass(micros),
            Step::Deliver { which, repeated } if !self.network.is_empty() => {
                let at = which.index(self.network.len());
                let message =
                    if repeated { self.network[at].clone() } else { self.network.remove(at) };
                self.deliver(message);
            }
            Step::Lose { which, told } if !self.network.is_empty() => {
                let message = self.network.remove(which.index(self.network.len()));
                if let (Message::Order { to, unit }, true) = (message, told) {
                    self.event(DispatchEvent::Lost { to, unit: unit.id });
                }
            }
            Step::Deliver { .. } | Step::Lose { .. } => {}
            Step::Election => {
                let others = OTHERS.to_vec();
                self.event(DispatchEvent::Role { leading: None, others });
                assert!(self.open.is_none(), "a deposed leader waits");
                self.term += 2;
                self.event(leading(self.term, &OTHERS));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_stale_counts_and_nothing_stalls(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.pass(OPEN_US_MAX);
        prop_assert!(world.open.is_none(), "open for ever");
    }
}
