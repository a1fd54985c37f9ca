//! The task that makes the chain grow while this node leads: it owns the protocol's [`Leader`], feeds
//! it with events, and carries its commands out. Nothing here decides.

use crate::{
    chain::{BuildOrder, Chain, Proposal, Unapplied},
    clock::Clock,
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::B256;
use blockraft_primitives::{LogEntry, NodeId, Tick, Transaction, limits::SUBMISSION_QUEUE_LEN_MAX};
use blockraft_protocol::{
    AdmitId, BuildId, Command, Event, Head, InFlight, Leader, PoolError, ProposalFailure, Refusal,
    Response, Sifted, Ticket,
};
use blockraft_raft::{ApplyResponse, BarrierError, ProposeError, RaftNode, RaftStatus, Spawner};
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Pause before a barrier is tried again.
const BARRIER_RETRY: Duration = Duration::from_millis(50);

/// The verdicts on a batch, or why it was not looked at.
pub(crate) type Verdicts = Result<Vec<Result<(), PoolError>>, Refusal>;

/// The way to the producer; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ProducerHandle {
    inputs: mpsc::Sender<Input>,
}

#[derive(Debug)]
enum Input {
    Submit { transactions: Vec<Transaction>, reply: oneshot::Sender<Verdicts> },
    Built { build: BuildId, proposal: Option<Proposal> },
    Event(Event),
}

impl ProducerHandle {
    /// A handle, and the queue that [`Producer::run`] takes from it.
    pub(crate) fn channel() -> (Self, ProducerQueue) {
        let (inputs, queue) = mpsc::channel(SUBMISSION_QUEUE_LEN_MAX);
        (Self { inputs: inputs.clone() }, ProducerQueue { queue, inputs })
    }

    /// Offers a batch to this node as leader. Batches are taken in the order of these calls; the
    /// verdicts come when the batch is committed and applied. `None` when the node is stopping.
    pub(crate) async fn submit(
        &self,
        transactions: Vec<Transaction>,
    ) -> Option<oneshot::Receiver<Verdicts>> {
        let (reply, verdicts) = oneshot::channel();
        self.inputs.send(Input::Submit { transactions, reply }).await.ok()?;
        Some(verdicts)
    }
}

/// The producer's end of its handle.
#[derive(Debug)]
pub(crate) struct ProducerQueue {
    queue: mpsc::Receiver<Input>,
    inputs: mpsc::Sender<Input>,
}

/// The task's state.
pub(crate) struct Producer {
    chain: Arc<Chain>,
    raft: RaftNode,
    node_id: NodeId,
    clock: Clock,
    spawner: Spawner,
    inputs: mpsc::Sender<Input>,
    leader: Leader,
    proposed: Proposed,
    head: Head,
    built: Option<(BuildId, Proposal)>,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: Ticket,
    wake_at: Option<Tick>,
}

/// The blocks that are proposed and not applied, oldest first.
#[derive(Debug, Default)]
struct Proposed {
    blocks: VecDeque<(BuildId, Arc<Unapplied>)>,
    /// What is in them.
    in_flight: Arc<InFlight>,
    /// The term that they are of.
    term: Option<u64>,
}

impl Proposed {
    fn push(&mut self, build: BuildId, block: Arc<Unapplied>) {
        self.blocks.push_back((build, block));
        self.changed();
    }

    fn keep(&mut self, wanted: impl Fn(BuildId, &Unapplied) -> bool) {
        self.blocks.retain(|(build, block)| wanted(*build, block));
        self.changed();
    }

    fn get(&self, build: BuildId) -> Option<&Arc<Unapplied>> {
        self.blocks.iter().find(|(id, _)| *id == build).map(|(_, block)| block)
    }

    fn list(&self) -> Vec<Arc<Unapplied>> {
        self.blocks.iter().map(|(_, block)| block.clone()).collect()
    }

    fn changed(&mut self) {
        let mut in_flight = InFlight::new();
        for (_, block) in &self.blocks {
            in_flight.add(&block.transactions);
            in_flight.add_dropped(&block.dropped);
        }
        self.in_flight = Arc::new(in_flight);
        metrics::gauge!("blockraft_pipeline_proposed_blocks").set(self.blocks.len() as f64);
    }
}

struct Waiting {
    /// Of the whole batch.
    hashes: Vec<B256>,
    sifted: Sifted,
    reply: oneshot::Sender<Verdicts>,
}

impl Producer {
    /// Without a block time, blocks come from elsewhere: this task only admits transactions.
    pub(crate) fn new(
        chain: Arc<Chain>,
        raft: RaftNode,
        node_id: NodeId,
        block_time_ms: Option<u64>,
        spawner: Spawner,
        queue: &ProducerQueue,
    ) -> Self {
        let head = head_of(&chain);
        let leader = match block_time_ms {
            Some(block_time_ms) => Leader::new(block_time_ms, head),
            None => Leader::new(0, head).without_blocks(),
        };
        Self {
            chain,
            raft,
            node_id,
            clock: Clock::start(),
            spawner,
            inputs: queue.inputs.clone(),
            leader,
            proposed: Proposed::default(),
            head,
            built: None,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            wake_at: None,
        }
    }

    /// Runs until the node stops. `progress` tells of every applied entry.
    pub(crate) async fn run(
        mut self,
        mut queue: ProducerQueue,
        mut progress: watch::Receiver<u64>,
    ) {
        let mut status = self.raft.status();
        let stop = self.spawner.stop.clone();
        let first = status.borrow_and_update().clone();
        self.role_changed(&first).await;
        loop {
            let wake = self.wake_at.map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = status.changed() => match changed {
                    Ok(()) => {
                        let now = status.borrow_and_update().clone();
                        self.role_changed(&now).await;
                    }
                    Err(_) => return,
                },
                changed = progress.changed() => match changed {
                    Ok(()) => self.applied().await,
                    Err(_) => return,
                },
                Some(input) = queue.queue.recv() => self.take(input).await,
                () = sleep_until(wake), if wake.is_some() => {
                    self.wake_at = None;
                    self.step(Event::Timer).await;
                }
            }
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Submit { transactions, reply } => self.submitted(transactions, reply).await,
            Input::Built { build, proposal: Some(proposal) } => {
                let (head, empty) = (head_at(&proposal.block.header), proposal.block.is_empty());
                self.built = Some((build, proposal));
                self.step(Event::BlockBuilt { build, head, empty }).await;
            }
            Input::Built { build, proposal: None } => self.step(Event::BuildFailed { build }).await,
            Input::Event(event) => self.step(event).await,
        }
    }

    async fn role_changed(&mut self, status: &RaftStatus) {
        let term = status.is_leader().then_some(status.term);
        if self.proposed.term != term {
            self.proposed.term = term;
            self.proposed.keep(|_, _| false);
            self.chain.own_entries.clear();
        }
        if let Some(term) = term {
            self.step(Event::Elected { term }).await;
        } else {
            self.step(Event::Deposed { leader: status.leader }).await;
        }
    }

    async fn applied(&mut self) {
        let head = head_of(&self.chain);
        if head != self.head {
            self.head = head;
            self.proposed.keep(|_, block| block.header.number > head.number);
            self.step(Event::BlockApplied { head }).await;
        }
        if self.leader.leading_term().is_some() && self.chain.has_executable(&self.proposed.list())
        {
            self.step(Event::PoolReady).await;
        }
    }

    /// State reads of a batch may take milliseconds, hence off the other tasks' thread.
    async fn submitted(
        &mut self,
        transactions: Vec<Transaction>,
        reply: oneshot::Sender<Verdicts>,
    ) {
        let hashes = transactions.iter().map(|tx| *tx.tx_hash()).collect();
        let chain = &self.chain;
        let in_flight = &self.proposed.in_flight;
        let sifted = tokio::task::block_in_place(|| chain.sift(in_flight, transactions));
        let sifted = match sifted {
            Ok(sifted) => sifted,
            Err(error) => {
                tracing::error!(%error, "transactions could not be checked against the state");
                // The gateway may have gone.
                let _ = reply.send(Err(Refusal::QueueFull));
                return;
            }
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let transactions = sifted.passed.clone();
        self.waiting.insert(ticket, Waiting { hashes, sifted, reply });
        self.step(Event::Submitted { ticket, transactions }).await;
    }

    async fn step(&mut self, event: Event) {
        for command in self.leader.step(self.clock.now(), event) {
            self.carry_out(command).await;
        }
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Barrier { term } => self.barrier(term),
            Command::ProposeAdmit { admit, batch } => {
                let entry = batch.encode_entry();
                self.chain.own_entries.keep(entry.clone(), LogEntry::Admit(batch));
                let proposal = self.raft.propose_ff(entry.into()).await;
                self.report(async move {
                    let applied = match proposal {
                        Ok(proposal) => proposal.await,
                        Err(error) => Err(error),
                    };
                    Input::Event(admit_event(admit, applied))
                });
            }
            Command::BuildBlock { build, parent, timestamp } => {
                self.build(build, parent, timestamp);
            }
            Command::ProposeBlock { build } => self.propose_block(build).await,
            Command::DiscardBlock { build } => self.discard(build),
            Command::Reply { ticket, verdicts } => {
                if let Some(Waiting { hashes, sifted, reply }) = self.waiting.remove(&ticket) {
                    let mut verdicts = sifted.merge(verdicts);
                    self.recognise(&hashes, &mut verdicts);
                    // The gateway may have gone.
                    let _ = reply.send(Ok(verdicts));
                }
            }
            Command::Refuse { tickets, refusal } => {
                for waiting in tickets.iter().filter_map(|t| self.waiting.remove(t)) {
                    // The gateway may have gone.
                    let _ = waiting.reply.send(Err(refusal));
                }
            }
            Command::Wake { at } => self.wake_at = Some(at),
            Command::StepDown { term } => {
                tracing::warn!(term, "this node cannot make progress as leader and hands over");
                let raft = self.raft.clone();
                self.spawner.tasks.spawn(async move {
                    if let Err(error) = raft.transfer_leadership(None).await {
                        tracing::warn!(%error, "leadership was not handed over");
                    }
                });
            }
        }
    }

    /// A transaction whose own nonce is used because it is in a block is known, not too late. Told here,
    /// because the gateway's node may not have applied that block yet.
    fn recognise(&self, hashes: &[B256], verdicts: &mut [Result<(), PoolError>]) {
        for (hash, verdict) in hashes.iter().zip(verdicts) {
            if matches!(verdict, Err(PoolError::NonceTooLow { .. }))
                && tokio::task::block_in_place(|| self.chain.is_known(hash))
            {
                *verdict = Err(PoolError::AlreadyKnown);
            }
        }
    }

    fn barrier(&self, term: u64) {
        let raft = self.raft.clone();
        self.report(async move {
            loop {
                match raft.barrier().await {
                    Ok(_) => return Input::Event(Event::CaughtUp { term }),
                    Err(BarrierError::NoQuorum) => tokio::time::sleep(BARRIER_RETRY).await,
                    Err(BarrierError::NotLeader { leader }) => {
                        // Right after an election the lease may not be there yet.
                        tokio::time::sleep(BARRIER_RETRY).await;
                        let status = raft.status().borrow().clone();
                        if !status.is_leader() || status.term != term {
                            return Input::Event(Event::Deposed { leader });
                        }
                    }
                    Err(BarrierError::Fatal) => {
                        return Input::Event(Event::Deposed { leader: None });
                    }
                }
            }
        });
    }

    fn build(&self, build: BuildId, parent: Head, timestamp: u64) {
        let chain = self.chain.clone();
        let (tracker, inputs) = (self.spawner.tasks.clone(), self.inputs.clone());
        let order = BuildOrder {
            parent: parent.hash,
            timestamp,
            term: build.term,
            proposer: self.node_id,
            unapplied: self.proposed.list(),
            in_flight: self.proposed.in_flight.clone(),
        };
        tracker.spawn_blocking(move || {
            let proposal = match chain.build(&order) {
                Ok(proposal) => Some(proposal),
                Err(error) => {
                    tracing::error!(%error, number = parent.number + 1, "block could not be built");
                    None
                }
            };
            // Fails only when the producer has stopped.
            let _ = inputs.blocking_send(Input::Built { build, proposal });
        });
    }

    async fn propose_block(&mut self, build: BuildId) {
        let Some((_, proposal)) = self.built.take_if(|(built, _)| *built == build) else {
            let failure = ProposalFailure::NotProposed { leader: None };
            let event = Event::ProposalFailed { build, failure };
            return self.report(std::future::ready(Input::Event(event)));
        };
        self.chain.timelines.proposed(proposal.block.header.hash(), proposal.stages);
        self.proposed.push(build, proposal.block);
        let content = LogEntry::Block(proposal.content);
        self.chain.own_entries.keep(proposal.entry.clone(), content);
        let taken = self.raft.propose_ff(proposal.entry.into()).await;
        let inputs = self.inputs.clone();
        self.spawner.tasks.spawn(async move {
            let applied = match taken {
                Ok(proposal) => proposal.await,
                Err(error) => Err(error),
            };
            let failure = match applied {
                // The head's change has told the producer already.
                Ok(ApplyResponse::Block { accepted: true }) => return,
                Ok(_) => ProposalFailure::NotProposed { leader: None },
                Err(error) => failure_of(error),
            };
            // Fails only when the producer has stopped.
            let _ = inputs.send(Input::Event(Event::ProposalFailed { build, failure })).await;
        });
    }

    fn discard(&mut self, build: BuildId) {
        let built = self.built.take_if(|(built, _)| *built == build);
        let built = built.map(|(_, proposal)| proposal.block);
        let Some(block) = built.or_else(|| self.proposed.get(build).cloned()) else { return };
        self.proposed.keep(|id, _| id != build);
        let chain = self.chain.clone();
        self.spawner.tasks.spawn_blocking(move || {
            if let Err(error) = chain.abandon(block.header.hash()) {
                tracing::error!(%error, "the trie could not be taken back to the head");
            }
        });
    }

    fn report(&self, input: impl Future<Output = Input> + Send + 'static) {
        let inputs = self.inputs.clone();
        self.spawner.tasks.spawn(async move {
            // Fails only when the producer has stopped.
            let _ = inputs.send(input.await).await;
        });
    }
}

fn admit_event(admit: AdmitId, applied: Result<ApplyResponse, ProposeError>) -> Event {
    match applied {
        Ok(ApplyResponse::Admit(bytes)) => {
            let Ok(Response::Verdicts(verdicts)) = Response::decode(&bytes) else {
                unreachable!("this process encoded the verdicts")
            };
            Event::AdmitApplied { admit, verdicts }
        }
        Ok(ApplyResponse::None | ApplyResponse::Block { .. }) => {
            Event::AdmitFailed { admit, failure: ProposalFailure::Unknown }
        }
        Err(error) => Event::AdmitFailed { admit, failure: failure_of(error) },
    }
}

fn failure_of(error: ProposeError) -> ProposalFailure {
    match error {
        ProposeError::NotLeader { leader } => ProposalFailure::NotProposed { leader },
        ProposeError::Unknown | ProposeError::Fatal => ProposalFailure::Unknown,
    }
}

fn head_of(chain: &Chain) -> Head {
    head_at(&chain.store.head())
}

fn head_at(header: &Sealed<Header>) -> Head {
    Head { number: header.number, hash: header.hash(), timestamp: header.timestamp }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
