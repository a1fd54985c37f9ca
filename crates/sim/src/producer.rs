//! Feeds the protocol's `Leader` and carries its commands out, as `node/src/producer.rs` does.

use crate::{
    Mutant,
    chain::{BuildOrder, Proposal, Unapplied},
    node::{Context, Effect, Local, Node, Packet, Proposed},
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{NodeId, Tick, Transaction};
use blockraft_protocol::{
    BuildId, Command, Event, Head, InFlight, Leader, Now, PoolError, ProposalFailure, Refusal,
    Request, Response, Sifted, Ticket,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Milliseconds since 1970 when a run begins.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// The verdicts on a batch, or why it was not looked at.
pub(crate) type Verdicts = Result<Vec<Result<(), PoolError>>, Refusal>;

/// Who waits for verdicts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Submitter {
    Own { attempt: u64 },
    Peer { node: NodeId, attempt: u64 },
}

#[derive(Debug)]
struct Waiting {
    hashes: Vec<B256>,
    sifted: Sifted,
    submitter: Submitter,
}

#[derive(Debug)]
pub(crate) struct Producer {
    leader: Leader,
    /// Blocks that are proposed and not applied, oldest first, and what is in them.
    proposed: VecDeque<(BuildId, Arc<Unapplied>)>,
    in_flight: InFlight,
    /// The term that the proposed blocks are of.
    term: Option<u64>,
    head: Head,
    built: Option<(BuildId, Proposal)>,
    /// Mutant: a block that waits to be proposed after the next one.
    held_back: Option<(BuildId, Bytes)>,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: Ticket,
    wake_at: Option<Tick>,
}

impl Producer {
    pub(crate) fn new(block_time_ms: u64, head: Head) -> Self {
        Self {
            leader: Leader::new(block_time_ms, head),
            proposed: VecDeque::new(),
            in_flight: InFlight::new(),
            term: None,
            head,
            built: None,
            held_back: None,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            wake_at: None,
        }
    }
}

impl Producer {
    fn unapplied(&self) -> Vec<Arc<Unapplied>> {
        self.proposed.iter().map(|(_, block)| block.clone()).collect()
    }

    fn keep_proposed(&mut self, keep: impl FnMut(&(BuildId, Arc<Unapplied>)) -> bool) {
        self.proposed.retain(keep);
        self.in_flight = InFlight::new();
        for (_, block) in &self.proposed {
            self.in_flight.add(&block.transactions);
            self.in_flight.add_dropped(&block.dropped);
        }
    }
}

impl Node {
    fn clock(&self, now: u64) -> Now {
        let unix_ms = (EPOCH_MS + now).saturating_add_signed(self.clock_offset_ms);
        Now { tick: Tick(now - self.started_at), unix_ms }
    }

    pub(crate) fn step(&mut self, event: Event, ctx: &mut Context<'_>) {
        for command in self.producer.leader.step(self.clock(ctx.now), event) {
            self.carry_out(command, ctx);
        }
    }

    pub(crate) fn role_changed(&mut self, ctx: &mut Context<'_>) {
        let term = self.raft.is_leader().then(|| self.raft.term());
        if self.producer.term != term {
            self.producer.term = term;
            self.producer.keep_proposed(|_| false);
        }
        if let Some(term) = term {
            self.step(Event::Elected { term }, ctx);
        } else {
            self.step(Event::Deposed { leader: self.raft.leader() }, ctx);
        }
    }

    pub(crate) fn progress(&mut self, ctx: &mut Context<'_>) {
        let head = self.chain.head();
        if head != self.producer.head {
            self.producer.head = head;
            self.producer.keep_proposed(|(_, block)| block.header.number > head.number);
            self.step(Event::BlockApplied { head }, ctx);
        }
        let unapplied = self.producer.unapplied();
        if self.producer.leader.leading_term().is_some() && self.chain.has_executable(&unapplied) {
            self.step(Event::PoolReady, ctx);
        }
    }

    pub(crate) fn woken(&mut self, at: Tick, ctx: &mut Context<'_>) {
        if self.producer.wake_at == Some(at) {
            self.producer.wake_at = None;
            self.step(Event::Timer, ctx);
        }
    }

    pub(crate) fn submitted_by_peer(
        &mut self,
        node: NodeId,
        attempt: u64,
        request: &[u8],
        ctx: &mut Context<'_>,
    ) {
        match Request::decode(request) {
            Ok(Request::Submit(batch)) => {
                self.submitted(batch.transactions, Submitter::Peer { node, attempt }, ctx);
            }
            other => ctx.watch.fail("wire", format!("a submission arrived as {other:?}")),
        }
    }

    pub(crate) fn submitted(
        &mut self,
        transactions: Vec<Transaction>,
        submitter: Submitter,
        ctx: &mut Context<'_>,
    ) {
        let hashes = transactions.iter().map(|tx| *tx.tx_hash()).collect();
        let sifted = self.chain.sift(&self.producer.in_flight, transactions);
        let ticket = self.producer.next_ticket;
        self.producer.next_ticket += 1;
        let transactions = sifted.passed.clone();
        self.producer.waiting.insert(ticket, Waiting { hashes, sifted, submitter });
        self.step(Event::Submitted { ticket, transactions }, ctx);
    }

    fn carry_out(&mut self, command: Command, ctx: &mut Context<'_>) {
        match command {
            Command::Barrier { term } => self.begin_barrier(term, ctx),
            Command::ProposeAdmit { admit, batch } => {
                if self.mutant == Some(Mutant::AckBeforeCommit) && self.raft.is_leader() {
                    self.raft.append(batch.encode_entry());
                    let verdicts = vec![Ok(()); batch.transactions.len()];
                    let event = Event::AdmitApplied { admit, verdicts };
                    return ctx.later(0..=0, Local::Leader(event));
                }
                self.propose(batch.encode_entry(), Proposed::Admit(admit), ctx);
            }
            Command::BuildBlock { build, parent, timestamp } => {
                let unapplied = self.producer.unapplied();
                ctx.watch.pipelined += u64::from(!unapplied.is_empty());
                let in_flight = self.producer.in_flight.clone();
                let (parent, term) = (parent.hash, build.term);
                let order = BuildOrder { parent, timestamp, term, unapplied, in_flight };
                ctx.later(0..=15, Local::Build { build, order });
            }
            Command::ProposeBlock { build } => self.propose_block(build, ctx),
            Command::DiscardBlock { build } => {
                let built = self.take_built(build).map(|(_, proposal)| proposal.block);
                let proposed = self.producer.proposed.iter().find(|(id, _)| *id == build);
                let proposed = proposed.map(|(_, block)| block.clone());
                self.producer.keep_proposed(|(id, _)| *id != build);
                if let Some(block) = built.or(proposed) {
                    self.chain.abandon(block.header.hash());
                }
            }
            Command::Reply { ticket, verdicts } => {
                if let Some(waiting) = self.producer.waiting.remove(&ticket) {
                    let Waiting { hashes, sifted, submitter } = waiting;
                    let mut verdicts = sifted.merge(verdicts);
                    for (hash, verdict) in hashes.iter().zip(&mut verdicts) {
                        if matches!(verdict, Err(PoolError::NonceTooLow { .. }))
                            && self.chain.is_known(hash)
                        {
                            *verdict = Err(PoolError::AlreadyKnown);
                        }
                    }
                    self.tell(submitter, Ok(verdicts), ctx);
                }
            }
            Command::Refuse { tickets, refusal } => {
                for ticket in tickets {
                    if let Some(waiting) = self.producer.waiting.remove(&ticket) {
                        self.tell(waiting.submitter, Err(refusal), ctx);
                    }
                }
            }
            Command::Wake { at } => {
                self.producer.wake_at = Some(at);
                let delay = (self.started_at + at.0).saturating_sub(ctx.now);
                ctx.later(delay..=delay, Local::Wake(at));
            }
            Command::StepDown { term } => {
                ctx.watch.trace.line(ctx.now, self.id, || format!("steps down from {term}"));
                self.raft.hand_over();
            }
        }
    }

    fn tell(&mut self, submitter: Submitter, verdicts: Verdicts, ctx: &mut Context<'_>) {
        match submitter {
            Submitter::Own { attempt } => self.finish(attempt, verdicts, ctx),
            Submitter::Peer { node, attempt } => {
                let response = verdicts.map_or_else(Response::Refused, Response::Verdicts);
                let packet = Packet::Answer { attempt, response: response.encode() };
                ctx.out.push(Effect::Send { to: node, packet });
            }
        }
    }

    pub(crate) fn build(&mut self, build: BuildId, order: &BuildOrder, ctx: &mut Context<'_>) {
        let proposal = self.chain.build(order, self.id);
        if let Err(error) = &proposal {
            ctx.watch.trace.line(ctx.now, self.id, || format!("build failed: {error}"));
        }
        ctx.later(0..=10, Local::Built { build, proposal: proposal.ok() });
    }

    pub(crate) fn built(
        &mut self,
        build: BuildId,
        proposal: Option<Proposal>,
        ctx: &mut Context<'_>,
    ) {
        let Some(proposal) = proposal else {
            return self.step(Event::BuildFailed { build }, ctx);
        };
        let (empty, head) = (proposal.block.is_empty(), head_of(&proposal.block.header));
        self.producer.built = Some((build, proposal));
        self.step(Event::BlockBuilt { build, head, empty }, ctx);
    }

    fn take_built(&mut self, build: BuildId) -> Option<(BuildId, Proposal)> {
        self.producer.built.take_if(|(built, _)| *built == build)
    }

    fn propose_block(&mut self, build: BuildId, ctx: &mut Context<'_>) {
        let Some((_, Proposal { block, entry })) = self.take_built(build) else {
            let failure = ProposalFailure::NotProposed { leader: None };
            let event = Event::ProposalFailed { build, failure };
            return ctx.later(0..=0, Local::Leader(event));
        };
        self.producer.proposed.push_back((build, block));
        self.producer.keep_proposed(|_| true);
        if self.mutant == Some(Mutant::ChildBeforeParent) && self.producer.held_back.is_none() {
            self.producer.held_back = Some((build, entry));
            return ctx.later(30..=30, Local::LetGo);
        }
        self.propose(entry, Proposed::Block(build), ctx);
        self.let_go(ctx);
    }

    /// Mutant: proposes what was held back.
    pub(crate) fn let_go(&mut self, ctx: &mut Context<'_>) {
        if let Some((build, entry)) = self.producer.held_back.take() {
            self.propose(entry, Proposed::Block(build), ctx);
        }
    }
}

fn head_of(header: &Sealed<Header>) -> Head {
    Head { number: header.number, hash: header.hash(), timestamp: header.timestamp }
}
