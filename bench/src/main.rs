//! `blockraft-bench`: makes workloads, sends them, and measures what comes back.

mod accounts;
mod genesis;
mod output;
mod predeploys;

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
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match &cli.command {
        Command::Genesis(args) => genesis::run(args, cli.output),
    }
}
