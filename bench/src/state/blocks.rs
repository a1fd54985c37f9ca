//! Blocks on disk: what one costs in the tables, against files that are only appended to.

use super::{
    FREE, Report,
    chain::{BenchChain, address},
    seconds, spread,
};
use alloy_consensus::{Eip658Value, Signed, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_primitives::{B256, Signature, TxKind, U256};
use blockraft_primitives::{
    Receipt, StateDiff, Transaction, encode_receipts, encode_transactions,
    limits::MDBX_MAP_BYTES_MAX,
};
use blockraft_storage::PlainTables;
use nix::time::ClockId;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    fs::File,
    hint::black_box,
    io::{BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

const TRANSACTIONS_A_BLOCK: usize = 100;
const BLOCKS_A_BATCH: usize = 100;
const BATCHES: usize = 30;
/// Batches before the clock counts: files and memory are made by then.
const WARMING: usize = 3;
const READS: usize = 20_000;

/// A value under the number of its block.
type Records = Vec<([u8; 8], Vec<u8>)>;

/// Adds the rows of blocks: the whole of persisting them, and bodies and receipts alone in MDBX tables and in files.
pub(super) fn measure(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(dir)?;
    let mut chain = BenchChain::new(&dir.path().join("store"))?;
    let tables = PlainTables::open(&dir.path().join("tables"), MDBX_MAP_BYTES_MAX)?;
    let mut files =
        [Segment::new(&dir.path().join("bodies"))?, Segment::new(&dir.path().join("receipts"))?];
    let mut rng = SmallRng::seed_from_u64(9);
    let (mut whole, mut ratios, mut least) = (Vec::new(), Vec::new(), (f64::MAX, f64::MAX));
    for batch in 0..BATCHES {
        let (mut bodies, mut receipts) = (Records::new(), Records::new());
        for number in batch * BLOCKS_A_BATCH..(batch + 1) * BLOCKS_A_BATCH {
            let (transactions, results) = block(&mut rng);
            let key = (number as u64).to_be_bytes();
            bodies.push((key, encode_transactions(&transactions)));
            receipts.push((key, encode_receipts(&results)));
            chain.apply_block(StateDiff::default(), transactions, results);
        }
        let store = cpu(|| chain.store.persist().map(drop))?;
        let in_tables = cpu(|| tables.upsert(&bodies, &receipts))?;
        let in_files = cpu(|| {
            files[0].append(&bodies)?;
            files[1].append(&receipts)
        })?;
        if batch >= WARMING {
            whole.push(store * 1e6 / (BLOCKS_A_BATCH * TRANSACTIONS_A_BLOCK) as f64);
            ratios.push(in_tables / in_files);
            least = (least.0.min(in_tables), least.1.min(in_files));
        }
    }
    let (median, low, high) = spread(whole);
    report.add(
        format!(
            "persistence CPU of a transaction with its receipt, blocks of {TRANSACTIONS_A_BLOCK}"
        ),
        (median, "us"),
        format!(
            "{low:.2} to {high:.2} in {} batches of {BLOCKS_A_BATCH} blocks",
            BATCHES - WARMING
        ),
        FREE,
    );
    let (median, low, high) = spread(ratios);
    let a_transaction = 1e6 / (BLOCKS_A_BATCH * TRANSACTIONS_A_BLOCK) as f64;
    report.add(
        "writing bodies and receipts to MDBX tables against files that are appended to, synced",
        (median, "x"),
        format!(
            "{low:.2} to {high:.2}; {:.2} us against {:.2} us a transaction",
            least.0 * a_transaction,
            least.1 * a_transaction
        ),
        FREE,
    );
    reads(&tables, &files[0], report)
}

/// Bodies of random blocks, from memory that the kernel keeps of either.
fn reads(tables: &PlainTables, file: &Segment, report: &mut Report) -> anyhow::Result<()> {
    let mut rng = SmallRng::seed_from_u64(10);
    let picks: Vec<u64> =
        (0..READS).map(|_| rng.random_range(0..(BATCHES * BLOCKS_A_BATCH) as u64)).collect();
    let from_tables = cpu(|| {
        picks
            .iter()
            .try_for_each(|n| tables.read(&n.to_be_bytes()).map(|body| drop(black_box(body))))
    })?;
    let from_file =
        cpu(|| picks.iter().try_for_each(|n| file.read(*n).map(|body| drop(black_box(body)))))?;
    report.add(
        "reading the body of a random block from an MDBX table against a file",
        (from_tables / from_file, "x"),
        format!(
            "{:.2} us against {:.2} us",
            from_tables * 1e6 / READS as f64,
            from_file * 1e6 / READS as f64
        ),
        FREE,
    );
    Ok(())
}

/// Transfers whose signatures nobody checks, with their receipts.
fn block(rng: &mut SmallRng) -> (Vec<Transaction>, Vec<Receipt>) {
    (0..TRANSACTIONS_A_BLOCK)
        .map(|index| {
            let tx = TxEip1559 {
                chain_id: 1337,
                nonce: rng.random_range(0..1 << 20),
                gas_limit: 21_000,
                max_fee_per_gas: rng.random_range(0..1 << 40),
                max_priority_fee_per_gas: rng.random_range(0..1 << 30),
                to: TxKind::Call(address(rng.random_range(0..1 << 40))),
                value: U256::from(rng.random::<u64>()),
                ..TxEip1559::default()
            };
            let signature = Signature::new(rng.random(), rng.random(), rng.random());
            let hash = B256::from(rng.random::<[u8; 32]>());
            let signed = TxEnvelope::Eip1559(Signed::new_unchecked(tx, signature, hash));
            let sender = address(rng.random_range(0..1 << 40));
            let receipt = Receipt {
                status: Eip658Value::success(),
                cumulative_gas_used: 21_000 * (index as u64 + 1),
                logs: Vec::new(),
            };
            (Arc::new(Recovered::new_unchecked(signed, sender)), receipt)
        })
        .unzip()
}

/// Seconds of CPU of the whole process.
fn cpu<E>(run: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let start = seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    run()?;
    Ok(seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID) - start)
}

/// Values one after the other, and a file of where each of them ends: the least that a layout of its own would do.
struct Segment {
    values: File,
    ends: File,
    end: u64,
}

impl Segment {
    fn new(path: &Path) -> std::io::Result<Self> {
        let create =
            |path: &Path| File::options().read(true).append(true).create_new(true).open(path);
        Ok(Self { values: create(path)?, ends: create(&path.with_extension("ends"))?, end: 0 })
    }

    fn append(&mut self, records: &Records) -> std::io::Result<()> {
        let (mut values, mut ends) = (BufWriter::new(&self.values), BufWriter::new(&self.ends));
        for (_, value) in records {
            values.write_all(value)?;
            self.end += value.len() as u64;
            ends.write_all(&self.end.to_be_bytes())?;
        }
        values.flush()?;
        ends.flush()?;
        self.values.sync_data()?;
        self.ends.sync_data()
    }

    fn read(&self, number: u64) -> std::io::Result<Vec<u8>> {
        let mut at = [0; 16];
        let (start, end) = match number.checked_sub(1) {
            None => {
                self.ends.read_exact_at(&mut at[..8], 0)?;
                (0, number_at(&at, 0))
            }
            Some(before) => {
                self.ends.read_exact_at(&mut at, before * 8)?;
                (number_at(&at, 0), number_at(&at, 8))
            }
        };
        let mut value = vec![0; (end - start) as usize];
        self.values.read_exact_at(&mut value, start)?;
        Ok(value)
    }
}

fn number_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
