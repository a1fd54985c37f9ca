//! `blockraft import`: a chain file into a data directory.

use crate::{
    cli::{DEFAULT_CLUSTER_NAME, History, ImportArgs},
    datadir, init,
    node::start_logging,
    output::{self, OutputFormat},
    progress::{self, Progress},
};
use anyhow::{Context, ensure};
use blockraft_node::import::{
    ChainSource, ImportProgress, Imported, Workers, count_blocks, import_chain,
};
use blockraft_storage::StoreOptions;
use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

/// The member that a directory made by an import is of.
const NODE_ID: u64 = 1;

pub(crate) fn run(args: ImportArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    start_logging(false);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = Workers { executors: args.executors, threads: args.threads.unwrap_or(cores) };
    rayon::ThreadPoolBuilder::new().num_threads(workers.threads).build_global()?;
    let genesis = init::read_genesis(&args.genesis)?;
    let (total, file) = open(&args.chain)?;
    match blockraft_storage::read_genesis(&args.datadir)? {
        None => init::prepare(&args.datadir, &genesis, NODE_ID, DEFAULT_CLUSTER_NAME)?,
        Some(there) => ensure!(
            there.hash() == genesis.hash(),
            "data directory {} belongs to the chain with genesis hash {}, not {}",
            args.datadir.display(),
            there.hash(),
            genesis.hash()
        ),
    }
    let mut options = StoreOptions::default();
    options.history_blocks = args.history.map_or(options.history_blocks, History::blocks);
    let store = datadir::open(&args.datadir, options)?;
    let mut progress = Progress::start("imported", total);
    let imported = import_chain(&store, &genesis, workers, ChainSource::new(file), &mut |so_far| {
        progress.show(so_far.blocks(), so_far.gas);
    })
    .with_context(|| format!("cannot import into {}", args.datadir.display()))?;
    let took = progress.finish();
    if imported.progress.imported > 0 {
        let ImportProgress { imported: blocks, gas, .. } = imported.progress;
        output::progress(&progress::speed("imported", blocks, gas, took));
    }
    print(&imported, took, format);
    match imported.failure {
        None => Ok(ExitCode::SUCCESS),
        Some(failure) => {
            Err(failure).context(format!("import of {} stopped", args.chain.display()))
        }
    }
}

/// The chain file, and how many blocks it holds, where that is quickly told.
fn open(path: &Path) -> anyhow::Result<(Option<u64>, Box<dyn Read + Send>)> {
    if path == Path::new("-") {
        return Ok((None, Box::new(io::stdin())));
    }
    let cannot = || format!("cannot read chain file {}", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    if !file.metadata().with_context(cannot)?.is_file() {
        return Ok((None, Box::new(file)));
    }
    let total = count_blocks(&file).with_context(cannot)?;
    file.rewind().with_context(cannot)?;
    Ok((total, Box::new(file)))
}

fn print(imported: &Imported, took: Duration, format: OutputFormat) {
    let Imported { progress, number, head, root, failure } = imported;
    match format {
        OutputFormat::Text => {
            output::print(&format!(
                "imported {} blocks head {head} root {root}",
                progress.imported
            ));
        }
        OutputFormat::Json => output::print_json(&serde_json::json!({
            "imported": progress.imported,
            "known": progress.known,
            "transactions": progress.transactions,
            "gas": progress.gas,
            "number": number,
            "head": head,
            "root": root,
            "seconds": took.as_secs_f64(),
            "mgasPerSecond": progress.gas as f64 / 1e6 / took.as_secs_f64(),
            "error": failure.as_ref().map(ToString::to_string),
        })),
    }
}
