//! `blockraft-bench state`: what keeping the state costs, as ratios taken in one run.
//!
//! Comparisons on one core are in CPU time of the thread, so that a busy machine does not distort them;
//! comparisons of one core with two are in wall time, the best of several, and need two quiet cores.

mod blocks;
mod chain;
mod history;
mod storage;
mod trie;

use crate::output::Format;
use clap::{Args, ValueEnum};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{fmt, path::PathBuf};

/// `blockraft-bench state`
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Accounts of the state, and slots of the one large contract.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    accounts: u32,
    /// Blocks of the history that balances and logs are read from.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    blocks: u32,
    /// Measure these parts only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Where databases are made, and removed again.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The trie in memory.
    Trie,
    /// From memory to disk.
    Persistence,
    /// Blocks with their receipts on disk.
    Blocks,
    /// Reads of earlier blocks, and the log index.
    History,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// What was measured.
    what: String,
    /// The ratio or size.
    value: f64,
    /// Of the value.
    unit: &'static str,
    /// What it comes from.
    detail: String,
    /// What must hold, as it is promised.
    must: Option<Bound>,
    /// What would be good.
    reach: Option<Bound>,
    /// Whether `must` holds.
    holds: bool,
}

/// A bound of a value.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
        }
    }
}

/// The table.
#[derive(Debug, Default, Serialize)]
struct Report {
    rows: Vec<Row>,
}

impl Report {
    fn add(
        &mut self,
        what: impl Into<String>,
        (value, unit): (f64, &'static str),
        detail: impl Into<String>,
        (must, reach): (Option<Bound>, Option<Bound>),
    ) {
        let holds = must.is_none_or(|must| must.holds(value));
        let (what, detail) = (what.into(), detail.into());
        self.rows.push(Row { what, value, unit, detail, must, reach, holds });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | got | must | reach for | holds |\n|---|---|---|---|---|")?;
        for row in &self.rows {
            let Row { what, value, unit, detail, must, reach, holds } = row;
            let bound = |bound: &Option<Bound>| {
                bound.map_or_else(|| "-".to_owned(), |b| format!("{b}{unit}"))
            };
            let holds = if must.is_none() {
                "-"
            } else if *holds {
                "yes"
            } else {
                "NO"
            };
            let (must, reach) = (bound(must), bound(reach));
            let decimals = if matches!(*unit, "x" | "us") { 2 } else { 0 };
            writeln!(
                f,
                "| {what} | {value:.decimals$}{unit} ({detail}) | {must} | {reach} | {holds} |"
            )?;
        }
        Ok(())
    }
}

/// A value that must be at least the first, and would be good at the second.
pub(crate) const fn at_least(must: f64, reach: f64) -> (Option<Bound>, Option<Bound>) {
    (Some(Bound::AtLeast(must)), Some(Bound::AtLeast(reach)))
}

/// A value that must be at most the first, and would be good at the second.
pub(crate) const fn at_most(must: f64, reach: f64) -> (Option<Bound>, Option<Bound>) {
    (Some(Bound::AtMost(must)), Some(Bound::AtMost(reach)))
}

/// No bound is promised.
const FREE: (Option<Bound>, Option<Bound>) = (None, None);

/// Measures and prints. `false` if a row is not what it must be.
pub(crate) fn run(args: &StateArgs, format: Format) -> anyhow::Result<bool> {
    let mut report = Report::default();
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    if wanted(Part::Trie) {
        trie::measure(args.accounts as usize, &mut report)?;
    }
    if wanted(Part::Persistence) {
        storage::measure(&args.dir, args.accounts as usize, &mut report)?;
    }
    if wanted(Part::Blocks) {
        blocks::measure(&args.dir, &mut report)?;
    }
    if wanted(Part::History) {
        history::measure(&args.dir, u64::from(args.blocks), &mut report)?;
    }
    format.result(&report);
    Ok(report.rows.iter().all(|row| row.holds))
}

pub(crate) fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock).expect("the clock exists");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Median, least and greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Least CPU seconds of this thread that `run` took in so many runs.
fn cpu(runs: usize, mut run: impl FnMut()) -> f64 {
    least(ClockId::CLOCK_THREAD_CPUTIME_ID, runs, &mut run)
}

fn least(clock: ClockId, runs: usize, run: &mut dyn FnMut()) -> f64 {
    let times = (0..runs).map(|_| {
        let start = seconds(clock);
        run();
        seconds(clock) - start
    });
    times.fold(f64::MAX, f64::min)
}
