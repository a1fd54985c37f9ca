//! The leader's way to the owners of subtries: carries out what [`RootSharer`] orders, while the thread that
//! builds the block hashes its own part and waits.

use crate::{
    circumstances::Circumstances,
    gathering::{Desk, Order, Sharer},
};
use alloy_primitives::Bytes;
use blockraft_primitives::{NodeId, PartitionSet};
use blockraft_protocol::{
    Distribution, Micros, Request, Response, RootCommand, RootEvent, RootEvidence, RootSharer,
    RootUnit, RootWork, UnitId,
};
use blockraft_raft::{Spawner, Transport};
use std::{collections::BTreeMap, sync::Arc};

/// Has subtries hashed by their owners.
#[derive(Clone, Debug)]
pub(crate) struct RootSharing(Arc<Desk<Hashing>>);

#[derive(Debug)]
struct Hashing {
    sharer: RootSharer,
    /// The changes that each share's unit carries, for it to be sent once more.
    changes: BTreeMap<u32, Bytes>,
}

/// A gathering that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenGathering {
    gather: u64,
    /// What is the leader's to hash.
    pub(crate) own: PartitionSet,
}

impl RootSharing {
    /// To be made within the runtime that its messages travel in. `threads` are those that the leader hashes
    /// with.
    pub(crate) fn new(
        transport: Transport,
        spawner: Spawner,
        threads: usize,
        distribution: Distribution,
    ) -> Self {
        let identity = transport.identity();
        let sharer = RootSharer::new(identity.node_id, identity.cluster_id, threads, distribution);
        Self(Desk::new(transport, spawner, Hashing { sharer, changes: BTreeMap::new() }))
    }

    /// Tells the sharer who leads, who else is there and what is applied, until the node stops.
    pub(crate) async fn follow(self, circumstances: Circumstances) {
        self.0.follow(circumstances).await;
    }

    /// Whether any block's hashing might be shared out.
    pub(crate) fn may_share(&self) -> bool {
        self.0.with(|hashing| hashing.sharer.declines().is_none())
    }

    /// Sends owners what a block changes in their partitions, if that pays. `encode` gives the changes in some.
    pub(crate) fn begin(
        &self,
        work: RootWork,
        encode: impl Fn(&PartitionSet) -> Bytes,
    ) -> Option<OpenGathering> {
        let (gather, own) = self.0.begin(|hashing, now| hashing.begin(now, work, encode))?;
        Some(OpenGathering { gather, own })
    }

    /// Waits for the roots of a gathering: until all are there, or too late, or this node is deposed. Its own part of
    /// it took this node `own_ns`.
    pub(crate) fn gather(&self, open: &OpenGathering, own_ns: u64) -> Vec<(PartitionSet, Bytes)> {
        let roots = self.0.wait(open.gather, own_ns);
        roots.into_iter().map(|(partitions, bytes)| (partitions, bytes.into())).collect()
    }

    /// Takes in how long this node's own writing and hashing of so many keys took.
    pub(crate) fn hashed(&self, keys: u64, took_ns: u64) {
        self.0.with(|hashing| {
            hashing.sharer.hashed(keys, took_ns);
            publish(&hashing.sharer);
        });
    }
}

impl Hashing {
    fn begin(
        &mut self,
        now: Micros,
        work: RootWork,
        encode: impl Fn(&PartitionSet) -> Bytes,
    ) -> Vec<Order<PartitionSet>> {
        let commands = self.sharer.step(now, RootEvent::Block(work));
        self.changes.clear();
        for command in &commands {
            if let RootCommand::Send { unit, partitions, .. } = command {
                self.changes.insert(unit.share, encode(partitions));
            }
        }
        self.orders(commands)
    }

    fn orders(&self, commands: Vec<RootCommand>) -> Vec<Order<PartitionSet>> {
        commands.into_iter().filter_map(|command| self.order(command)).collect()
    }

    fn order(&self, command: RootCommand) -> Option<Order<PartitionSet>> {
        Some(match command {
            RootCommand::HashAlone { .. } => Order::Alone,
            RootCommand::Send { to, unit, partitions } => {
                let changes = self.changes.get(&unit.share).cloned().unwrap_or_default();
                let request = Request::Hash(RootUnit { id: unit, partitions, changes });
                Order::Send { to, unit, request: Box::new(request) }
            }
            RootCommand::HashOwn { gather, partitions: part } => Order::Own { gather, part },
            RootCommand::Keep { gather, share, partitions: part, roots } => {
                Order::Keep { gather, share, part, bytes: roots.into() }
            }
            RootCommand::Discard { gather, share } => Order::Discard { gather, share },
            RootCommand::Wake { at } => Order::Wake { at },
            RootCommand::Close { gather } => Order::Close { gather },
            RootCommand::Alarm(evidence) => {
                alarm(&evidence);
                return None;
            }
        })
    }
}

impl Sharer for Hashing {
    type Part = PartitionSet;
    type Event = RootEvent;

    fn step(&mut self, now: Micros, event: RootEvent) -> Vec<Order<PartitionSet>> {
        let commands = self.sharer.step(now, event);
        self.orders(commands)
    }

    fn role(leading: Option<u64>, others: Vec<NodeId>) -> RootEvent {
        RootEvent::Role { leading, others }
    }

    fn applied(height: u64) -> RootEvent {
        RootEvent::Applied { height }
    }

    fn own_done(gather: u64, took_us: u64) -> RootEvent {
        RootEvent::OwnHashed { gather, took_us }
    }

    fn timer() -> RootEvent {
        RootEvent::Timer
    }

    fn lost(to: NodeId, unit: UnitId) -> RootEvent {
        RootEvent::Lost { to, unit }
    }

    fn heard(response: Response) -> Option<RootEvent> {
        match response {
            Response::Hashed(answer) => Some(RootEvent::Answered(answer)),
            Response::NotExecuted(refused) => Some(RootEvent::Refused(refused)),
            _ => None,
        }
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
