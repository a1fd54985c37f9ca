//! The leader's way to the owners of subtries: carries out what [`RootSharer`] orders, while the thread that
//! builds the block hashes its own part and waits.

use crate::{
    clock::Clock,
    distributor::{KIND_MESSAGE, role_of},
};
use alloy_primitives::Bytes;
use blockraft_primitives::{NodeId, PartitionSet, limits::UNIT_ANSWER_WAIT_MS};
use blockraft_protocol::{
    Distribution, Micros, Request, Response, RootCommand, RootEvent, RootEvidence, RootSharer,
    RootUnit, RootWork, UnitId,
};
use blockraft_raft::{Plane, RaftStatus, Spawner, Transport};
use parking_lot::{Condvar, Mutex};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::watch};

/// Has subtries hashed by their owners.
pub(crate) struct RootSharing {
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
    sharer: RootSharer,
    gathering: Option<Gathering>,
    /// The changes that each share's unit carries, for it to be sent once more.
    changes: BTreeMap<u32, Bytes>,
    wake: Option<Micros>,
}

/// What has come in for the block that is being built.
#[derive(Default)]
struct Gathering {
    gather: u64,
    own: PartitionSet,
    kept: BTreeMap<u32, (PartitionSet, Bytes)>,
    closed: bool,
}

/// A gathering that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenGathering {
    gather: u64,
    /// What is the leader's to hash.
    pub(crate) own: PartitionSet,
}

impl std::fmt::Debug for RootSharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootSharing").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl RootSharing {
    /// To be made within the runtime that its messages travel in. `threads` are those that the leader hashes
    /// with.
    pub(crate) fn new(
        transport: Transport,
        spawner: Spawner,
        threads: usize,
        distribution: Distribution,
    ) -> Arc<Self> {
        let identity = transport.identity();
        let node_id = identity.node_id;
        let sharer = RootSharer::new(node_id, identity.cluster_id, threads, distribution);
        let changes = BTreeMap::new();
        let shared = Shared { sharer, gathering: None, changes, wake: None };
        Arc::new(Self {
            node_id,
            transport,
            spawner,
            runtime: Handle::current(),
            clock: Clock::start(),
            shared: Mutex::new(shared),
            changed: Condvar::new(),
        })
    }

    /// Tells the sharer who leads and who else is there, until the node stops.
    pub(crate) async fn follow(self: Arc<Self>, mut status: watch::Receiver<RaftStatus>) {
        let stop = self.spawner.stop.clone();
        let mut known = None;
        loop {
            let role = role_of(&status.borrow_and_update(), self.node_id);
            if known.as_ref() != Some(&role) {
                let (leading, others) = role.clone();
                self.event(RootEvent::Role { leading, others });
                known = Some(role);
            }
            match stop.run_until_cancelled(status.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    /// Whether any block's hashing might be shared out.
    pub(crate) fn may_share(&self) -> bool {
        self.shared.lock().sharer.declines().is_none()
    }

    /// Sends owners what a block changes in their partitions, if that pays. `encode` gives the changes in some.
    pub(crate) fn begin(
        self: &Arc<Self>,
        work: RootWork,
        encode: impl Fn(&PartitionSet) -> Bytes,
    ) -> Option<OpenGathering> {
        let mut shared = self.shared.lock();
        shared.changes.clear();
        let commands = shared.sharer.step(self.clock.micros(), RootEvent::Block(work));
        for command in &commands {
            if let RootCommand::Send { unit, partitions, .. } = command {
                shared.changes.insert(unit.share, encode(partitions));
            }
        }
        self.carry_out(&mut shared, commands);
        let open = shared.gathering.as_ref()?;
        Some(OpenGathering { gather: open.gather, own: open.own })
    }

    /// Waits for the roots of a gathering: until all are there, or too late, or this node is deposed.
    pub(crate) fn gather(self: &Arc<Self>, open: &OpenGathering) -> Vec<(PartitionSet, Bytes)> {
        let mut shared = self.shared.lock();
        loop {
            let Some(gathering) = shared.open(open.gather) else { return Vec::new() };
            if gathering.closed {
                let kept = std::mem::take(&mut gathering.kept);
                shared.gathering = None;
                return kept.into_values().collect();
            }
            let wake = shared.wake.unwrap_or_default();
            let now = self.clock.micros();
            if wake <= now {
                let commands = shared.sharer.step(now, RootEvent::Timer);
                self.carry_out(&mut shared, commands);
                continue;
            }
            // Why it woke is seen above.
            let _ = self.changed.wait_until(&mut shared, self.clock.instant_at(wake));
        }
    }

    /// Takes in how long this node's own writing and hashing of so many keys took.
    pub(crate) fn hashed(&self, keys: u64, took_ns: u64) {
        let mut shared = self.shared.lock();
        shared.sharer.hashed(keys, took_ns);
        publish(&shared.sharer);
    }

    fn event(self: &Arc<Self>, event: RootEvent) {
        let mut shared = self.shared.lock();
        let commands = shared.sharer.step(self.clock.micros(), event);
        self.carry_out(&mut shared, commands);
        drop(shared);
        self.changed.notify_all();
    }

    fn carry_out(self: &Arc<Self>, shared: &mut Shared, commands: Vec<RootCommand>) {
        for command in commands {
            match command {
                RootCommand::HashAlone { .. } => shared.gathering = None,
                RootCommand::Send { to, unit, partitions } => {
                    let changes = shared.changes.get(&unit.share).cloned().unwrap_or_default();
                    self.send(to, RootUnit { id: unit, partitions, changes });
                }
                RootCommand::HashOwn { gather, partitions: own } => {
                    shared.gathering = Some(Gathering { gather, own, ..Gathering::default() });
                }
                RootCommand::Keep { gather, share, partitions, roots } => {
                    if let Some(gathering) = shared.open(gather) {
                        gathering.kept.insert(share, (partitions, roots));
                    }
                }
                RootCommand::Discard { gather, share } => {
                    if let Some(gathering) = shared.open(gather) {
                        gathering.kept.remove(&share);
                    }
                }
                RootCommand::Wake { at } => shared.wake = Some(at),
                RootCommand::Close { gather } => {
                    shared.wake = None;
                    if let Some(gathering) = shared.open(gather) {
                        gathering.closed = true;
                    }
                }
                RootCommand::Alarm(evidence) => alarm(&evidence),
            }
        }
    }

    fn send(self: &Arc<Self>, to: NodeId, unit: RootUnit) {
        let this = self.clone();
        let ask = async move {
            let id = unit.id;
            let request = Request::Hash(unit).encode();
            let wait = Duration::from_millis(UNIT_ANSWER_WAIT_MS);
            let answer =
                this.transport.request(to, Plane::Execution, KIND_MESSAGE, request.into(), wait);
            let answer = answer.await.map(|bytes| Response::decode(&bytes));
            this.event(event_of(to, id, answer));
        };
        let stop = self.spawner.stop.clone();
        let ask = async move {
            // When the node stops, nobody waits for the answer.
            let _ = stop.run_until_cancelled(ask).await;
        };
        self.spawner.tasks.spawn_on(ask, &self.runtime);
    }
}

fn event_of<W: std::fmt::Display, T: std::fmt::Display>(
    to: NodeId,
    unit: UnitId,
    answer: Result<Result<Response, W>, T>,
) -> RootEvent {
    match answer {
        Ok(Ok(Response::Hashed(answer))) => RootEvent::Answered(answer),
        Ok(Ok(Response::NotExecuted(refused))) => RootEvent::Refused(refused),
        Ok(Ok(_)) => {
            tracing::warn!(peer = to, "the answer to a unit of hashing is none");
            RootEvent::Lost { to, unit }
        }
        Ok(Err(error)) => {
            tracing::warn!(peer = to, %error, "the answer to a unit of hashing cannot be read");
            RootEvent::Lost { to, unit }
        }
        Err(error) => {
            tracing::debug!(%error, "no answer to a unit of hashing");
            RootEvent::Lost { to, unit }
        }
    }
}

impl Shared {
    fn open(&mut self, gather: u64) -> Option<&mut Gathering> {
        self.gathering.as_mut().filter(|gathering| gathering.gather == gather)
    }
}

fn alarm(evidence: &RootEvidence) {
    let [(one, first), (other, second)] = &evidence.answers;
    tracing::error!(
        one,
        other,
        height = evidence.fence.height,
        parent = %evidence.fence.parent,
        partitions = ?evidence.partitions,
        first = %alloy_primitives::keccak256(first),
        second = %alloy_primitives::keccak256(second),
        "two members hash the same subtries differently: the state of one of them is wrong"
    );
}

fn publish(sharer: &RootSharer) {
    let counters = sharer.counters();
    for (event, count) in &counters.units {
        metrics::counter!("blockraft_root_units_total", "event" => *event).absolute(*count);
    }
    for (reason, count) in &counters.refusals {
        metrics::counter!("blockraft_root_units_refused_total", "reason" => *reason)
            .absolute(*count);
    }
    for (decision, count) in &counters.decisions {
        metrics::counter!("blockraft_root_decisions_total", "decision" => *decision)
            .absolute(*count);
    }
    let epoch = sharer.map().map_or(0, blockraft_protocol::PartitionMap::epoch);
    metrics::gauge!("blockraft_root_partition_map_epoch").set(epoch as f64);
}
