//! `blockraft replay`: real blocks on their pre-states, by the serial loop and by the block engine.
//!
//! Executors are simulated in this process: each sees the parent state and its own share of the block, and
//! its outcomes reach the leader as bytes. They run one after the other, so that each has the machine to
//! itself; what a block takes is the slowest share and what the leader does after it.

mod blocks;
mod chain;
mod pre_state;
mod report;
mod run;

use crate::{
    cli::ReplayArgs,
    output::{self, OutputFormat},
};
use anyhow::Context;
use blockraft_execution::CodeCache;
use report::{BlockReport, Status, Total};
use run::Set;
use std::{path::Path, process::ExitCode};

/// Stack of a thread that executes transactions.
const STACK_BYTES: usize = 64 << 20;

pub(crate) fn run(args: &ReplayArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    let folders = blocks::find(&args.dirs)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores);
    let set = Set {
        spec: chain::mainnet()?,
        pool: rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(STACK_BYTES)
            .build()
            .context("threads")?,
        executors: args.executors,
        threads,
        repeats: args.repeats as usize,
        codes: CodeCache::default(),
    };
    let mut library = blocks::Library::default();
    let mut reports = Vec::new();
    for folder in &folders {
        let report = replay(&set, folder, &mut library);
        if format == OutputFormat::Text {
            output::print(&report.to_string());
        }
        reports.push(report);
    }
    let total = Total::of(&reports, set.executors, set.repeats);
    let passed = reports.iter().filter(|report| report.status == Status::Passed).count();
    let failed = reports.len() - passed;
    match format {
        OutputFormat::Text => output::print(&format!("{total}\n{passed} passed, {failed} failed")),
        OutputFormat::Json => {
            let result = serde_json::json!({
                "executors": set.executors,
                "threads": set.threads,
                "blocks": reports,
                "total": total,
                "passed": passed,
                "failed": failed,
            });
            output::print(&result.to_string());
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(set: &Set, folder: &Path, library: &mut blocks::Library) -> BlockReport {
    match library.load(folder) {
        Ok(block) => set.replay(folder, &block),
        Err(error) => BlockReport::unreadable(folder, &error),
    }
}
