//! BlockRaFT: one logical Ethereum node made of several machines.
//!
//! The one binary. Each command is a file; what they share is in `cli.rs` (flags), `accounts.rs` (dev
//! keys), `banner.rs` (what a newcomer sees) and `output.rs` (the only place that prints).

mod accounts;
mod banner;
mod blocktest;
mod cli;
mod datadir;
mod db;
mod dev;
mod devnet;
mod engine_api;
mod export;
mod fixtures;
mod import;
mod init;
mod memory;
mod node;
mod output;
mod ports;
mod progress;
mod replay;
mod signals;
mod statetest;
mod status;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Dev(args) => dev::run(args, cli.output),
        Command::Devnet(args) => devnet::run(args, cli.output),
        Command::Node(args) => node::run(*args),
        Command::Init(args) => init::run(args, cli.output),
        Command::Import(args) => import::run(args, cli.output),
        Command::Export(args) => export::run(args, cli.output),
        Command::Blocktest(args) => blocktest::run(args),
        Command::Statetest(args) => statetest::run(args),
        Command::Replay(args) => replay::run(&args, cli.output),
        Command::Db(command) => return db::run(command, cli.output),
        Command::Status(args) => status::run(args, cli.output),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error, cli.output);
            ExitCode::FAILURE
        }
    }
}
