//! `blockraft status`: members, leader, term, heights and lag, as one node sees them.

use crate::{
    cli::StatusArgs,
    node::runtime,
    output::{self, OutputFormat},
};
use anyhow::Context;
use blockraft_rpc::NodeStatus;
use jsonrpsee::{core::client::ClientT, http_client::HttpClientBuilder, rpc_params};
use std::{fmt::Write as _, process::ExitCode, time::Duration};

/// What etcdctl exits with when an endpoint cannot be reached.
const EXIT_UNREACHABLE: u8 = 2;
/// What etcdctl exits with when the cluster is unhealthy.
const EXIT_UNHEALTHY: u8 = 5;

pub(crate) fn run(args: StatusArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    let status = match runtime()?.block_on(fetch(&args.rpc)) {
        Ok(status) => status,
        Err(error) => {
            output::error(&error.context(format!("no answer from {}", args.rpc)), format);
            return Ok(ExitCode::from(EXIT_UNREACHABLE));
        }
    };
    match format {
        OutputFormat::Json => output::print_json(&status),
        OutputFormat::Text => output::print(&table(&status)),
    }
    let healthy = if args.ready {
        status.cluster.unready_reasons().is_empty()
    } else {
        status.cluster.leader.is_some()
    };
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNHEALTHY) })
}

/// Asks one node.
pub(crate) async fn fetch(url: &str) -> anyhow::Result<NodeStatus> {
    let client = HttpClientBuilder::default()
        .request_timeout(Duration::from_secs(5))
        .build(url)
        .with_context(|| format!("{url} is not an HTTP address"))?;
    Ok(client.request("blockraft_status", rpc_params![]).await?)
}

fn table(status: &NodeStatus) -> String {
    let mut out = String::new();
    write_table(&mut out, status).expect("writing to a string does not fail");
    out
}

fn write_table(out: &mut String, status: &NodeStatus) -> std::fmt::Result {
    let cluster = &status.cluster;
    let leader = cluster.leader.map_or_else(|| "none".to_owned(), |id| format!("node {id}"));
    writeln!(out, "Node {} ({}), {}", cluster.node_id, cluster.role, status.client_version)?;
    writeln!(out, "Leader     {leader}, term {}", cluster.term)?;
    writeln!(out, "Block      {}  {}", status.block_number, status.block_hash)?;
    writeln!(
        out,
        "Log        applied {}, committed {}, last {}",
        cluster.applied_index, cluster.committed_index, cluster.last_log_index
    )?;
    writeln!(out, "Pool       {} pending, {} queued\n", status.pool_pending, status.pool_queued)?;
    writeln!(out, "{:>4}  {:<8}  {:<21}  {:<21}  lag", "id", "role", "raft", "rpc")?;
    for member in &cluster.members {
        let role = match (cluster.leader == Some(member.id), member.voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "learner",
        };
        // Only the leader knows how far the others are.
        let lag = member.matched.map_or_else(
            || "-".to_owned(),
            |matched| cluster.last_log_index.saturating_sub(matched).to_string(),
        );
        writeln!(
            out,
            "{:>4}  {role:<8}  {:<21}  {:<21}  {lag}",
            member.id, member.raft_addr, member.rpc_addr
        )?;
    }
    if cluster.role != blockraft_rpc::Role::Leader
        && let Some(leader) = cluster.members.iter().find(|m| Some(m.id) == cluster.leader)
    {
        write!(
            out,
            "\nThe leader knows every member's lag: blockraft status --rpc http://{}",
            leader.rpc_addr
        )?;
    }
    Ok(())
}
