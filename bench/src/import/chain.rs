//! Chains to import: read from a file, or generated from a seed.

use crate::{
    generate::{GenArgs, Kind, generate},
    genesis::{self, CHAIN_ID},
};
use alloy_consensus::{
    Block, Header, Sealed, Transaction as _, TxEnvelope,
    transaction::{Recovered, SignerRecoverable},
};
use alloy_eips::{Decodable2718, eip4895::Withdrawals};
use alloy_primitives::{U256, hex};
use alloy_rlp::Decodable;
use anyhow::{Context, ensure};
use blockraft_execution::{BlockAttributes, build_block, recover};
use blockraft_primitives::{ClusterGenesis, MemoryState, Transaction};
use blockraft_trie::StateTrie;
use rayon::prelude::*;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What generated chains are full of.
pub(super) const KINDS: [Kind; 2] = [Kind::Transfer, Kind::Erc20];
/// Senders of a generated chain.
const SENDER_COUNT: usize = 1000;
/// What a transaction of a generated chain may use at most, the least of them.
const GAS_PER_TX_MIN: u64 = 21_000;

/// A chain and the files that hold it.
pub(super) struct ChainFile {
    pub(super) name: String,
    pub(super) genesis: ClusterGenesis,
    pub(super) genesis_file: PathBuf,
    pub(super) file: PathBuf,
    pub(super) blocks: Vec<BlockParts>,
}

/// A block with its senders.
pub(super) struct BlockParts {
    pub(super) header: Sealed<Header>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) ommers: Vec<Header>,
    pub(super) withdrawals: Option<Withdrawals>,
}

impl ChainFile {
    /// Reads a chain file and recovers its senders.
    pub(super) fn read(genesis_file: &Path, file: &Path) -> anyhow::Result<Self> {
        let text =
            fs::read_to_string(genesis_file).with_context(|| genesis_file.display().to_string())?;
        let genesis = ClusterGenesis::from_json(&text)?;
        let bytes = fs::read(file).with_context(|| file.display().to_string())?;
        let (mut rest, mut blocks) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            blocks.push(Block::<TxEnvelope>::decode(&mut rest)?);
        }
        let blocks = blocks.into_par_iter().map(|block| parts(&genesis, block));
        Ok(Self {
            name: file.display().to_string(),
            blocks: blocks.collect::<anyhow::Result<_>>()?,
            genesis,
            genesis_file: genesis_file.to_owned(),
            file: file.to_owned(),
        })
    }

    /// Full blocks of one kind of transaction, written into `dir`.
    pub(super) fn generate(
        kind: Kind,
        count: u64,
        gas_limit: u64,
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let [.., (_, text)] = genesis::files();
        let mut text: serde_json::Value = serde_json::from_str(&text)?;
        text["gasLimit"] = json!(format!("{gas_limit:#x}"));
        let text = text.to_string();
        let genesis = ClusterGenesis::from_json(&text)?;
        let name = format!("{count} blocks of {kind:?}");
        let genesis_file = dir.join(format!("{kind:?}.json"));
        fs::write(&genesis_file, text)?;
        let (blocks, bytes) = build(&genesis, candidates(kind, count * gas_limit)?, count)?;
        let file = dir.join(format!("{kind:?}.rlp"));
        fs::write(&file, bytes)?;
        Ok(Self { name, genesis, genesis_file, file, blocks })
    }

    pub(super) fn gas(&self) -> u64 {
        self.blocks.iter().map(|block| block.header.gas_used).sum()
    }

    pub(super) fn transaction_count(&self) -> usize {
        self.blocks.iter().map(|block| block.transactions.len()).sum()
    }
}

fn parts(genesis: &ClusterGenesis, block: Block<TxEnvelope>) -> anyhow::Result<BlockParts> {
    let Block { header, body } = block;
    let transactions = body.transactions.into_iter().enumerate();
    let transactions =
        transactions.map(|(index, tx)| recover(&genesis.spec, header.number, index, tx));
    Ok(BlockParts {
        transactions: transactions.collect::<Result<_, _>>()?,
        header: Sealed::new(header),
        ommers: body.ommers,
        withdrawals: body.withdrawals,
    })
}

/// Signed transactions for so much gas, in the order of their nonces.
fn candidates(kind: Kind, gas: u64) -> anyhow::Result<Vec<Transaction>> {
    let per_tx = if kind == Kind::Transfer { GAS_PER_TX_MIN } else { 2 * GAS_PER_TX_MIN };
    let args = GenArgs {
        workload: kind,
        count: gas / per_tx,
        accounts: SENDER_COUNT,
        seed: 1,
        chain_id: CHAIN_ID,
        nonce: 0,
        out: PathBuf::new(),
    };
    let workload = generate(&args)?;
    let lines: Vec<_> = workload.lines().collect();
    let decoded = lines.par_iter().map(|line| {
        let raw = hex::decode(&line.raw)?;
        let tx = TxEnvelope::decode_2718(&mut raw.as_slice())?;
        let signer = tx.recover_signer()?;
        Ok(Arc::new(Recovered::new_unchecked(tx, signer)))
    });
    decoded.collect()
}

/// Fills blocks in order. Returns them, and their RLP one after the other.
fn build(
    genesis: &ClusterGenesis,
    mut candidates: Vec<Transaction>,
    count: u64,
) -> anyhow::Result<(Vec<BlockParts>, Vec<u8>)> {
    let mut state = MemoryState::default();
    state.apply(&genesis.state());
    state.block_hashes.insert(0, genesis.hash());
    let mut trie = StateTrie::new();
    trie.update(&genesis.state());
    let mut parent = genesis.header.clone();
    let (mut blocks, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let attributes = BlockAttributes {
            timestamp: parent.timestamp + 12,
            gas_limit: parent.gas_limit,
            ..Default::default()
        };
        // Gas limits decide what fits; what is left over waits for the next block.
        let mut room = parent.gas_limit;
        let fits = candidates.iter().take_while(|tx| {
            let fits = tx.gas_limit() <= room;
            room = room.saturating_sub(tx.gas_limit());
            fits
        });
        let fitting = fits.count();
        let taken: Vec<_> = candidates.drain(..fitting).collect();
        ensure!(!taken.is_empty(), "the transactions ran out");
        let built = build_block(&genesis.spec, &state, &parent, &attributes, &taken)?;
        ensure!(built.included.len() == taken.len(), "a transaction did not fit");
        trie.update(&built.diff);
        let committed = built.seal(trie.root());
        state.apply(&committed.diff);
        let block = committed.block;
        ensure!(block.header.base_fee_per_gas < Some(MAX_BASE_FEE), "too many full blocks");
        state.block_hashes.insert(block.number(), block.hash());
        parent = block.header.clone();
        bytes.extend(block.rlp());
        blocks.push(BlockParts {
            header: block.header.clone(),
            transactions: block.transactions.clone(),
            ommers: Vec::new(),
            withdrawals: block.withdrawals.clone(),
        });
    }
    ensure!(parent.difficulty == U256::ZERO, "generated chains are merged");
    Ok((blocks, bytes))
}

/// What the generated transactions pay at most, wei.
const MAX_BASE_FEE: u64 = 99_000_000_000;
