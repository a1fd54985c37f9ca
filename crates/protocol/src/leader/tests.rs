//! Random histories: events reordered, repeated, delayed and lost, leaders deposed. Single scenarios
//! are in `testdata/protocol`.

use super::*;
use crate::testing::transfer;
use alloy_consensus::Transaction as _;
use alloy_primitives::keccak256;
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
    Build(BuildId),
    /// In the order of the log.
    Block(BuildId),
}

/// A block that was begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    parent: B256,
    head: Head,
    /// The log has refused it, or what it stands on.
    void: bool,
}

struct Shell {
    leader: Leader,
    interval_ms: u64,
    now: u64,
    term: u64,
    leads: bool,
    caught_up: bool,
    jobs: Vec<Job>,
    begun: BTreeMap<BuildId, Begun>,
    /// What was proposed on each parent in a term, unless it was refused.
    on_parent: BTreeMap<(u64, B256), BuildId>,
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
            begun: BTreeMap::new(),
            on_parent: BTreeMap::new(),
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
        let alive = |build: &BuildId| build.term == term && !self.begun[build].void;
        let builds = self.jobs.iter().filter(|j| matches!(j, Job::Build(b) if alive(b)));
        assert!(builds.count() <= 1, "one block is built at a time");
        let blocks = self.jobs.iter().filter(|j| matches!(j, Job::Block(b) if alive(b)));
        assert!(blocks.count() <= limits::PIPELINE_BLOCK_COUNT_MAX, "the pipeline is bounded");
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
                assert_eq!(parent, self.tip());
                let strict = u64::from(self.interval_ms >= 1000);
                assert!(timestamp >= parent.timestamp + strict);
                let hash = keccak256([build.term.to_be_bytes(), build.seq.to_be_bytes()].concat());
                let head = Head { number: parent.number + 1, hash, timestamp };
                self.begun.insert(build, Begun { parent: parent.hash, head, void: false });
                self.jobs.push(Job::Build(build));
                self.last_begun = Some(self.now);
            }
            Command::ProposeBlock { build } => {
                assert!(self.caught_up && build.term == self.term);
                let parent = self.begun[&build].parent;
                assert_eq!(parent, self.tip().hash, "behind its parent");
                let other = self.on_parent.insert((build.term, parent), build);
                assert_eq!(other, None, "one block on a parent");
                self.jobs.push(Job::Block(build));
            }
            Command::DiscardBlock { build } => {
                let proposed = self.on_parent.values().any(|proposed| *proposed == build);
                assert!(!proposed, "what the log may hold is not given up");
            }
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

    /// What a block begun now stands on.
    fn tip(&self) -> Head {
        let alive = |build: &BuildId| build.term == self.term && !self.begun[build].void;
        let last = self.jobs.iter().rev().find_map(|job| match job {
            Job::Block(build) if alive(build) => Some(self.begun[build].head),
            _ => None,
        });
        last.unwrap_or(self.head)
    }

    /// The log has refused a block, and so whatever stands on it.
    fn refuse(&mut self, build: BuildId) {
        let Begun { parent, head, .. } = self.begun[&build];
        self.begun.get_mut(&build).unwrap().void = true;
        self.on_parent.remove(&(build.term, parent));
        let on_it: Vec<BuildId> = self
            .begun
            .iter()
            .filter(|(_, begun)| begun.parent == head.hash && !begun.void)
            .map(|(build, _)| *build)
            .collect();
        on_it.into_iter().for_each(|build| self.refuse(build));
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
                    self.apply_blocks_of_old_terms();
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

    /// Blocks that were proposed before may have been committed.
    fn apply_blocks_of_old_terms(&mut self) {
        for job in self.jobs.clone() {
            if let Job::Block(build) = job
                && self.begun[&build].parent == self.head.hash
            {
                self.apply(build);
            }
        }
        self.jobs.retain(|job| !matches!(job, Job::Block(..)));
    }

    fn apply(&mut self, build: BuildId) {
        self.head = self.begun[&build].head;
        self.jobs.retain(|job| *job != Job::Block(build));
        self.send(Event::BlockApplied { head: self.head });
    }

    /// Entries are applied in order: the outcome of one comes when those before it are.
    fn is_first(&self, build: BuildId) -> bool {
        let first = self.jobs.iter().find(|job| matches!(job, Job::Block(..)));
        first == Some(&Job::Block(build))
    }

    fn finish(&mut self, at: usize, outcome: u8, keep: bool) {
        let job = self.jobs[at].clone();
        // A block of an old term is applied or not before the barrier is passed, and once.
        let current = |build: BuildId| self.caught_up && build.term == self.term;
        if !keep && !matches!(&job, Job::Block(..)) {
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
            Job::Build(build) => {
                self.jobs.retain(|other| *other != Job::Build(build));
                let head = self.begun[&build].head;
                match outcome {
                    0 | 1 => self.send(Event::BlockBuilt { build, head, empty: outcome == 1 }),
                    _ => self.send(Event::BuildFailed { build }),
                }
                if keep {
                    // Told twice.
                    let before = self.jobs.len();
                    self.send(Event::BuildFailed { build });
                    assert_eq!(self.jobs.len(), before);
                }
            }
            Job::Block(build) if !current(build) => {
                self.jobs.remove(at);
                self.send(Event::ProposalFailed { build, failure });
            }
            Job::Block(build) if outcome < 2 => {
                if !self.is_first(build) {
                    return;
                }
                if self.begun[&build].parent == self.head.hash {
                    return self.apply(build);
                }
                // Left out: it does not build on the head.
                self.jobs.remove(at);
                assert!(self.begun[&build].void);
                let failure = ProposalFailure::NotProposed { leader: None };
                self.send(Event::ProposalFailed { build, failure });
            }
            Job::Block(build) if outcome == 2 => {
                self.jobs.remove(at);
                self.refuse(build);
                self.send(Event::ProposalFailed { build, failure });
            }
            // It may still come.
            Job::Block(build) => self.send(Event::ProposalFailed { build, failure }),
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
        for _ in 0..8 {
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
