//! The shell around a state machine that has parts of a block's work done by other members, whatever the work is:
//! tells it who leads and what is applied, carries units and answers, and holds what has come in until it is used.

use crate::{
    circumstances::{Circumstances, News},
    clock::Clock,
};
use blockraft_primitives::{NodeId, limits::UNIT_ANSWER_WAIT_MS};
use blockraft_protocol::{Micros, Request, Response, UnitId};
use blockraft_raft::{Plane, Spawner, Transport};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// Messages of `protocol::message`; the only kind on the execution plane.
pub(crate) const KIND_MESSAGE: u8 = 0;

/// A state machine that shares work out.
pub(crate) trait Sharer: Send + 'static {
    /// What a member is given of a block, and what an answer is about.
    type Part: Clone + Send;
    /// What it is told.
    type Event: Send;

    fn step(&mut self, now: Micros, event: Self::Event) -> Vec<Order<Self::Part>>;
    fn role(leading: Option<u64>, others: Vec<NodeId>) -> Self::Event;
    /// This node has applied the block of that height.
    fn applied(height: u64) -> Self::Event;
    /// This node has done its own part of a gathering.
    fn own_done(gather: u64, took_us: u64) -> Self::Event;
    fn timer() -> Self::Event;
    fn lost(to: NodeId, unit: UnitId) -> Self::Event;
    /// `None` where that is no answer to a unit of this kind.
    fn heard(response: Response) -> Option<Self::Event>;
}

/// What it orders.
#[derive(Debug)]
pub(crate) enum Order<Part> {
    /// The block is this node's alone.
    Alone,
    Send {
        to: NodeId,
        unit: UnitId,
        request: Box<Request>,
    },
    /// A gathering is open, and this is this node's own part.
    Own {
        gather: u64,
        part: Part,
    },
    Keep {
        gather: u64,
        share: u32,
        part: Part,
        bytes: Bytes,
    },
    Discard {
        gather: u64,
        share: u32,
    },
    Wake {
        at: Micros,
    },
    Close {
        gather: u64,
    },
}

/// See the module.
pub(crate) struct Desk<S: Sharer> {
    node_id: NodeId,
    transport: Transport,
    spawner: Spawner,
    runtime: Handle,
    clock: Clock,
    shared: Mutex<Shared<S>>,
    /// The gathering has changed.
    changed: Condvar,
}

struct Shared<S: Sharer> {
    sharer: S,
    gathering: Option<Gathering<S::Part>>,
    wake: Option<Micros>,
}

/// What has come in for the block that is being worked on.
struct Gathering<Part> {
    gather: u64,
    own: Part,
    kept: BTreeMap<u32, (Part, Bytes)>,
    closed: bool,
}

impl<S: Sharer> fmt::Debug for Desk<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

impl<S: Sharer> Desk<S> {
    /// To be made within the runtime that its messages travel in.
    pub(crate) fn new(transport: Transport, spawner: Spawner, sharer: S) -> Arc<Self> {
        Arc::new(Self {
            node_id: transport.identity().node_id,
            transport,
            spawner,
            runtime: Handle::current(),
            clock: Clock::start(),
            shared: Mutex::new(Shared { sharer, gathering: None, wake: None }),
            changed: Condvar::new(),
        })
    }

    /// Tells the sharer who leads, who else is there and what is applied, until the node stops.
    pub(crate) async fn follow(self: Arc<Self>, circumstances: Circumstances) {
        let stop = self.spawner.stop.clone();
        let tell = |news| match news {
            News::Role { leading, others } => self.event(S::role(leading, others)),
            News::Applied { height } => self.event(S::applied(height)),
        };
        // The node stops.
        let _ = stop.run_until_cancelled(circumstances.follow(self.node_id, tell)).await;
    }

    /// Reads or teaches the sharer.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut S) -> T) -> T {
        act(&mut self.shared.lock().sharer)
    }

    /// Puts a block to the sharer: the number of the gathering and this node's own part of it, if it is shared out.
    pub(crate) fn begin(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut S, Micros) -> Vec<Order<S::Part>>,
    ) -> Option<(u64, S::Part)> {
        let mut shared = self.shared.lock();
        let orders = decide(&mut shared.sharer, self.clock.micros());
        self.carry_out(&mut shared, orders);
        let open = shared.gathering.as_ref()?;
        Some((open.gather, open.own.clone()))
    }

    /// This node has done its own part, in `own_ns`. Waits until the gathering is closed: by answers, by the clock, or
    /// because this node is deposed. What there is.
    pub(crate) fn wait(self: &Arc<Self>, gather: u64, own_ns: u64) -> Vec<(S::Part, Bytes)> {
        self.event(S::own_done(gather, own_ns / 1000));
        let mut shared = self.shared.lock();
        loop {
            let Some(gathering) = shared.open(gather) else { return Vec::new() };
            if gathering.closed {
                let kept = std::mem::take(&mut gathering.kept);
                shared.gathering = None;
                return kept.into_values().collect();
            }
            let wake = shared.wake.unwrap_or_default();
            let now = self.clock.micros();
            if wake <= now {
                self.step(&mut shared, now, S::timer());
                continue;
            }
            // Why it woke is seen above.
            let _ = self.changed.wait_until(&mut shared, self.clock.instant_at(wake));
        }
    }

    fn event(self: &Arc<Self>, event: S::Event) {
        let mut shared = self.shared.lock();
        self.step(&mut shared, self.clock.micros(), event);
        drop(shared);
        self.changed.notify_all();
    }

    fn step(self: &Arc<Self>, shared: &mut Shared<S>, now: Micros, event: S::Event) {
        let orders = shared.sharer.step(now, event);
        self.carry_out(shared, orders);
    }

    fn carry_out(self: &Arc<Self>, shared: &mut Shared<S>, orders: Vec<Order<S::Part>>) {
        for order in orders {
            match order {
                Order::Alone => shared.gathering = None,
                Order::Send { to, unit, request } => self.send(to, unit, request),
                Order::Own { gather, part: own } => {
                    let kept = BTreeMap::new();
                    shared.gathering = Some(Gathering { gather, own, kept, closed: false });
                }
                Order::Keep { gather, share, part, bytes } => {
                    if let Some(gathering) = shared.open(gather) {
                        gathering.kept.insert(share, (part, bytes));
                    }
                }
                Order::Discard { gather, share } => {
                    if let Some(gathering) = shared.open(gather) {
                        gathering.kept.remove(&share);
                    }
                }
                Order::Wake { at } => shared.wake = Some(at),
                Order::Close { gather } => {
                    shared.wake = None;
                    if let Some(gathering) = shared.open(gather) {
                        gathering.closed = true;
                    }
                }
            }
        }
    }

    fn send(self: &Arc<Self>, to: NodeId, unit: UnitId, request: Box<Request>) {
        let this = self.clone();
        let ask = async move {
            let event = this.ask(to, request).await.unwrap_or_else(|| S::lost(to, unit));
            this.event(event);
        };
        let stop = self.spawner.stop.clone();
        let ask = async move {
            // When the node stops, nobody waits for the answer.
            let _ = stop.run_until_cancelled(ask).await;
        };
        self.spawner.tasks.spawn_on(ask, &self.runtime);
    }

    async fn ask(&self, to: NodeId, request: Box<Request>) -> Option<S::Event> {
        let wait = Duration::from_millis(UNIT_ANSWER_WAIT_MS);
        let message = request.encode().into();
        let answer = self.transport.request(to, Plane::Execution, KIND_MESSAGE, message, wait);
        let bytes = match answer.await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, "no answer to a unit of work");
                return None;
            }
        };
        let event = match Response::decode(&bytes) {
            Ok(response) => S::heard(response),
            Err(error) => {
                tracing::warn!(peer = to, %error, "the answer to a unit of work cannot be read");
                return None;
            }
        };
        if event.is_none() {
            tracing::warn!(peer = to, "the answer to a unit of work is none");
        }
        event
    }
}

impl<S: Sharer> Shared<S> {
    fn open(&mut self, gather: u64) -> Option<&mut Gathering<S::Part>> {
        self.gathering.as_mut().filter(|gathering| gathering.gather == gather)
    }
}
