//! `blockraft statetest`: the public suites' state tests.

use crate::{
    cli::FixtureArgs,
    fixtures::{self, Alloc, TestConfig, Verdict},
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
use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

/// Petersburg took its place before it ever ran anywhere; revm has no rules for it.
const NEVER_RAN: &str = "Constantinople";

/// A state test: one transaction, in variants, in many forks.
#[derive(Debug, Deserialize)]
struct StateTest {
    env: TestEnv,
    pre: Alloc,
    post: BTreeMap<String, Vec<Case>>,
    #[serde(default)]
    config: TestConfig,
}

/// The block that the transaction is in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestEnv {
    current_coinbase: Address,
    current_gas_limit: U256,
    current_number: U256,
    current_timestamp: U256,
    current_difficulty: Option<U256>,
    current_base_fee: Option<U256>,
    current_random: Option<B256>,
    current_excess_blob_gas: Option<U256>,
}

/// One variant in one fork, and what comes of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    hash: B256,
    logs: B256,
    txbytes: Bytes,
    indexes: Indexes,
    expect_exception: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Indexes {
    data: u32,
    gas: u32,
    value: u32,
}

/// The state before a test. Its earlier blocks are made up: the hash of each is that of its number.
#[derive(Debug)]
struct PreState(MemoryState);

pub(crate) fn run(args: FixtureArgs) -> anyhow::Result<ExitCode> {
    fixtures::run(&args.paths, args.threads, 1, verdicts)
}

fn verdicts(file: &Path) -> anyhow::Result<Vec<Verdict>> {
    let text = fs::read(file)?;
    let tests: BTreeMap<String, StateTest> =
        serde_json::from_slice(&text).context("not a file of state tests")?;
    let mut verdicts = Vec::new();
    for (name, test) in &tests {
        verdicts.extend(test.verdicts(name)?);
    }
    Ok(verdicts)
}

impl StateTest {
    fn verdicts(&self, name: &str) -> anyhow::Result<Vec<Verdict>> {
        let allocation = allocation(&self.pre)?;
        let mut state = MemoryState::default();
        let mut trie = StateTrie::new();
        state.apply(&allocation);
        trie.update(&allocation);
        let state = PreState(state);
        let forks = self.post.iter().filter(|(fork, _)| *fork != NEVER_RAN);
        let verdicts = forks
            .flat_map(|(fork, cases)| cases.iter().map(move |case| (fork, cases.len(), case)))
            .map(|(fork, count, case)| {
                let Indexes { data, gas, value } = case.indexes;
                let name = match count {
                    1 => name.to_owned(),
                    _ => format!("{name}[d{data}g{gas}v{value}]"),
                };
                Verdict::of(&name, fork, || self.check(fork, case, &state, trie.clone()))
            })
            .collect();
        Ok(verdicts)
    }

    fn check(
        &self,
        fork: &str,
        case: &Case,
        state: &PreState,
        mut trie: StateTrie,
    ) -> anyhow::Result<()> {
        let spec = ChainSpec::new(&fixtures::network(fork, &self.config)?)?;
        let header = self.env.header(&spec);
        let result = execute_alone(&spec, &header, &case.txbytes, state, &mut trie);
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
        let number = self.current_number.saturating_to();
        let timestamp = self.current_timestamp.saturating_to();
        let merged = spec.is_paris_active_at_block(number);
        let london = spec.is_london_active_at_block(number);
        let cancun = spec.is_cancun_active_at_timestamp(timestamp);
        let difficulty = self.current_difficulty.filter(|_| !merged);
        Header {
            parent_hash: made_up_hash(u64::saturating_sub(number, 1)),
            beneficiary: self.current_coinbase,
            difficulty: difficulty.unwrap_or_default(),
            number,
            gas_limit: self.current_gas_limit.saturating_to(),
            timestamp,
            mix_hash: self.current_random.unwrap_or_default(),
            base_fee_per_gas: self
                .current_base_fee
                .filter(|_| london)
                .map(|fee| fee.saturating_to()),
            excess_blob_gas: cancun
                .then(|| self.current_excess_blob_gas.unwrap_or_default().saturating_to()),
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
