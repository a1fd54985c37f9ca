//! A cluster of real processes on this machine.

use crate::{
    http::Endpoint,
    process::{Process, ensure_free},
    rpc::Client,
};
use alloy_primitives::U64;
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Raft ports begin so far above the RPC ports.
const RAFT_PORT_OFFSET: u16 = 100;
/// Pause between two looks at a node.
const POLL: Duration = Duration::from_millis(5);
/// A node that takes longer to say how it is counts as silent for now.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// A member's own view: the part of `blockraft_status` that is needed here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Raft term.
    pub(crate) term: u64,
    /// Who leads, as far as the member knows.
    pub(crate) leader: Option<u64>,
}

/// One member: its id is its place in the cluster plus one.
#[derive(Debug)]
struct Member {
    process: Option<Process>,
    endpoint: Endpoint,
    client: Client,
    config: PathBuf,
    log: PathBuf,
    join: Vec<PathBuf>,
}

/// The members.
#[derive(Debug)]
pub(crate) struct Cluster {
    binary: PathBuf,
    members: Vec<Member>,
}

/// What a cluster is started from.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan<'a> {
    /// The `blockraft` program.
    pub(crate) binary: &'a Path,
    /// Genesis file.
    pub(crate) genesis: &'a Path,
    /// Data directories and logs go here.
    pub(crate) dir: &'a Path,
    /// Members.
    pub(crate) count: u16,
    /// RPC port of the first one.
    pub(crate) port: u16,
    /// More lines for every member's `node.toml`.
    pub(crate) settings: &'a str,
    /// Files that each member's process writes its id to before it becomes a node: how it enters a cgroup.
    pub(crate) join: Vec<Vec<PathBuf>>,
}

impl Cluster {
    /// Prepares data directories and starts a node on each.
    pub(crate) async fn start(plan: &ClusterPlan<'_>) -> anyhow::Result<Self> {
        let ClusterPlan { binary, genesis, dir, count, port, settings, ref join } = *plan;
        let mut cluster = Self { binary: binary.to_owned(), members: Vec::new() };
        for index in 0..count {
            ensure_free(port + index)?;
            ensure_free(port + RAFT_PORT_OFFSET + index)?;
            let datadir = dir.join(format!("node{}", index + 1));
            init(binary, genesis, &datadir, index + 1)?;
            let config = dir.join(format!("node{}.toml", index + 1));
            let text = format!("{settings}{}", node_config(&datadir, count, port, index));
            std::fs::write(&config, text)?;
            let endpoint = Endpoint::local(port + index);
            cluster.members.push(Member {
                process: None,
                client: Client::new(endpoint.clone()),
                endpoint,
                config,
                log: dir.join(format!("node{}.log", index + 1)),
                join: join.get(usize::from(index)).cloned().unwrap_or_default(),
            });
        }
        for id in 1..=u64::from(count) {
            cluster.start_member(id)?;
        }
        for member in &mut cluster.members {
            let process = member.process.as_mut().expect("it was started above");
            process.wait_until_it_answers(&member.endpoint, "blockraft_status").await?;
        }
        Ok(cluster)
    }

    /// Where all members serve JSON-RPC, by id.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Process ids of the members that run, by id.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|m| m.process.as_ref()).map(Process::pid).collect()
    }

    /// Ids of the members that run.
    pub(crate) fn running(&self) -> Vec<u64> {
        let ids = 1..=self.members.len() as u64;
        ids.filter(|id| self.members[*id as usize - 1].process.is_some()).collect()
    }

    fn member(&mut self, id: u64) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    /// Starts a member that does not run.
    pub(crate) fn start_member(&mut self, id: u64) -> anyhow::Result<()> {
        let binary = self.binary.clone();
        let member = self.member(id);
        ensure!(member.process.is_none(), "node {id} runs already");
        let mut command = joining(&member.join, &binary);
        command.arg("node").arg("--exit-with-parent").arg("--config").arg(&member.config);
        member.process = Some(Process::start(&mut command, &member.log)?);
        Ok(())
    }

    /// Kills a member with SIGKILL.
    pub(crate) fn kill_member(&mut self, id: u64) -> anyhow::Result<()> {
        let mut process =
            self.member(id).process.take().with_context(|| format!("node {id} is not running"))?;
        process.kill()
    }

    /// Sends a running member a signal, by its name without `SIG`.
    pub(crate) fn signal_member(&self, id: u64, name: &str) -> anyhow::Result<()> {
        let process = self.members[id as usize - 1].process.as_ref();
        process.with_context(|| format!("node {id} is not running"))?.signal(name)
    }

    /// Stops every member with SIGTERM.
    pub(crate) fn terminate(&mut self) -> anyhow::Result<()> {
        let processes: Vec<_> = self.members.iter_mut().filter_map(|m| m.process.take()).collect();
        processes.into_iter().try_for_each(Process::terminate)
    }

    /// A member's status; `None` when it does not answer in time.
    pub(crate) async fn status(&mut self, id: u64) -> Option<Status> {
        let client = &mut self.member(id).client;
        let call = client.call("blockraft_status", json!([]));
        tokio::time::timeout(STATUS_TIMEOUT, call).await.ok()?.ok()
    }

    /// Height of a member's last block; `None` when it does not answer in time.
    pub(crate) async fn head(&mut self, id: u64) -> Option<u64> {
        let client = &mut self.member(id).client;
        let call = client.call::<U64>("eth_blockNumber", json!([]));
        Some(tokio::time::timeout(STATUS_TIMEOUT, call).await.ok()?.ok()?.to())
    }

    /// The highest head among the members that run.
    pub(crate) async fn highest_head(&mut self) -> u64 {
        let mut highest = 0;
        for id in self.running() {
            highest = highest.max(self.head(id).await.unwrap_or(0));
        }
        highest
    }

    /// Waits until every running member names the same running leader; its id and term.
    pub(crate) async fn wait_for_leader(&mut self, within: Duration) -> anyhow::Result<(u64, u64)> {
        let until = Instant::now() + within;
        loop {
            let running = self.running();
            let mut views = Vec::new();
            for id in &running {
                views.push(self.status(*id).await);
            }
            if let Some(Some(Status { term, leader: Some(leader) })) = views.first()
                && running.contains(leader)
                && views.iter().all(|view| *view == views[0])
            {
                return Ok((*leader, *term));
            }
            ensure!(Instant::now() < until, "no common leader within {within:?}: {views:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a running member names a running leader other than `dead`; its id.
    pub(crate) async fn wait_for_other_leader(
        &mut self,
        dead: u64,
        within: Duration,
    ) -> anyhow::Result<u64> {
        let until = Instant::now() + within;
        loop {
            for id in self.running() {
                let view = self.status(id).await;
                if let Some(leader) = view.and_then(|view| view.leader).filter(|id| *id != dead) {
                    return Ok(leader);
                }
            }
            ensure!(Instant::now() < until, "no new leader within {within:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until some running member has a block above `height`.
    pub(crate) async fn wait_for_block_above(
        &mut self,
        height: u64,
        within: Duration,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        while self.highest_head().await <= height {
            ensure!(Instant::now() < until, "no block above {height} within {within:?}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until one member has a height that the others have passed.
    pub(crate) async fn wait_for_member(
        &mut self,
        id: u64,
        height: u64,
        within: Duration,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        loop {
            let head = self.head(id).await;
            if head.is_some_and(|head| head >= height) {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "node {id} is at {head:?}, not at {height}, after {within:?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The program as a child that first enters what it is told to.
fn joining(files: &[PathBuf], binary: &Path) -> Command {
    if files.is_empty() {
        return Command::new(binary);
    }
    let mut command = Command::new("sh");
    let count = files.len();
    let script = r#"n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 1; shift; n=$((n-1)); done; exec "$@""#;
    command.arg("-c").arg(script).arg("sh").arg(count.to_string()).args(files).arg(binary);
    command
}

fn init(binary: &Path, genesis: &Path, datadir: &Path, id: u16) -> anyhow::Result<()> {
    let mut command = Command::new(binary);
    command.arg("init").arg("--genesis").arg(genesis).arg("--datadir").arg(datadir);
    let output = command.arg("--node-id").arg(id.to_string()).output()?;
    if !output.status.success() {
        bail!("blockraft init: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `node.toml`: keys are the flags of `blockraft node`.
fn node_config(datadir: &Path, count: u16, port: u16, index: u16) -> String {
    let raft_port = port + RAFT_PORT_OFFSET;
    let mut text = format!(
        "datadir = {datadir:?}\nnode-id = {}\nraft-addr = \"127.0.0.1:{}\"\nrpc-addr = \"127.0.0.1:{}\"\n",
        index + 1,
        raft_port + index,
        port + index
    );
    for member in 0..count {
        text.push_str(&format!(
            "\n[[members]]\nid = {}\nraft-addr = \"127.0.0.1:{}\"\nrpc-addr = \"127.0.0.1:{}\"\n",
            member + 1,
            raft_port + member,
            port + member
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_names_the_node_and_all_members() {
        let expected = r#"datadir = "/d/node2"
node-id = 2
raft-addr = "127.0.0.1:9101"
rpc-addr = "127.0.0.1:9001"

[[members]]
id = 1
raft-addr = "127.0.0.1:9100"
rpc-addr = "127.0.0.1:9000"

[[members]]
id = 2
raft-addr = "127.0.0.1:9101"
rpc-addr = "127.0.0.1:9001"
"#;
        assert_eq!(node_config(Path::new("/d/node2"), 2, 9000, 1), expected);
    }
}
