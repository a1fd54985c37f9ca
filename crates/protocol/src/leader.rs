//! One node's part in making the chain grow, as a state machine: [`Leader::step`] takes an event and
//! says what to do. It runs on every node; on one that does not lead it only refuses.
//!
//! # How a shell drives it
//!
//! One task owns the `Leader`, takes events from one queue, and carries commands out in their order.
//! Nothing that a command starts may block that task: results come back as events.
//!
//! | Command | What the shell does | Event that follows |
//! |---|---|---|
//! | `Barrier` | waits until all that was committed when the term began is applied (a read index, or a blank entry) | `CaughtUp` |
//! | `ProposeAdmit` | proposes `LogEntry::Admit` | `AdmitApplied` once applied here, else `AdmitFailed` |
//! | `BuildBlock` | takes candidates from the pool, but for those in blocks on their way, and runs them on the parent | `BlockBuilt` or `BuildFailed` |
//! | `ProposeBlock` | proposes what was built, behind what was proposed before | `BlockApplied` once applied here, else `ProposalFailed` |
//! | `DiscardBlock` | forgets what was built, proposed or not | |
//! | `Reply`, `Refuse` | answers whoever waits for these tickets | |
//! | `Wake` | sets its one timer | `Timer` |
//! | `StepDown` | hands leadership over | `Deposed` |
//!
//! `BlockApplied` is sent for every block applied on this node, whoever proposed it. `PoolReady` is sent
//! after each applied entry for which `Pool::has_executable` holds. A submitted batch goes through
//! `Pool::sift` first: it refuses what is void, and what would replace a transaction of a block on its
//! way (the shell keeps an `InFlight` of all blocks from `ProposeBlock` to `BlockApplied`).
//!
//! # The pipeline
//!
//! A block is begun as soon as the one before it is proposed: it is built on a parent that is not
//! committed yet, and proposed behind it. The order of the log makes that safe: if the parent does not
//! come to be applied, neither does what stands on it. How many blocks may be on their way is limited.
//!
//! **Invariants**: nothing is replied before its entry is applied; a proposal's result counts only for
//! the term that it was proposed in, except the verdict of an applied entry, which is true whoever leads;
//! one block is built at a time, and proposed after its parent; no two blocks on one parent in a term,
//! unless the log has refused the first; no block before the barrier.

use crate::{PoolError, Refusal};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::B256;
use blockraft_primitives::{AdmitBatch, NodeId, Tick, Transaction, limits};
use std::collections::{BTreeMap, VecDeque};

mod pipeline;
mod schedule;
mod submissions;
#[cfg(test)]
mod tests;

use pipeline::Pipeline;
use schedule::Schedule;
use submissions::Submissions;

/// How long a leader waits after a block could not be built, milliseconds.
const BUILD_RETRY_MS: u64 = 100;
/// Blocks that fail to build one after another before a leader asks to be replaced.
const BUILD_FAILURE_COUNT_MAX: u32 = 3;

/// Names a submitted batch; unique among those that wait at this node.
pub type Ticket = u64;

/// The time, as the shell reads it just before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For intervals.
    pub tick: Tick,
    /// For block timestamps: milliseconds since 1970.
    pub unix_ms: u64,
}

/// A block that another can be built on: the last one applied on this node, or one on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
    /// The header's, seconds since 1970.
    pub timestamp: u64,
}

/// Names a proposed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdmitId {
    /// The term that it was proposed in.
    pub term: u64,
    /// Counted from 0 at every start of the process.
    pub seq: u64,
}

/// Names a block that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuildId {
    /// The term that it is built in.
    pub term: u64,
    /// Counted from 0 at every start of the process.
    pub seq: u64,
}

/// What happened to a proposal that was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalFailure {
    /// It never entered the log.
    NotProposed {
        /// Who leads, as far as is known.
        leader: Option<NodeId>,
    },
    /// It may be committed one day, or not.
    Unknown,
}

/// What a node tells its state machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This node leads.
    Elected {
        /// Since this term.
        term: u64,
    },
    /// The barrier of the term is passed.
    CaughtUp {
        /// The barrier's term.
        term: u64,
    },
    /// This node does not lead. Also sent when a follower learns who does.
    Deposed {
        /// Who does.
        leader: Option<NodeId>,
    },
    /// Transactions came in, from this node's gateway or another's.
    Submitted {
        /// To answer to.
        ticket: Ticket,
        /// In the order to be kept.
        transactions: Vec<Transaction>,
    },
    /// A proposed batch is committed and applied.
    AdmitApplied {
        /// Which one.
        admit: AdmitId,
        /// One a transaction.
        verdicts: Vec<Result<(), PoolError>>,
    },
    /// A proposed batch came to nothing, as far as is known.
    AdmitFailed {
        /// Which one.
        admit: AdmitId,
        /// What is known.
        failure: ProposalFailure,
    },
    /// The pool has something executable.
    PoolReady,
    /// A block was built.
    BlockBuilt {
        /// Which one.
        build: BuildId,
        /// What the block after it stands on.
        head: Head,
        /// It has no transactions and drops none.
        empty: bool,
    },
    /// A block could not be built.
    BuildFailed {
        /// Which one.
        build: BuildId,
    },
    /// A block is applied on this node.
    BlockApplied {
        /// It.
        head: Head,
    },
    /// A proposed block came to nothing, as far as is known.
    ProposalFailed {
        /// Which one.
        build: BuildId,
        /// What is known.
        failure: ProposalFailure,
    },
    /// The tick of the last `Wake` has come.
    Timer,
}

/// What a node is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Apply all that was committed before.
    Barrier {
        /// The term that begins.
        term: u64,
    },
    /// Put a batch into the log.
    ProposeAdmit {
        /// To name it by.
        admit: AdmitId,
        /// The entry.
        batch: AdmitBatch,
    },
    /// Make a block.
    BuildBlock {
        /// To name it by.
        build: BuildId,
        /// What it stands on: the last block applied or the last one proposed.
        parent: Head,
        /// Its timestamp, seconds since 1970.
        timestamp: u64,
    },
    /// Put a built block into the log.
    ProposeBlock {
        /// Which one.
        build: BuildId,
    },
    /// Forget a built block: it will not be part of the chain.
    DiscardBlock {
        /// Which one.
        build: BuildId,
    },
    /// Answer a ticket: its batch is committed and applied.
    Reply {
        /// Which one.
        ticket: Ticket,
        /// One a transaction.
        verdicts: Vec<Result<(), PoolError>>,
    },
    /// Turn tickets away.
    Refuse {
        /// Which ones.
        tickets: Vec<Ticket>,
        /// Why.
        refusal: Refusal,
    },
    /// Send `Timer` at a tick, and not at the tick asked for before.
    Wake {
        /// When.
        at: Tick,
    },
    /// This node cannot make progress: let another one lead.
    StepDown {
        /// The term to give up.
        term: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Follower {
        leader: Option<NodeId>,
    },
    /// Elected; what was committed before is not all applied yet.
    CatchingUp {
        term: u64,
    },
    Leading {
        term: u64,
    },
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Leader {
    role: Role,
    head: Head,
    submissions: Submissions,
    pipeline: Pipeline,
    schedule: Schedule,
    /// The pool has had something executable since the last block was begun.
    ready: bool,
    build_seq: u64,
    build_failures: u32,
    wake_at: Option<Tick>,
}

impl Leader {
    /// A node that does not lead yet. `block_time_ms` is `config.blockraft.blockTimeMs`.
    pub fn new(block_time_ms: u64, head: Head) -> Self {
        Self {
            role: Role::Follower { leader: None },
            head,
            submissions: Submissions::default(),
            pipeline: Pipeline::default(),
            schedule: Schedule::new(block_time_ms),
            ready: false,
            build_seq: 0,
            build_failures: 0,
            wake_at: None,
        }
    }

    /// The same on a chain whose blocks come from a consensus client: it admits transactions, and never
    /// makes a block.
    pub fn without_blocks(mut self) -> Self {
        self.schedule.turn_off();
        self
    }

    /// The term in which this node may build blocks, if it leads and is caught up.
    pub fn leading_term(&self) -> Option<u64> {
        match self.role {
            Role::Leading { term } => Some(term),
            Role::Follower { .. } | Role::CatchingUp { .. } => None,
        }
    }

    /// Takes one event and says what to do about it, in order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        self.take(now, event, &mut out);
        if let Role::Leading { term } = self.role {
            self.submissions.propose(term, &mut out);
            self.build(term, now, &mut out);
            self.set_timer(&mut out);
        }
        out
    }

    fn take(&mut self, now: Now, event: Event, out: &mut Vec<Command>) {
        match event {
            Event::Elected { term } => self.elected(term, out),
            Event::CaughtUp { term } => {
                if self.role == (Role::CatchingUp { term }) {
                    self.role = Role::Leading { term };
                    self.schedule.start(now, self.head);
                    // The old leader's pool is this node's too: whether it has something is found out.
                    self.ready = true;
                }
            }
            Event::Deposed { leader } => self.deposed(leader, out),
            Event::Submitted { ticket, transactions } => self.submitted(ticket, transactions, out),
            Event::AdmitApplied { admit, verdicts } => {
                self.submissions.applied(admit, verdicts, out);
            }
            Event::AdmitFailed { admit, failure } => self.submissions.failed(admit, failure, out),
            Event::PoolReady => self.ready = true,
            Event::BlockBuilt { build, head, empty } => {
                self.block_built(build, (head, empty), now, out);
            }
            Event::BuildFailed { build } => self.build_failed(build, now, out),
            Event::BlockApplied { head } => {
                self.head = head;
                self.pipeline.applied(head, out);
            }
            Event::ProposalFailed { build, failure } => {
                self.proposal_failed(build, failure, now, out);
            }
            Event::Timer => self.wake_at = None,
        }
    }

    fn elected(&mut self, term: u64, out: &mut Vec<Command>) {
        let known = match self.role {
            Role::CatchingUp { term } | Role::Leading { term } => Some(term),
            Role::Follower { .. } => None,
        };
        if known.is_some_and(|known| known >= term) {
            return;
        }
        self.reset_blocks();
        self.role = Role::CatchingUp { term };
        out.push(Command::Barrier { term });
    }

    fn deposed(&mut self, leader: Option<NodeId>, out: &mut Vec<Command>) {
        self.reset_blocks();
        self.role = Role::Follower { leader };
        self.submissions.turn_away(Refusal::NotLeader { leader }, out);
    }

    /// What was begun in an earlier term does not count; its results are told by their term.
    fn reset_blocks(&mut self) {
        self.pipeline = Pipeline::default();
        self.ready = false;
        self.build_failures = 0;
        self.wake_at = None;
        self.schedule.stop();
    }

    fn submitted(
        &mut self,
        ticket: Ticket,
        transactions: Vec<Transaction>,
        out: &mut Vec<Command>,
    ) {
        if let Role::Follower { leader } = self.role {
            let refusal = Refusal::NotLeader { leader };
            out.push(Command::Refuse { tickets: vec![ticket], refusal });
            return;
        }
        self.submissions.add(ticket, transactions, out);
    }

    fn block_built(
        &mut self,
        build: BuildId,
        (head, empty): (Head, bool),
        now: Now,
        out: &mut Vec<Command>,
    ) {
        if !self.pipeline.finish(build) {
            out.push(Command::DiscardBlock { build });
            return;
        }
        self.build_failures = 0;
        if empty && self.schedule.is_instant() {
            out.push(Command::DiscardBlock { build });
        } else if self.pipeline.is_sound() {
            self.pipeline.propose(build, head);
            out.push(Command::ProposeBlock { build });
        } else {
            out.push(Command::DiscardBlock { build });
            self.schedule.retry_at(now.tick.after(BUILD_RETRY_MS));
        }
    }

    fn build_failed(&mut self, build: BuildId, now: Now, out: &mut Vec<Command>) {
        if !self.pipeline.finish(build) {
            return;
        }
        self.build_failures += 1;
        if self.build_failures == BUILD_FAILURE_COUNT_MAX {
            // It goes on trying: there may be nobody to take over.
            self.build_failures = 0;
            out.push(Command::StepDown { term: build.term });
        }
        self.schedule.retry_at(now.tick.after(BUILD_RETRY_MS));
    }

    fn proposal_failed(
        &mut self,
        build: BuildId,
        failure: ProposalFailure,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        match failure {
            ProposalFailure::NotProposed { .. } => {
                if self.pipeline.refused(build, out) {
                    self.schedule.retry_at(now.tick.after(BUILD_RETRY_MS));
                }
            }
            // A second block on the same parent while the first may still be committed: never. The next
            // leader's barrier tells which it is.
            ProposalFailure::Unknown => {
                if self.pipeline.lost_sight_of(build) {
                    out.push(Command::StepDown { term: build.term });
                }
            }
        }
    }

    fn build(&mut self, term: u64, now: Now, out: &mut Vec<Command>) {
        if !self.pipeline.has_room() || !self.schedule.begin_block(now.tick, self.ready) {
            return;
        }
        let build = BuildId { term, seq: self.build_seq };
        self.build_seq += 1;
        self.ready = false;
        self.pipeline.begin(build);
        let parent = self.pipeline.tip(self.head);
        let timestamp = self.schedule.timestamp(now, parent);
        out.push(Command::BuildBlock { build, parent, timestamp });
    }

    fn set_timer(&mut self, out: &mut Vec<Command>) {
        let wanted = self.pipeline.has_room().then(|| self.schedule.next_wake()).flatten();
        if let Some(at) = wanted
            && self.wake_at != wanted
        {
            self.wake_at = wanted;
            out.push(Command::Wake { at });
        }
    }
}

/// Bytes of a batch in the log, but for a few of framing.
fn encoded_len(transactions: &[Transaction]) -> usize {
    transactions.iter().map(|tx| tx.encode_2718_len()).sum()
}

/// Whether a batch of this many transactions and bytes fits into one `Admit` entry.
fn fits_entry(count: usize, bytes: usize) -> bool {
    count <= limits::ADMIT_TX_COUNT_MAX && bytes <= limits::ADMIT_BYTES_MAX
}

type Waiting = VecDeque<(Ticket, Vec<Transaction>, usize)>;
type InLog = BTreeMap<AdmitId, Vec<(Ticket, usize)>>;
