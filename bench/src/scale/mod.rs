//! `blockraft-bench scale`: what every node more brings, when each has the same small share of a core.

pub(crate) mod cgroup;
pub(crate) mod metrics;
pub(crate) mod replay;
mod report;
pub(crate) mod site;

use crate::{
    agreement,
    cluster::{Cluster, ClusterPlan},
    generate::{GenArgs, Kind, generate},
    genesis::CHAIN_ID,
    output::Format,
    send::{SendOptions, drive},
    state::seconds,
    workload::Workload,
};
use alloy_primitives::keccak256;
use anyhow::{Context, bail, ensure};
use cgroup::{Group, Groups};
use clap::Args;
use nix::time::ClockId;
use report::{Calibration, Run, Scale};
use site::SiteArgs;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a cluster may take to have a leader or to reach one height.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Hashes of the loop that tells whether the machine runs as fast as before.
const CALIBRATION_HASHES: u32 = 200_000;

/// Measures clusters of several sizes whose nodes have the same share of a core each.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleArgs {
    /// Sizes of the clusters; the first is what the others are held against.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5, 7])]
    nodes: Vec<u16>,
    /// What the transactions do.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Transfer, Kind::Erc20])]
    workloads: Vec<Kind>,
    /// Transactions of each run of the light workloads. Heavy calls are a tenth of them.
    #[arg(long, default_value_t = 20_000)]
    count: u64,
    /// Senders.
    #[arg(long, default_value_t = 400)]
    accounts: usize,
    /// Runs of each, one after the other in turns.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// Percent of a core that each node has; 0 runs without quotas.
    #[arg(long, default_value_t = 20)]
    quota: u64,
    /// Transactions in one request.
    #[arg(long, default_value_t = 50)]
    batch: usize,
    /// Connections to each node.
    #[arg(long, default_value_t = 6)]
    connections: usize,
    /// Send everything to the first node.
    #[arg(long)]
    one_gateway: bool,
    /// Leave out one node with the whole quota of a cluster.
    #[arg(long)]
    no_whole: bool,
    /// Seconds until one run is given up.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Keep every node's `/metrics` after each run in this folder.
    #[arg(long)]
    keep_metrics: Option<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
}

/// One thing to measure: a workload, so many nodes, and each node's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setup {
    kind: Kind,
    nodes: u16,
    /// Percent of a core a node; 0 is no quota.
    quota: u64,
}

/// Runs the command. False when a replay or a node differed, or a transaction was lost.
pub(crate) async fn run(args: &ScaleArgs, format: Format) -> anyhow::Result<bool> {
    ensure!(args.repeats > 0 && !args.nodes.is_empty(), "nothing to measure");
    let dir = args.site.make_dir("scale")?;
    format.note(format_args!("data and logs: {}", dir.display()));
    let result = tokio::select! {
        result = measure(args, &dir, format) => result,
        // What was started and made is dropped with the measurement, and so ended and removed.
        _ = tokio::signal::ctrl_c() => {
            std::fs::remove_dir_all(&dir)?;
            bail!("interrupted")
        }
    };
    // A failure keeps what it is to be understood from.
    if matches!(result, Ok(true)) {
        std::fs::remove_dir_all(&dir)?;
    }
    result
}

async fn measure(args: &ScaleArgs, dir: &Path, format: Format) -> anyhow::Result<bool> {
    let mut bench = Bench::new(args, dir, format)?;
    let setups = setups(args);
    let mut runs = Vec::new();
    for turn in 1..=args.repeats {
        for setup in &setups {
            let run = bench.one(setup).await.with_context(|| format!("{setup:?}"))?;
            format.note(format_args!("turn {turn}: {run}"));
            runs.push(run);
        }
    }
    let report = Scale::of(runs, bench.calibration);
    args.site.keep(&report)?;
    format.result(&report);
    Ok(report.is_clean())
}

/// Every size with the quota for each node, then one node with what a whole cluster has.
fn setups(args: &ScaleArgs) -> Vec<Setup> {
    let mut setups = Vec::new();
    for &kind in &args.workloads {
        let size = |&nodes: &u16| Setup { kind, nodes, quota: args.quota };
        setups.extend(args.nodes.iter().map(size));
        if !args.no_whole && args.quota > 0 {
            let whole =
                |nodes: &u16| Setup { kind, nodes: 1, quota: args.quota * u64::from(*nodes) };
            setups.extend(args.nodes.iter().filter(|nodes| **nodes > 1).map(whole));
        }
    }
    setups
}

struct Bench<'a> {
    args: &'a ScaleArgs,
    format: Format,
    binary: PathBuf,
    dir: &'a Path,
    genesis: PathBuf,
    /// After `dir`'s processes in every drop: a group goes when nothing runs in it.
    groups: Option<(Groups, Group)>,
    workloads: Vec<(Kind, Workload)>,
    calibration: Calibration,
    run: u32,
}

impl<'a> Bench<'a> {
    fn new(args: &'a ScaleArgs, dir: &'a Path, format: Format) -> anyhow::Result<Self> {
        let groups = if args.quota > 0 {
            let mut groups = Groups::new()?;
            let loader = groups.make("loader")?;
            loader.limit(Some(args.site.loader_quota))?;
            Some((groups, loader))
        } else {
            None
        };
        let genesis = dir.join("genesis.json");
        std::fs::write(&genesis, include_str!("../../../genesis/stress-10k.json"))?;
        let sign = |kind: &Kind| Ok((*kind, workload(args, *kind)?));
        let workloads = args.workloads.iter().map(sign).collect::<anyhow::Result<_>>()?;
        let binary = args.site.binary()?;
        let calibration = Calibration::default();
        Ok(Self { args, format, binary, dir, genesis, groups, workloads, calibration, run: 0 })
    }

    /// A fresh cluster, one workload, and everything checked.
    async fn one(&mut self, setup: &Setup) -> anyhow::Result<Run> {
        self.calibration.add(hashes_per_ms());
        self.run += 1;
        let dir = self.dir.join(format!("run{}", self.run));
        std::fs::create_dir(&dir)?;
        let groups = self.node_groups(setup.nodes)?;
        // A node makes as many threads as it has cores when it starts: here, those that its share is of.
        let cores = setup.quota.div_ceil(100).max(1);
        groups.iter().try_for_each(|group| group.limit(Some(100 * cores)))?;
        let settings = self.args.site.settings();
        let mut cluster = Cluster::start(&ClusterPlan {
            binary: &self.binary,
            genesis: &self.genesis,
            dir: &dir,
            count: setup.nodes,
            port: self.args.site.port,
            settings: &settings,
            join: groups.iter().map(|group| vec![group.procs()]).collect(),
        })
        .await?;
        let run = self.load(setup, &mut cluster, &groups).await?;
        cluster.terminate()?;
        drop(cluster);
        let replayed = setup.nodes;
        replay::replay(&dir.join(format!("node{replayed}")))
            .with_context(|| format!("serial replay of node {replayed} of {}", dir.display()))?;
        if let Some((made, _)) = &mut self.groups {
            groups.iter().try_for_each(|group| made.remove(group))?;
        }
        std::fs::remove_dir_all(&dir)?;
        Ok(run)
    }

    fn node_groups(&mut self, nodes: u16) -> anyhow::Result<Vec<Group>> {
        let Some((groups, _)) = &mut self.groups else { return Ok(Vec::new()) };
        (1..=nodes).map(|node| groups.make(&format!("node{node}"))).collect()
    }

    async fn load(
        &self,
        setup: &Setup,
        cluster: &mut Cluster,
        groups: &[Group],
    ) -> anyhow::Result<Run> {
        let (leader, _) = cluster.wait_for_leader(SETTLED_WITHIN).await?;
        let endpoints = cluster.endpoints();
        let gateways = if self.args.one_gateway { &endpoints[..1] } else { &endpoints[..] };
        let workload = self.workloads.iter().find(|(kind, _)| *kind == setup.kind);
        let (_, workload) = workload.context("every workload was signed before")?;
        let options = SendOptions {
            connections: self.args.connections * gateways.len(),
            batch: self.args.batch,
            tps: None,
            timeout: self.args.timeout,
            sample: None,
            poll_ms: 50,
        };
        groups.iter().try_for_each(|group| group.limit(Some(setup.quota)))?;
        if let Some((all, loader)) = &self.groups {
            all.enter(loader)?;
        }
        let driven = drive(workload.clone(), gateways, &options, &cluster.pids()).await;
        groups.iter().try_for_each(|group| group.limit(None))?;
        let throttled = groups.iter().map(Group::throttled).collect::<anyhow::Result<Vec<_>>>()?;
        let loader_throttled = match &self.groups {
            Some((all, loader)) => all.leave().and_then(|()| loader.throttled())?,
            None => 0,
        };
        let sent = driven?;
        let (leader_after, _) = cluster.wait_for_leader(SETTLED_WITHIN).await?;
        if leader_after != leader {
            self.format.note(format_args!("the leader changed from {leader} to {leader_after}"));
        }
        let head = cluster.highest_head().await;
        for id in cluster.running() {
            cluster.wait_for_member(id, head, SETTLED_WITHIN).await?;
        }
        agreement::ensure_same_chain(&endpoints, head).await?;
        let mut log_bytes = 0;
        let (mut wire_bytes, mut shared) = (0, 0);
        for (place, endpoint) in endpoints.iter().enumerate() {
            let metrics = metrics::read(endpoint).await?;
            if let Some(dir) = &self.args.keep_metrics {
                std::fs::create_dir_all(dir)?;
                let name = format!("run{}-{}-node{}.txt", self.run, setup.kind, place + 1);
                std::fs::write(dir.join(name), metrics.text())?;
            }
            wire_bytes += metrics.sum("blockraft_network_sent_bytes_total");
            shared += metrics.sum("blockraft_execution_seeds_kept_total");
            if place as u64 + 1 == leader {
                log_bytes = metrics.sum("blockraft_raft_wal_bytes_total");
            }
        }
        let raw = workload.lines().map(|tx| (tx.raw.len() as u64 - 2) / 2);
        Ok(Run {
            workload: setup.kind.to_string(),
            nodes: setup.nodes,
            quota: setup.quota,
            leader,
            rate: sent.included_per_s,
            cpu_us: sent.cpu.iter().map(|cpu| cpu.ms_per_tx * 1e3).collect(),
            loader_us: sent.own_cpu.as_ref().map_or(0.0, |cpu| cpu.ms_per_tx * 1e3),
            throttled,
            loader_throttled,
            log_bytes,
            wire_bytes,
            shared,
            raw_bytes: raw.sum(),
            transactions: workload.lines().count() as u64,
            blocks: head,
            clean: sent.is_clean(),
        })
    }
}

fn workload(args: &ScaleArgs, kind: Kind) -> anyhow::Result<Workload> {
    generate(&GenArgs {
        workload: kind,
        count: if kind.is_heavy() { args.count / 10 } else { args.count },
        accounts: args.accounts,
        seed: 1,
        chain_id: CHAIN_ID,
        nonce: 0,
        out: PathBuf::new(),
    })
}

/// How fast a core of this machine is at this moment. In CPU time: this process has a quota of its own, whose
/// pauses are no fault of the machine.
fn hashes_per_ms() -> f64 {
    let start = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let mut hash = keccak256([]);
    for _ in 0..CALIBRATION_HASHES {
        hash = keccak256(hash);
    }
    std::hint::black_box(hash);
    let took = seconds(ClockId::CLOCK_THREAD_CPUTIME_ID) - start;
    f64::from(CALIBRATION_HASHES) / (took * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ScaleArgs,
    }

    #[test]
    fn each_size_is_measured_and_one_node_with_the_quota_of_each() {
        let Line { args } = Line::parse_from(["scale", "--nodes", "1,3", "--workloads", "erc20"]);
        let setup = |nodes, quota| Setup { kind: Kind::Erc20, nodes, quota };
        assert_eq!(setups(&args), [setup(1, 20), setup(3, 20), setup(1, 60)]);
        let without = ScaleArgs { quota: 0, ..args };
        assert_eq!(setups(&without), [setup(1, 0), setup(3, 0)]);
    }
}
