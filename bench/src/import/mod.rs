//! `blockraft-bench import`: chain files into data directories, beside a plain serial loop over the same blocks.
//!
//! The loop runs the blocks one after the other on a state in memory, with senders known: no decoding, no
//! recovery, no trie, no disk. An import does all of that. Both take turns; figures are medians, in wall time.

mod chain;

use crate::{output::Format, process::blockraft_binary};
use anyhow::{Context, ensure};
use blockraft_execution::execute_block;
use blockraft_primitives::MemoryState;
use chain::ChainFile;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// `blockraft-bench import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Genesis file of a chain to measure beside the generated ones.
    #[arg(long, requires = "chain")]
    genesis: Option<PathBuf>,
    /// Its blocks, concatenated RLP.
    #[arg(long, requires = "genesis")]
    chain: Option<PathBuf>,
    /// Full blocks of the generated chains.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=32))]
    blocks: u64,
    /// Gas limit of those blocks, millions.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1000))]
    mgas: u64,
    /// Turns of each side.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Executors that share a block.
    #[arg(long, default_value_t = 1)]
    executors: u32,
    /// Threads of the import; one for each core when absent.
    #[arg(long)]
    threads: Option<u32>,
    /// The `blockraft` program; the one beside this program when absent.
    #[arg(long)]
    bin: Option<PathBuf>,
}

/// One chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    chain: String,
    blocks: usize,
    transactions: usize,
    mgas: f64,
    serial_mgas_per_second: f64,
    import_mgas_per_second: f64,
    import_transactions_per_second: f64,
    /// The import's rate over the loop's.
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: Vec<Row>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| chain | blocks | transactions | Mgas | serial loop Mgas/s | import Mgas/s | import tx/s | ratio |\n\
             |---|---|---|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
                row.chain,
                row.blocks,
                row.transactions,
                row.mgas,
                row.serial_mgas_per_second,
                row.import_mgas_per_second,
                row.import_transactions_per_second,
                row.ratio
            )?;
        }
        Ok(())
    }
}

/// What `blockraft import -o json` says.
#[derive(Debug, Deserialize)]
struct Imported {
    imported: usize,
    seconds: f64,
}

/// Measures and prints.
pub(crate) fn run(args: &ImportArgs, format: Format) -> anyhow::Result<bool> {
    let binary = blockraft_binary(args.bin.as_deref())?;
    let dir = tempfile::tempdir()?;
    let mut rows = Vec::new();
    if let (Some(genesis), Some(blocks)) = (&args.genesis, &args.chain) {
        let chain = ChainFile::read(genesis, blocks)?;
        rows.push(measure(args, &binary, dir.path(), &chain, format)?);
    }
    for kind in chain::KINDS {
        format.note(format_args!("signing and building: {kind:?}"));
        let chain = ChainFile::generate(kind, args.blocks, args.mgas * 1_000_000, dir.path())?;
        rows.push(measure(args, &binary, dir.path(), &chain, format)?);
    }
    format.result(&Report { rows });
    Ok(true)
}

fn measure(
    args: &ImportArgs,
    binary: &Path,
    dir: &Path,
    chain: &ChainFile,
    format: Format,
) -> anyhow::Result<Row> {
    let gas = chain.gas() as f64;
    let (mut serial, mut import) = (Vec::new(), Vec::new());
    for turn in 0..args.repeats {
        format.note(format_args!("measuring: {}, turn {}", chain.name, turn + 1));
        serial.push(serial_loop(chain)?);
        import.push(import_once(args, binary, dir, chain)?);
    }
    let (serial, import) = (median(serial), median(import));
    Ok(Row {
        chain: chain.name.clone(),
        blocks: chain.blocks.len(),
        transactions: chain.transaction_count(),
        mgas: gas / 1e6,
        serial_mgas_per_second: gas / 1e6 / serial,
        import_mgas_per_second: gas / 1e6 / import,
        import_transactions_per_second: chain.transaction_count() as f64 / import,
        ratio: serial / import,
    })
}

/// Seconds that the blocks take one after the other.
fn serial_loop(chain: &ChainFile) -> anyhow::Result<f64> {
    let mut state = MemoryState::default();
    state.apply(&chain.genesis.state());
    state.block_hashes.insert(0, chain.genesis.hash());
    let spec = &chain.genesis.spec;
    let started = Instant::now();
    for block in &chain.blocks {
        let withdrawals = block.withdrawals.as_deref().map_or(&[][..], |list| list);
        let executed = execute_block(
            spec,
            &state,
            &block.header,
            &block.transactions,
            &block.ommers,
            withdrawals,
        )?;
        state.apply(&executed.diff);
        state.block_hashes.insert(block.header.number, block.header.hash());
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds that one import of the whole file into a new directory takes, the disk included.
fn import_once(
    args: &ImportArgs,
    binary: &Path,
    dir: &Path,
    chain: &ChainFile,
) -> anyhow::Result<f64> {
    let datadir = tempfile::tempdir_in(dir)?;
    let mut command = Command::new(binary);
    command.args(["import", "-o", "json", "--executors", &args.executors.to_string()]);
    command.arg("--genesis").arg(&chain.genesis_file).arg("--chain").arg(&chain.file);
    command.arg("--datadir").arg(datadir.path());
    if let Some(threads) = args.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the import of {} failed", chain.name);
    let imported: Imported = serde_json::from_slice(&output.stdout).context("its answer")?;
    let expected = chain.blocks.len();
    ensure!(imported.imported == expected, "{} of {expected} blocks", imported.imported);
    Ok(imported.seconds)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
