//! `blockraft-bench send`: a workload into one or several nodes, until every receipt is there.

pub(crate) mod lane;
pub(crate) mod report;
pub(crate) mod watch;

use crate::{
    cpu::process_cpu_ms,
    http::Endpoint,
    output::Format,
    workload::{SignedTx, Workload},
};
use alloy_primitives::U64;
use anyhow::{Context, ensure};
use clap::Args;
use lane::{Lane, LaneReport, Load, Sent, Verdict, split};
use report::{Blocks, Cpu, Latency, Report};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};
use tokio::{sync::watch as watch_channel, task::JoinSet};
use watch::{AnyNode, Confirmed, Receipts, SeenBlock, inclusion_latencies, watch_blocks};

/// Refusals that a report quotes.
const REFUSALS_QUOTED: usize = 5;

/// Sends a workload, waits for every receipt, and prints what it took.
#[derive(Args, Clone, Debug)]
pub(crate) struct SendArgs {
    /// The workload, from `gen`.
    #[arg(long)]
    file: PathBuf,
    /// Where to send; repeat it to spread the load over nodes.
    #[arg(long, default_value = "http://127.0.0.1:8545")]
    rpc_url: Vec<Endpoint>,
    #[command(flatten)]
    options: SendOptions,
    /// A process under test, whose CPU time is reported; may be repeated.
    #[arg(long)]
    pid: Vec<u32>,
    /// Also writes the report as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// How a workload is sent.
#[derive(Args, Clone, Debug)]
pub(crate) struct SendOptions {
    /// Connections. Each carries whole senders and has one request in flight.
    #[arg(long, default_value_t = 20)]
    pub(crate) connections: usize,
    /// Transactions in one request.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Transactions a second to offer, whatever the answers: latency then counts from when a
    /// transaction was due. Without it, every connection sends as soon as it has an answer.
    #[arg(long)]
    pub(crate) tps: Option<f64>,
    /// Seconds until the run is given up.
    #[arg(long, default_value_t = 300)]
    pub(crate) timeout: u64,
    /// Read the receipts of so many transactions only; of the others, that one block names each.
    #[arg(long)]
    pub(crate) sample: Option<usize>,
    /// Milliseconds between looks for new blocks.
    #[arg(long, default_value_t = 20)]
    pub(crate) poll_ms: u64,
}

/// Runs the command. False when a transaction was lost or failed.
pub(crate) async fn run(args: &SendArgs, format: Format) -> anyhow::Result<bool> {
    let workload = Workload::read(&args.file)?;
    let report = drive(workload, &args.rpc_url, &args.options, &args.pid).await?;
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    format.result(&report);
    Ok(report.is_clean())
}

/// Sends a workload and measures it.
pub(crate) async fn drive(
    workload: Workload,
    endpoints: &[Endpoint],
    options: &SendOptions,
    pids: &[u32],
) -> anyhow::Result<Report> {
    ensure!(options.connections > 0 && options.batch > 0, "--connections and --batch start at 1");
    ensure!(options.tps.is_none_or(|tps| tps > 0.0), "--tps must be above 0");
    let mut node = AnyNode::new(endpoints);
    let client: String = node.client().call("web3_clientVersion", json!([])).await?;
    check_nonces(&mut node, &workload).await?;
    let unpaced = SendOptions { tps: None, ..options.clone() };
    let setup = run_phase(workload.setup, endpoints, &unpaced, &[]).await.context("setup")?;
    ensure!(setup.is_clean(), "setup did not succeed:\n{setup}");
    let mut report = run_phase(workload.measured, endpoints, options, pids).await?;
    report.client = client;
    Ok(report)
}

/// A file starts at a nonce: on a chain where it ran already nothing of it can be included again.
async fn check_nonces(node: &mut AnyNode, workload: &Workload) -> anyhow::Result<()> {
    let first: Vec<_> = workload.first_nonces().into_iter().collect();
    for group in first.chunks(500) {
        let params = group.iter().map(|(sender, _)| json!([sender, "latest"])).collect();
        let nonces: Vec<U64> = node.client().batch("eth_getTransactionCount", params).await?;
        for ((sender, expected), nonce) in group.iter().zip(nonces) {
            ensure!(
                nonce == U64::from(*expected),
                "{sender} has nonce {nonce} on this chain, and the file starts at {expected}: \
                 start a fresh chain or sign with --nonce"
            );
        }
    }
    Ok(())
}

/// Everything that one phase left behind.
struct Run {
    load: Arc<Load>,
    lanes: LaneReport,
    seen: Vec<SeenBlock>,
    receipts: Receipts,
}

async fn run_phase(
    txs: Vec<SignedTx>,
    endpoints: &[Endpoint],
    options: &SendOptions,
    pids: &[u32],
) -> anyhow::Result<Report> {
    if txs.is_empty() {
        return Ok(Report::default());
    }
    let mut node = AnyNode::new(endpoints);
    let before = node.head().await?;
    let cpu_pids: Vec<u32> = pids.iter().copied().chain([std::process::id()]).collect();
    let cpu_before = cpu_readings(&cpu_pids)?;
    let start = Instant::now();
    let load = Arc::new(Load {
        txs,
        endpoints: endpoints.to_vec(),
        batch: options.batch,
        tps: options.tps,
        start,
        deadline: start + Duration::from_secs(options.timeout),
        stop: AtomicBool::new(false),
    });
    let (expected, expecting) = watch_channel::channel(None);
    let poll = Duration::from_millis(options.poll_ms);
    let mut watcher = JoinSet::new();
    watcher.spawn(watch_blocks(Arc::clone(&load), before, poll, expecting));
    let lanes = run_lanes(&load, options.connections).await;
    expected.send_replace(Some(expected_hashes(&load, &lanes.sent).len() as u64));
    let seen = watcher.join_next().await.expect("one task was spawned")?;
    let cpu_after = cpu_readings(&cpu_pids)?;
    let receipts = wait_for_receipts(&mut node, &load, &lanes.sent, before, options.sample).await?;
    let mut report = summarize(&Run { load, lanes, seen, receipts });
    report.cpu = cpu_pids
        .iter()
        .zip(cpu_before.iter().zip(cpu_after))
        .map(|(pid, (before, after))| {
            let ms = after - before;
            Cpu { pid: *pid, ms, ms_per_tx: ms as f64 / (report.succeeded as f64).max(1.0) }
        })
        .collect();
    report.own_cpu = report.cpu.pop();
    Ok(report)
}

fn cpu_readings(pids: &[u32]) -> anyhow::Result<Vec<u64>> {
    pids.iter().map(|pid| process_cpu_ms(*pid)).collect()
}

/// Runs all lanes to their end and puts their reports together.
pub(crate) async fn run_lanes(load: &Arc<Load>, connections: usize) -> LaneReport {
    let mut tasks = JoinSet::new();
    for (number, queue) in split(&load.txs, connections).into_iter().enumerate() {
        tasks.spawn(Lane::new(Arc::clone(load), queue, number).run());
    }
    let mut all = LaneReport::default();
    for LaneReport { sent, requests, retries } in tasks.join_all().await {
        all.sent.extend(sent);
        all.requests += requests;
        all.retries += retries;
    }
    all.sent.sort_by_key(|sent| sent.index);
    all
}

/// What must have a receipt: all that a node acknowledged, or knew when it was asked again.
pub(crate) fn expected_hashes(load: &Load, sent: &[Sent]) -> Vec<alloy_primitives::B256> {
    sent.iter()
        .filter(|sent| matches!(sent.verdict, Verdict::Acked | Verdict::Known))
        .map(|sent| load.txs[sent.index].hash)
        .collect()
}

/// Reads receipts until none is missing or the time is up. Other people's transactions may have been
/// counted as ours while the load ran, so the first reading can come early.
async fn wait_for_receipts(
    node: &mut AnyNode,
    load: &Load,
    sent: &[Sent],
    before: u64,
    sample: Option<usize>,
) -> anyhow::Result<Receipts> {
    let hashes = expected_hashes(load, sent);
    loop {
        let read = match node.head().await {
            Ok(head) => match sample {
                Some(sample) => Receipts::read_some(node, before + 1, head, sample).await,
                None => Receipts::read(node, before + 1, head).await,
            },
            Err(error) => Err(error),
        };
        let is_last = Instant::now() >= load.deadline;
        match read {
            Ok(receipts) if is_last || receipts.check(&hashes).lost.is_empty() => {
                return Ok(receipts);
            }
            Err(error) if is_last => return Err(error),
            Ok(_) => {}
            Err(_) => node.rotate(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn summarize(run: &Run) -> Report {
    let Run { load, lanes, seen, receipts } = run;
    let sent = &lanes.sent;
    let count = |wanted: fn(&Verdict) -> bool| sent.iter().filter(|s| wanted(&s.verdict)).count();
    let acked = count(|verdict| *verdict == Verdict::Acked);
    let known = count(|verdict| *verdict == Verdict::Known);
    let refusals: Vec<_> = sent.iter().filter_map(refusal).collect();
    let Confirmed { succeeded, failed, lost } = receipts.check(&expected_hashes(load, sent));
    let first_us = sent.iter().map(|sent| sent.from_us).min().unwrap_or(0);
    let acks = || sent.iter().filter(|sent| sent.verdict == Verdict::Acked);
    let last_ack_us = acks().map(|sent| sent.until_us).max().unwrap_or(0);
    let last_block_us = seen.iter().rev().find(|block| block.tx_count > 0).map_or(0, |b| b.seen_us);
    let seconds = |until_us: u64| until_us.saturating_sub(first_us) as f64 / 1e6;
    let rate = |count: f64, seconds: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    let (submit_s, include_s) = (seconds(last_ack_us), seconds(last_block_us));
    Report {
        client: String::new(),
        count: load.txs.len(),
        acked,
        known,
        rejected: refusals.len(),
        unanswered: load.txs.len() - acked - known - refusals.len(),
        succeeded,
        failed: failed.len(),
        lost: lost.len(),
        duplicated: receipts.duplicates.len(),
        refusals: refusals.into_iter().take(REFUSALS_QUOTED).collect(),
        submit_s,
        include_s,
        submitted_per_s: rate(acked as f64, submit_s),
        included_per_s: rate(succeeded as f64, include_s),
        ack: Latency::of(acks().map(|sent| sent.until_us.saturating_sub(sent.from_us))),
        inclusion: Latency::of(inclusion_latencies(load, sent, receipts, seen)),
        blocks: summarize_blocks(seen, receipts),
        requests: lanes.requests,
        retries: lanes.retries,
        cpu: Vec::new(),
        own_cpu: None,
    }
}

fn refusal(sent: &Sent) -> Option<String> {
    match &sent.verdict {
        Verdict::Rejected(text) => Some(format!("line {}: {text}", sent.index + 1)),
        _ => None,
    }
}

fn summarize_blocks(seen: &[SeenBlock], receipts: &Receipts) -> Blocks {
    let full: Vec<_> = seen.iter().filter(|block| block.tx_count > 0).collect();
    let (Some(first), Some(last)) = (full.first(), full.last()) else {
        return Blocks::default();
    };
    let mut counts: Vec<u64> = full.iter().map(|block| block.tx_count).collect();
    counts.sort_unstable();
    Blocks {
        first: first.number,
        last: last.number,
        count: full.len(),
        tx_max: counts[counts.len() - 1],
        tx_p50: counts[counts.len() / 2],
        interval: Latency::of(full.windows(2).map(|pair| pair[1].seen_us - pair[0].seen_us)),
        gas_total: receipts.by_hash.values().map(|receipt| receipt.gas_used.to::<u64>()).sum(),
    }
}
