//! `blockraft export`: a data directory's chain into a chain file.

use crate::{
    cli::ExportArgs,
    datadir,
    node::start_logging,
    output::{self, OutputFormat},
    progress::Progress,
};
use anyhow::Context;
use blockraft_node::import::{export_chain, export_range};
use blockraft_storage::StoreOptions;
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

/// What is gathered before it is written.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) fn run(args: ExportArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    start_logging(false);
    let store = datadir::open(&args.datadir, StoreOptions::default())?;
    let blocks = export_range(&store, args.from, args.to)?;
    let (from, to) = (*blocks.start(), *blocks.end());
    let count = to - from + 1;
    let to_stdout = args.out == Path::new("-");
    let cannot = || format!("cannot write {}", args.out.display());
    let file: Box<dyn Write> = match to_stdout {
        true => Box::new(io::stdout().lock()),
        false => Box::new(File::create(&args.out).with_context(cannot)?),
    };
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut progress = Progress::start("exported", Some(count));
    let mut done = 0;
    let bytes = export_chain(&store, blocks, &mut out, &mut || {
        done += 1;
        progress.show(done, 0);
    })
    .with_context(|| args.out.display().to_string())?;
    progress.finish();
    let text = format!("exported {count} blocks from {from} to {to} {bytes} bytes");
    match format {
        _ if to_stdout => output::progress(&text),
        OutputFormat::Text => output::print(&text),
        OutputFormat::Json => output::print_json(&serde_json::json!({
            "exported": count,
            "from": from,
            "to": to,
            "bytes": bytes,
            "file": args.out,
        })),
    }
    Ok(ExitCode::SUCCESS)
}
