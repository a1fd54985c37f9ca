//! The command line. Flags are also `BLOCKRAFT_*` variables; `node` reads a TOML file beneath both.

use crate::output::OutputFormat;
use alloy_primitives::{Address, utils::parse_ether};
use anyhow::Context;
use blockraft_node::{Distribution, RecoverAt, SubmissionRules, maintenance::SnapshotPeer};
use blockraft_primitives::NodeId;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// One logical Ethereum node made of several machines.
#[derive(Debug, Parser)]
#[command(name = "blockraft", version, propagate_version = true)]
pub(crate) struct Cli {
    /// How results are printed.
    #[arg(short, long, value_enum, default_value = "text", global = true)]
    pub(crate) output: OutputFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node for development: instant blocks, funded accounts.
    Dev(DevArgs),
    /// Run a cluster of real processes on this machine.
    Devnet(DevnetArgs),
    /// Run one member of a cluster.
    Node(Box<NodeArgs>),
    /// Prepare a data directory from a genesis file.
    Init(InitArgs),
    /// Bring a chain file into a data directory: every block checked and executed.
    Import(ImportArgs),
    /// Write a data directory's chain as a chain file.
    Export(ExportArgs),
    /// Run the public suites' blockchain tests.
    Blocktest(FixtureArgs),
    /// Run the public suites' state tests.
    Statetest(FixtureArgs),
    /// Execute mainnet blocks on their pre-states: by the serial loop, and by the engine over executors.
    Replay(ReplayArgs),
    /// Look at the state on disk while no node runs over it: sizes, damage, repair.
    #[command(subcommand)]
    Db(DbCommand),
    /// Show members, leader, term, heights and lag.
    Status(StatusArgs),
}

/// The chain that `dev` and `devnet` start when their data directory is new.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChainArgs {
    /// Genesis file; the built-in one for development when absent.
    #[arg(long, env = "BLOCKRAFT_GENESIS")]
    pub(crate) genesis: Option<PathBuf>,
    /// Funded accounts to derive and print.
    #[arg(long, env = "BLOCKRAFT_ACCOUNTS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) accounts: u32,
    /// BIP-39 phrase that the accounts are derived from.
    #[arg(long, env = "BLOCKRAFT_MNEMONIC", default_value = crate::accounts::DEV_MNEMONIC)]
    pub(crate) mnemonic: String,
    /// Seconds between blocks, fractions allowed; 0 cuts a block as soon as there is a transaction.
    #[arg(long, env = "BLOCKRAFT_BLOCK_TIME", value_parser = parse_seconds)]
    pub(crate) block_time: Option<BlockTimeMs>,
    /// Gas of a block; the genesis file's when absent.
    #[arg(long, env = "BLOCKRAFT_GAS_LIMIT", value_parser = clap::value_parser!(u64).range(21_000..))]
    pub(crate) gas_limit: Option<u64>,
    /// Keeps the chain here across restarts; a new place is made and printed when absent.
    #[arg(long, env = "BLOCKRAFT_DATADIR")]
    pub(crate) datadir: Option<PathBuf>,
    /// Blocks below the head whose state can be read back, or `full` for all.
    #[arg(long, env = "BLOCKRAFT_HISTORY", default_value = "full", value_parser = parse_history)]
    pub(crate) history: History,
}

/// How many blocks below the head keep a state that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HistoryValue", into = "HistoryValue")]
pub(crate) enum History {
    /// All of them.
    Full,
    /// So many.
    Blocks(u64),
}

impl History {
    pub(crate) fn blocks(self) -> u64 {
        match self {
            Self::Full => u64::MAX,
            Self::Blocks(blocks) => blocks,
        }
    }
}

/// As a TOML file has it: a number, or `"full"`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum HistoryValue {
    Blocks(u64),
    Word(String),
}

impl TryFrom<HistoryValue> for History {
    type Error = String;

    fn try_from(value: HistoryValue) -> Result<Self, String> {
        match value {
            HistoryValue::Blocks(blocks) => Ok(Self::Blocks(blocks)),
            HistoryValue::Word(word) => parse_history(&word),
        }
    }
}

impl From<History> for HistoryValue {
    fn from(history: History) -> Self {
        match history {
            History::Full => Self::Word("full".to_owned()),
            History::Blocks(blocks) => Self::Blocks(blocks),
        }
    }
}

fn parse_history(text: &str) -> Result<History, String> {
    match text {
        "full" => Ok(History::Full),
        number => number
            .parse()
            .map(History::Blocks)
            .map_err(|_| format!("`{text}` is neither `full` nor a number of blocks")),
    }
}

/// A block interval in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockTimeMs(pub(crate) u64);

fn parse_seconds(text: &str) -> Result<BlockTimeMs, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("a block time lies between 0 and 86400 seconds".to_owned());
    }
    Ok(BlockTimeMs((seconds * 1000.0).round() as u64))
}

/// `blockraft dev`
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// RPC port (HTTP and WebSocket) on loopback.
    #[arg(long, env = "BLOCKRAFT_PORT", default_value_t = 8545)]
    pub(crate) port: u16,
    /// The Engine API.
    #[command(flatten)]
    pub(crate) authrpc: AuthRpcArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

/// `blockraft devnet`
#[derive(Debug, Args)]
pub(crate) struct DevnetArgs {
    /// Nodes to run.
    #[arg(long, env = "BLOCKRAFT_NODES", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) nodes: u16,
    /// RPC port of the first node; node i serves port + i.
    #[arg(long, env = "BLOCKRAFT_PORT", default_value_t = 8545)]
    pub(crate) port: u16,
    /// Port of the first node for other nodes; the RPC port + 100 when absent.
    #[arg(long, env = "BLOCKRAFT_RAFT_PORT")]
    pub(crate) raft_port: Option<u16>,
    /// The Engine API.
    #[command(flatten)]
    pub(crate) authrpc: AuthRpcArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
}

/// `blockraft init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Genesis file (geth's format; `config.blockraft` holds the cluster's options).
    #[arg(long, env = "BLOCKRAFT_GENESIS")]
    pub(crate) genesis: PathBuf,
    /// Data directory to prepare.
    #[arg(long, env = "BLOCKRAFT_DATADIR")]
    pub(crate) datadir: PathBuf,
    /// This member's id: 1 or more, never used by another member before.
    #[arg(long, env = "BLOCKRAFT_NODE_ID", default_value_t = 1)]
    pub(crate) node_id: NodeId,
    /// Tells clusters of one genesis apart: their nodes refuse one another.
    #[arg(long, env = "BLOCKRAFT_CLUSTER_NAME", default_value = DEFAULT_CLUSTER_NAME)]
    pub(crate) cluster_name: String,
}

/// The cluster name that every command assumes.
pub(crate) const DEFAULT_CLUSTER_NAME: &str = "blockraft";

/// Where a consensus client reaches this node (the Engine API). Off unless one of these is given.
#[derive(Clone, Debug, Default, Args, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct AuthRpcArgs {
    /// Address for the Engine API; 127.0.0.1 when absent. Blocks then come from a consensus client alone.
    #[arg(long = "authrpc.addr", id = "authrpc.addr", env = "BLOCKRAFT_AUTHRPC_ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) addr: Option<IpAddr>,
    /// Port for the Engine API; 8551 when absent. Node i of a devnet serves port + i.
    #[arg(long = "authrpc.port", id = "authrpc.port", env = "BLOCKRAFT_AUTHRPC_PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// File with the secret that node and consensus client share, 64 hex digits; `jwtsecret` in the data
    /// directory when absent. Made when it does not exist.
    #[arg(
        long = "authrpc.jwtsecret",
        id = "authrpc.jwtsecret",
        env = "BLOCKRAFT_AUTHRPC_JWTSECRET"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jwtsecret: Option<PathBuf>,
    /// Host names that requests to the Engine API may name, comma separated; loopback names are always
    /// allowed, `*` allows all.
    #[arg(
        long = "authrpc.vhosts",
        id = "authrpc.vhosts",
        env = "BLOCKRAFT_AUTHRPC_VHOSTS",
        value_delimiter = ','
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vhosts: Option<Vec<String>>,
}

impl AuthRpcArgs {
    /// Whether the Engine API is asked for.
    pub(crate) fn is_on(&self) -> bool {
        self.addr.is_some()
            || self.port.is_some()
            || self.jwtsecret.is_some()
            || self.vhosts.is_some()
    }

    fn over(self, file: Self) -> Self {
        Self {
            addr: self.addr.or(file.addr),
            port: self.port.or(file.port),
            jwtsecret: self.jwtsecret.or(file.jwtsecret),
            vhosts: self.vhosts.or(file.vhosts),
        }
    }
}

/// `blockraft node`: flag before environment before file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct NodeArgs {
    /// TOML file with any of these settings, named as the flags are.
    #[arg(long, env = "BLOCKRAFT_CONFIG")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Data directory.
    #[arg(long, env = "BLOCKRAFT_DATADIR")]
    pub(crate) datadir: Option<PathBuf>,
    /// Genesis file: prepares the data directory if it is new.
    #[arg(long, env = "BLOCKRAFT_GENESIS")]
    pub(crate) genesis: Option<PathBuf>,
    /// This member's id.
    #[arg(long, env = "BLOCKRAFT_NODE_ID")]
    pub(crate) node_id: Option<NodeId>,
    /// Tells clusters of one genesis apart.
    #[arg(long, env = "BLOCKRAFT_CLUSTER_NAME")]
    pub(crate) cluster_name: Option<String>,
    /// Address for other nodes, host:port.
    #[arg(long, env = "BLOCKRAFT_RAFT_ADDR")]
    pub(crate) raft_addr: Option<SocketAddr>,
    /// Address for clients (HTTP and WebSocket), host:port.
    #[arg(long, env = "BLOCKRAFT_RPC_ADDR")]
    pub(crate) rpc_addr: Option<SocketAddr>,
    /// First members of the cluster, `id=raft-host:port/rpc-host:port`, comma separated.
    #[arg(long, env = "BLOCKRAFT_MEMBERS", value_delimiter = ',', value_parser = parse_member)]
    pub(crate) members: Option<Vec<MemberArg>>,
    /// Form the cluster of `members` if this node has no log yet; `false` waits to be added.
    #[arg(long, env = "BLOCKRAFT_BOOTSTRAP")]
    pub(crate) bootstrap: Option<bool>,
    /// Seconds between blocks; the genesis file's when absent.
    #[arg(long, env = "BLOCKRAFT_BLOCK_TIME", value_parser = parse_seconds)]
    #[serde(deserialize_with = "block_time_from_toml", default)]
    pub(crate) block_time: Option<BlockTimeMs>,
    /// Receives priority fees of the blocks that this node builds; the genesis file's when absent.
    #[arg(long, env = "BLOCKRAFT_FEE_RECIPIENT")]
    pub(crate) fee_recipient: Option<Address>,
    /// Browser origins that may call (CORS), comma separated; none by default.
    #[arg(long, env = "BLOCKRAFT_HTTP_CORSDOMAIN", value_delimiter = ',')]
    pub(crate) http_corsdomain: Option<Vec<String>>,
    /// Host names that requests may name, comma separated; loopback names are always allowed, `*` allows all.
    #[arg(long, env = "BLOCKRAFT_HTTP_VHOSTS", value_delimiter = ',')]
    pub(crate) http_vhosts: Option<Vec<String>>,
    /// Ether that a transaction's gas may cost at most; 1 when absent, 0 for no limit.
    #[arg(long = "rpc.txfeecap", env = "BLOCKRAFT_RPC_TXFEECAP", value_name = "ETHER")]
    pub(crate) rpc_txfeecap: Option<String>,
    /// Take legacy transactions that are not signed for one chain (EIP-155).
    #[arg(
        long = "rpc.allow-unprotected-txs",
        env = "BLOCKRAFT_RPC_ALLOW_UNPROTECTED_TXS",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub(crate) rpc_allow_unprotected_txs: Option<bool>,
    /// The Engine API.
    #[command(flatten)]
    #[serde(default)]
    pub(crate) authrpc: AuthRpcArgs,
    /// Milliseconds between Raft heartbeats.
    #[arg(long, env = "BLOCKRAFT_RAFT_HEARTBEAT_MS")]
    pub(crate) raft_heartbeat_ms: Option<u64>,
    /// Shortest Raft election timeout, milliseconds; the longest is twice that.
    #[arg(long, env = "BLOCKRAFT_RAFT_ELECTION_MS")]
    pub(crate) raft_election_ms: Option<u64>,
    /// Applied log entries between two snapshots.
    #[arg(long, env = "BLOCKRAFT_RAFT_SNAPSHOT_ENTRIES")]
    pub(crate) raft_snapshot_entries: Option<u64>,
    /// Log entries that stay behind a snapshot, for members that lag a little.
    #[arg(long, env = "BLOCKRAFT_RAFT_LOG_ENTRIES_KEPT")]
    pub(crate) raft_log_entries_kept: Option<u64>,
    /// Blocks below the head whose state can be read back, or `full` for all; 100,000 when absent.
    #[arg(long, env = "BLOCKRAFT_HISTORY", value_parser = parse_history)]
    pub(crate) history: Option<History>,
    /// Memory that the state trie may hold, MiB; all of it stays in memory when absent.
    #[arg(long, env = "BLOCKRAFT_TRIE_MEMORY", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trie_memory: Option<u32>,
    /// Leave a checkpoint of the state trie when the node stops, and start from it if it is right.
    #[arg(long, env = "BLOCKRAFT_TRIE_CHECKPOINT")]
    pub(crate) trie_checkpoint: Option<bool>,
    /// Threads that execute blocks and compute their roots; as many as there are cores when absent.
    #[arg(long, env = "BLOCKRAFT_THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Whether other members run parts of the blocks that this one builds.
    #[arg(long, env = "BLOCKRAFT_DISTRIBUTION")]
    pub(crate) distribution: Option<DistributionArg>,
    /// Whether other members hash parts of the state after the blocks that this one builds.
    #[arg(long, env = "BLOCKRAFT_ROOT_SHARING")]
    pub(crate) root_sharing: Option<DistributionArg>,
    /// Which member recovers the senders of transactions that come to this one.
    #[arg(long, env = "BLOCKRAFT_RECOVER_AT")]
    pub(crate) recover_at: Option<RecoverAtArg>,
    /// Stop when standard input ends: set by a parent process that must not leave children behind.
    #[arg(long, hide = true)]
    #[serde(default)]
    pub(crate) exit_with_parent: bool,
    /// Log lines as JSON.
    #[arg(long, env = "BLOCKRAFT_LOG_JSON")]
    pub(crate) log_json: Option<bool>,
}

/// A member as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct MemberArg {
    pub(crate) id: NodeId,
    pub(crate) raft_addr: String,
    pub(crate) rpc_addr: String,
}

fn parse_member(text: &str) -> Result<MemberArg, String> {
    let wrong = || format!("`{text}` is not of the form id=raft-host:port/rpc-host:port");
    let (id, addresses) = text.split_once('=').ok_or_else(wrong)?;
    let (raft_addr, rpc_addr) = addresses.split_once('/').ok_or_else(wrong)?;
    Ok(MemberArg {
        id: id.parse().map_err(|_| wrong())?,
        raft_addr: raft_addr.to_owned(),
        rpc_addr: rpc_addr.to_owned(),
    })
}

fn block_time_from_toml<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BlockTimeMs>, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    parse_seconds(&seconds.to_string()).map(Some).map_err(serde::de::Error::custom)
}

/// `blockraft import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Genesis file of the chain: prepares the data directory if it is new.
    #[arg(long, env = "BLOCKRAFT_GENESIS")]
    pub(crate) genesis: PathBuf,
    /// Concatenated block RLP, or era1; `-` is standard input.
    #[arg(long, env = "BLOCKRAFT_CHAIN")]
    pub(crate) chain: PathBuf,
    /// Data directory.
    #[arg(long, env = "BLOCKRAFT_DATADIR")]
    pub(crate) datadir: PathBuf,
    /// Executors that share each block, simulated in this process. The result is the same for any number.
    #[arg(long, env = "BLOCKRAFT_EXECUTORS", default_value_t = 1, value_parser = parse_executors)]
    pub(crate) executors: usize,
    /// Threads; one for each core when absent.
    #[arg(long, env = "BLOCKRAFT_THREADS", value_parser = parse_threads)]
    pub(crate) threads: Option<usize>,
    /// Blocks whose state can be read back, and that a better branch can replace: `full` or a number.
    #[arg(long, env = "BLOCKRAFT_HISTORY", value_parser = parse_history)]
    pub(crate) history: Option<History>,
}

/// `blockraft export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Data directory; no node may run over it.
    #[arg(long, env = "BLOCKRAFT_DATADIR")]
    pub(crate) datadir: PathBuf,
    /// First block.
    #[arg(long, default_value_t = 1)]
    pub(crate) from: u64,
    /// Last block; the chain's last one when absent.
    #[arg(long)]
    pub(crate) to: Option<u64>,
    /// File to write; `-` is standard output.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// `blockraft blocktest` and `blockraft statetest`
#[derive(Debug, Args)]
pub(crate) struct FixtureArgs {
    /// Files of tests, and folders of such files.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Executors that share each block or transaction, simulated in this process. The result is the same for any number.
    #[arg(long, default_value_t = 1, value_parser = parse_executors)]
    pub(crate) executors: usize,
    /// Tests that run at the same time; one for each core when absent.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

fn parse_executors(text: &str) -> Result<usize, String> {
    let executors = text.parse().ok().filter(|executors| (1..=256).contains(executors));
    executors.ok_or_else(|| "a number from 1 to 256 is needed".to_owned())
}

/// `blockraft replay`
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Folders with `block.json` and `pre_state.json`, and folders of such.
    #[arg(required = true)]
    pub(crate) dirs: Vec<PathBuf>,
    /// Executors that run each block's shares; with one, the leader runs blocks alone.
    #[arg(long, default_value_t = 1, value_parser = parse_executors)]
    pub(crate) executors: usize,
    /// Threads of the leader's engine; one for each core when absent.
    #[arg(long, value_parser = parse_executors)]
    pub(crate) threads: Option<usize>,
    /// Turns that are measured, each block both ways in each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeats: u32,
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=1024).contains(threads));
    threads.ok_or_else(|| "threads are 1 to 1024".to_owned())
}

/// `blockraft db`. Exit codes: 0 clean, 1 damage found, 2 could not look.
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Sizes of every table of every environment.
    Stats(DbArgs),
    /// A quick look: does everything open, and stand at one block.
    Check(DbArgs),
    /// Hash every subtree again from the flat state and hold it against the header's root.
    Scrub(DbArgs),
    /// Scrub, then rebuild the damaged shards from a snapshot, or from another member's state.
    Repair(DbRepairArgs),
}

/// What every command of `blockraft db` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DbArgs {
    /// Data directory.
    #[arg(long, env = "BLOCKRAFT_DATADIR")]
    pub(crate) datadir: PathBuf,
    /// Threads; one for each core when absent.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// `blockraft db repair`
#[derive(Debug, Args)]
pub(crate) struct DbRepairArgs {
    #[command(flatten)]
    pub(crate) db: DbArgs,
    /// Snapshot to rebuild from; the newest of the data directory, or else the genesis, when absent.
    #[arg(long, conflicts_with = "peer")]
    pub(crate) from: Option<PathBuf>,
    /// Running member to fetch a snapshot from, `id=raft-host:port`.
    #[arg(long, value_parser = parse_peer)]
    pub(crate) peer: Option<SnapshotPeer>,
}

fn parse_peer(text: &str) -> Result<SnapshotPeer, String> {
    let wrong = || format!("`{text}` is not of the form id=raft-host:port");
    let (id, address) = text.split_once('=').ok_or_else(wrong)?;
    Ok(SnapshotPeer { id: id.parse().map_err(|_| wrong())?, address: address.to_owned() })
}

/// Whether blocks are shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DistributionArg {
    /// Never: whoever leads runs its blocks alone.
    Off,
    /// Where that promises to pay.
    #[default]
    Auto,
    /// Every block.
    Always,
}

impl From<DistributionArg> for Distribution {
    fn from(arg: DistributionArg) -> Self {
        match arg {
            DistributionArg::Off => Self::Off,
            DistributionArg::Auto => Self::Auto,
            DistributionArg::Always => Self::Always,
        }
    }
}

/// Who recovers senders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecoverAtArg {
    /// The one that they came to, and for a leader the others, as far as they keep up.
    #[default]
    Auto,
    /// The one that they came to.
    Gateway,
    /// The leader.
    Leader,
}

impl From<RecoverAtArg> for RecoverAt {
    fn from(arg: RecoverAtArg) -> Self {
        match arg {
            RecoverAtArg::Auto => Self::Auto,
            RecoverAtArg::Gateway => Self::Gateway,
            RecoverAtArg::Leader => Self::Leader,
        }
    }
}

/// `blockraft status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// RPC address of any node.
    #[arg(long, env = "BLOCKRAFT_RPC", default_value = "http://127.0.0.1:8545")]
    pub(crate) rpc: String,
    /// Exit 5 unless the node is ready, as `GET /readyz` tells: for health checks without a shell.
    #[arg(long)]
    pub(crate) ready: bool,
}

impl NodeArgs {
    /// What the node asks of transactions beyond the chain's rules.
    pub(crate) fn submission(&self) -> anyhow::Result<SubmissionRules> {
        let mut rules = SubmissionRules::default();
        if let Some(ether) = &self.rpc_txfeecap {
            let cap = parse_ether(ether).with_context(|| format!("--rpc.txfeecap {ether}"))?;
            rules.fee_cap = (!cap.is_zero()).then_some(cap);
        }
        rules.unprotected = self.rpc_allow_unprotected_txs.unwrap_or(false);
        Ok(rules)
    }

    /// These settings over those of a file.
    pub(crate) fn over(self, file: Self) -> Self {
        Self {
            config: self.config,
            datadir: self.datadir.or(file.datadir),
            genesis: self.genesis.or(file.genesis),
            node_id: self.node_id.or(file.node_id),
            cluster_name: self.cluster_name.or(file.cluster_name),
            raft_addr: self.raft_addr.or(file.raft_addr),
            rpc_addr: self.rpc_addr.or(file.rpc_addr),
            members: self.members.or(file.members),
            bootstrap: self.bootstrap.or(file.bootstrap),
            block_time: self.block_time.or(file.block_time),
            fee_recipient: self.fee_recipient.or(file.fee_recipient),
            http_corsdomain: self.http_corsdomain.or(file.http_corsdomain),
            http_vhosts: self.http_vhosts.or(file.http_vhosts),
            rpc_txfeecap: self.rpc_txfeecap.or(file.rpc_txfeecap),
            rpc_allow_unprotected_txs: self
                .rpc_allow_unprotected_txs
                .or(file.rpc_allow_unprotected_txs),
            authrpc: self.authrpc.over(file.authrpc),
            raft_heartbeat_ms: self.raft_heartbeat_ms.or(file.raft_heartbeat_ms),
            raft_election_ms: self.raft_election_ms.or(file.raft_election_ms),
            raft_snapshot_entries: self.raft_snapshot_entries.or(file.raft_snapshot_entries),
            raft_log_entries_kept: self.raft_log_entries_kept.or(file.raft_log_entries_kept),
            history: self.history.or(file.history),
            trie_memory: self.trie_memory.or(file.trie_memory),
            trie_checkpoint: self.trie_checkpoint.or(file.trie_checkpoint),
            threads: self.threads.or(file.threads),
            distribution: self.distribution.or(file.distribution),
            root_sharing: self.root_sharing.or(file.root_sharing),
            recover_at: self.recover_at.or(file.recover_at),
            exit_with_parent: self.exit_with_parent || file.exit_with_parent,
            log_json: self.log_json.or(file.log_json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file() {
        let file: NodeArgs = toml::from_str(
            "node-id = 2\nraft-addr = \"127.0.0.1:1\"\nblock-time = 0.25\n\
             [[members]]\nid = 2\nraft-addr = \"a:1\"\nrpc-addr = \"a:2\"\n",
        )
        .unwrap();
        let flags = NodeArgs { node_id: Some(7), ..Default::default() };
        let merged = flags.over(file);
        assert_eq!(merged.node_id, Some(7));
        assert_eq!(merged.raft_addr, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(merged.block_time, Some(BlockTimeMs(250)));
        let member = MemberArg { id: 2, raft_addr: "a:1".into(), rpc_addr: "a:2".into() };
        assert_eq!(merged.members, Some(vec![member.clone()]));
        assert_eq!(parse_member("2=a:1/a:2"), Ok(member));
    }

    #[test]
    fn the_history_is_full_or_a_number_of_blocks() {
        for (text, history) in [("\"full\"", History::Full), ("128", History::Blocks(128))] {
            let file: NodeArgs = toml::from_str(&format!("history = {text}\n")).unwrap();
            assert_eq!(NodeArgs::default().over(file).history, Some(history));
            assert_eq!(parse_history(text.trim_matches('"')), Ok(history));
            let table = toml::Table::from_iter([(
                "history".to_owned(),
                toml::Value::try_from(history).unwrap(),
            )]);
            assert_eq!(toml::to_string(&table).unwrap(), format!("history = {text}\n"));
        }
        assert_eq!((History::Full.blocks(), History::Blocks(7).blocks()), (u64::MAX, 7));
        for text in ["history = \"all\"", "history = -1", "history = true"] {
            assert!(toml::from_str::<NodeArgs>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_engine_api_is_off_unless_it_is_asked_for() {
        let file: NodeArgs = toml::from_str("node-id = 2\n").unwrap();
        assert!(!NodeArgs::default().over(file).authrpc.is_on());
        let file: NodeArgs =
            toml::from_str("authrpc.port = 8552\nauthrpc.vhosts = [\"*\"]\n").unwrap();
        let merged = NodeArgs::default().over(file).authrpc;
        assert!(merged.is_on());
        assert_eq!((merged.port, merged.vhosts), (Some(8552), Some(vec!["*".to_owned()])));
        assert!(toml::from_str::<NodeArgs>("authrpc.prot = 1\n").is_err());
    }

    #[test]
    fn an_unknown_key_of_the_file_is_refused() {
        let error = toml::from_str::<NodeArgs>("node-idd = 2\n").unwrap_err().to_string();
        assert!(error.contains("node-idd"), "{error}");
    }
}
