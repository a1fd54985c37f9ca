//! `blockraft-bench straggler`: what one slow or stopped member costs the others.

mod report;

use crate::{
    agreement,
    cluster::{Cluster, ClusterPlan},
    generate::{GenArgs, Kind, generate},
    genesis::CHAIN_ID,
    http::Endpoint,
    output::Format,
    scale::{
        cgroup::{Group, Groups},
        metrics, replay,
        site::SiteArgs,
    },
    send::{SendOptions, drive},
    workload::Workload,
};
use anyhow::{Context, ensure};
use clap::Args;
use report::{Measured, Phase, Straggler, Units};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a cluster may take to have a leader, and a member to catch up.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Seconds that a phase may take beyond its own.
const PATIENCE_S: u64 = 60;

/// Measures how long blocks take while one member is slow, and while it is stopped.
#[derive(Args, Clone, Debug)]
pub(crate) struct StragglerArgs {
    /// Members.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// What the transactions do.
    #[arg(long, value_enum, default_value_t = Kind::Heavy)]
    workload: Kind,
    /// Transactions a second, to the members that stay as they are.
    #[arg(long, default_value_t = 350.0)]
    tps: f64,
    /// Seconds of each phase.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Turns of all phases.
    #[arg(long, default_value_t = 1)]
    repeats: u32,
    /// Senders.
    #[arg(long, default_value_t = 400)]
    accounts: usize,
    /// Percent of a core that each node has.
    #[arg(long, default_value_t = 20)]
    quota: u64,
    /// How many times slower the slow member is.
    #[arg(long, default_value_t = 20)]
    slower: u64,
    #[command(flatten)]
    site: SiteArgs,
}

/// Runs the command. False when something was lost, or a block took too long.
pub(crate) async fn run(args: &StragglerArgs, format: Format) -> anyhow::Result<bool> {
    ensure!(args.nodes >= 3, "with fewer than three members a stopped one stops all");
    ensure!(args.slower >= 1 && args.slower <= args.quota, "a quota is whole percents of a core");
    let dir = args.site.make_dir("straggler")?;
    format.note(format_args!("data and logs: {}", dir.display()));
    let report = tokio::select! {
        report = measure(args, &dir, format) => report?,
        _ = tokio::signal::ctrl_c() => {
            std::fs::remove_dir_all(&dir)?;
            anyhow::bail!("interrupted")
        }
    };
    std::fs::remove_dir_all(&dir)?;
    args.site.keep(&report)?;
    format.result(&report);
    Ok(report.holds())
}

async fn measure(args: &StragglerArgs, dir: &Path, format: Format) -> anyhow::Result<Straggler> {
    let mut groups = Groups::new()?;
    let loader = groups.make("loader")?;
    loader.limit(Some(args.site.loader_quota))?;
    let members: Vec<Group> = (1..=args.nodes)
        .map(|node| groups.make(&format!("node{node}")))
        .collect::<anyhow::Result<_>>()?;
    // A node makes as many threads as it has cores when it starts.
    members.iter().try_for_each(|group| group.limit(Some(100)))?;
    let genesis = dir.join("genesis.json");
    std::fs::write(&genesis, include_str!("../../../genesis/stress-10k.json"))?;
    let mut cluster = Cluster::start(&ClusterPlan {
        binary: &args.site.binary()?,
        genesis: &genesis,
        dir,
        count: args.nodes,
        port: args.site.port,
        settings: &args.site.settings(),
        join: members.iter().map(|group| vec![group.procs()]).collect(),
    })
    .await?;
    let (leader, _) = cluster.wait_for_leader(SETTLED_WITHIN).await?;
    let straggler = (1..=u64::from(args.nodes)).rev().find(|id| *id != leader);
    let straggler = straggler.context("there are several members")?;
    members.iter().try_for_each(|group| group.limit(Some(args.quota)))?;
    groups.enter(&loader)?;
    let mut field = Field { args, format, cluster, members, leader, straggler, measured: vec![] };
    let phases = phases(args)?;
    for (phase, workload) in phases {
        field.phase(phase, workload).await.with_context(|| format!("{phase:?}"))?;
    }
    let Field { mut cluster, members, measured, .. } = field;
    groups.leave()?;
    members.iter().try_for_each(|group| group.limit(None))?;
    let head = cluster.highest_head().await;
    for id in cluster.running() {
        cluster.wait_for_member(id, head, SETTLED_WITHIN).await?;
    }
    agreement::ensure_same_chain(&cluster.endpoints(), head).await?;
    cluster.terminate()?;
    drop(cluster);
    replay::replay(&dir.join(format!("node{straggler}"))).context("serial replay")?;
    members.iter().try_for_each(|group| groups.remove(group))?;
    Ok(Straggler::of(measured))
}

/// Everything that is measured, in order, with the transactions of each part.
fn phases(args: &StragglerArgs) -> anyhow::Result<Vec<(Phase, Workload)>> {
    let mut order = vec![Phase::WarmUp];
    for _ in 0..args.repeats {
        order.extend([Phase::Healthy, Phase::Slow, Phase::Healthy, Phase::Stopped]);
    }
    // Whole rounds of the senders, so that each sender's nonces go on in the next phase.
    let rounds = (args.tps * args.seconds as f64 / args.accounts as f64).ceil() as usize;
    let each = rounds.max(1) * args.accounts;
    let all = generate(&GenArgs {
        workload: args.workload,
        count: (each * order.len()) as u64,
        accounts: args.accounts,
        seed: 1,
        chain_id: CHAIN_ID,
        nonce: 0,
        out: PathBuf::new(),
    })?;
    let Workload { mut setup, measured } = all;
    let parts = measured.chunks(each).map(<[_]>::to_vec);
    let parts = parts.map(|measured| Workload { setup: std::mem::take(&mut setup), measured });
    Ok(order.into_iter().zip(parts).collect())
}

/// A running cluster.
struct Field<'a> {
    args: &'a StragglerArgs,
    format: Format,
    cluster: Cluster,
    members: Vec<Group>,
    leader: u64,
    straggler: u64,
    measured: Vec<Measured>,
}

impl Field<'_> {
    async fn phase(&mut self, phase: Phase, workload: Workload) -> anyhow::Result<()> {
        let endpoints = self.cluster.endpoints();
        let quick = (1..).zip(&endpoints).filter(|(id, _)| *id != self.straggler);
        let quick: Vec<Endpoint> = quick.map(|(_, endpoint)| endpoint.clone()).collect();
        let options = SendOptions {
            connections: 8 * quick.len(),
            batch: 10,
            tps: Some(self.args.tps),
            timeout: self.args.seconds + PATIENCE_S,
            sample: None,
            poll_ms: 10,
        };
        let leader = &endpoints[self.leader as usize - 1];
        let before = Units::of(&metrics::read(leader).await?);
        self.impair(phase)?;
        let sent = drive(workload, &quick, &options, &[]).await;
        self.repair(phase)?;
        let sent = sent?;
        let (now, _) = self.cluster.wait_for_leader(SETTLED_WITHIN).await?;
        ensure!(now == self.leader, "node {now} leads instead of {}", self.leader);
        let units = Units::of(&metrics::read(leader).await?).since(&before);
        let head = self.cluster.highest_head().await;
        self.cluster.wait_for_member(self.straggler, head, SETTLED_WITHIN).await?;
        let measured = Measured::of(phase, &sent, units);
        self.format.note(format_args!("{measured}"));
        self.measured.push(measured);
        Ok(())
    }

    fn impair(&self, phase: Phase) -> anyhow::Result<()> {
        match phase {
            Phase::WarmUp | Phase::Healthy => Ok(()),
            Phase::Slow => self.limit(self.args.quota / self.args.slower),
            Phase::Stopped => self.cluster.signal_member(self.straggler, "STOP"),
        }
    }

    fn repair(&self, phase: Phase) -> anyhow::Result<()> {
        match phase {
            Phase::WarmUp | Phase::Healthy => Ok(()),
            Phase::Slow => self.limit(self.args.quota),
            Phase::Stopped => self.cluster.signal_member(self.straggler, "CONT"),
        }
    }

    fn limit(&self, percent: u64) -> anyhow::Result<()> {
        self.members[self.straggler as usize - 1].limit(Some(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: StragglerArgs,
    }

    #[test]
    fn every_phase_goes_on_where_the_one_before_ended() {
        let line = ["straggler", "--tps", "10", "--seconds", "1", "--accounts", "4"];
        let phases = phases(&Line::parse_from(line).args).unwrap();
        let order: Vec<Phase> = phases.iter().map(|(phase, _)| *phase).collect();
        let healthy = Phase::Healthy;
        assert_eq!(order, [Phase::WarmUp, healthy, Phase::Slow, healthy, Phase::Stopped]);
        assert!(!phases[0].1.setup.is_empty() && phases[1].1.setup.is_empty());
        let lines = phases.iter().flat_map(|(_, workload)| workload.lines().cloned()).collect();
        assert_eq!(Workload::new(lines).unwrap().measured.len(), 5 * 12);
    }
}
