//! A simulated node: the shell around the pure crates. `producer.rs` and `gateway.rs` mirror the tasks
//! of the same names in the `node` crate; this file stands for the Raft, storage and transport below.

use crate::{
    Mutant,
    chain::{Applied, BuildOrder, Chain, Proposal, Stored},
    gateway::Gateway,
    invariants::{Fact, Invariants},
    producer::Producer,
    raft::{Message, Output, Raft},
    rng::Rng,
    trace::Trace,
};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{ClusterGenesis, NodeId};
use blockraft_protocol::{AdmitId, BuildId, Event, PoolError, ProposalFailure};
use std::{collections::BTreeMap, rc::Rc};

/// Entries that stay in the log behind what is stored, and how many more may pile up.
const LOG_KEPT: u64 = 15;
const LOG_SLACK: u64 = 25;

/// What happens to a node by itself.
#[derive(Debug)]
pub(crate) enum Local {
    Tick,
    Synced,
    Apply,
    Store,
    /// The producer looks at role and head; like the product's watch channels, it sees the newest.
    RoleChanged,
    Progress,
    Leader(Event),
    Build {
        build: BuildId,
        order: BuildOrder,
    },
    Built {
        build: BuildId,
        proposal: Option<Proposal>,
    },
    /// Mutant: a block that was held back is proposed.
    LetGo,
    Wake(blockraft_primitives::Tick),
    /// Nobody will tell what becomes of the entry that was proposed at this index.
    LoseOutcome {
        index: u64,
    },
    Offer {
        part: u64,
    },
    AttemptTimeout {
        attempt: u64,
    },
}

/// What travels between nodes.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Raft {
        term: u64,
        message: Message,
    },
    /// `Request::Submit`, encoded.
    Submit {
        attempt: u64,
        request: Bytes,
    },
    /// A `Response`, encoded.
    Answer {
        attempt: u64,
        response: Bytes,
    },
}

/// What a client hears about a transaction.
#[derive(Clone, Debug)]
pub(crate) enum ClientAnswer {
    Taken,
    Refused(PoolError),
    TryAgain,
}

#[derive(Debug)]
pub(crate) enum Effect {
    Later { delay: u64, local: Local },
    Send { to: NodeId, packet: Packet },
    Answer { hash: B256, answer: ClientAnswer },
}

/// What watches a run.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) invariants: Invariants,
    pub(crate) trace: Trace,
    /// Blocks that were begun on one which was not applied yet.
    pub(crate) pipelined: u64,
    /// The first violation: the invariant's name, and the problem.
    pub(crate) violation: Option<(&'static str, String)>,
}

impl Watch {
    pub(crate) fn fact(&mut self, fact: &Fact<'_>) {
        if self.violation.is_none() {
            self.violation = self.invariants.see(fact).err();
        }
    }

    pub(crate) fn fail(&mut self, name: &'static str, problem: String) {
        self.violation.get_or_insert((name, problem));
    }
}

/// What a node may use while it handles an event.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) watch: &'a mut Watch,
    /// Faults have not stopped.
    pub(crate) faulty: bool,
    /// Everything is settled: no more blocks, so that all nodes come to one log index.
    pub(crate) quiet: bool,
    pub(crate) out: Vec<Effect>,
}

impl Context<'_> {
    pub(crate) fn later(&mut self, delay: std::ops::RangeInclusive<u64>, local: Local) {
        let delay = self.rng.within(delay);
        self.out.push(Effect::Later { delay, local });
    }
}

/// Who waits for a proposal's fate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proposed {
    Admit(AdmitId),
    Block(BuildId),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    genesis: Rc<ClusterGenesis>,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) raft: Raft,
    pub(crate) chain: Chain,
    pub(crate) producer: Producer,
    pub(crate) gateway: Gateway,
    pub(crate) running: bool,
    /// Counts starts of the process: what an earlier one set in motion is void.
    pub(crate) incarnation: u64,
    pub(crate) paused_until: u64,
    pub(crate) clock_offset_ms: i64,
    pub(crate) started_at: u64,
    sync_ms: std::ops::RangeInclusive<u64>,
    sync_due: bool,
    apply_due: bool,
    /// By log index, with the term that it was proposed in.
    proposals: BTreeMap<u64, (u64, Proposed)>,
    /// Term that waits, and the index to be applied.
    barrier: Option<(u64, u64)>,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        members: u64,
        genesis: Rc<ClusterGenesis>,
        mutant: Option<Mutant>,
    ) -> Result<Self, String> {
        let no_fsync = mutant == Some(Mutant::TailLostAfterAck);
        let chain = Chain::open(genesis.clone(), Stored::genesis(&genesis), mutant)?;
        Ok(Self {
            id,
            mutant,
            raft: Raft::new(id, members, no_fsync),
            producer: Producer::new(genesis.options.block_time_ms, chain.head()),
            gateway: Gateway::default(),
            chain,
            genesis,
            running: false,
            incarnation: 0,
            paused_until: 0,
            clock_offset_ms: 0,
            started_at: 0,
            sync_ms: if no_fsync { 500..=900 } else { 1..=6 },
            sync_due: false,
            apply_due: false,
            proposals: BTreeMap::new(),
            barrier: None,
        })
    }

    /// A snapshot is installed as it came, whatever is wrong with restarts.
    fn mutant_of_chain(&self) -> Option<Mutant> {
        self.mutant.filter(|mutant| *mutant != Mutant::PoolNotRestored)
    }

    /// The process dies: all that is not on disk is gone.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        self.running = false;
        self.incarnation += 1;
        self.raft.crash(rng);
    }

    pub(crate) fn start(&mut self, ctx: &mut Context<'_>) -> Result<(), String> {
        self.chain = Chain::open(self.genesis.clone(), self.chain.stored.clone(), self.mutant)?;
        self.raft.restart(self.chain.position, ctx.now, ctx.rng);
        self.producer = Producer::new(self.genesis.options.block_time_ms, self.chain.head());
        self.gateway = self.gateway.of_next_process();
        self.running = true;
        self.started_at = ctx.now;
        (self.sync_due, self.apply_due) = (false, false);
        self.proposals.clear();
        self.barrier = None;
        self.tell_position(ctx);
        ctx.later(0..=10, Local::Tick);
        ctx.later(50..=400, Local::Store);
        Ok(())
    }

    fn tell_position(&self, ctx: &mut Context<'_>) {
        let head = self.chain.head();
        ctx.watch.fact(&Fact::At {
            node: self.id,
            index: self.chain.position.0,
            pool: self.chain.fingerprint(),
            head: (head.number, head.hash),
        });
    }

    pub(crate) fn handle(&mut self, local: Local, ctx: &mut Context<'_>) -> Result<(), String> {
        match local {
            Local::Tick => {
                self.raft.tick(ctx.now, ctx.rng);
                ctx.later(8..=12, Local::Tick);
            }
            Local::Synced => {
                self.sync_due = false;
                self.raft.sync_done();
            }
            Local::Apply => {
                self.apply_due = false;
                self.apply(ctx)?;
            }
            Local::Store => self.store(ctx),
            Local::RoleChanged => self.role_changed(ctx),
            Local::Progress => self.progress(ctx),
            Local::Leader(event) => self.step(event, ctx),
            Local::Build { .. } if ctx.quiet => {}
            Local::Build { build, order } => self.build(build, &order, ctx),
            Local::Built { build, proposal } => self.built(build, proposal, ctx),
            Local::LetGo => self.let_go(ctx),
            Local::Wake(at) => self.woken(at, ctx),
            Local::LoseOutcome { index } => {
                if let Some((_, proposed)) = self.proposals.remove(&index) {
                    self.outcome_unknown(proposed, ctx);
                }
            }
            Local::Offer { part } => self.offer(part, ctx),
            Local::AttemptTimeout { attempt } => self.attempt_timeout(attempt, ctx),
        }
        self.flush(ctx);
        Ok(())
    }

    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        packet: Packet,
        ctx: &mut Context<'_>,
    ) -> Result<(), String> {
        match packet {
            Packet::Raft { term, message } => {
                let snapshot = match &message {
                    Message::Snapshot(stored) if term >= self.raft.term() => Some(stored.clone()),
                    _ => None,
                };
                self.raft.receive(from, term, message, ctx.now, ctx.rng);
                if let Some(stored) = snapshot {
                    self.install(&stored, ctx)?;
                }
                self.tell_lost_proposals(ctx);
            }
            Packet::Submit { attempt, request } => {
                self.submitted_by_peer(from, attempt, &request, ctx)
            }
            Packet::Answer { attempt, response } => self.answered(attempt, &response, ctx),
        }
        self.flush(ctx);
        Ok(())
    }

    fn install(&mut self, stored: &Stored, ctx: &mut Context<'_>) -> Result<(), String> {
        if stored.position.0 > self.chain.position.0 {
            ctx.watch.trace.line(ctx.now, self.id, || format!("snapshot at {:?}", stored.position));
            self.chain = Chain::open(self.genesis.clone(), stored.clone(), self.mutant_of_chain())?;
            self.tell_position(ctx);
            ctx.later(0..=2, Local::Progress);
            self.raft.installed(stored.position);
        }
        self.raft.covered(stored.position.0);
        Ok(())
    }

    /// Carries out what Raft wants.
    pub(crate) fn flush(&mut self, ctx: &mut Context<'_>) {
        for output in std::mem::take(&mut self.raft.out) {
            match output {
                Output::Send { to, message } => {
                    let packet = Packet::Raft { term: self.raft.term(), message };
                    ctx.out.push(Effect::Send { to, packet });
                }
                Output::Sync => {
                    if !std::mem::replace(&mut self.sync_due, true) {
                        ctx.later(self.sync_ms.clone(), Local::Synced);
                    }
                }
                Output::Role => {
                    if self.raft.is_leader() {
                        let term = self.raft.term();
                        ctx.watch.trace.line(ctx.now, self.id, || format!("leads in term {term}"));
                        ctx.watch.fact(&Fact::Elected { node: self.id, term });
                    }
                    self.check_barrier(ctx);
                    ctx.later(0..=3, Local::RoleChanged);
                }
                Output::NeedSnapshot { to } => {
                    let message = Message::Snapshot(Rc::new(self.chain.stored.clone()));
                    let packet = Packet::Raft { term: self.raft.term(), message };
                    ctx.out.push(Effect::Send { to, packet });
                }
            }
        }
        let behind = self.raft.appliable() > self.chain.position.0;
        if behind && !std::mem::replace(&mut self.apply_due, true) {
            ctx.later(0..=4, Local::Apply);
        }
    }

    /// Applies some of what is committed.
    fn apply(&mut self, ctx: &mut Context<'_>) -> Result<(), String> {
        let last = self.raft.appliable();
        let count = ctx.rng.within(1..=8);
        for _ in 0..count {
            let index = self.chain.position.0 + 1;
            if index > last {
                break;
            }
            let Some(entry) = self.raft.entry(index).cloned() else {
                return Err(format!("entry {index} is to be applied and not in the log"));
            };
            let applied = self.chain.apply((index, entry.term), &entry.payload)?;
            self.tell_applied(index, entry.term, &applied, ctx);
            self.tell_position(ctx);
            if let Some((term, proposed)) = self.proposals.remove(&index) {
                if term == entry.term {
                    self.outcome_known(proposed, applied, ctx);
                } else {
                    self.outcome_unknown(proposed, ctx);
                }
            }
        }
        self.check_barrier(ctx);
        ctx.later(0..=2, Local::Progress);
        Ok(())
    }

    fn tell_applied(&self, index: u64, term: u64, applied: &Applied, ctx: &mut Context<'_>) {
        let (now, node) = (ctx.now, self.id);
        let watch = &mut ctx.watch;
        match applied {
            Applied::Blank => watch.trace.line(now, node, || format!("{index}: blank {term}")),
            Applied::Admitted { verdicts, replaced } => {
                watch.trace.line(now, node, || format!("{index}: admit {verdicts:?}"));
                replaced.iter().for_each(|hash| watch.fact(&Fact::Replaced { hash: *hash }));
            }
            Applied::Block { block, dropped, replaced } => {
                watch.trace.line(now, node, || {
                    let (number, count) = (block.number(), block.transactions.len());
                    format!("{index}: block {number} {} with {count}", block.hash())
                });
                watch.fact(&Fact::BlockApplied { block });
                replaced.iter().for_each(|hash| watch.fact(&Fact::Replaced { hash: *hash }));
                dropped.iter().for_each(|hash| watch.fact(&Fact::Dropped { hash: *hash }));
            }
            Applied::LeftOut { number, hash, parent, built_in_term } => {
                watch.trace.line(now, node, || format!("{index}: block {number} {hash} left out"));
                let (built_in_term, logged_in_term) = (*built_in_term, term);
                let (number, hash, parent) = (*number, *hash, *parent);
                watch.fact(&Fact::BlockLeftOut {
                    number,
                    hash,
                    parent,
                    built_in_term,
                    logged_in_term,
                });
            }
        }
    }

    fn store(&mut self, ctx: &mut Context<'_>) {
        let count = ctx.rng.within(0..=self.chain.backlog() as u64) as usize;
        self.chain.store(count);
        let stored = self.chain.stored.position.0;
        if stored > self.raft.base_index() + LOG_KEPT + LOG_SLACK {
            self.raft.compact(stored - LOG_KEPT);
        }
        ctx.later(50..=400, Local::Store);
    }

    /// Puts an entry into the log, if this node leads; its fate is told as an event.
    pub(crate) fn propose(&mut self, entry: Bytes, proposed: Proposed, ctx: &mut Context<'_>) {
        // A leader whose lease has run out refuses too.
        if !self.raft.is_leader() || ctx.faulty && ctx.rng.chance(5) {
            let failure = ProposalFailure::NotProposed { leader: self.raft.leader() };
            return ctx.later(0..=2, Local::Leader(failed(proposed, failure)));
        }
        let index = self.raft.append(entry);
        self.proposals.insert(index, (self.raft.term(), proposed));
        // Some callers give up on an answer that does not come soon.
        if ctx.faulty && ctx.rng.chance(300) {
            ctx.later(20..=250, Local::LoseOutcome { index });
        }
    }

    fn outcome_known(&mut self, proposed: Proposed, applied: Applied, ctx: &mut Context<'_>) {
        let event = match (proposed, applied) {
            (Proposed::Admit(admit), Applied::Admitted { verdicts, .. }) => {
                Event::AdmitApplied { admit, verdicts }
            }
            // The head's change tells the producer.
            (Proposed::Block(_), Applied::Block { .. }) => return,
            (proposed, _) => failed(proposed, ProposalFailure::NotProposed { leader: None }),
        };
        ctx.later(0..=3, Local::Leader(event));
    }

    fn outcome_unknown(&mut self, proposed: Proposed, ctx: &mut Context<'_>) {
        let failure = match (self.mutant, proposed) {
            (Some(Mutant::SecondBlock), Proposed::Block(_)) => {
                ProposalFailure::NotProposed { leader: None }
            }
            _ => ProposalFailure::Unknown,
        };
        ctx.later(0..=3, Local::Leader(failed(proposed, failure)));
    }

    /// Proposals whose entries were overwritten, or are covered by a snapshot.
    fn tell_lost_proposals(&mut self, ctx: &mut Context<'_>) {
        let applied = self.chain.position.0;
        let lost = |(index, (term, _)): &(&u64, &(u64, Proposed))| {
            **index <= applied || self.raft.entry(**index).is_none_or(|entry| entry.term != *term)
        };
        let lost: Vec<u64> = self.proposals.iter().filter(lost).map(|(index, _)| *index).collect();
        for index in lost {
            if let Some((_, proposed)) = self.proposals.remove(&index) {
                self.outcome_unknown(proposed, ctx);
            }
        }
    }

    /// Waits until all that is in a new leader's log is applied.
    pub(crate) fn begin_barrier(&mut self, term: u64, ctx: &mut Context<'_>) {
        if self.mutant == Some(Mutant::NoBarrier) {
            return ctx.later(0..=2, Local::Leader(Event::CaughtUp { term }));
        }
        self.barrier = Some((term, self.raft.last_index()));
        self.check_barrier(ctx);
    }

    fn check_barrier(&mut self, ctx: &mut Context<'_>) {
        let Some((term, index)) = self.barrier else { return };
        let event = if !self.raft.is_leader() || self.raft.term() != term {
            Event::Deposed { leader: self.raft.leader() }
        } else if self.chain.position.0 >= index {
            Event::CaughtUp { term }
        } else {
            return;
        };
        self.barrier = None;
        ctx.later(2..=5, Local::Leader(event));
    }
}

fn failed(proposed: Proposed, failure: ProposalFailure) -> Event {
    match proposed {
        Proposed::Admit(admit) => Event::AdmitFailed { admit, failure },
        Proposed::Block(build) => Event::ProposalFailed { build, failure },
    }
}
