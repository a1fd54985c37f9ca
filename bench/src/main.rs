//! `blockraft-bench`: makes workloads, sends them, and measures what comes back.

#![expect(
    clippy::disallowed_methods,
    reason = "a load generator reads clocks and starts processes"
)]

mod accounts;
mod cpu;
mod generate;
mod genesis;
mod http;
mod output;
mod predeploys;
mod rpc;
mod send;
mod workload;

use clap::{Parser, Subcommand};
use output::Format;
use std::process::ExitCode;

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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Genesis(args) => genesis::run(args, cli.output).map(|()| true),
        Command::Gen(args) => generate::run(args, cli.output).map(|()| true),
        Command::Send(args) => block_on(send::run(args, cli.output)),
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
