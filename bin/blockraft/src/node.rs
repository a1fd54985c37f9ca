//! `blockraft node`: one member of a cluster.

use crate::{
    cli::{DEFAULT_CLUSTER_NAME, History, MemberArg, NodeArgs},
    datadir, engine_api, init, memory, output, ports, signals,
};
use anyhow::Context;
use blockraft_node::{
    Distribution, Member, Node, NodeConfig, NodeError, is_read_only, maintenance,
};
use blockraft_primitives::{NodeId, limits};
use blockraft_storage::StoreOptions;
use std::{fs, path::Path, process::ExitCode};
use tracing_subscriber::EnvFilter;

pub(crate) fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    let args = match &args.config {
        Some(path) => {
            let file = read_config(path)?;
            args.over(file)
        }
        None => args,
    };
    start_logging(args.log_json.unwrap_or(false));
    memory::use_small_pages();
    let exit_with_parent = args.exit_with_parent;
    let config = node_config(args)?;
    runtime()?.block_on(serve(config, exit_with_parent))
}

/// Runs a node until a signal asks it to stop or it fails. One whose state is not the chain's is healed and
/// started again, once.
pub(crate) async fn serve(config: NodeConfig, exit_with_parent: bool) -> anyhow::Result<ExitCode> {
    let ended = start_and_serve(config.clone(), exit_with_parent).await;
    let Err(error) = ended else { return ended };
    if !error.downcast_ref::<NodeError>().is_some_and(NodeError::is_wrong_state) {
        return Err(error);
    }
    tracing::error!(%error, "the state is looked through and healed before this node serves again");
    let repaired = tokio::select! {
        stop = signals::stop_requested(exit_with_parent) => { stop?; return Ok(ExitCode::SUCCESS); }
        repaired = maintenance::heal(&config) => repaired.context("the state cannot be healed")?,
    };
    tracing::warn!(shards = ?repaired.shards, "the state on disk is the chain's: the node starts again");
    start_and_serve(config, exit_with_parent).await
}

async fn start_and_serve(config: NodeConfig, exit_with_parent: bool) -> anyhow::Result<ExitCode> {
    let node = Node::start(config).await?;
    serve_started(node, exit_with_parent).await
}

/// The same for a node that has been started already.
pub(crate) async fn serve_started(
    mut node: Node,
    exit_with_parent: bool,
) -> anyhow::Result<ExitCode> {
    let failed = tokio::select! {
        stop = signals::stop_requested(exit_with_parent) => { stop?; None }
        error = node.failed() => Some(error),
    };
    tokio::select! {
        () = node.shutdown() => {}
        again = signals::interrupted_again() => {
            again?;
            return Ok(ExitCode::from(130));
        }
    }
    match failed {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error.into()),
    }
}

/// The runtime of a serving process.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("blockraft")
        .build()
        .context("cannot start the runtime")
}

/// Log lines go to standard error; `RUST_LOG` filters them.
pub(crate) fn start_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=warn,jsonrpsee=warn,hyper=warn"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call (a test, say) keeps the first subscriber.
    let _ = if json { lines.json().try_init() } else { lines.with_ansi(false).try_init() };
}

fn read_config(path: &Path) -> anyhow::Result<NodeArgs> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read config file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("config file {}", path.display()))
}

fn node_config(args: NodeArgs) -> anyhow::Result<NodeConfig> {
    let submission = args.submission()?;
    let datadir = args.datadir.context("a node needs a data directory: --datadir")?;
    let rpc_addr = args.rpc_addr.unwrap_or_else(|| ([127, 0, 0, 1], 8545).into());
    if let Some(genesis) = &args.genesis {
        let node_id = args.node_id.context("a genesis without a node id: --node-id")?;
        let cluster_name = args.cluster_name.as_deref().unwrap_or(DEFAULT_CLUSTER_NAME);
        init::prepare(&datadir, &init::read_genesis(genesis)?, node_id, cluster_name)?;
    }
    let alone = match args.raft_addr.is_none() && args.members.is_none() {
        true => sole_member(&datadir)?,
        false => None,
    };
    let (raft_addr, members) = match alone {
        Some(id) => {
            let raft_addr = ports::any_free()?;
            let (raft, rpc) = (raft_addr.to_string(), rpc_addr.to_string());
            (Some(raft_addr), vec![MemberArg { id, raft_addr: raft, rpc_addr: rpc }])
        }
        None => (args.raft_addr, args.members.unwrap_or_default()),
    };
    let raft_addr = raft_addr.context("a node needs an address for its peers: --raft-addr")?;
    if members.is_empty() {
        output::progress("no members configured: this node waits to be added to a cluster");
    }
    Ok(NodeConfig {
        node_id: args.node_id,
        raft_addr,
        rpc_addr,
        members: members
            .into_iter()
            .map(|m| (m.id, Member { raft_addr: m.raft_addr, rpc_addr: m.rpc_addr }))
            .collect(),
        bootstrap: args.bootstrap.unwrap_or(true),
        block_time_ms: args.block_time.map(|t| t.0),
        fee_recipient: args.fee_recipient,
        submission,
        cors_domains: args.http_corsdomain.unwrap_or_default(),
        virtual_hosts: args.http_vhosts.unwrap_or_default(),
        engine_api: engine_api::config(&args.authrpc, &datadir)?,
        raft_heartbeat_ms: args.raft_heartbeat_ms.unwrap_or(blockraft_node::RAFT_HEARTBEAT_MS),
        raft_election_ms: args.raft_election_ms.unwrap_or(blockraft_node::RAFT_ELECTION_MS),
        snapshot_entry_interval: args
            .raft_snapshot_entries
            .unwrap_or(limits::SNAPSHOT_ENTRY_INTERVAL),
        log_entries_kept: args.raft_log_entries_kept.unwrap_or(limits::LOG_ENTRIES_KEPT),
        history_blocks: args.history.map(History::blocks),
        trie_memory_bytes: args.trie_memory.map(|mib| mib as usize * (1 << 20)),
        trie_checkpoint: args.trie_checkpoint.unwrap_or(false),
        threads: args.threads.map(usize::from),
        distribution: args.distribution.unwrap_or_default().into(),
        root_sharing: args.root_sharing.map_or(Distribution::Off, Distribution::from),
        recover_at: args.recover_at.unwrap_or_default().into(),
        datadir,
    })
}

/// Whose directory it is, where that is an imported chain, which needs no peers to be served.
fn sole_member(datadir: &Path) -> anyhow::Result<Option<NodeId>> {
    if blockraft_storage::read_genesis(datadir)?.is_none() {
        return Ok(None);
    }
    let store = datadir::open(datadir, StoreOptions::default())?;
    Ok(is_read_only(&store).then(|| store.identity().node_id))
}
