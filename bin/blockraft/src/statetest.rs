//! `blockraft statetest`: the public suites' state tests.

use crate::{
    cli::FixtureArgs,
    fixtures::{self, Alloc, Indexes, Job, Number, TestConfig, TestTransaction, Verdict},
};
use alloy_consensus::Header;
use alloy_genesis::Genesis;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use anyhow::{Context, bail, ensure};
use blockraft_node::import::execute_alone;
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, ChainSpec, ClusterGenesis, GenesisError, MemoryState,
    StateDiff, StateError, StateReader,
};
use blockraft_trie::StateTrie;
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::Path, process::ExitCode, sync::Arc};

/// A state test: one transaction, in variants, in many forks.
#[derive(Debug, Deserialize)]
struct StateTest {
    env: TestEnv,
    pre: Alloc,
    transaction: TestTransaction,
    post: BTreeMap<String, Vec<Case>>,
    #[serde(default)]
    config: TestConfig,
}

/// The block that the transaction is in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestEnv {
    current_coinbase: Address,
    current_gas_limit: Number,
    current_number: Number,
    current_timestamp: Number,
    current_difficulty: Option<Number>,
    current_base_fee: Option<Number>,
    current_random: Option<B256>,
    current_excess_blob_gas: Option<Number>,
}

/// One variant in one fork, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    hash: B256,
    logs: B256,
    /// Older suites leave the signing to whoever runs them.
    txbytes: Option<Bytes>,
    indexes: Indexes,
    expect_exception: Option<String>,
}

/// The state before a test. Its earlier blocks are made up: the hash of each is that of its number.
#[derive(Debug)]
struct PreState(MemoryState);

pub(crate) fn run(args: FixtureArgs) -> anyhow::Result<ExitCode> {
    let executors = args.executors;
    // A transaction is run by one of them: there is nothing to run beside it.
    fixtures::run(&args.paths, args.threads, 1, |file| jobs(file, executors))
}

fn jobs(file: &Path, executors: usize) -> anyhow::Result<Vec<Job>> {
    let text = fs::read(file)?;
    let tests: BTreeMap<String, StateTest> =
        serde_json::from_slice(&text).context("not a file of state tests")?;
    let mut jobs = Vec::new();
    for (name, test) in tests {
        jobs.extend(test.jobs(&name, executors)?);
    }
    Ok(jobs)
}

/// What all cases of a test share.
#[derive(Debug)]
struct Start {
    env: TestEnv,
    transaction: TestTransaction,
    config: TestConfig,
    state: PreState,
    trie: StateTrie,
}

impl StateTest {
    /// One for each case.
    fn jobs(self, name: &str, executors: usize) -> anyhow::Result<Vec<Job>> {
        let Self { env, pre, transaction, post, config } = self;
        let allocation = allocation(&pre)?;
        let mut state = MemoryState::default();
        let mut trie = StateTrie::new();
        state.apply(&allocation);
        trie.update(&allocation);
        let start = Arc::new(Start { env, transaction, config, state: PreState(state), trie });
        let mut jobs: Vec<Job> = Vec::new();
        for (fork, cases) in post {
            let count = cases.len();
            for case in cases {
                let Indexes { data, gas, value } = case.indexes;
                let name = match count {
                    1 => name.to_owned(),
                    _ => format!("{name}[d{data}g{gas}v{value}]"),
                };
                let (start, fork) = (start.clone(), fork.clone());
                jobs.push(Box::new(move || {
                    Verdict::of(&name, &fork, || start.check(&fork, &case, executors))
                }));
            }
        }
        Ok(jobs)
    }
}

impl Start {
    fn check(&self, fork: &str, case: &Case, executors: usize) -> anyhow::Result<()> {
        let spec = ChainSpec::new(&fixtures::network(fork, &self.config)?)?;
        let header = self.env.header(&spec);
        let tx = match &case.txbytes {
            Some(bytes) => bytes.clone(),
            None => self.transaction.encode(case.indexes, spec.chain_id)?,
        };
        let mut trie = self.trie.clone();
        let result = execute_alone(&spec, &header, &tx, &self.state, &mut trie, executors);
        let (logs, root) = match (result, &case.expect_exception) {
            (Ok((receipt, root)), None) => (receipt.logs, root),
            (Ok(_), Some(rule)) => bail!("the transaction ran, expected {rule}"),
            (Err(error), Some(rule)) if fixtures::is_expected(rule, &error) => {
                let root = trie.root();
                if root != case.hash && !spec.is_spurious_dragon_active_at_block(header.number) {
                    touch(header.beneficiary, &mut trie);
                }
                (Vec::new(), trie.root())
            }
            (Err(error), Some(rule)) => {
                bail!("refused with {} ({error}), expected {rule}", fixtures::label(&error))
            }
            (Err(error), None) => bail!("refused: {error}"),
        };
        let logs = keccak256(alloy_rlp::encode(&logs));
        ensure!(logs == case.logs, "logs are {logs}, expected {}", case.logs);
        ensure!(root == case.hash, "state root is {root}, expected {}", case.hash);
        Ok(())
    }
}

impl TestEnv {
    fn header(&self, spec: &ChainSpec) -> Header {
        let number = self.current_number.to_u64();
        let timestamp = self.current_timestamp.to_u64();
        let merged = spec.is_paris_active_at_block(number);
        let london = spec.is_london_active_at_block(number);
        let cancun = spec.is_cancun_active_at_timestamp(timestamp);
        let difficulty = self.current_difficulty.filter(|_| !merged);
        let base_fee = self.current_base_fee.filter(|_| london);
        let excess_blob_gas = self.current_excess_blob_gas.map_or(0, Number::to_u64);
        Header {
            parent_hash: made_up_hash(u64::saturating_sub(number, 1)),
            beneficiary: self.current_coinbase,
            difficulty: difficulty.map_or(U256::ZERO, |difficulty| difficulty.0),
            number,
            gas_limit: self.current_gas_limit.to_u64(),
            timestamp,
            mix_hash: self.current_random.unwrap_or_default(),
            base_fee_per_gas: base_fee.map(Number::to_u64),
            excess_blob_gas: cancun.then_some(excess_blob_gas),
            ..Default::default()
        }
    }
}

fn allocation(pre: &Alloc) -> Result<StateDiff, GenesisError> {
    let alloc = pre.iter().map(|(address, account)| (*address, account.to_genesis())).collect();
    let genesis = Genesis { alloc, ..Default::default() };
    ClusterGenesis::new(genesis).map(|genesis| genesis.state())
}

/// Older suites credit a mining reward of nothing, which before EIP-158 makes an account.
fn touch(address: Address, trie: &mut StateTrie) {
    if trie.account(address).is_none() {
        let change = AccountChange::Set(Account::default());
        let account = AccountDiff { address, change, storage_wiped: false, storage: Vec::new() };
        trie.update(&StateDiff { accounts: vec![account], codes: Vec::new() });
    }
}

fn made_up_hash(number: u64) -> B256 {
    keccak256(number.to_string())
}

impl StateReader for PreState {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.0.account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.0.storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.0.has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.0.code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        Ok(made_up_hash(number))
    }
}
