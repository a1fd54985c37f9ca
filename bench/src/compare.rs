//! `blockraft-bench compare-anvil`: one file into both, turn by turn, and the ratios.

use crate::{
    accounts::{DEV_ACCOUNT_COUNT, DEV_MNEMONIC},
    floors::{self, Floors},
    genesis::CHAIN_ID,
    http::Endpoint,
    output::Format,
    process::{Process, blockraft_binary, child_processes, ensure_free, scratch_dir},
    rpc::Client,
    send::{SendOptions, drive, report::Report},
    workload::Workload,
};
use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Gas of a block on both sides: anvil's default of 30 million holds 1,428 transfers a block and would be what
/// is measured.
const GAS_LIMIT: u64 = 1_000_000_000;
/// Receipts that are read after a run. anvil needs minutes for all of them.
const RECEIPT_SAMPLE: usize = 200;

/// Transactions of a block when the floors are measured: less than what a second brings, so that any
/// workload's fit.
const FLOORS_BLOCK: usize = 10_000;

/// How long a cluster may take to elect its first leader.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// Sends the same files to fresh `blockraft dev`, a fresh cluster and fresh anvil, turn by turn.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// A workload from `gen`, signed from nonce 0 by at most 20 accounts; may be repeated.
    #[arg(long, required = true)]
    file: Vec<PathBuf>,
    /// The anvil program (npm package `@foundry-rs/anvil`).
    #[arg(long, default_value = "anvil")]
    anvil: PathBuf,
    /// The `blockraft` program; the one beside this program when absent.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Nodes of ours, on this machine: 1 is `blockraft dev`, more a `blockraft devnet`. Several are measured
    /// in turns.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    nodes: Vec<u16>,
    /// Seconds between blocks on both sides. anvil's other mode makes a block a transaction.
    #[arg(long, default_value_t = 1)]
    block_time: u64,
    /// More arguments for `blockraft dev` and `devnet`.
    #[arg(long, allow_hyphen_values = true)]
    blockraft_arg: Vec<String>,
    /// Port that all are started on; nodes of a cluster use those that follow, and from 100 above.
    #[arg(long, default_value_t = 21845)]
    port: u16,
    #[command(flatten)]
    options: SendOptions,
    /// Also writes the report as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// All runs, file by file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Comparison {
    files: Vec<Workloads>,
}

/// One file's runs, in turns.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Workloads {
    file: PathBuf,
    anvil: Vec<Report>,
    blockraft: Vec<Ours>,
    floors: Floors,
}

/// Runs of ours with so many nodes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ours {
    nodes: u16,
    runs: Vec<Report>,
    /// Median rate over anvil's.
    included_ratio: f64,
    /// Median CPU per transaction, of all nodes, over anvil's.
    cpu_ratio: f64,
    /// The same over the sum of the stages' floors.
    floors_ratio: f64,
}

/// Runs the command. False when a run lost a transaction.
pub(crate) async fn run(args: &CompareArgs, format: Format) -> anyhow::Result<bool> {
    let binary = blockraft_binary(args.bin.as_deref())?;
    ensure!(args.runs > 0 && !args.nodes.is_empty(), "--runs and --nodes start at 1");
    let dir = scratch_dir("compare")?;
    let mut comparison = Comparison { files: Vec::new() };
    for file in &args.file {
        let workload = Workload::read(file)?;
        comparison.files.push(compare(args, &binary, file, &workload, &dir, format).await?);
    }
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_string_pretty(&comparison)?)?;
    }
    format.result(&comparison);
    let is_clean = comparison.reports().all(Report::is_clean);
    if is_clean {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(is_clean)
}

async fn compare(
    args: &CompareArgs,
    binary: &Path,
    file: &Path,
    workload: &Workload,
    dir: &Path,
    format: Format,
) -> anyhow::Result<Workloads> {
    let mut anvil = Vec::new();
    let mut ours: Vec<Vec<Report>> = vec![Vec::new(); args.nodes.len()];
    for turn in 1..=args.runs {
        for (nodes, runs) in args.nodes.iter().zip(&mut ours) {
            let datadir = dir.join("data");
            let command = blockraft_command(binary, args, *nodes, &datadir);
            let report =
                run_one(command, args, *nodes, workload, &dir.join("blockraft.log")).await?;
            std::fs::remove_dir_all(&datadir)?;
            format.note(format_args!("{} run {turn}, {nodes} nodes: {report}", file.display()));
            runs.push(report);
        }
        let report =
            run_one(anvil_command(args), args, 1, workload, &dir.join("anvil.log")).await?;
        format.note(format_args!("{} run {turn}: {report}", file.display()));
        anvil.push(report);
    }
    let floors = floors::measure(workload, FLOORS_BLOCK)?;
    let (anvil_rate, anvil_cpu) = (median(&anvil, rate), median(&anvil, cpu));
    let blockraft = args.nodes.iter().zip(ours).map(|(nodes, runs)| Ours {
        nodes: *nodes,
        included_ratio: median(&runs, rate) / anvil_rate,
        cpu_ratio: median(&runs, cpu) / anvil_cpu,
        floors_ratio: median(&runs, cpu) * 1e3 / floors.sum(),
        runs,
    });
    Ok(Workloads { file: file.to_owned(), blockraft: blockraft.collect(), anvil, floors })
}

fn blockraft_command(binary: &Path, args: &CompareArgs, nodes: u16, datadir: &Path) -> Command {
    let mut command = Command::new(binary);
    match nodes {
        1 => command.arg("dev"),
        _ => command.args(["devnet", "--nodes", &nodes.to_string()]),
    };
    command
        .args(["--port", &args.port.to_string()])
        .args(["--block-time", &args.block_time.to_string()])
        .args(["--gas-limit", &GAS_LIMIT.to_string()])
        .arg("--datadir")
        .arg(datadir)
        .args(&args.blockraft_arg);
    command
}

fn anvil_command(args: &CompareArgs) -> Command {
    let mut command = Command::new(&args.anvil);
    command
        .arg("--silent")
        .args(["--mnemonic", DEV_MNEMONIC])
        .args(["--port", &args.port.to_string()])
        .args(["--block-time", &args.block_time.to_string()])
        .args(["--gas-limit", &GAS_LIMIT.to_string()])
        .args(["--accounts", &DEV_ACCOUNT_COUNT.to_string()])
        .args(["--chain-id", &CHAIN_ID.to_string()]);
    command
}

async fn run_one(
    mut command: Command,
    args: &CompareArgs,
    nodes: u16,
    workload: &Workload,
    log: &Path,
) -> anyhow::Result<Report> {
    let ports = args.port..args.port + nodes;
    ports.clone().try_for_each(ensure_free)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let endpoints: Vec<_> = ports.map(Endpoint::local).collect();
    let mut process = Process::start(&mut command, log)?;
    for endpoint in &endpoints {
        process
            .wait_until_it_answers(endpoint, "eth_chainId")
            .await
            .with_context(|| name.clone())?;
    }
    if nodes > 1 {
        wait_for_leader(&endpoints).await?;
    }
    let children = child_processes(process.pid())?;
    let pids = if children.is_empty() { vec![process.pid()] } else { children };
    let options = SendOptions { sample: Some(RECEIPT_SAMPLE), ..args.options.clone() };
    let report = drive(workload.clone(), &endpoints, &options, &pids).await.context(name)?;
    process.terminate()?;
    Ok(report)
}

/// A cluster elects before it takes anything on; that is not what is measured here.
async fn wait_for_leader(endpoints: &[Endpoint]) -> anyhow::Result<()> {
    let until = Instant::now() + LEADER_WITHIN;
    for endpoint in endpoints {
        let mut client = Client::new(endpoint.clone());
        loop {
            let status: Value = client.call("blockraft_status", json!([])).await?;
            if !status["leader"].is_null() {
                break;
            }
            ensure!(Instant::now() < until, "{endpoint} knows no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
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

impl Comparison {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        let ours = self.files.iter().flat_map(|file| file.blockraft.iter().flat_map(|o| &o.runs));
        ours.chain(self.files.iter().flat_map(|file| &file.anvil))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ("included/s (min-max)", "ratio", "CPU us/tx (min-max)", "ratio", "floors");
        let (a, b, c, d, e) = columns;
        write!(f, "{:<20}{:<10}{a:>24}{b:>8}{c:>24}{d:>8}{e:>8}", "workload", "node")?;
        for Workloads { file, anvil, blockraft, floors } in &self.files {
            let file = file.file_stem().unwrap_or_default().to_string_lossy();
            for Ours { nodes, runs, included_ratio, cpu_ratio, floors_ratio } in blockraft {
                let name = if *nodes == 1 { "dev".to_owned() } else { format!("{nodes} nodes") };
                write!(
                    f,
                    "\n{file:<20}{name:<10}{:>24}{included_ratio:>7.2}x{:>24}{cpu_ratio:>7.2}x{floors_ratio:>7.2}x",
                    spread(runs, rate, 1.0),
                    spread(runs, cpu, 1e3),
                )?;
            }
            let (rates, cpus) = (spread(anvil, rate, 1.0), spread(anvil, cpu, 1e3));
            write!(f, "\n{file:<20}{:<10}{rates:>24}{:>8}{cpus:>24}\n{floors}", "anvil", "")?;
        }
        Ok(())
    }
}

fn spread(reports: &[Report], of: fn(&Report) -> f64, scale: f64) -> String {
    let values = sorted(reports, of);
    let (least, most) = (values[0] * scale, values[values.len() - 1] * scale);
    format!("{:.0} ({least:.0}-{most:.0})", median(reports, of) * scale)
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
