//! What a newcomer sees: accounts, addresses, and a line that works when pasted.

use crate::accounts::{DEV_MNEMONIC, DevAccount};
use blockraft_primitives::NodeId;
use serde::Serialize;
use std::{fmt::Write as _, path::PathBuf};

/// A development chain that is up.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Banner {
    pub(crate) chain_id: u64,
    pub(crate) accounts: Vec<DevAccount>,
    pub(crate) mnemonic: String,
    pub(crate) block_time_ms: u64,
    pub(crate) nodes: Vec<RunningNode>,
    pub(crate) leader: Option<NodeId>,
    /// The chain was imported and is served for reading alone.
    pub(crate) read_only: bool,
}

/// A node of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunningNode {
    pub(crate) id: NodeId,
    pub(crate) rpc: String,
    pub(crate) raft: String,
    pub(crate) datadir: PathBuf,
    pub(crate) pid: u32,
}

/// The banner for people.
pub(crate) fn text(banner: &Banner) -> String {
    let mut out = String::new();
    write_banner(&mut out, banner).expect("writing to a string does not fail");
    out
}

fn write_banner(out: &mut String, banner: &Banner) -> std::fmt::Result {
    writeln!(
        out,
        "\nBlockRaFT {}: one chain, {} node(s)\n",
        env!("CARGO_PKG_VERSION"),
        banner.nodes.len()
    )?;
    if !banner.accounts.is_empty() {
        writeln!(out, "Accounts (10,000 ETH each; development keys, known to everybody)")?;
        for (index, account) in banner.accounts.iter().enumerate() {
            writeln!(out, "  ({index:>2}) {}  {}", account.address, account.private_key)?;
        }
        if banner.mnemonic == DEV_MNEMONIC {
            writeln!(out, "  mnemonic: {DEV_MNEMONIC}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "Chain id    {}", banner.chain_id)?;
    let block_time = match banner.block_time_ms {
        _ if banner.read_only => "none: an imported chain, served for reading alone".to_owned(),
        0 => "as soon as there is a transaction".to_owned(),
        millis => format!("every {millis} ms"),
    };
    writeln!(out, "Blocks      {block_time}\n")?;
    for node in &banner.nodes {
        let role = if banner.leader == Some(node.id) { "leader" } else { "follower" };
        writeln!(
            out,
            "Node {}  {}  {role:<8}  pid {}  {}",
            node.id,
            node.rpc,
            node.pid,
            node.datadir.display()
        )?;
    }
    let (Some(first), [from, to, ..]) = (banner.nodes.first(), banner.accounts.as_slice()) else {
        return Ok(());
    };
    writeln!(out, "\nTry it:")?;
    writeln!(
        out,
        "  cast send --rpc-url {} --private-key {} {} --value 1ether",
        first.rpc, from.private_key, to.address
    )?;
    writeln!(
        out,
        "  cast balance --rpc-url {} {} --ether",
        banner.nodes[banner.nodes.len() - 1].rpc,
        to.address
    )?;
    writeln!(out, "  blockraft status --rpc {}", first.rpc)?;
    write!(out, "\nCtrl-C stops {}.", if banner.nodes.len() == 1 { "it" } else { "all of them" })
}
