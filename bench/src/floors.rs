//! What each stage of a transaction's way costs by itself, one after the other on one core: the least that a
//! node could use.

use crate::{
    output::Format,
    state::seconds,
    workload::{SignedTx, Workload},
};
use alloy_consensus::{
    Header, Sealed, TxEnvelope,
    transaction::{Recovered, SignerRecoverable},
};
use alloy_eips::Decodable2718;
use alloy_primitives::{B256, Bytes, U256, hex, keccak256};
use anyhow::{Context, ensure};
use blockraft_execution::{BlockAttributes, PlainState, build_block, evm_env};
use blockraft_primitives::{
    AccountChange, AdmissionId, AdmitBatch, BlockEntry, ClusterGenesis, MemoryState, StateDiff,
    Transaction, limits::ADMIT_TX_COUNT_MAX,
};
use blockraft_storage::PlainTables;
use blockraft_trie::StateTrie;
use clap::Args;
use nix::time::ClockId;
use rayon::ThreadPoolBuilder;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, fs::File, io::Write, path::PathBuf, sync::Arc};

/// Gas of a block: no limit here.
const GAS_LIMIT: u64 = 1_000_000_000;
/// Room for the bare tables.
const TABLES_BYTES_MAX: usize = 16 << 30;

/// Measures the least that each stage of a transaction's way costs.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorsArgs {
    /// The workload, from `gen`, signed from nonce 0.
    #[arg(long)]
    file: PathBuf,
    /// Transactions in a block.
    #[arg(long, default_value_t = 10_000)]
    block: usize,
}

/// CPU microseconds for each transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Floors {
    /// From hex to a decoded transaction and its hash.
    decode: f64,
    /// libsecp256k1.
    recover: f64,
    /// revm over its own database in memory.
    execute: f64,
    /// New keys into the trie, and one root a block.
    trie: f64,
    /// Sorted upserts of the changed keys into bare tables, one MDBX transaction and sync a block.
    tables: f64,
    /// The entries appended to a file, synced one by one.
    log: f64,
}

impl Floors {
    /// All of them.
    pub(crate) fn sum(&self) -> f64 {
        let Self { decode, recover, execute, trie, tables, log } = self;
        decode + recover + execute + trie + tables + log
    }
}

impl fmt::Display for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decode, recover, execute, trie, tables, log } = self;
        write!(
            f,
            "floors, CPU us/tx: decode {decode:.1}, recover {recover:.1}, execute {execute:.1}, trie {trie:.1}, \
             tables {tables:.1}, log {log:.1}, together {:.1}",
            self.sum()
        )
    }
}

/// Runs the command.
pub(crate) fn run(args: &FloorsArgs, format: Format) -> anyhow::Result<()> {
    let workload = Workload::read(&args.file)?;
    format.result(&measure(&workload, args.block)?);
    Ok(())
}

/// Measures every stage with blocks of `block` transactions.
pub(crate) fn measure(workload: &Workload, block: usize) -> anyhow::Result<Floors> {
    ensure!(block > 0 && !workload.measured.is_empty(), "nothing to measure");
    // The trie hashes on all threads it is given: here one.
    let one = ThreadPoolBuilder::new().num_threads(1).build()?;
    one.install(|| Chain::new()?.run(workload, block))
}

/// The chain that the stages make together.
struct Chain {
    genesis: ClusterGenesis,
    state: MemoryState,
    trie: StateTrie,
    parent: Sealed<Header>,
    dir: tempfile::TempDir,
    floors: Floors,
}

fn cpu<T>(total: &mut f64, run: impl FnOnce() -> T) -> T {
    let start = seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let result = run();
    *total += seconds(ClockId::CLOCK_PROCESS_CPUTIME_ID) - start;
    result
}

impl Chain {
    fn new() -> anyhow::Result<Self> {
        let genesis = ClusterGenesis::from_json(include_str!("../../genesis/stress-10k.json"))?;
        let allocation = genesis.state();
        let mut state = MemoryState::default();
        state.apply(&allocation);
        let mut trie = StateTrie::new();
        trie.push(&allocation)?;
        trie.root();
        let (parent, dir) = (genesis.header.clone(), tempfile::tempdir()?);
        Ok(Self { genesis, state, trie, parent, dir, floors: Floors::default() })
    }

    fn run(mut self, workload: &Workload, block: usize) -> anyhow::Result<Floors> {
        let setup = raw(&workload.setup)?;
        let measured = raw(&workload.measured)?;
        for batch in setup.chunks(block) {
            self.block(batch, None)?;
        }
        self.floors = Floors::default();
        let tables = PlainTables::open(&self.dir.path().join("tables"), TABLES_BYTES_MAX)?;
        let log = File::create(self.dir.path().join("log"))?;
        for batch in measured.chunks(block) {
            self.block(batch, Some((&tables, &log)))?;
        }
        let each = 1e6 / measured.len() as f64;
        let Floors { decode, recover, execute, trie, tables, log } = self.floors;
        Ok(Floors {
            decode: decode * each,
            recover: recover * each,
            execute: execute * each,
            trie: trie * each,
            tables: tables * each,
            log: log * each,
        })
    }

    fn block(&mut self, raw: &[Bytes], disk: Option<(&PlainTables, &File)>) -> anyhow::Result<()> {
        let floors = &mut self.floors;
        let decoded =
            cpu(&mut floors.decode, || raw.iter().map(decode).collect::<Result<Vec<_>, _>>())?;
        let transactions = cpu(&mut floors.recover, || {
            decoded.into_iter().map(recover).collect::<Result<Vec<_>, _>>()
        })?;
        let attributes = attributes(self.parent.timestamp + 1);
        let built =
            build_block(&self.genesis.spec, &self.state, &self.parent, &attributes, &transactions)?;
        ensure!(built.included.len() == transactions.len(), "a transaction does not run");
        let env = evm_env(&self.genesis.spec, &built.header);
        let mut database = PlainState::new(&self.state);
        cpu(&mut floors.execute, || database.run(&env, &transactions))?;
        let root = cpu(&mut floors.trie, || {
            self.trie.push(&built.diff)?;
            anyhow::Ok(self.trie.root())
        })?;
        let mut header = built.header;
        header.state_root = root;
        if let Some((tables, log)) = disk {
            let (accounts, slots) = records(&built.diff);
            cpu(&mut floors.tables, || tables.upsert(&accounts, &slots))?;
            let entry = BlockEntry {
                header: header.clone(),
                transactions: (0..transactions.len() as u64).map(AdmissionId).collect(),
                dropped: Vec::new(),
                receipts: built.receipts,
                diff: Arc::new(built.diff.clone()),
                pool_index: 1,
                subtrie_roots: Bytes::new(),
            };
            let batches = transactions.chunks(ADMIT_TX_COUNT_MAX);
            let batches =
                batches.map(|txs| AdmitBatch { transactions: txs.to_vec() }.encode_entry());
            let entries: Vec<Bytes> = batches.chain([entry.encode_entry()]).collect();
            cpu(&mut floors.log, || append(log, &entries))?;
        }
        self.state.apply(&built.diff);
        self.parent = Sealed::new(header);
        self.state.block_hashes.insert(self.parent.number, self.parent.hash());
        Ok(())
    }
}

fn raw(txs: &[SignedTx]) -> anyhow::Result<Vec<Bytes>> {
    txs.iter().map(|tx| Ok(hex::decode(&tx.raw)?.into())).collect()
}

fn decode(raw: &Bytes) -> anyhow::Result<TxEnvelope> {
    let tx = TxEnvelope::decode_2718(&mut raw.as_ref()).context("a transaction of the file")?;
    tx.tx_hash();
    Ok(tx)
}

fn recover(tx: TxEnvelope) -> anyhow::Result<Transaction> {
    let sender = tx.recover_signer()?;
    Ok(Arc::new(Recovered::new_unchecked(tx, sender)))
}

fn attributes(timestamp: u64) -> BlockAttributes {
    BlockAttributes {
        timestamp,
        fee_recipient: alloy_primitives::Address::ZERO,
        gas_limit: GAS_LIMIT,
        prev_randao: B256::ZERO,
        extra_data: Bytes::new(),
        parent_beacon_block_root: Some(B256::ZERO),
        withdrawals: Vec::new(),
        gasless: false,
    }
}

type Records<K> = Vec<(K, Vec<u8>)>;

/// What flat state holds of a diff, by hashed keys, in their order.
fn records(diff: &StateDiff) -> (Records<[u8; 32]>, Records<[u8; 64]>) {
    let (mut accounts, mut slots) = (BTreeMap::new(), BTreeMap::new());
    for account in &diff.accounts {
        let key = keccak256(account.address);
        if let AccountChange::Set(value) = account.change {
            let balance = value.balance.to_be_bytes_trimmed_vec();
            let code = if value.has_code() { &value.code_hash[..] } else { &[] };
            let record = [&value.nonce.to_be_bytes()[..], &balance, code].concat();
            accounts.insert(key.0, record);
        }
        for change in &account.storage {
            let slot = keccak256(change.slot.to_be_bytes::<32>());
            let mut place = [0; 64];
            place[..32].copy_from_slice(&key[..]);
            place[32..].copy_from_slice(&slot[..]);
            slots.insert(place, U256::to_be_bytes_trimmed_vec(&change.value));
        }
    }
    (accounts.into_iter().collect(), slots.into_iter().collect())
}

fn append(mut log: &File, entries: &[Bytes]) -> std::io::Result<()> {
    for entry in entries {
        log.write_all(entry)?;
        log.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{GenArgs, Kind, generate};

    #[test]
    fn every_stage_of_every_workload_has_a_floor() {
        for kind in [Kind::Transfer, Kind::Erc20, Kind::Heavy] {
            let workload = generate(&GenArgs {
                workload: kind,
                count: 60,
                accounts: 4,
                seed: 1,
                chain_id: crate::genesis::CHAIN_ID,
                nonce: 0,
                out: PathBuf::new(),
            });
            let Floors { decode, recover, execute, trie, tables, log } =
                measure(&workload.unwrap(), 25).unwrap();
            for (stage, us) in [decode, recover, execute, trie, tables, log].iter().enumerate() {
                assert!(*us > 0.0, "{kind}: stage {stage} took no time");
            }
        }
    }
}
