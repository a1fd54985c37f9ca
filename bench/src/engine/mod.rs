//! `blockraft-bench engine`: the block engine against a plain loop over revm, as ratios taken in one run.
//!
//! Both sides run the same transactions on the same state in memory, turn by turn; a ratio is that of two
//! neighbouring turns, and a row holds by the median of its ratios. What runs on one thread is measured in
//! CPU time of that thread, what runs on several in wall time, which needs as many quiet cores.

mod mainnet;
mod report;
mod rows;
mod workload;

use crate::output::Format;
use anyhow::Context;
use clap::{Args, ValueEnum};
use report::Report;
use std::path::PathBuf;

/// `blockraft-bench engine`
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// Turns of each comparison.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Only these groups of rows; all when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Pack or folder of real blocks with their pre-states; `mainnet-blocks.tar.zst` in the folder that
    /// `BLOCKRAFT_FIXTURES` names when absent.
    #[arg(long)]
    mainnet: Option<PathBuf>,
    /// The `blockraft` program, which replays real blocks; the one beside this program when absent.
    #[arg(long)]
    bin: Option<PathBuf>,
}

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// One thread with notes of reads and writes.
    Traced,
    /// Two threads on independent work.
    Threads,
    /// Real blocks.
    Mainnet,
    /// One hot contract.
    Hot,
    /// Outcomes that others computed.
    Seeds,
    /// One hot contract among independent work.
    Mix,
}

/// What measures a group of rows, so many times over.
type Measure = fn(usize, &mut Report) -> anyhow::Result<()>;

/// Measures and prints. `false` if a row is not what it must be.
pub(crate) fn run(args: &EngineArgs, format: Format) -> anyhow::Result<bool> {
    // As a serving node has it; both sides have it so.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_thp_disable(true).context("small pages of memory")?;
    let mut report = Report::default();
    let repeats = args.repeats as usize;
    let wanted = |group| args.only.is_empty() || args.only.contains(&group);
    let groups: [(Group, Measure); 5] = [
        (Group::Traced, rows::traced),
        (Group::Threads, rows::threads),
        (Group::Hot, rows::hot),
        (Group::Seeds, rows::seeds),
        (Group::Mix, rows::mix),
    ];
    for (group, measure) in groups {
        if wanted(group) {
            format.note(format_args!("measuring: {group:?}"));
            measure(repeats, &mut report)?;
        }
    }
    if wanted(Group::Mainnet) {
        format.note("measuring: Mainnet");
        mainnet::measure(args, &mut report)?;
    }
    format.result(&report);
    Ok(report.holds())
}
