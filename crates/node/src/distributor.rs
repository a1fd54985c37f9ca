//! The leader's way to the executors: carries out what [`Dispatcher`] orders, while the thread that builds
//! the block runs its own share and waits.

use crate::clock::{Clock, Stopwatch};
use blockraft_execution::{ExecutionError, Outcome, decode_outcomes};
use blockraft_primitives::{NodeId, Transaction, limits::UNIT_ANSWER_WAIT_MS};
use blockraft_protocol::{
    BlockWork, DispatchCommand, DispatchEvent, Dispatcher, Distribution, Evidence, Footprint,
    Micros, Request, Response, Settled, Unit, WriteLocation,
};
use blockraft_raft::{Plane, RaftStatus, Spawner, Transport};
use blockraft_rpc::{Disagreement, DisagreementAnswer};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::watch};

/// Messages of `protocol::message`; the only kind on the execution plane.
pub(crate) const KIND_MESSAGE: u8 = 0;
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
pub(crate) struct Distributor {
    node_id: NodeId,
    transport: Transport,
    spawner: Spawner,
    runtime: Handle,
    clock: Clock,
    shared: Mutex<Shared>,
    /// The gathering has changed.
    changed: Condvar,
}

struct Shared {
    dispatcher: Dispatcher,
    gathering: Option<Gathering>,
    wake: Option<Micros>,
}

/// What has come in for the block that is being built.
struct Gathering {
    gather: u64,
    own: Vec<usize>,
    kept: BTreeMap<u32, (Vec<usize>, Bytes)>,
    closed: bool,
}

impl std::fmt::Debug for Distributor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Distributor").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl Distributor {
    /// To be made within the runtime that its messages travel in. `threads` are those that the leader runs
    /// blocks on.
    pub(crate) fn new(
        transport: Transport,
        spawner: Spawner,
        threads: usize,
        distribution: Distribution,
    ) -> Arc<Self> {
        let identity = transport.identity();
        let node_id = identity.node_id;
        let dispatcher = Dispatcher::new(node_id, identity.cluster_id, threads, distribution);
        Arc::new(Self {
            node_id,
            transport,
            spawner,
            runtime: Handle::current(),
            clock: Clock::start(),
            shared: Mutex::new(Shared { dispatcher, gathering: None, wake: None }),
            changed: Condvar::new(),
        })
    }

    /// Tells the dispatcher who leads and who else is there, until the node stops.
    pub(crate) async fn follow(self: Arc<Self>, mut status: watch::Receiver<RaftStatus>) {
        let stop = self.spawner.stop.clone();
        let mut known = None;
        loop {
            let role = role_of(&status.borrow_and_update(), self.node_id);
            if known.as_ref() != Some(&role) {
                let (leading, others) = role.clone();
                self.event(DispatchEvent::Role { leading, others });
                known = Some(role);
            }
            match stop.run_until_cancelled(status.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    /// Has a block's transactions run by whoever can, if that pays. `run_own` runs those at some places
    /// here. Returns in time, with what there is.
    pub(crate) fn gather(
        self: &Arc<Self>,
        work: impl FnOnce() -> BlockWork,
        run_own: impl FnOnce(&[usize]) -> Result<Vec<(usize, Outcome)>, ExecutionError>,
    ) -> Help {
        if self.shared.lock().dispatcher.declines().is_some() {
            return Help::default();
        }
        let planning = Stopwatch::start();
        self.event(DispatchEvent::Block(work()));
        planning.record_stage("plan");
        let open = self.shared.lock().gathering.as_ref().map(|g| (g.gather, g.own.clone()));
        let Some((gather, indices)) = open else { return Help::default() };

        let running = Stopwatch::start();
        let own = run_own(&indices);
        let own_ns = running.elapsed_ns();
        let waiting = Stopwatch::start();
        let kept = self.wait(gather);
        waiting.record_stage("gather");
        let mut help = Help { shares: kept.into_values().collect(), ..Help::default() };
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
        let mut shared = self.shared.lock();
        shared.dispatcher.settle(transactions, &settled);
        publish(&shared.dispatcher);
    }

    /// What members contradicted each other about, the latest last.
    pub(crate) fn evidence(&self) -> Vec<Disagreement> {
        self.shared.lock().dispatcher.evidence().map(disagreement).collect()
    }

    fn event(self: &Arc<Self>, event: DispatchEvent) {
        let mut shared = self.shared.lock();
        self.step(&mut shared, event);
        drop(shared);
        self.changed.notify_all();
    }

    fn step(self: &Arc<Self>, shared: &mut Shared, event: DispatchEvent) {
        for command in shared.dispatcher.step(self.clock.micros(), event) {
            match command {
                DispatchCommand::RunAlone { .. } => shared.gathering = None,
                DispatchCommand::Send { to, unit } => self.send(to, unit),
                DispatchCommand::RunOwn { gather, indices: own } => {
                    let kept = BTreeMap::new();
                    shared.gathering = Some(Gathering { gather, own, kept, closed: false });
                }
                DispatchCommand::Keep { gather, share, indices, outcomes } => {
                    if let Some(gathering) = shared.open(gather) {
                        gathering.kept.insert(share, (indices, outcomes.into()));
                    }
                }
                DispatchCommand::Discard { gather, share } => {
                    if let Some(gathering) = shared.open(gather) {
                        gathering.kept.remove(&share);
                    }
                }
                DispatchCommand::Wake { at } => shared.wake = Some(at),
                DispatchCommand::Close { gather } => {
                    shared.wake = None;
                    if let Some(gathering) = shared.open(gather) {
                        gathering.closed = true;
                    }
                }
                DispatchCommand::Alarm(evidence) => alarm(&evidence),
            }
        }
    }

    /// Waits until the gathering is closed: by answers, by the clock, or because this node is deposed.
    fn wait(self: &Arc<Self>, gather: u64) -> BTreeMap<u32, (Vec<usize>, Bytes)> {
        let mut shared = self.shared.lock();
        loop {
            let Some(gathering) = shared.open(gather) else { return BTreeMap::new() };
            if gathering.closed {
                let kept = std::mem::take(&mut gathering.kept);
                shared.gathering = None;
                return kept;
            }
            let wake = shared.wake.unwrap_or_default();
            if wake <= self.clock.micros() {
                self.step(&mut shared, DispatchEvent::Timer);
                continue;
            }
            // Why it woke is seen above.
            let _ = self.changed.wait_until(&mut shared, self.clock.instant_at(wake));
        }
    }

    fn send(self: &Arc<Self>, to: NodeId, unit: Unit) {
        let this = self.clone();
        let ask = async move {
            let id = unit.id;
            let request = Request::Execute(unit).encode();
            let wait = Duration::from_millis(UNIT_ANSWER_WAIT_MS);
            let answer =
                this.transport.request(to, Plane::Execution, KIND_MESSAGE, request.into(), wait);
            let event = match answer.await.map(|bytes| Response::decode(&bytes)) {
                Ok(Ok(Response::Executed(answer))) => DispatchEvent::Answered(answer),
                Ok(Ok(Response::NotExecuted(refused))) => DispatchEvent::Refused(refused),
                Ok(Ok(_) | Err(_)) => {
                    tracing::warn!(peer = to, "the answer to a unit of work is none");
                    DispatchEvent::Lost { to, unit: id }
                }
                Err(error) => {
                    tracing::debug!(%error, "no answer to a unit of work");
                    DispatchEvent::Lost { to, unit: id }
                }
            };
            this.event(event);
        };
        let stop = self.spawner.stop.clone();
        let ask = async move {
            // When the node stops, nobody waits for the answer.
            let _ = stop.run_until_cancelled(ask).await;
        };
        self.spawner.tasks.spawn_on(ask, &self.runtime);
    }
}

impl Shared {
    fn open(&mut self, gather: u64) -> Option<&mut Gathering> {
        self.gathering.as_mut().filter(|gathering| gathering.gather == gather)
    }
}

/// The term in which the node leads, and the other voters: learners are still catching up.
pub(crate) fn role_of(status: &RaftStatus, node_id: NodeId) -> (Option<u64>, Vec<NodeId>) {
    let others = status.members.iter().filter(|m| m.voter && m.id != node_id).map(|m| m.id);
    (status.is_leader().then_some(status.term), others.collect())
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
