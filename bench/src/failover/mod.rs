//! `blockraft-bench failover`: kills the leader under load, again and again, and checks that nothing
//! which a client was told is lost.

mod report;

use crate::{
    accounts::DEV_ACCOUNT_COUNT,
    agreement,
    cluster::{Cluster, ClusterPlan},
    generate::{GenArgs, Kind, generate},
    genesis::CHAIN_ID,
    output::Format,
    process::{blockraft_binary, scratch_dir},
    send::{
        expected_hashes,
        lane::{LaneReport, Load, Verdict},
        run_lanes,
        watch::{AnyNode, Receipts},
    },
};
use anyhow::{Context, ensure};
use clap::Args;
use report::{Failover, Round};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long any one step may take before the run is given up. Far above what is asked of a round,
/// so that a slow round is measured and not cut off.
const STEP_WITHIN: Duration = Duration::from_secs(60);
/// Signed seconds of load for each round. What is not needed is not sent.
const SIGNED_S_PER_ROUND: f64 = 12.0;
/// Connections of the load.
const CONNECTIONS: usize = 18;

/// Kills the leader of a cluster under load with SIGKILL, round after round, and checks everything.
#[derive(Args, Clone, Debug)]
pub(crate) struct FailoverArgs {
    /// Kills.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Members of the cluster.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// The `blockraft` program; the one beside this program when absent.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Genesis file; devnet-3.json when absent.
    #[arg(long)]
    genesis: Option<PathBuf>,
    /// Transfers a second, over all nodes.
    #[arg(long, default_value_t = 300.0)]
    tps: f64,
    /// Milliseconds of undisturbed load before each kill.
    #[arg(long, default_value_t = 1000)]
    steady_ms: u64,
    /// Milliseconds that may pass from a kill to the next block.
    #[arg(long, default_value_t = 5000.0)]
    limit_ms: f64,
    /// RPC port of the first node; Raft ports begin 100 above.
    #[arg(long, default_value_t = 21545)]
    port: u16,
    /// Folder for data and logs, kept; a temporary one, removed after success, when absent.
    #[arg(long)]
    datadir: Option<PathBuf>,
    /// Also writes the report as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Runs the command. False when anything was lost, or a round took too long.
pub(crate) async fn run(args: &FailoverArgs, format: Format) -> anyhow::Result<bool> {
    let binary = blockraft_binary(args.bin.as_deref())?;
    let dir = match &args.datadir {
        Some(dir) => std::fs::create_dir_all(dir).map(|()| dir.clone())?,
        None => scratch_dir("failover")?,
    };
    format.note(format_args!("data and logs: {}", dir.display()));
    let genesis = match &args.genesis {
        Some(path) => path.clone(),
        None => {
            let path = dir.join("genesis.json");
            std::fs::write(&path, include_str!("../../../genesis/devnet-3.json"))?;
            path
        }
    };
    let plan = ClusterPlan {
        binary: &binary,
        genesis: &genesis,
        dir: &dir,
        count: args.nodes,
        port: args.port,
        settings: "",
        join: Vec::new(),
    };
    let mut cluster = Cluster::start(&plan).await?;
    let report = kill_under_load(&mut cluster, args, format).await?;
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    format.result(&report);
    cluster.terminate()?;
    if report.is_clean() && args.datadir.is_none() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(report.is_clean())
}

async fn kill_under_load(
    cluster: &mut Cluster,
    args: &FailoverArgs,
    format: Format,
) -> anyhow::Result<Failover> {
    let load = Arc::new(make_load(cluster, args)?);
    let mut lanes = JoinSet::new();
    let shared = Arc::clone(&load);
    lanes.spawn(async move { run_lanes(&shared, CONNECTIONS).await });
    cluster.wait_for_block_above(0, STEP_WITHIN).await?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        tokio::time::sleep(Duration::from_millis(args.steady_ms)).await;
        ensure!(!lanes.is_empty() && lanes.try_join_next().is_none(), "the load ended too early");
        let round = kill_once(cluster, number).await.with_context(|| format!("round {number}"))?;
        format.note(&round);
        rounds.push(round);
    }
    load.stop.store(true, Ordering::Relaxed);
    let lanes = lanes.join_next().await.expect("the load was still running")?;
    finish(cluster, &load, &lanes, rounds, args.limit_ms).await
}

fn make_load(cluster: &Cluster, args: &FailoverArgs) -> anyhow::Result<Load> {
    let seconds = SIGNED_S_PER_ROUND * f64::from(args.rounds.max(1));
    let workload = generate(&GenArgs {
        workload: Kind::Transfer,
        count: (args.tps * seconds) as u64,
        accounts: DEV_ACCOUNT_COUNT,
        seed: 1,
        chain_id: CHAIN_ID,
        nonce: 0,
        out: PathBuf::new(),
    })?;
    let start = Instant::now();
    Ok(Load {
        txs: workload.measured,
        endpoints: cluster.endpoints(),
        batch: 1,
        tps: Some(args.tps),
        start,
        deadline: start + STEP_WITHIN * (args.rounds + 1),
        stop: AtomicBool::new(false),
    })
}

async fn kill_once(cluster: &mut Cluster, round: u32) -> anyhow::Result<Round> {
    let (killed, term) = cluster.wait_for_leader(STEP_WITHIN).await?;
    let kill = Instant::now();
    cluster.kill_member(killed)?;
    let new_leader = cluster.wait_for_other_leader(killed, STEP_WITHIN).await?;
    let leader_ms = millis_since(kill);
    // Blocks of the dead leader may still be applied meanwhile: only a later one counts.
    let height = cluster.highest_head().await;
    cluster.wait_for_block_above(height, STEP_WITHIN).await?;
    let block_ms = millis_since(kill);
    let start = Instant::now();
    let height = cluster.highest_head().await;
    cluster.start_member(killed)?;
    cluster.wait_for_member(killed, height, STEP_WITHIN).await?;
    let catch_up_ms = millis_since(start);
    Ok(Round { round, killed, term, new_leader, leader_ms, block_ms, catch_up_ms })
}

fn millis_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Waits for every receipt and for all nodes to reach one height, then compares.
async fn finish(
    cluster: &mut Cluster,
    load: &Load,
    lanes: &LaneReport,
    rounds: Vec<Round>,
    limit_ms: f64,
) -> anyhow::Result<Failover> {
    let endpoints = cluster.endpoints();
    let expected = expected_hashes(load, &lanes.sent);
    let mut node = AnyNode::new(&endpoints);
    let until = Instant::now() + STEP_WITHIN;
    let (head, receipts) = loop {
        let head = node.head().await?;
        let receipts = Receipts::read(&mut node, 1, head).await?;
        if receipts.check(&expected).lost.is_empty() || Instant::now() >= until {
            break (head, receipts);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    for id in cluster.running() {
        cluster.wait_for_member(id, head, STEP_WITHIN).await?;
    }
    agreement::ensure_same_chain(&endpoints, head).await?;
    let confirmed = receipts.check(&expected);
    let count = |wanted: Verdict| lanes.sent.iter().filter(|s| s.verdict == wanted).count();
    let refusals: Vec<_> = lanes
        .sent
        .iter()
        .filter_map(|sent| match &sent.verdict {
            Verdict::Rejected(text) => Some(text.clone()),
            _ => None,
        })
        .collect();
    let mut block_ms: Vec<f64> = rounds.iter().map(|round| round.block_ms).collect();
    block_ms.sort_by(f64::total_cmp);
    Ok(Failover {
        sent: lanes.sent.len(),
        acked: count(Verdict::Acked),
        known: count(Verdict::Known),
        rejected: refusals.len(),
        refusals: refusals.into_iter().take(5).collect(),
        retries: lanes.retries,
        lost: confirmed.lost.len(),
        failed: confirmed.failed.len(),
        duplicated: receipts.duplicates.len(),
        height: head,
        block_p50_ms: block_ms.get(block_ms.len() / 2).copied().unwrap_or(0.0),
        block_max_ms: block_ms.last().copied().unwrap_or(0.0),
        limit_ms,
        rounds,
    })
}
