//! Scenarios of the leader's state machine: `testdata/protocol/*.txt`.
//!
//! A line `> TICK EVENT key=value ...` is an event; what follows is what the machine commands. Lines
//! with `#` explain. `UPDATE_EXPECT=1` rewrites the commands; the diff is then reviewed. The wall
//! clock runs with the ticks from `unix_ms` on, which `start` and `clock` set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use alloy_consensus::{Signed, Transaction as _, TxEnvelope, TxLegacy, transaction::Recovered};
use alloy_primitives::{Address, Signature, keccak256};
use blockraft_primitives::{AdmitBatch, NodeId, Tick, Transaction};
use blockraft_protocol::{
    AdmitId, BuildId, Command, Event, Head, Leader, Now, PoolError, ProposalFailure, Refusal,
};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, sync::Arc};

#[test]
fn scripts_run_as_written() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol");
    let mut paths: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", dir.display());
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        let actual = run(&script);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &actual).unwrap();
        } else {
            assert_eq!(actual, script, "{} differs", path.display());
        }
    }
}

fn run(script: &str) -> String {
    let mut out = String::new();
    let mut bench: Option<Bench> = None;
    for line in script.lines() {
        let Some(event) = line.strip_prefix("> ") else {
            if line.is_empty() || line.starts_with('#') {
                writeln!(out, "{line}").unwrap();
            }
            continue;
        };
        writeln!(out, "{line}").unwrap();
        let line = Line::parse(event);
        match (line.name.as_str(), &mut bench) {
            ("start", bench) => *bench = Some(Bench::new(&line)),
            ("clock", Some(bench)) => bench.set_clock(&line),
            (_, Some(bench)) => {
                for command in bench.step(&line) {
                    writeln!(out, "{}", show(&command)).unwrap();
                }
            }
            (_, None) => panic!("a script begins with start"),
        }
    }
    out
}

struct Line {
    tick: u64,
    name: String,
    values: BTreeMap<String, String>,
}

impl Line {
    fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let tick = words.next().and_then(|word| word.parse().ok()).expect("a tick");
        let name = words.next().expect("an event").to_owned();
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("key=value: {word}"));
            (key.to_owned(), value.to_owned())
        };
        Self { tick, name, values: words.map(pair).collect() }
    }

    fn text(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("{} needs {key}", self.name))
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }

    fn number_or(&self, key: &str, default: u64) -> u64 {
        if self.values.contains_key(key) { self.number(key) } else { default }
    }

    fn id(&self, key: &str) -> (u64, u64) {
        let (term, seq) = self.text(key).split_once('.').expect("term.seq");
        (term.parse().unwrap(), seq.parse().unwrap())
    }

    fn node(&self, key: &str) -> Option<NodeId> {
        let text = self.text(key);
        (text != "none").then(|| text.parse().unwrap())
    }

    fn failure(&self) -> ProposalFailure {
        match self.text("failure") {
            "unknown" => ProposalFailure::Unknown,
            "not_proposed" => ProposalFailure::NotProposed { leader: self.node("leader") },
            other => panic!("no failure {other}"),
        }
    }
}

struct Bench {
    leader: Leader,
    /// What stands on blocks that were begun, by block.
    begun: BTreeMap<BuildId, Head>,
    /// Wall clock at tick 0.
    unix_ms: u64,
}

impl Bench {
    fn new(line: &Line) -> Self {
        let unix_ms = line.number_or("unix_ms", 1_000_000);
        let leader = Leader::new(line.number("block_time_ms"), head_of(line));
        Self { leader, begun: BTreeMap::new(), unix_ms }
    }

    fn set_clock(&mut self, line: &Line) {
        self.unix_ms = line.number("unix_ms") - line.tick;
    }

    fn step(&mut self, line: &Line) -> Vec<Command> {
        let now = Now { tick: Tick(line.tick), unix_ms: self.unix_ms + line.tick };
        let commands = self.leader.step(now, event_of(line, &self.begun));
        for command in &commands {
            if let Command::BuildBlock { build, parent, timestamp } = *command {
                self.begun.insert(build, head(parent.number + 1, timestamp));
            }
        }
        commands
    }
}

fn event_of(line: &Line, begun: &BTreeMap<BuildId, Head>) -> Event {
    let admit = || {
        let (term, seq) = line.id("id");
        AdmitId { term, seq }
    };
    let build = || {
        let (term, seq) = line.id("id");
        BuildId { term, seq }
    };
    match line.name.as_str() {
        "elected" => Event::Elected { term: line.number("term") },
        "caught_up" => Event::CaughtUp { term: line.number("term") },
        "deposed" => Event::Deposed { leader: line.node("leader") },
        "submitted" => {
            let ticket = line.number("ticket");
            let bytes = line.number_or("bytes", 0);
            let transaction = |i| transaction(ticket * 10_000 + i, bytes);
            let transactions = (0..line.number("count")).map(transaction).collect();
            Event::Submitted { ticket, transactions }
        }
        "admit_applied" => Event::AdmitApplied { admit: admit(), verdicts: verdicts_of(line) },
        "admit_failed" => Event::AdmitFailed { admit: admit(), failure: line.failure() },
        "pool_ready" => Event::PoolReady,
        "block_built" => {
            let empty = line.text("empty") == "yes";
            Event::BlockBuilt { build: build(), head: begun[&build()], empty }
        }
        "build_failed" => Event::BuildFailed { build: build() },
        "block_applied" => Event::BlockApplied { head: head_of(line) },
        "proposal_failed" => Event::ProposalFailed { build: build(), failure: line.failure() },
        "timer" => Event::Timer,
        other => panic!("no event {other}"),
    }
}

fn head_of(line: &Line) -> Head {
    head(line.number("number"), line.number("time"))
}

fn head(number: u64, timestamp: u64) -> Head {
    Head { number, hash: keccak256(number.to_be_bytes()), timestamp }
}

/// `ok`, `known` or `full`, comma separated, each with `*N` to repeat it.
fn verdicts_of(line: &Line) -> Vec<Result<(), PoolError>> {
    let verdicts = line.text("verdicts").split(',').flat_map(|word| {
        let (name, count) = word.split_once('*').unwrap_or((word, "1"));
        let verdict = match name {
            "ok" => Ok(()),
            "known" => Err(PoolError::AlreadyKnown),
            "full" => Err(PoolError::PoolFull),
            other => panic!("no verdict {other}"),
        };
        vec![verdict; count.parse().unwrap()]
    });
    verdicts.collect()
}

fn transaction(nonce: u64, bytes: u64) -> Transaction {
    let tx = TxLegacy { nonce, input: vec![0; bytes as usize].into(), ..TxLegacy::default() };
    let signed = Signed::new_unhashed(tx, Signature::test_signature());
    Arc::new(Recovered::new_unchecked(TxEnvelope::Legacy(signed), Address::ZERO))
}

fn show(command: &Command) -> String {
    match command {
        Command::Barrier { term } => format!("barrier term={term}"),
        Command::ProposeAdmit { admit, batch } => {
            format!("propose_admit {}.{} {}", admit.term, admit.seq, show_batch(batch))
        }
        Command::BuildBlock { build, parent, timestamp } => {
            assert_eq!(parent.hash, keccak256(parent.number.to_be_bytes()));
            let BuildId { term, seq } = build;
            format!("build_block {term}.{seq} parent={} time={timestamp}", parent.number)
        }
        Command::ProposeBlock { build } => format!("propose_block {}.{}", build.term, build.seq),
        Command::DiscardBlock { build } => format!("discard_block {}.{}", build.term, build.seq),
        Command::Reply { ticket, verdicts } => {
            let mut runs: Vec<(String, usize)> = Vec::new();
            for verdict in verdicts {
                let text = verdict.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned());
                match runs.last_mut() {
                    Some((last, count)) if *last == text => *count += 1,
                    _ => runs.push((text, 1)),
                }
            }
            let runs: Vec<_> = runs.iter().map(|(text, n)| format!("{text} * {n}")).collect();
            format!("reply {ticket}: {}", runs.join(", ")).trim_end().to_owned()
        }
        Command::Refuse { tickets, refusal } => {
            let tickets: Vec<_> = tickets.iter().map(ToString::to_string).collect();
            let leader = match refusal {
                Refusal::NotLeader { leader: Some(leader) } => format!(" (node {leader} does)"),
                _ => String::new(),
            };
            format!("refuse {}: {refusal}{leader}", tickets.join(","))
        }
        Command::Wake { at } => format!("wake {}", at.0),
        Command::StepDown { term } => format!("step_down term={term}"),
    }
}

/// Each run of a ticket's transactions as `ticket:first-last`.
fn show_batch(batch: &AdmitBatch) -> String {
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for tx in &batch.transactions {
        let (ticket, i) = (tx.nonce() / 10_000, tx.nonce() % 10_000);
        match runs.last_mut() {
            Some((last, _, end)) if *last == ticket && *end + 1 == i => *end = i,
            _ => runs.push((ticket, i, i)),
        }
    }
    let runs = runs.iter().map(|(ticket, first, last)| format!("{ticket}:{first}-{last}"));
    runs.collect::<Vec<_>>().join(" ")
}
