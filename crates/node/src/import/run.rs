//! A whole import: reading ahead, executing, and writing behind, each on threads of its own.

use super::{
    ChainSource, FailedBlock, ImportError, ImportFailure, RawBlock, SourceError, Workers,
    durable::{Fate, StoredChain},
    prepare::{Prepared, number_of_broken},
    write_behind::WriteBehind,
};
use alloy_primitives::B256;
use blockraft_primitives::{
    ChainSpec, ClusterGenesis,
    limits::{IMPORT_BATCH_BLOCK_COUNT_MAX, IMPORT_BATCH_BYTES, IMPORT_BATCH_QUEUE_LEN_MAX},
};
use blockraft_storage::Store;
use rayon::prelude::*;
use std::{
    io::Read,
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// Blocks of the file that this import found valid, on the best branch or beside it.
    pub imported: u64,
    /// Blocks of the file that were there already.
    pub known: u64,
    /// Gas of the imported ones.
    pub gas: u64,
    /// Transactions of the imported ones.
    pub transactions: u64,
}

impl ImportProgress {
    /// Blocks of the file that are done with.
    pub fn blocks(&self) -> u64 {
        self.imported + self.known
    }
}

/// What an import came to.
#[derive(Debug)]
pub struct Imported {
    /// What was done.
    pub progress: ImportProgress,
    /// Number of the best branch's last block.
    pub number: u64,
    /// Its hash.
    pub head: B256,
    /// Its state root.
    pub root: B256,
    /// Why it ended before the end of the file, if it did. What was valid is kept.
    pub failure: Option<ImportFailure>,
}

/// Blocks in the order of the file, up to the first that does not decode.
struct Batch {
    blocks: Vec<Prepared>,
    failure: Option<ImportFailure>,
}

/// Imports the blocks of a chain file into an open data directory, and writes them to disk. `genesis` is the
/// file that the caller names; `report` is told after every block. Runs on the current rayon pool.
///
/// # Errors
/// The directory cannot take blocks; nothing was imported then.
pub fn import_chain<R: Read + Send>(
    store: &Store,
    genesis: &ClusterGenesis,
    workers: Workers,
    source: ChainSource<R>,
    report: &mut dyn FnMut(&ImportProgress),
) -> Result<Imported, ImportError> {
    let mut chain = StoredChain::open(store.clone(), genesis, workers)?;
    let spec = chain.rules().spec().clone();
    let writes = WriteBehind::default();
    let mut progress = ImportProgress::default();
    let failure = thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(IMPORT_BATCH_QUEUE_LEN_MAX);
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("import-reader")
            .spawn_scoped(scope, move || read_ahead(source, &spec, &sender))
            .map_err(ImportError::Thread)?;
        named("import-writer")
            .spawn_scoped(scope, || writes.run(store))
            .map_err(ImportError::Thread)?;
        let failure = take(&mut chain, &batches, &writes, &mut progress, report);
        // The reader ends when nobody takes its batches any more.
        drop(batches);
        writes.stop();
        Ok::<_, ImportError>(failure)
    })?;
    let failure = match writes.result() {
        Ok(()) => failure,
        Err(error) => Some(ImportFailure { block: FailedBlock::None, error: error.into() }),
    };
    let head = chain.head();
    Ok(Imported {
        progress,
        number: head.number,
        head: head.hash(),
        root: head.state_root,
        failure,
    })
}

/// Takes blocks until there are no more or one is refused.
fn take(
    chain: &mut StoredChain,
    batches: &Receiver<Batch>,
    writes: &WriteBehind,
    progress: &mut ImportProgress,
    report: &mut dyn FnMut(&ImportProgress),
) -> Option<ImportFailure> {
    for batch in batches {
        for block in batch.blocks {
            let (number, hash) = (block.header.number, Some(block.header.hash()));
            let known = FailedBlock::Known { number, hash };
            let failed = |error| Some(ImportFailure { block: known, error });
            match chain.import_prepared(block) {
                Ok(Fate::Known) => progress.known += 1,
                Ok(Fate::Imported { gas_used, transactions }) => {
                    progress.imported += 1;
                    progress.gas += gas_used;
                    progress.transactions += transactions as u64;
                    if let Err(error) = writes.applied(chain.store()) {
                        return failed(error.into());
                    }
                }
                Err(error) => return failed(error),
            }
            report(progress);
        }
        if batch.failure.is_some() {
            return batch.failure;
        }
    }
    None
}

/// Reads the file and prepares its blocks, batch by batch.
fn read_ahead<R: Read>(mut source: ChainSource<R>, spec: &ChainSpec, batches: &SyncSender<Batch>) {
    let mut last = None;
    loop {
        let (raw, broken) = read_batch(&mut source);
        let at_end = raw.is_empty() || broken.is_some();
        let batch = prepare(spec, &raw, broken, &mut last);
        let ends = at_end || batch.failure.is_some();
        // The import may have ended at a block that it refused.
        if batches.send(batch).is_err() || ends {
            return;
        }
    }
}

fn read_batch<R: Read>(source: &mut ChainSource<R>) -> (Vec<RawBlock>, Option<SourceError>) {
    let mut raw = Vec::new();
    let mut bytes = 0;
    while raw.len() < IMPORT_BATCH_BLOCK_COUNT_MAX && bytes < IMPORT_BATCH_BYTES {
        match source.next_block() {
            Some(Ok(block)) => {
                bytes += block.bytes.len();
                raw.push(block);
            }
            Some(Err(error)) => return (raw, Some(error)),
            None => break,
        }
    }
    (raw, None)
}

/// Prepares blocks on all cores. `last` is the number of the last block that was read.
fn prepare(
    spec: &ChainSpec,
    raw: &[RawBlock],
    broken: Option<SourceError>,
    last: &mut Option<u64>,
) -> Batch {
    let prepared: Vec<_> = raw.par_iter().map(|raw| Prepared::read(spec, raw)).collect();
    let mut blocks = Vec::with_capacity(prepared.len());
    for (raw, prepared) in raw.iter().zip(prepared) {
        match prepared {
            Ok(block) => {
                *last = Some(block.header.number);
                blocks.push(block);
            }
            Err(error) => {
                let block = match number_of_broken(&raw.bytes) {
                    Some(number) => FailedBlock::Known { number, hash: None },
                    None => FailedBlock::After { number: *last },
                };
                return Batch { blocks, failure: Some(ImportFailure { block, error }) };
            }
        }
    }
    let failure = broken.map(|error| ImportFailure {
        block: FailedBlock::After { number: *last },
        error: error.into(),
    });
    Batch { blocks, failure }
}
