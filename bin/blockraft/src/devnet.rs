//! `blockraft devnet`: a cluster of real processes on loopback, stopped together.

use crate::{
    accounts,
    banner::{self, Banner, RunningNode},
    cli::{AuthRpcArgs, DEFAULT_CLUSTER_NAME, DevnetArgs, History, MemberArg},
    dev::datadir_or_fresh,
    engine_api, init,
    node::runtime,
    output::{self, OutputFormat},
    ports, signals, status,
};
use anyhow::Context;
use blockraft_primitives::{ClusterGenesis, NodeId};
use serde::Serialize;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};
use tokio::process::{Child, Command};

/// How long the cluster may take to come up.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to hand over, flush and exit before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Milliseconds between blocks when neither flag nor genesis file says: quick, yet visibly a chain.
const BLOCK_TIME_DEFAULT_MS: u64 = 250;

pub(crate) fn run(args: DevnetArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(&args)?;
    for node in &plan.nodes {
        ports::check_free(node.rpc_addr, "--port")?;
        ports::check_free(node.raft_addr, "--raft-port")?;
    }
    for node in &plan.nodes {
        init::prepare(&node.datadir, &plan.genesis, node.id, DEFAULT_CLUSTER_NAME)?;
        write_config(node, &plan)?;
    }
    runtime()?.block_on(run_cluster(plan, format))
}

/// What will run where.
struct Plan {
    genesis: ClusterGenesis,
    accounts: Vec<accounts::DevAccount>,
    mnemonic: String,
    nodes: Vec<PlannedNode>,
    history: History,
}

struct PlannedNode {
    id: NodeId,
    datadir: PathBuf,
    raft_addr: SocketAddr,
    rpc_addr: SocketAddr,
    authrpc: AuthRpcArgs,
}

impl Plan {
    fn new(args: &DevnetArgs) -> anyhow::Result<Self> {
        let root = datadir_or_fresh(args.chain.datadir.clone(), "devnet")?;
        let accounts = accounts::derive(&args.chain.mnemonic, args.chain.accounts)?;
        let default = args.chain.genesis.is_none().then_some(BLOCK_TIME_DEFAULT_MS);
        let block_time_ms = args.chain.block_time.map(|t| t.0).or(default);
        let genesis = init::development_genesis(&args.chain, &accounts, block_time_ms)?;
        let raft_port = match args.raft_port {
            Some(port) => port,
            None => args.port.checked_add(100).context("--port is too high; name a --raft-port")?,
        };
        let authrpc = engine_api::shared(&args.authrpc, &root)?;
        let nodes = (0..args.nodes)
            .map(|offset| {
                let id = NodeId::from(offset) + 1;
                Ok(PlannedNode {
                    id,
                    datadir: root.join(format!("node-{id}")),
                    raft_addr: ports::loopback(raft_port, offset)?,
                    rpc_addr: ports::loopback(args.port, offset)?,
                    authrpc: engine_api::of_node(&authrpc, offset)?,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            genesis,
            accounts,
            mnemonic: args.chain.mnemonic.clone(),
            nodes,
            history: args.chain.history,
        })
    }
}

/// A node's `node.toml`: what an operator would write by hand.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ConfigFile<'a> {
    datadir: &'a Path,
    node_id: NodeId,
    raft_addr: SocketAddr,
    rpc_addr: SocketAddr,
    /// Seconds. The data directory may have been made with another one.
    block_time: f64,
    history: History,
    members: Vec<MemberArg>,
    authrpc: &'a AuthRpcArgs,
}

fn write_config(node: &PlannedNode, plan: &Plan) -> anyhow::Result<()> {
    let member = |n: &PlannedNode| MemberArg {
        id: n.id,
        raft_addr: n.raft_addr.to_string(),
        rpc_addr: n.rpc_addr.to_string(),
    };
    let config = ConfigFile {
        datadir: &node.datadir,
        node_id: node.id,
        raft_addr: node.raft_addr,
        rpc_addr: node.rpc_addr,
        block_time: plan.genesis.options.block_time_ms as f64 / 1000.0,
        history: plan.history,
        members: plan.nodes.iter().map(member).collect(),
        authrpc: &node.authrpc,
    };
    let path = config_path(&node.datadir);
    let text = toml::to_string(&config).context("a node's configuration")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn config_path(datadir: &Path) -> PathBuf {
    datadir.join("node.toml")
}

fn log_path(datadir: &Path) -> PathBuf {
    datadir.join("node.log")
}

async fn run_cluster(plan: Plan, format: OutputFormat) -> anyhow::Result<ExitCode> {
    output::progress(&format!("starting {} nodes ...", plan.nodes.len()));
    let mut running = Vec::new();
    for node in &plan.nodes {
        match spawn(node) {
            Ok(child) => running.push(child),
            Err(error) => {
                stop_all(running).await;
                return Err(error);
            }
        }
    }
    let outcome = supervise(&plan, &mut running, format).await;
    output::progress("stopping all nodes ...");
    stop_all(running).await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// A node as a process of its own: its own process group, so that a terminal's Ctrl-C reaches only
/// this parent; its standard input is a pipe that ends with this parent, however it ends.
fn spawn(node: &PlannedNode) -> anyhow::Result<Child> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path(&node.datadir))
        .with_context(|| format!("cannot open {}", log_path(&node.datadir).display()))?;
    Command::new(std::env::current_exe()?)
        .args(["node", "--exit-with-parent", "--config"])
        .arg(config_path(&node.datadir))
        // Meant for the whole devnet, whose nodes have a port each.
        .env_remove("BLOCKRAFT_AUTHRPC_PORT")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start node {}", node.id))
}

/// Waits until the cluster is ready, tells the user, and then for a signal or the first broken start.
async fn supervise(plan: &Plan, running: &mut [Child], format: OutputFormat) -> anyhow::Result<()> {
    let leader = tokio::select! {
        leader = ready(plan) => leader?,
        exited = first_exit(plan, running) => return Err(exited),
        stop = signals::stop_requested(false) => return Ok(stop?),
    };
    let banner = Banner {
        chain_id: plan.genesis.spec.chain_id,
        accounts: plan.accounts.clone(),
        mnemonic: plan.mnemonic.clone(),
        block_time_ms: plan.genesis.options.block_time_ms,
        nodes: plan.nodes.iter().zip(&*running).map(|(n, child)| running_node(n, child)).collect(),
        leader: Some(leader),
        read_only: false,
    };
    match format {
        OutputFormat::Text => output::print(&banner::text(&banner)),
        OutputFormat::Json => output::print_json(&banner),
    }
    // A node that dies later is what clusters are for: it is told, and the others go on.
    let mut gone = vec![false; running.len()];
    loop {
        tokio::select! {
            stop = signals::stop_requested(false) => return Ok(stop?),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        for ((node, child), gone) in plan.nodes.iter().zip(running.iter_mut()).zip(&mut gone) {
            if let (false, Ok(Some(status))) = (*gone, child.try_wait()) {
                *gone = true;
                output::progress(&format!(
                    "node {} stopped ({status}); start it again with: blockraft node --config {}",
                    node.id,
                    config_path(&node.datadir).display()
                ));
            }
        }
    }
}

fn running_node(node: &PlannedNode, child: &Child) -> RunningNode {
    RunningNode {
        id: node.id,
        rpc: format!("http://{}", node.rpc_addr),
        raft: node.raft_addr.to_string(),
        datadir: node.datadir.clone(),
        pid: child.id().unwrap_or_default(),
    }
}

/// Completes with the leader once every node answers and names the same one.
async fn ready(plan: &Plan) -> anyhow::Result<NodeId> {
    let poll = async {
        loop {
            let mut leaders = Vec::new();
            for node in &plan.nodes {
                let url = format!("http://{}", node.rpc_addr);
                leaders.push(status::fetch(&url).await.ok().and_then(|s| s.cluster.leader));
            }
            if let Some(Some(leader)) = leaders.first()
                && leaders.iter().all(|l| l == &Some(*leader))
            {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(READY_TIMEOUT, poll).await.with_context(|| {
        let logs: Vec<_> =
            plan.nodes.iter().map(|n| log_path(&n.datadir).display().to_string()).collect();
        format!("the cluster did not become ready; its logs: {}", logs.join(", "))
    })
}

/// Completes when a node exits before the cluster was ready: why, from the end of its log.
async fn first_exit(plan: &Plan, running: &mut [Child]) -> anyhow::Error {
    loop {
        for (node, child) in plan.nodes.iter().zip(running.iter_mut()) {
            if let Ok(Some(status)) = child.try_wait() {
                let path = log_path(&node.datadir);
                let log = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(5)..].join("\n  ");
                return anyhow::anyhow!(
                    "node {} exited ({status}) before the cluster was ready; {}:\n  {tail}",
                    node.id,
                    path.display()
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Asks every node to stop, waits, and kills what does not.
async fn stop_all(running: Vec<Child>) {
    for child in &running {
        if let Some(pid) = child.id() {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            // A node that is gone already needs no signal.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
    }
    for mut child in running {
        if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            output::progress("a node did not stop in time and is killed");
            // It may have exited in the meantime.
            let _ = child.kill().await;
        }
    }
}
