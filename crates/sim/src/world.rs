//! One run: virtual time, the queue of events, the nodes, the network, the clients and the faults.

use crate::{
    Options,
    faults::{self, Fault},
    invariants::{End, Fact, Invariants},
    network::Network,
    node::{ClientAnswer, Context, Effect, Local, Node, Packet, Watch},
    rng::Rng,
    trace::Trace,
    workload::{Signed, Workload, genesis},
};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{ClusterGenesis, NodeId};
use blockraft_protocol::PoolError;
use std::{collections::BTreeMap, rc::Rc};

/// When faults stop.
const PEACE_MS: u64 = 5_000;
/// When the cluster must have settled.
const END_MS: u64 = 40_000;

#[derive(Debug)]
enum Event {
    Local {
        node: NodeId,
        incarnation: u64,
        local: Local,
    },
    Packet {
        from: NodeId,
        to: NodeId,
        packet: Packet,
    },
    Start {
        node: NodeId,
        incarnation: u64,
    },
    /// Clients think of something new to send.
    Burst,
    /// A client sends a transaction, again if there was no answer.
    Try {
        hash: B256,
    },
    Raw {
        node: NodeId,
        raws: Vec<Bytes>,
    },
    Answer {
        hash: B256,
        answer: ClientAnswer,
    },
    Fault,
    Peace,
    /// Is everything settled?
    Look,
}

/// What a client knows of its transaction.
#[derive(Debug)]
struct Submission {
    raw: Bytes,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Acked,
    /// Refused for good.
    Refused,
}

#[derive(Debug)]
pub(crate) struct World {
    now: u64,
    rng: Rng,
    genesis: Rc<ClusterGenesis>,
    nodes: Vec<Node>,
    network: Network,
    workload: Workload,
    submissions: BTreeMap<B256, Submission>,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    pub(crate) watch: Watch,
    height_at_peace: Option<u64>,
    quiet: bool,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        let workload = Workload::new(rng.within(2..=6));
        let block_time_ms = [0, 0, 0, 100, 1000][rng.index(5)];
        let genesis = Rc::new(genesis(&workload.addresses(), block_time_ms, rng.chance(300)));
        let members = [3, 3, 5][rng.index(3)];
        let node = |id| Node::new(id, members, genesis.clone(), options.mutant);
        let nodes = (0..members).map(node).collect::<Result<_, _>>();
        let network = Network::new(&mut rng);
        Self {
            now: 0,
            nodes: nodes.expect("the genesis state has the genesis root"),
            network,
            workload,
            submissions: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_event: 0,
            watch: Watch {
                invariants: Invariants::new(),
                trace: Trace::new(options.whole_trace),
                pipelined: 0,
                violation: None,
            },
            height_at_peace: None,
            quiet: false,
            genesis,
            rng,
        }
    }

    pub(crate) fn run(&mut self) {
        for node in 0..self.nodes.len() as u64 {
            self.schedule(0, Event::Start { node, incarnation: 0 });
        }
        self.schedule(300, Event::Burst);
        self.schedule(600, Event::Fault);
        self.schedule(PEACE_MS, Event::Peace);
        while self.watch.violation.is_none()
            && let Some(((time, _), event)) = self.queue.pop_first()
        {
            self.now = time;
            let at_rest = matches!(event, Event::Look) && self.quiet && self.is_level();
            if at_rest || time > END_MS {
                return self.end();
            }
            self.take(event);
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.queue.insert((self.now + delay, self.next_event), event);
        self.next_event += 1;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Local { node, incarnation, local } => {
                let at = &self.nodes[node as usize];
                if !at.running || at.incarnation != incarnation {
                    return;
                }
                if let Some(delay) = self.pause_left(node) {
                    return self.schedule(delay, Event::Local { node, incarnation, local });
                }
                self.with_node(node, |node, ctx| node.handle(local, ctx));
            }
            Event::Packet { from, to, packet } => {
                if let Some(delay) = self.pause_left(to) {
                    return self.schedule(delay, Event::Packet { from, to, packet });
                }
                if self.nodes[to as usize].running {
                    self.with_node(to, |node, ctx| node.receive(from, packet, ctx));
                }
            }
            Event::Start { node, incarnation } => {
                let at = &self.nodes[node as usize];
                if !at.running && at.incarnation == incarnation {
                    self.watch.trace.line(self.now, node, || "starts".to_owned());
                    self.with_node(node, Node::start);
                }
            }
            Event::Raw { node, raws } => {
                if let Some(delay) = self.pause_left(node) {
                    return self.schedule(delay, Event::Raw { node, raws });
                }
                if self.nodes[node as usize].running {
                    self.with_node(node, |node, ctx| {
                        node.take_raw(&raws, ctx);
                        Ok(())
                    });
                }
            }
            Event::Burst => self.burst(),
            Event::Try { hash } => self.try_again(hash),
            Event::Answer { hash, answer } => self.answered(hash, answer),
            Event::Fault if self.height_at_peace.is_none() => {
                let fault = Fault::draw(&mut self.rng, &self.nodes);
                self.strike(fault);
                let delay = self.rng.within(50..=600);
                self.schedule(delay, Event::Fault);
            }
            Event::Fault => {}
            Event::Peace => self.make_peace(),
            Event::Look => {
                self.quiet |= self.is_settled();
                self.schedule(100, Event::Look);
            }
        }
    }

    fn pause_left(&self, node: NodeId) -> Option<u64> {
        let left = self.nodes[node as usize].paused_until.saturating_sub(self.now);
        (left > 0).then_some(left)
    }

    fn with_node(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Node, &mut Context<'_>) -> Result<(), String>,
    ) {
        let mut ctx = Context {
            now: self.now,
            rng: &mut self.rng,
            watch: &mut self.watch,
            faulty: self.height_at_peace.is_none(),
            quiet: self.quiet,
            out: Vec::new(),
        };
        let node = &mut self.nodes[id as usize];
        let done = act(node, &mut ctx);
        let (out, incarnation) = (ctx.out, node.incarnation);
        if let Err(problem) = done {
            self.watch.fail("applies", format!("node {id}: {problem}"));
        }
        for effect in out {
            match effect {
                Effect::Later { delay, local } => {
                    self.schedule(delay, Event::Local { node: id, incarnation, local });
                }
                Effect::Send { to, packet } => {
                    for delay in self.network.send(id, to, &mut self.rng) {
                        let packet = packet.clone();
                        self.schedule(delay, Event::Packet { from: id, to, packet });
                    }
                }
                Effect::Answer { hash, answer } => {
                    // A client's connection breaks now and then.
                    if self.height_at_peace.is_some() || !self.rng.chance(50) {
                        let delay = self.rng.within(1..=10);
                        self.schedule(delay, Event::Answer { hash, answer });
                    }
                }
            }
        }
    }

    fn burst(&mut self) {
        if self.height_at_peace.is_some() {
            return;
        }
        let (now, later) = self.workload.burst(&mut self.rng);
        let node = self.rng.below(self.nodes.len() as u64);
        let raws = now.iter().map(|tx| tx.raw.clone()).collect();
        for tx in now {
            let again = self.rng.within(300..=900);
            self.submit(tx, again);
        }
        for tx in later {
            let first = self.rng.within(100..=1500);
            self.submit(tx, first);
        }
        self.schedule(1, Event::Raw { node, raws });
        let pause = self.rng.within(10..=90);
        self.schedule(pause, Event::Burst);
    }

    fn submit(&mut self, tx: Signed, try_after: u64) {
        self.schedule(try_after, Event::Try { hash: tx.hash });
        self.submissions.insert(tx.hash, Submission { raw: tx.raw, state: State::Open });
    }

    /// A client that has no answer tries another node; some try again although they have one.
    fn try_again(&mut self, hash: B256) {
        let submission = &self.submissions[&hash];
        let open = submission.state == State::Open;
        if open || submission.state == State::Acked && self.rng.chance(200) {
            let (raw, node) = (submission.raw.clone(), self.rng.below(self.nodes.len() as u64));
            let delay = self.rng.within(1..=10);
            self.schedule(delay, Event::Raw { node, raws: vec![raw] });
        }
        if open {
            let again = self.rng.within(300..=1500);
            self.schedule(again, Event::Try { hash });
        }
    }

    fn answered(&mut self, hash: B256, answer: ClientAnswer) {
        let Some(submission) = self.submissions.get_mut(&hash) else { return };
        match answer {
            ClientAnswer::Taken => {
                submission.state = State::Acked;
                self.watch.fact(&Fact::Acked { hash });
            }
            ClientAnswer::Refused(error) => {
                use PoolError as E;
                let for_good = matches!(error, E::NonceTooLow { .. } | E::ReplacementUnderpriced);
                if !for_good && !matches!(error, E::NonceTooHigh { .. } | E::QueuedFunds { .. }) {
                    self.watch.fail("workload", format!("{hash}: {error}"));
                }
                if for_good && submission.state == State::Open {
                    submission.state = State::Refused;
                }
                if for_good {
                    self.watch.fact(&Fact::Refused { hash, error: error.to_string() });
                }
            }
            ClientAnswer::TryAgain => {}
        }
    }

    fn strike(&mut self, fault: Fault) {
        self.watch.trace.line(self.now, 9, || format!("{fault:?}"));
        faults::cut(&mut self.network, &fault, self.nodes.len() as u64);
        match fault {
            Fault::Crash { nodes, down_ms } => {
                for node in nodes {
                    let at = &mut self.nodes[node as usize];
                    if at.running {
                        at.crash(&mut self.rng);
                        let incarnation = at.incarnation;
                        self.schedule(down_ms, Event::Start { node, incarnation });
                    }
                }
            }
            Fault::Pause { node, ms } => self.nodes[node as usize].paused_until = self.now + ms,
            Fault::ClockJump { node, ms } => self.nodes[node as usize].clock_offset_ms += ms,
            _ => {}
        }
    }

    /// Faults stop: the network is whole, all nodes run, and every sender has one more transaction.
    fn make_peace(&mut self) {
        self.watch.trace.line(self.now, 9, || "peace".to_owned());
        self.network.heal();
        let heights = self.nodes.iter().map(|node| node.chain.head().number);
        self.height_at_peace = heights.max();
        for node in 0..self.nodes.len() as u64 {
            let at = &mut self.nodes[node as usize];
            at.paused_until = 0;
            let incarnation = at.incarnation;
            self.schedule(0, Event::Start { node, incarnation });
        }
        for tx in self.workload.last_round(&mut self.rng) {
            self.submit(tx, 10);
        }
        self.schedule(100, Event::Look);
    }

    fn open_count(&self) -> usize {
        self.submissions.values().filter(|submission| submission.state == State::Open).count()
    }

    /// All clients are content, and nothing waits in a pool.
    fn is_settled(&self) -> bool {
        let grown = self.height_at_peace.unwrap_or_default() + 1;
        let done = |node: &Node| {
            node.running && node.chain.pool.status() == (0, 0) && node.chain.head().number >= grown
        };
        self.open_count() == 0 && self.nodes.iter().all(done)
    }

    /// All nodes have applied the whole of one log.
    fn is_level(&self) -> bool {
        let position = self.nodes[0].chain.position;
        self.nodes
            .iter()
            .all(|node| node.chain.position == position && node.raft.last_index() == position.0)
    }

    fn end(&mut self) {
        let end = End {
            genesis: &self.genesis,
            nodes: self.nodes.iter().map(|node| &node.chain).collect(),
            height_at_peace: self.height_at_peace.unwrap_or_default(),
            unanswered: self.open_count(),
            planned: self.workload.planned(),
        };
        let (height, now) = (end.nodes[0].head().number, self.now);
        self.watch.trace.line(now, 9, || format!("end at height {height}"));
        self.watch.fact(&Fact::End(&end));
    }

    pub(crate) fn summary(&self) -> crate::Summary {
        let chain = &self.nodes[0].chain;
        crate::Summary {
            blocks: chain.head().number,
            transactions: chain.blocks.iter().map(|block| block.transactions.len()).sum(),
            pipelined: self.watch.pipelined,
            terms: self.nodes.iter().map(|node| node.raft.term()).max().unwrap_or_default(),
            virtual_ms: self.now,
        }
    }
}
