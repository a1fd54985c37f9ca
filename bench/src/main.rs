//! `blockraft-bench`: makes workloads, sends them, and measures what comes back.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads clocks and starts processes"
)]

mod accounts;
mod agreement;
mod cluster;
mod compare;
mod cpu;
mod engine;
mod failover;
mod floors;
mod generate;
mod genesis;
mod http;
mod import;
mod output;
mod predeploys;
mod process;
mod rpc;
mod scale;
mod send;
mod state;
mod straggler;
mod workload;

use clap::{Parser, Subcommand};
use output::Format;
use std::process::ExitCode;

/// What the node runs with: a comparison of the two says nothing under another allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes workloads for Ethereum nodes, sends them, and measures what comes back.
#[derive(Debug, Parser)]
#[command(name = "blockraft-bench", version)]
struct Cli {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the genesis files of this repository.
    Genesis(genesis::GenesisArgs),
    /// Sign a workload and write it to a file.
    Gen(generate::GenArgs),
    /// Send a workload, wait for every receipt, and print what it took.
    Send(send::SendArgs),
    /// Kill the leader of a cluster under load, round after round, and check everything.
    Failover(failover::FailoverArgs),
    /// Measure the least that each stage of a transaction's way costs.
    Floors(floors::FloorsArgs),
    /// Measure clusters of several sizes, each node with the same small share of a core.
    Scale(scale::ScaleArgs),
    /// Measure how long blocks take while one member is slow, and while it is stopped.
    Straggler(straggler::StragglerArgs),
    /// Measure what keeping the state costs: the trie, as ratios taken in one run.
    State(state::StateArgs),
    /// Measure the block engine against a plain loop over revm, as ratios taken in one run.
    Engine(engine::EngineArgs),
    /// Measure imports of chain files beside a plain serial loop over the same blocks.
    Import(import::ImportArgs),
    /// Send one file to `blockraft dev` and to anvil, turn by turn, and print the ratios.
    CompareAnvil(compare::CompareArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Genesis(args) => genesis::run(args, cli.output).map(|()| true),
        Command::Gen(args) => generate::run(args, cli.output).map(|()| true),
        Command::Send(args) => block_on(send::run(args, cli.output)),
        Command::Failover(args) => block_on(failover::run(args, cli.output)),
        Command::Floors(args) => floors::run(args, cli.output).map(|()| true),
        Command::Scale(args) => block_on(scale::run(args, cli.output)),
        Command::Straggler(args) => block_on(straggler::run(args, cli.output)),
        Command::State(args) => state::run(args, cli.output),
        Command::Engine(args) => engine::run(args, cli.output),
        Command::Import(args) => import::run(args, cli.output),
        Command::CompareAnvil(args) => block_on(compare::run(args, cli.output)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            cli.output.note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One thread: a loader must leave the cores to what it measures.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
