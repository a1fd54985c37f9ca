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
mod workload;

use clap::{Parser, Subcommand};
use output::Format;

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
    Gen(generate::GenArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.command {
        Command::Genesis(args) => genesis::run(args, cli.output),
        Command::Gen(args) => generate::run(args, cli.output),
    }
}
