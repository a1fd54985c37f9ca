//! The leader's way to the executors: carries out what [`Dispatcher`] orders, while the thread that builds
//! the block runs its own share and waits.

use crate::{
    circumstances::Circumstances,
    clock::Stopwatch,
    gathering::{Desk, Order, Sharer},
};
use blockraft_execution::{ExecutionError, Outcome, decode_outcomes};
use blockraft_primitives::{NodeId, Transaction};
use blockraft_protocol::{
    BlockWork, DispatchCommand, DispatchEvent, Dispatcher, Distribution, Evidence, Footprint,
    Micros, Request, Response, Settled, UnitId, WriteLocation,
};
use blockraft_raft::{Spawner, Transport};
use blockraft_rpc::{Disagreement, DisagreementAnswer};
use bytes::Bytes;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::{collections::BTreeMap, sync::Arc};

/// Seeds of a block that are looked at for what they write, about.
const FOOTPRINT_SAMPLE: usize = 64;
/// Transactions of a block whose gas is looked at, about.
const GAS_SAMPLE: usize = 256;

/// What other members and this one have run of a block that is not built yet.
#[derive(Debug, Default)]
pub(crate) struct Help {
    /// Of others: places in the block, and the encoded outcomes.
    shares: Vec<(Vec<usize>, Bytes)>,
    /// Of this node.
    own: Vec<(usize, Outcome)>,
    learned: Learned,
}

/// What is known of how a block's transactions were run, once the seeds are used up.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// What this node ran, and how long it took, nanoseconds.
    own: Option<(Vec<usize>, u64)>,
    footprints: BTreeMap<usize, Footprint>,
}

impl Help {
    /// The seeds, and the rest. Decodes on the rayon pool of the caller.
    pub(crate) fn split(self) -> (Vec<(usize, Outcome)>, Learned) {
        let Self { shares, own, mut learned } = self;
        let mut seeds = decode(shares);
        seeds.extend(own);
        learned.footprints = footprints(&seeds);
        (seeds, learned)
    }
}

/// Shares blocks out.
#[derive(Clone, Debug)]
pub(crate) struct Distributor(Arc<Desk<Dispatcher>>);

impl Distributor {
    /// To be made within the runtime that its messages travel in. `threads` are those that the leader runs
    /// blocks on.
    pub(crate) fn new(
        transport: Transport,
        spawner: Spawner,
        threads: usize,
        distribution: Distribution,
    ) -> Self {
        let identity = transport.identity();
        let dispatcher =
            Dispatcher::new(identity.node_id, identity.cluster_id, threads, distribution);
        Self(Desk::new(transport, spawner, dispatcher))
    }

    /// Tells the dispatcher who leads, who else is there and what is applied, until the node stops.
    pub(crate) async fn follow(self, circumstances: Circumstances) {
        self.0.follow(circumstances).await;
    }

    /// Has a block's transactions run by whoever can, if that pays. `run_own` runs those at some places
    /// here. Returns in time, with what there is.
    pub(crate) fn gather(
        &self,
        work: impl FnOnce() -> BlockWork,
        run_own: impl FnOnce(&[usize]) -> Result<Vec<(usize, Outcome)>, ExecutionError>,
    ) -> Help {
        if self.0.with(Dispatcher::declines).is_some() {
            return Help::default();
        }
        let planning = Stopwatch::start();
        let work = work();
        let open = self
            .0
            .begin(|dispatcher, now| orders(dispatcher.step(now, DispatchEvent::Block(work))));
        planning.record_stage("plan");
        let Some((gather, indices)) = open else { return Help::default() };

        let running = Stopwatch::start();
        let own = run_own(&indices);
        let own_ns = running.elapsed_ns();
        let waiting = Stopwatch::start();
        let shares = self.0.wait(gather, own_ns);
        waiting.record_stage("gather");
        let mut help = Help { shares, ..Help::default() };
        match own {
            Ok(outcomes) => {
                help.learned.own = Some((indices, own_ns));
                help.own = outcomes;
            }
            // The block will fail over the same, and say so.
            Err(error) => tracing::warn!(%error, "the leader's own share could not be run"),
        }
        help
    }

    /// Takes in how a block came out, so that the next one is planned better. `gas_used` is by place; a
    /// block that this node ran alone took `alone_ns`.
    pub(crate) fn learn(
        &self,
        transactions: &[Transaction],
        gas_used: &[(usize, u64)],
        learned: Learned,
        alone_ns: u64,
    ) {
        let Learned { own, footprints } = learned;
        let shared = own.is_some();
        let own = own.unwrap_or_else(|| ((0..transactions.len()).collect(), alone_ns));
        let step = (gas_used.len() / GAS_SAMPLE).max(1);
        let sampled = gas_used
            .iter()
            .enumerate()
            .filter(|(n, (index, _))| n.is_multiple_of(step) || footprints.contains_key(index));
        let gas_used = sampled.map(|(_, used)| *used).collect();
        let settled = Settled { gas_used, footprints, own: Some(own), shared };
        self.0.with(|dispatcher| {
            dispatcher.settle(transactions, &settled);
            publish(dispatcher);
        });
    }

    /// What members contradicted each other about, the latest last.
    pub(crate) fn evidence(&self) -> Vec<Disagreement> {
        self.0.with(|dispatcher| dispatcher.evidence().map(disagreement).collect())
    }
}

impl Sharer for Dispatcher {
    type Part = Vec<usize>;
    type Event = DispatchEvent;

    fn step(&mut self, now: Micros, event: DispatchEvent) -> Vec<Order<Vec<usize>>> {
        orders(self.step(now, event))
    }

    fn role(leading: Option<u64>, others: Vec<NodeId>) -> DispatchEvent {
        DispatchEvent::Role { leading, others }
    }

    fn applied(height: u64) -> DispatchEvent {
        DispatchEvent::Applied { height }
    }

    fn own_done(gather: u64, took_us: u64) -> DispatchEvent {
        DispatchEvent::OwnRun { gather, took_us }
    }

    fn timer() -> DispatchEvent {
        DispatchEvent::Timer
    }

    fn lost(to: NodeId, unit: UnitId) -> DispatchEvent {
        DispatchEvent::Lost { to, unit }
    }

    fn heard(response: Response) -> Option<DispatchEvent> {
        match response {
            Response::Executed(answer) => Some(DispatchEvent::Answered(answer)),
            Response::NotExecuted(refused) => Some(DispatchEvent::Refused(refused)),
            _ => None,
        }
    }
}

fn orders(commands: Vec<DispatchCommand>) -> Vec<Order<Vec<usize>>> {
    commands.into_iter().filter_map(order).collect()
}

fn order(command: DispatchCommand) -> Option<Order<Vec<usize>>> {
    Some(match command {
        DispatchCommand::RunAlone { .. } => Order::Alone,
        DispatchCommand::Send { to, unit } => {
            Order::Send { to, unit: unit.id, request: Box::new(Request::Execute(unit)) }
        }
        DispatchCommand::RunOwn { gather, indices: part } => Order::Own { gather, part },
        DispatchCommand::Keep { gather, share, indices: part, outcomes } => {
            Order::Keep { gather, share, part, bytes: outcomes.into() }
        }
        DispatchCommand::Discard { gather, share } => Order::Discard { gather, share },
        DispatchCommand::Wake { at } => Order::Wake { at },
        DispatchCommand::Close { gather } => Order::Close { gather },
        DispatchCommand::Alarm(evidence) => {
            alarm(&evidence);
            return None;
        }
    })
}

fn decode(shares: Vec<(Vec<usize>, Bytes)>) -> Vec<(usize, Outcome)> {
    let decoded = shares.into_par_iter().flat_map_iter(|(indices, bytes)| {
        let outcomes = decode_outcomes(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "outcomes that cannot be read: the leader runs them");
            Vec::new()
        });
        outcomes
            .into_iter()
            .filter_map(move |(place, outcome)| Some((*indices.get(place)?, outcome)))
    });
    decoded.collect()
}

fn footprints(seeds: &[(usize, Outcome)]) -> BTreeMap<usize, Footprint> {
    let step = (seeds.len() / FOOTPRINT_SAMPLE).max(1);
    seeds.iter().step_by(step).map(|(index, outcome)| (*index, footprint(outcome))).collect()
}

fn footprint(outcome: &Outcome) -> Footprint {
    let location = |(address, slot): (_, Option<_>)| match slot {
        None => WriteLocation::Account(address),
        Some(slot) => WriteLocation::Slot(address, slot),
    };
    Footprint { writes: outcome.writes().map(location).collect() }
}

fn disagreement(evidence: &Evidence) -> Disagreement {
    let Evidence { fence, transactions, answers } = evidence;
    let answer = |(node, outcomes): &(NodeId, alloy_primitives::Bytes)| DisagreementAnswer {
        node: *node,
        outcomes: outcomes.clone(),
    };
    Disagreement {
        leader: fence.leader,
        term: fence.term,
        block_number: fence.height,
        parent_hash: fence.parent,
        transactions: transactions.clone(),
        answers: answers.iter().map(answer).collect(),
    }
}

fn alarm(evidence: &Evidence) {
    let [(one, first), (other, second)] = &evidence.answers;
    tracing::error!(
        one,
        other,
        height = evidence.fence.height,
        parent = %evidence.fence.parent,
        transactions = evidence.transactions.len(),
        first = %alloy_primitives::keccak256(first),
        second = %alloy_primitives::keccak256(second),
        "two members gave different answers to one unit of work: one of them computes or stores wrongly"
    );
}

fn publish(dispatcher: &Dispatcher) {
    let counters = dispatcher.counters();
    for (event, count) in &counters.units {
        metrics::counter!("blockraft_execution_units_total", "event" => *event).absolute(*count);
    }
    for (reason, count) in &counters.refusals {
        metrics::counter!("blockraft_execution_units_refused_total", "reason" => *reason)
            .absolute(*count);
    }
    for (decision, count) in &counters.decisions {
        metrics::counter!("blockraft_execution_decisions_total", "decision" => *decision)
            .absolute(*count);
    }
    let epoch = dispatcher.map().map_or(0, blockraft_protocol::PartitionMap::epoch);
    metrics::gauge!("blockraft_execution_partition_map_epoch").set(epoch as f64);
}
