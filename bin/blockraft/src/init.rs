//! `blockraft init`: a data directory from a genesis file.

use crate::{
    cli::{ChainArgs, InitArgs},
    output::{self, OutputFormat},
};
use alloy_primitives::{B256, keccak256};
use anyhow::Context;
use blockraft_primitives::{ClusterGenesis, NodeId};
use blockraft_storage::Identity;
use std::{fs, path::Path, process::ExitCode};

/// The genesis of `dev` and `devnet` when none is named.
const DEV_GENESIS: &str = include_str!("../../../genesis/dev.json");

pub(crate) fn run(args: InitArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    let genesis = read_genesis(&args.genesis)?;
    prepare(&args.datadir, &genesis, args.node_id, &args.cluster_name)?;
    match format {
        OutputFormat::Json => output::print_json(&serde_json::json!({
            "datadir": args.datadir,
            "nodeId": args.node_id,
            "chainId": genesis.spec.chain_id,
            "genesisHash": genesis.hash(),
            "stateRoot": genesis.header.state_root,
        })),
        OutputFormat::Text => output::print(&format!(
            "initialised {} for node {}\nchain id     {}\ngenesis hash {}\nstate root   {}\n\n\
             next: blockraft node --datadir {} --raft-addr 127.0.0.1:8645 --rpc-addr 127.0.0.1:8545 \
             --members {}=127.0.0.1:8645/127.0.0.1:8545",
            args.datadir.display(),
            args.node_id,
            genesis.spec.chain_id,
            genesis.hash(),
            genesis.header.state_root,
            args.datadir.display(),
            args.node_id,
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks a genesis file.
pub(crate) fn read_genesis(path: &Path) -> anyhow::Result<ClusterGenesis> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read genesis file {}", path.display()))?;
    ClusterGenesis::from_json(&text).with_context(|| path.display().to_string())
}

/// The genesis that `dev` and `devnet` start from: the named file or the built-in one, with the
/// asked-for accounts funded, and block time and gas limit set where they are given.
pub(crate) fn development_genesis(
    args: &ChainArgs,
    accounts: &[crate::accounts::DevAccount],
    block_time_ms: Option<u64>,
) -> anyhow::Result<ClusterGenesis> {
    let mut genesis = match &args.genesis {
        Some(path) => read_genesis(path)?.genesis,
        None => {
            let mut genesis =
                ClusterGenesis::from_json(DEV_GENESIS).context("the built-in genesis")?.genesis;
            crate::accounts::fund(&mut genesis, accounts);
            genesis
        }
    };
    if let Some(gas) = args.gas_limit {
        genesis.gas_limit = gas;
    }
    if block_time_ms.is_some() || args.gas_limit.is_some() {
        let mut options = ClusterGenesis::new(genesis.clone())?.options;
        options.block_time_ms = block_time_ms.unwrap_or(options.block_time_ms);
        options.gas_limit = args.gas_limit.or(options.gas_limit);
        genesis.config.extra_fields.insert_value("blockraft".to_owned(), options)?;
    }
    Ok(ClusterGenesis::new(genesis)?)
}

/// Prepares a data directory; one that is already prepared for the same chain and member is left as it is.
pub(crate) fn prepare(
    datadir: &Path,
    genesis: &ClusterGenesis,
    node_id: NodeId,
    cluster_name: &str,
) -> anyhow::Result<()> {
    anyhow::ensure!(node_id > 0, "a node id is 1 or more");
    let identity = Identity { cluster_id: cluster_id(genesis, cluster_name), node_id };
    blockraft_storage::init(datadir, genesis, &identity)
        .with_context(|| format!("cannot initialise {}", datadir.display()))
}

/// Two clusters of one genesis differ by their names.
fn cluster_id(genesis: &ClusterGenesis, cluster_name: &str) -> B256 {
    keccak256([genesis.hash().as_slice(), cluster_name.as_bytes()].concat())
}
