//! `blockraft-bench compare-anvil`: one file into both, turn by turn, and the ratios.

use crate::{
    accounts::{DEV_ACCOUNT_COUNT, DEV_MNEMONIC},
    genesis::CHAIN_ID,
    http::Endpoint,
    output::Format,
    process::{Process, blockraft_binary, ensure_free, scratch_dir},
    send::{SendOptions, drive, report::Report},
    workload::Workload,
};
use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// anvil's default of 30 million holds 1,428 transfers a block and would be what is measured.
const ANVIL_GAS_LIMIT: u64 = 1_000_000_000;

/// Sends one file to fresh `blockraft dev` and fresh anvil, turn by turn.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// The workload, from `gen`, signed from nonce 0.
    #[arg(long)]
    file: PathBuf,
    /// The anvil program (npm package `@foundry-rs/anvil`).
    #[arg(long, default_value = "anvil")]
    anvil: PathBuf,
    /// The `blockraft` program; the one beside this program when absent.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Seconds between anvil's blocks. Its other mode makes a block a transaction.
    #[arg(long, default_value_t = 1)]
    anvil_block_time: u64,
    /// More arguments for `blockraft dev`, for example `--blockraft-arg=--block-time=1`.
    #[arg(long, allow_hyphen_values = true)]
    blockraft_arg: Vec<String>,
    /// Port that both are started on.
    #[arg(long, default_value_t = 21845)]
    port: u16,
    #[command(flatten)]
    options: SendOptions,
    /// Also writes the report as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// All runs, in turns.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Comparison {
    file: PathBuf,
    blockraft: Vec<Report>,
    anvil: Vec<Report>,
    /// Median rate of blockraft over anvil's.
    included_ratio: f64,
    /// Median CPU per transaction of blockraft over anvil's.
    cpu_ratio: f64,
}

/// Runs the command. False when a run lost a transaction.
pub(crate) async fn run(args: &CompareArgs, format: Format) -> anyhow::Result<bool> {
    let binary = blockraft_binary(args.bin.as_deref())?;
    let workload = Workload::read(&args.file)?;
    ensure!(args.runs > 0, "--runs starts at 1");
    let dir = scratch_dir("compare")?;
    let (mut blockraft, mut anvil) = (Vec::new(), Vec::new());
    for turn in 0..args.runs {
        let datadir = dir.join(format!("dev{turn}"));
        let own = blockraft_command(&binary, args, &datadir);
        blockraft.push(run_one(own, args, &workload, &dir.join("blockraft.log")).await?);
        let peer = anvil_command(args);
        anvil.push(run_one(peer, args, &workload, &dir.join("anvil.log")).await?);
        for report in blockraft.last().into_iter().chain(anvil.last()) {
            format.note(format_args!("run {}: {report}", turn + 1));
        }
    }
    let comparison = Comparison {
        file: args.file.clone(),
        included_ratio: median(&blockraft, rate) / median(&anvil, rate),
        cpu_ratio: median(&blockraft, cpu) / median(&anvil, cpu),
        blockraft,
        anvil,
    };
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_string_pretty(&comparison)?)?;
    }
    format.result(&comparison);
    let is_clean = comparison.blockraft.iter().chain(&comparison.anvil).all(Report::is_clean);
    if is_clean {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(is_clean)
}

fn blockraft_command(binary: &Path, args: &CompareArgs, datadir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("dev").arg("--port").arg(args.port.to_string()).arg("--datadir").arg(datadir);
    command.args(&args.blockraft_arg);
    command
}

fn anvil_command(args: &CompareArgs) -> Command {
    let mut command = Command::new(&args.anvil);
    command
        .arg("--silent")
        .args(["--mnemonic", DEV_MNEMONIC])
        .args(["--port", &args.port.to_string()])
        .args(["--block-time", &args.anvil_block_time.to_string()])
        .args(["--gas-limit", &ANVIL_GAS_LIMIT.to_string()])
        .args(["--accounts", &DEV_ACCOUNT_COUNT.to_string()])
        .args(["--chain-id", &CHAIN_ID.to_string()]);
    command
}

async fn run_one(
    mut command: Command,
    args: &CompareArgs,
    workload: &Workload,
    log: &Path,
) -> anyhow::Result<Report> {
    ensure_free(args.port)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let endpoint = Endpoint::local(args.port);
    let mut process = Process::start(&mut command, log)?;
    process.wait_until_it_answers(&endpoint, "eth_chainId").await.with_context(|| name.clone())?;
    let (endpoints, pids) = ([endpoint], [process.pid()]);
    let report = drive(workload.clone(), &endpoints, &args.options, &pids).await.context(name)?;
    process.kill()?;
    Ok(report)
}

fn rate(report: &Report) -> f64 {
    report.included_per_s
}

fn cpu(report: &Report) -> f64 {
    report.cpu.iter().map(|cpu| cpu.ms_per_tx).sum()
}

fn median(reports: &[Report], of: fn(&Report) -> f64) -> f64 {
    let values = sorted(reports, of);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn sorted(reports: &[Report], of: fn(&Report) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = reports.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24}{:>26}{:>30}", "", "included/s (min-max)", "CPU ms/tx (min-max)")?;
        for reports in [&self.blockraft, &self.anvil] {
            let (rates, cpus) = (sorted(reports, rate), sorted(reports, cpu));
            let name = reports[0].client.chars().take(23).collect::<String>();
            let rates = format!(
                "{:.0} ({:.0}-{:.0})",
                median(reports, rate),
                rates[0],
                rates[rates.len() - 1]
            );
            let cpus =
                format!("{:.4} ({:.4}-{:.4})", median(reports, cpu), cpus[0], cpus[cpus.len() - 1]);
            writeln!(f, "{name:<24}{rates:>26}{cpus:>30}")?;
        }
        write!(f, "{:<24}{:>25.2}x{:>29.2}x", "ratio", self.included_ratio, self.cpu_ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        let reports = |rates: &[f64]| -> Vec<Report> {
            let report = |rate: &f64| Report { included_per_s: *rate, ..Default::default() };
            rates.iter().map(report).collect()
        };
        assert_eq!(median(&reports(&[3.0, 1.0, 2.0]), rate), 2.0);
        assert_eq!(median(&reports(&[4.0, 1.0, 2.0, 3.0]), rate), 2.5);
    }
}
