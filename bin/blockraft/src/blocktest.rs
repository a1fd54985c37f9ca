//! `blockraft blocktest`: the public suites' blockchain tests.

use crate::{
    cli::FixtureArgs,
    fixtures::{self, Alloc, Job, Number, TestConfig, Verdict},
};
use alloy_genesis::Genesis;
use alloy_primitives::{Address, B64, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use anyhow::{Context, bail, ensure};
use blockraft_node::import::{ImportError, MemoryChain, Workers};
use blockraft_primitives::{Account, ClusterGenesis, MemoryState};
use serde::{Deserialize, de::IgnoredAny};
use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

/// A blockchain test.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockTest {
    network: String,
    #[serde(default)]
    config: TestConfig,
    genesis_block_header: TestHeader,
    pre: Alloc,
    blocks: Vec<TestBlock>,
    lastblockhash: B256,
    post_state: Option<Alloc>,
    post_state_hash: Option<B256>,
}

/// The genesis block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestHeader {
    hash: B256,
    parent_hash: B256,
    coinbase: Address,
    difficulty: Number,
    gas_limit: Number,
    timestamp: Number,
    extra_data: Bytes,
    mix_hash: B256,
    nonce: B64,
    base_fee_per_gas: Option<Number>,
    blob_gas_used: Option<Number>,
    excess_blob_gas: Option<Number>,
}

/// A block, and what is wrong with it if something is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestBlock {
    rlp: Bytes,
    expect_exception: Option<String>,
    /// The same in older suites.
    #[serde(rename = "expectExceptionALL")]
    expect_exception_in_all_forks: Option<String>,
    /// Only valid blocks have one; some older suites say nothing else of what is wrong with a block.
    block_header: Option<IgnoredAny>,
}

pub(crate) fn run(args: FixtureArgs) -> anyhow::Result<ExitCode> {
    let executors = args.executors;
    fixtures::run(&args.paths, args.threads, executors, |file| jobs(file, executors))
}

fn jobs(file: &Path, executors: usize) -> anyhow::Result<Vec<Job>> {
    let text = fs::read(file)?;
    let tests: BTreeMap<String, BlockTest> =
        serde_json::from_slice(&text).context("not a file of blockchain tests")?;
    let job = |(name, test): (String, BlockTest)| -> Job {
        Box::new(move || Verdict::of(&name, &test.network, || check(&test, executors)))
    };
    Ok(tests.into_iter().map(job).collect())
}

fn check(test: &BlockTest, executors: usize) -> anyhow::Result<()> {
    let genesis = ClusterGenesis::new(genesis_of(test)?)?;
    let expected = test.genesis_block_header.hash;
    ensure!(genesis.hash() == expected, "genesis is {}, expected {expected}", genesis.hash());
    // What their outcomes leave to do is shared by as many threads.
    let workers = Workers { executors, threads: executors };
    let mut chain = MemoryChain::new(&genesis, workers).context("genesis")?;
    for (index, block) in test.blocks.iter().enumerate() {
        block.check(index, chain.import(&block.rlp))?;
    }
    let head = chain.head();
    let expected = test.lastblockhash;
    ensure!(head.hash() == expected, "head is {}, expected {expected}", head.hash());
    if let Some(expected) = test.post_state_hash {
        ensure!(head.state_root == expected, "state root is {}, not {expected}", head.state_root);
    }
    match &test.post_state {
        Some(expected) => check_state(chain.state(), expected),
        None => Ok(()),
    }
}

impl TestBlock {
    /// Whether the block was taken or refused as the test says.
    fn check(&self, index: usize, result: Result<B256, ImportError>) -> anyhow::Result<()> {
        let rule = self.expect_exception.as_ref().or(self.expect_exception_in_all_forks.as_ref());
        match (result, rule) {
            (Ok(_), Some(rule)) => bail!("block {index} is taken, expected {rule}"),
            (Ok(_), None) if self.block_header.is_none() => {
                bail!("block {index} is taken, expected it to be invalid")
            }
            (Ok(_), None) => Ok(()),
            (Err(error), Some(rule)) if fixtures::is_expected(rule, &error) => Ok(()),
            (Err(error), Some(rule)) => {
                let label = fixtures::label(&error);
                bail!("block {index} is refused with {label} ({error}), expected {rule}")
            }
            (Err(_), None) if self.block_header.is_none() => Ok(()),
            (Err(error), None) => bail!("block {index} is refused: {error}"),
        }
    }
}

fn genesis_of(test: &BlockTest) -> anyhow::Result<Genesis> {
    let header = &test.genesis_block_header;
    Ok(Genesis {
        config: fixtures::network(&test.network, &test.config)?,
        nonce: header.nonce.into(),
        timestamp: header.timestamp.to_u64(),
        extra_data: header.extra_data.clone(),
        gas_limit: header.gas_limit.to_u64(),
        difficulty: header.difficulty.0,
        mix_hash: header.mix_hash,
        coinbase: header.coinbase,
        alloc: test.pre.iter().map(|(address, a)| (*address, a.to_genesis())).collect(),
        base_fee_per_gas: header.base_fee_per_gas.map(|fee| fee.0.saturating_to()),
        excess_blob_gas: header.excess_blob_gas.map(Number::to_u64),
        blob_gas_used: header.blob_gas_used.map(Number::to_u64),
        number: Some(0),
        parent_hash: Some(header.parent_hash),
        slot_number: None,
    })
}

/// Compares whole states.
fn check_state(state: &MemoryState, expected: &Alloc) -> anyhow::Result<()> {
    for (address, account) in expected {
        let code_hash =
            if account.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&account.code) };
        let nonce = account.nonce.saturating_to();
        let expected = Account { nonce, balance: account.balance, code_hash };
        let got = state.accounts.get(address);
        ensure!(got == Some(&expected), "account {address} is {got:?}, expected {expected:?}");
        let slots = account.storage.iter().filter(|(_, value)| !value.is_zero());
        let expected: BTreeMap<U256, U256> = slots.map(|(slot, value)| (*slot, *value)).collect();
        let got: BTreeMap<U256, U256> =
            state.storage.get(address).into_iter().flatten().map(|(s, v)| (*s, *v)).collect();
        ensure!(got == expected, "storage of {address} is {got:?}, expected {expected:?}");
    }
    let stranger = state.accounts.keys().find(|address| !expected.contains_key(*address));
    ensure!(stranger.is_none(), "account {stranger:?} should not exist");
    Ok(())
}

#[cfg(test)]
mod tests;
