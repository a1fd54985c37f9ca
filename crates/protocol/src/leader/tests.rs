//! Random histories: events reordered, repeated, delayed and lost, leaders deposed. Single scenarios
//! are in `testdata/protocol`.

use super::*;
use crate::testing::transfer;
use alloy_consensus::Transaction as _;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Elect,
    CatchUp,
    Depose,
    Submit {
        count: u64,
    },
    /// What is asked of the shell comes out so, the one at `at` first; kept, it comes out again.
    Finish {
        at: prop::sample::Index,
        outcome: u8,
        keep: bool,
    },
    PoolReady,
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Elect),
        3 => Just(Step::CatchUp),
        1 => Just(Step::Depose),
        8 => (0..900u64).prop_map(|count| Step::Submit { count }),
        12 => (any::<prop::sample::Index>(), 0..4u8, prop::bool::weighted(0.1))
            .prop_map(|(at, outcome, keep)| Step::Finish { at, outcome, keep }),
        3 => Just(Step::PoolReady),
        3 => (0..700u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// What a shell would be busy with.
#[derive(Clone, Debug, PartialEq)]
enum Job {
    Admit(AdmitId, usize),
    Build(BuildId, u64, u64),
    Block(BuildId, u64, u64),
}

struct Shell {
    leader: Leader,
    interval_ms: u64,
    now: u64,
    term: u64,
    leads: bool,
    caught_up: bool,
    jobs: Vec<Job>,
    /// Blocks that are being built, by id.
    parents: BTreeMap<BuildId, (u64, u64)>,
    head: Head,
    next_ticket: Ticket,
    sizes: BTreeMap<Ticket, usize>,
    answered: BTreeSet<Ticket>,
    last_nonce: u64,
    timer: Option<u64>,
    last_begun: Option<u64>,
}

impl Shell {
    fn new(interval_ms: u64) -> Self {
        let head = Head { number: 0, hash: B256::ZERO, timestamp: 1000 };
        Self {
            leader: Leader::new(interval_ms, head),
            interval_ms,
            now: 0,
            term: 0,
            leads: false,
            caught_up: false,
            jobs: Vec::new(),
            parents: BTreeMap::new(),
            head,
            next_ticket: 0,
            sizes: BTreeMap::new(),
            answered: BTreeSet::new(),
            last_nonce: 0,
            timer: None,
            last_begun: None,
        }
    }

    fn send(&mut self, event: Event) {
        let now = Now { tick: Tick(self.now), unix_ms: 1_000_000 + self.now };
        for command in self.leader.step(now, event) {
            self.obey(command);
        }
        let term = self.term;
        let admits = self.jobs.iter().filter(|j| matches!(j, Job::Admit(a, _) if a.term == term));
        assert!(admits.count() <= 2, "group commit");
        let blocks = self
            .jobs
            .iter()
            .filter(|j| matches!(j, Job::Build(b, ..) | Job::Block(b, ..) if b.term == term));
        assert!(blocks.count() <= 1, "one block at a time");
        assert!(self.leader.leading_term().is_none_or(|t| t == term && self.caught_up));
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Barrier { term } => assert!(self.leads && term == self.term),
            Command::ProposeAdmit { admit, batch } => {
                assert!(self.caught_up && admit.term == self.term);
                let transactions = &batch.transactions;
                assert!(fits_entry(transactions.len(), encoded_len(transactions)));
                for tx in transactions {
                    assert!(tx.nonce() > self.last_nonce, "in the order of submission");
                    self.last_nonce = tx.nonce();
                }
                self.jobs.push(Job::Admit(admit, transactions.len()));
            }
            Command::BuildBlock { build, parent, timestamp } => {
                assert!(self.caught_up && build.term == self.term);
                assert_eq!(parent, self.head);
                let strict = u64::from(self.interval_ms >= 1000);
                assert!(timestamp >= parent.timestamp + strict);
                self.parents.insert(build, (parent.number, timestamp));
                self.jobs.push(Job::Build(build, parent.number, timestamp));
                self.last_begun = Some(self.now);
            }
            Command::ProposeBlock { build } => {
                assert!(self.caught_up && build.term == self.term);
                let (parent, timestamp) = self.parents[&build];
                self.jobs.push(Job::Block(build, parent, timestamp));
            }
            Command::DiscardBlock { .. } => {}
            Command::Reply { ticket, verdicts } => {
                assert_eq!(self.sizes[&ticket], verdicts.len());
                assert!(self.answered.insert(ticket), "answered once");
            }
            Command::Refuse { tickets, .. } => {
                for ticket in tickets {
                    assert!(self.answered.insert(ticket), "answered once");
                }
            }
            Command::Wake { at } => {
                assert!(self.caught_up);
                self.timer = Some(at.0);
            }
            Command::StepDown { term } => assert_eq!(term, self.term),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Elect => {
                self.term += 1;
                (self.leads, self.caught_up, self.timer) = (true, false, None);
                self.send(Event::Elected { term: self.term });
            }
            Step::CatchUp => {
                if self.leads && !self.caught_up {
                    self.apply_block_of_old_term();
                    self.caught_up = true;
                    self.send(Event::CaughtUp { term: self.term });
                }
            }
            Step::Depose => {
                (self.leads, self.caught_up, self.timer) = (false, false, None);
                self.send(Event::Deposed { leader: Some(9) });
            }
            Step::Submit { count } => self.submit(count),
            Step::Finish { at, outcome, keep } => {
                if !self.jobs.is_empty() {
                    let at = at.index(self.jobs.len());
                    self.finish(at, outcome, keep);
                }
            }
            Step::PoolReady => self.send(Event::PoolReady),
            Step::Wait { ms } => self.wait(ms),
        }
    }

    fn submit(&mut self, count: u64) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let first = (ticket + 1) * 10_000;
        let transactions = (first..first + count).map(|nonce| transfer(0, nonce, 1)).collect();
        self.sizes.insert(ticket, count as usize);
        self.send(Event::Submitted { ticket, transactions });
    }

    /// A block that was proposed before may have been committed.
    fn apply_block_of_old_term(&mut self) {
        let at = self.jobs.iter().position(|job| matches!(job, Job::Block(..)));
        if let Some(at) = at
            && let Job::Block(_, parent, timestamp) = self.jobs[at]
            && parent == self.head.number
        {
            self.jobs.remove(at);
            self.apply(timestamp);
        }
        self.jobs.retain(|job| !matches!(job, Job::Block(..)));
    }

    fn apply(&mut self, timestamp: u64) {
        let number = self.head.number + 1;
        let hash = B256::with_last_byte(number as u8);
        self.head = Head { number, hash, timestamp };
        self.send(Event::BlockApplied { head: self.head });
    }

    fn finish(&mut self, at: usize, outcome: u8, keep: bool) {
        let job = self.jobs[at].clone();
        // A block of an old term is applied or not before the barrier is passed, and once.
        let current = |build: BuildId| self.caught_up && build.term == self.term;
        if !keep || matches!(&job, Job::Block(..)) {
            self.jobs.remove(at);
        }
        let failure = match outcome {
            2 => ProposalFailure::NotProposed { leader: None },
            _ => ProposalFailure::Unknown,
        };
        match job {
            Job::Admit(admit, count) if outcome < 2 => {
                self.jobs.retain(|other| *other != Job::Admit(admit, count));
                self.send(Event::AdmitApplied { admit, verdicts: vec![Ok(()); count] });
            }
            Job::Admit(admit, count) => {
                self.jobs.retain(|other| *other != Job::Admit(admit, count));
                self.send(Event::AdmitFailed { admit, failure });
            }
            Job::Build(build, ..) => {
                self.jobs.retain(|other| !matches!(other, Job::Build(b, ..) if *b == build));
                match outcome {
                    0 | 1 => self.send(Event::BlockBuilt { build, empty: outcome == 1 }),
                    _ => self.send(Event::BuildFailed { build }),
                }
                if keep {
                    // Told twice.
                    let before = self.jobs.len();
                    self.send(Event::BuildFailed { build });
                    assert_eq!(self.jobs.len(), before);
                }
            }
            Job::Block(build, parent, timestamp) => {
                if outcome < 2 && current(build) && parent == self.head.number {
                    self.apply(timestamp);
                } else if failure != ProposalFailure::Unknown || !current(build) {
                    self.send(Event::ProposalFailed { build, failure });
                } else {
                    self.send(Event::ProposalFailed { build, failure });
                    // It may still come.
                    self.jobs.push(Job::Block(build, parent, timestamp));
                }
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(at) = self.timer.filter(|at| *at <= until) {
            self.timer = None;
            self.now = self.now.max(at);
            self.send(Event::Timer);
        }
        self.now = until;
    }

    /// Everything comes to an end: then every ticket is answered, and a leader makes blocks.
    fn settle(&mut self) {
        self.run(Step::Elect);
        self.run(Step::CatchUp);
        for _ in 0..10_000 {
            if self.jobs.is_empty() && self.answered.len() == self.sizes.len() {
                break;
            }
            if self.jobs.is_empty() {
                self.wait(100);
            } else {
                self.finish(0, 0, false);
            }
        }
        assert_eq!(self.answered.len(), self.sizes.len(), "every ticket is answered");
        let height = self.head.number;
        self.send(Event::PoolReady);
        self.wait(self.interval_ms + BUILD_RETRY_MS);
        for _ in 0..4 {
            if !self.jobs.is_empty() {
                self.finish(0, 0, false);
            }
        }
        assert!(self.head.number > height, "the chain grows");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn histories_keep_the_promises(
        interval_ms in prop::sample::select(vec![0, 200, 1000]),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut shell = Shell::new(interval_ms);
        for step in steps {
            shell.run(step);
        }
        shell.settle();
    }
}
