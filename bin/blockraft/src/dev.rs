//! `blockraft dev`: one node in this process, instant blocks.

use crate::{
    accounts,
    banner::{self, Banner, RunningNode},
    cli::{DEFAULT_CLUSTER_NAME, DevArgs},
    engine_api, init, memory,
    node::{runtime, serve_started, start_logging},
    output::{self, OutputFormat},
    ports,
};
use anyhow::Context;
use blockraft_node::{Distribution, Member, Node, NodeConfig, RecoverAt};
use blockraft_primitives::limits;
use std::{path::PathBuf, process::ExitCode};

pub(crate) fn run(args: DevArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    start_logging(false);
    memory::use_small_pages();
    let rpc_addr = ports::loopback(args.port, 0)?;
    ports::check_free(rpc_addr, "--port")?;
    let raft_addr = ports::any_free()?;
    let datadir = datadir_or_fresh(args.chain.datadir.clone(), "dev")?;
    let mut accounts = accounts::derive(&args.chain.mnemonic, args.chain.accounts)?;
    let block_time_ms = args.chain.block_time.map_or(0, |t| t.0);
    let mut genesis = init::development_genesis(&args.chain, &accounts, Some(block_time_ms))?;
    // A directory that is there already says which chain it is, unless another one is asked for by name.
    let there = blockraft_storage::read_genesis(&datadir)?;
    if let Some(there) =
        there.filter(|there| args.chain.genesis.is_none() && there.hash() != genesis.hash())
    {
        accounts.clear();
        genesis = there;
    }
    init::prepare(&datadir, &genesis, 1, DEFAULT_CLUSTER_NAME)?;
    let member = Member { raft_addr: raft_addr.to_string(), rpc_addr: rpc_addr.to_string() };
    let config = NodeConfig {
        node_id: Some(1),
        datadir: datadir.clone(),
        raft_addr,
        rpc_addr,
        members: vec![(1, member)],
        bootstrap: true,
        block_time_ms: Some(block_time_ms),
        fee_recipient: None,
        submission: Default::default(),
        cors_domains: Vec::new(),
        virtual_hosts: Vec::new(),
        engine_api: engine_api::config(&args.authrpc, &datadir)?,
        raft_heartbeat_ms: blockraft_node::RAFT_HEARTBEAT_MS,
        raft_election_ms: blockraft_node::RAFT_ELECTION_MS,
        snapshot_entry_interval: limits::SNAPSHOT_ENTRY_INTERVAL,
        log_entries_kept: limits::LOG_ENTRIES_KEPT,
        history_blocks: Some(args.chain.history.blocks()),
        trie_memory_bytes: None,
        trie_checkpoint: false,
        threads: None,
        distribution: Distribution::Off,
        root_sharing: Distribution::Off,
        recover_at: RecoverAt::Gateway,
    };
    runtime()?.block_on(async move {
        let node = Node::start(config).await?;
        node.ready().await.context("the node did not become ready")?;
        let banner = Banner {
            chain_id: genesis.spec.chain_id,
            accounts,
            mnemonic: args.chain.mnemonic,
            block_time_ms,
            nodes: vec![RunningNode {
                id: 1,
                rpc: format!("http://{rpc_addr}"),
                raft: raft_addr.to_string(),
                datadir,
                pid: std::process::id(),
            }],
            leader: Some(1),
            read_only: node.read_only(),
        };
        match format {
            OutputFormat::Text => output::print(&banner::text(&banner)),
            OutputFormat::Json => output::print_json(&banner),
        }
        serve_started(node, false).await
    })
}

/// The directory asked for, or a new one under the system's temporary folder.
pub(crate) fn datadir_or_fresh(asked: Option<PathBuf>, kind: &str) -> anyhow::Result<PathBuf> {
    if let Some(datadir) = asked {
        return Ok(datadir);
    }
    for attempt in 0..1000 {
        let name = format!("blockraft-{kind}-{}-{attempt}", std::process::id());
        let datadir = std::env::temp_dir().join(name);
        match std::fs::create_dir(&datadir) {
            Ok(()) => return Ok(datadir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", datadir.display()));
            }
        }
    }
    anyhow::bail!("no free name for a data directory in {}", std::env::temp_dir().display())
}
