//! `blockraft db stats|check|scrub|repair`: the state on disk, while no node runs over it.

use crate::{
    cli::{DbArgs, DbCommand, DbRepairArgs},
    node::runtime,
    output::{self, OutputFormat},
};
use blockraft_node::maintenance::{
    self, Damage, EnvironmentSize, Maintenance, Progress, Repaired, ScrubReport, Source,
    StoreOptions,
};
use blockraft_storage::StorageError;
use std::{
    fmt::Write as _,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Damage was found (and, by `repair`, not healed).
const EXIT_DAMAGED: u8 = 1;
/// There is no telling: a node holds the directory, or what is there cannot be opened.
const EXIT_UNKNOWN: u8 = 2;
/// Progress is told each time so many partitions are done.
const PROGRESS_PARTITIONS: usize = 32;

/// Runs one of the commands. Its errors are told here: they have an exit code of their own.
pub(crate) fn run(command: DbCommand, format: OutputFormat) -> ExitCode {
    let result = match command {
        DbCommand::Stats(args) => stats(&args, format),
        DbCommand::Check(args) => check(&args, format),
        DbCommand::Scrub(args) => scrub(&args, format),
        DbCommand::Repair(args) => repair(&args, format),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_DAMAGED),
        Err(error) => {
            output::error(&error, format);
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

fn open(args: &DbArgs) -> anyhow::Result<Maintenance> {
    if let Some(threads) = args.threads {
        // Only the first command of a process can, and there is only one.
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Maintenance::open(&args.datadir, StoreOptions::default()).map_err(|error| match error {
        StorageError::Locked { .. } => {
            anyhow::Error::new(error).context("stop the node that runs over it first")
        }
        other => other.into(),
    })
}

fn stats(args: &DbArgs, format: OutputFormat) -> anyhow::Result<bool> {
    let maintenance = open(args)?;
    let sizes = maintenance.sizes();
    let snapshots = maintenance.snapshots()?;
    match format {
        OutputFormat::Json => output::print_json(&serde_json::json!({
            "block": maintenance.head().number,
            "blockHash": maintenance.head().hash(),
            "stateRoot": maintenance.head().state_root,
            "shards": maintenance.shard_count(),
            "environments": sizes,
            "snapshots": snapshots,
        })),
        OutputFormat::Text => {
            let head = maintenance.head();
            output::print(&sizes_table(head.number, &sizes, snapshots.len()));
        }
    }
    Ok(true)
}

fn sizes_table(block: u64, sizes: &[EnvironmentSize], snapshots: usize) -> String {
    let mut out = format!("block {block}, {snapshots} snapshots\n");
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(format!("{:<10} {:<16} {:>14} {:>14}", "environ.", "table", "records", "bytes"));
    for size in sizes {
        let mut place = String::new();
        if let Some(block) = size.block {
            place = format!("at block {block}");
        }
        if let Some(oldest) = size.oldest_state {
            let _ = write!(place, ", states from {oldest}");
        }
        if let Some(problem) = &size.problem {
            place = format!("cannot be read: {problem}");
        }
        line(format!(
            "{:<10} {:<16} {:>14} {:>14}  {place}",
            size.name, "(file)", "", size.file_bytes
        ));
        for table in &size.tables {
            line(format!(
                "{:<10} {:<16} {:>14} {:>14}",
                "", table.name, table.entries, table.bytes
            ));
        }
    }
    out
}

fn check(args: &DbArgs, format: OutputFormat) -> anyhow::Result<bool> {
    let maintenance = open(args)?;
    let damage = maintenance.check();
    match format {
        OutputFormat::Json => output::print_json(&serde_json::json!({
            "clean": damage.is_empty(),
            "block": maintenance.head().number,
            "damage": damage,
        })),
        OutputFormat::Text if damage.is_empty() => output::print(&format!(
            "clean: {} shards at block {}",
            maintenance.shard_count(),
            maintenance.head().number
        )),
        OutputFormat::Text => output::print(&damage_lines(&damage)),
    }
    Ok(damage.is_empty())
}

fn scrub(args: &DbArgs, format: OutputFormat) -> anyhow::Result<bool> {
    let mut maintenance = open(args)?;
    let report = scrub_and_locate(&mut maintenance)?;
    print_report(&report, format);
    Ok(report.is_clean())
}

fn scrub_and_locate(maintenance: &mut Maintenance) -> anyhow::Result<ScrubReport> {
    let mut report = maintenance::scrub(maintenance, progress())?;
    if !report.root_matches() {
        output::progress("the state root is wrong: rebuilding the shards to see where");
        maintenance::locate(maintenance, &mut report)?;
    }
    Ok(report)
}

fn repair(args: &DbRepairArgs, format: OutputFormat) -> anyhow::Result<bool> {
    let mut maintenance = open(&args.db)?;
    let report = scrub_and_locate(&mut maintenance)?;
    for damage in &report.damage {
        output::progress(&damage.to_string());
    }
    let fetched = match args.peer.as_ref().filter(|_| !report.is_clean()) {
        Some(peer) => {
            output::progress(&format!("fetching a snapshot from node {}", peer.id));
            let fetch = maintenance::fetch_snapshot(&maintenance, peer, fetch_progress());
            Some(runtime()?.block_on(fetch)?)
        }
        None => None,
    };
    let from = fetched.as_deref().or(args.from.as_deref());
    let repaired = maintenance::repair(&mut maintenance, &report, from, progress())?;
    match format {
        OutputFormat::Json => output::print_json(&serde_json::json!({
            "found": report.damage,
            "repaired": repaired,
        })),
        OutputFormat::Text => output::print(&repaired_lines(&repaired)),
    }
    Ok(repaired.report.is_clean())
}

fn repaired_lines(repaired: &Repaired) -> String {
    let mut out = match &repaired.source {
        None => "nothing to repair\n".to_owned(),
        Some(source) => {
            let source = match source {
                Source::Genesis => "the genesis".to_owned(),
                Source::Snapshot(file) => file.display().to_string(),
            };
            format!("rebuilt shards {:?} from {source} and the log\n", repaired.shards)
        }
    };
    out.push_str(&report_lines(&repaired.report));
    out
}

fn print_report(report: &ScrubReport, format: OutputFormat) {
    match format {
        OutputFormat::Json => {
            let mut value = serde_json::to_value(report).expect("a report has string keys");
            value["clean"] = report.is_clean().into();
            output::print_json(&value);
        }
        OutputFormat::Text => output::print(&report_lines(report)),
    }
}

fn report_lines(report: &ScrubReport) -> String {
    let ScrubReport { block, state_root, expected_state_root, accounts, slots, damage } = report;
    let mut out = format!("block {block}: {accounts} accounts, {slots} slots hashed\n");
    if report.root_matches() {
        let _ = writeln!(out, "state root {state_root} is the header's");
    } else {
        let _ = writeln!(out, "state root is {state_root}, the header says {expected_state_root}");
    }
    out.push_str(&if damage.is_empty() { "clean".to_owned() } else { damage_lines(damage) });
    out
}

fn damage_lines(damage: &[Damage]) -> String {
    let lines: Vec<String> = damage.iter().map(|damage| format!("damaged: {damage}")).collect();
    lines.join("\n")
}

/// Tells on standard error how far a scrub has come.
fn progress() -> impl Fn(Progress) + Sync {
    let told = AtomicUsize::new(0);
    move |progress: Progress| {
        let step = progress.partitions / PROGRESS_PARTITIONS;
        if told.fetch_max(step, Ordering::Relaxed) < step {
            output::progress(&format!(
                "{} of 256 partitions, {} accounts, {} slots",
                progress.partitions, progress.accounts, progress.slots
            ));
        }
    }
}

/// Tells on standard error how much of a snapshot has come, at each tenth.
fn fetch_progress() -> impl Fn(u64, u64) {
    let told = AtomicUsize::new(0);
    move |bytes, of| {
        let tenth = usize::try_from(bytes.saturating_mul(10) / of.max(1)).unwrap_or(10);
        if told.fetch_max(tenth, Ordering::Relaxed) < tenth {
            output::progress(&format!("{bytes} of {of} bytes fetched"));
        }
    }
}
