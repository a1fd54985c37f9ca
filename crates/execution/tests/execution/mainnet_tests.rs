//! Real mainnet blocks, Frontier to Cancun: gas used, receipts root and bloom are the header's, and the
//! engine agrees with the oracle in everything. There are no proofs for them, so no state roots.

use crate::{access_list_tests, engine_tests, fixtures::json_of};
use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use blockraft_execution::{BlockInput, execute_block};
use blockraft_primitives::{Account, ChainSpec, MemoryState, Transaction};
use rand::{SeedableRng, rngs::SmallRng};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

const PACK: &str = "mainnet-blocks.tar.zst";

const SPURIOUS_DRAGON: u64 = 2_675_000;

/// The two files of a block, in whatever order.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Block(Box<alloy_rpc_types_eth::Block>),
    State(BTreeMap<Address, PreAccount>),
}

#[derive(Deserialize)]
struct PreAccount {
    balance: U256,
    nonce: u64,
    code_hash: Option<B256>,
    storage: BTreeMap<U256, U256>,
}

fn mainnet() -> ChainSpec {
    let config = ChainConfig {
        chain_id: 1,
        homestead_block: Some(1_150_000),
        dao_fork_block: Some(1_920_000),
        dao_fork_support: true,
        eip150_block: Some(2_463_000),
        eip155_block: Some(SPURIOUS_DRAGON),
        eip158_block: Some(SPURIOUS_DRAGON),
        byzantium_block: Some(4_370_000),
        constantinople_block: Some(7_280_000),
        petersburg_block: Some(7_280_000),
        istanbul_block: Some(9_069_000),
        berlin_block: Some(12_244_000),
        london_block: Some(12_965_000),
        terminal_total_difficulty: Some(U256::from(58_750_000_000_000_000_000_000_u128)),
        merge_netsplit_block: Some(15_537_394),
        shanghai_time: Some(1_681_338_455),
        cancun_time: Some(1_710_338_135),
        ..Genesis::default().config
    };
    ChainSpec::new(&config).unwrap()
}

/// The parent state of block `number`.
fn state(
    number: u64,
    accounts: BTreeMap<Address, PreAccount>,
    codes: &BTreeMap<B256, Bytes>,
) -> MemoryState {
    let mut state = MemoryState::default();
    for (address, pre) in accounts {
        let code_hash = pre.code_hash.unwrap_or(KECCAK256_EMPTY);
        if let Some(code) = codes.get(&code_hash) {
            state.codes.insert(code_hash, code.clone());
        }
        let account = Account { nonce: pre.nonce, balance: pre.balance, code_hash };
        // Since EIP-161 an account that is listed as empty was looked for and not there.
        if !account.is_empty() || number < SPURIOUS_DRAGON {
            state.accounts.insert(address, account);
        }
        let slots = pre.storage.into_iter().filter(|(_, value)| !value.is_zero());
        state.storage.insert(address, slots.collect());
    }
    state
}

#[test]
fn mainnet_blocks_give_their_receipts_roots() {
    let Some(mut codes) = json_of::<BTreeMap<B256, Bytes>>(PACK, "*pevm/bytecodes.json") else {
        return;
    };
    let codes = codes.next().expect("all codes");
    assert!(codes.iter().all(|(hash, code)| keccak256(code) == *hash));
    let older = json_of::<BTreeMap<u64, BTreeMap<u64, B256>>>(PACK, "*block_hashes_older.json");
    let hashes = older.unwrap().next().expect("block hashes");
    let spec = mainnet();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let mut files = json_of::<File>(PACK, "*pevm/complete/*.json").unwrap();
    let (mut blocks, mut transactions, mut gas) = (0, 0, 0);
    while let (Some(one), Some(other)) = (files.next(), files.next()) {
        let (block, accounts) = match (one, other) {
            (File::Block(block), File::State(state)) => (block, state),
            (File::State(state), File::Block(block)) => (block, state),
            _ => panic!("a block and its state come in pairs"),
        };
        let mut state = state(block.header.number, accounts, &codes);
        for (number, hash) in hashes.get(&block.header.number).into_iter().flatten() {
            state.block_hashes.insert(*number, *hash);
        }
        let header = block.header.inner.clone();
        let txs: Vec<Transaction> =
            block.transactions.into_transactions().map(|tx| Arc::new(tx.inner)).collect();
        let withdrawals = block.withdrawals.unwrap_or_default();
        let input = BlockInput {
            spec: &spec,
            header: &header,
            transactions: &txs,
            ommers: &[],
            withdrawals: &withdrawals,
        };
        let executed = execute_block(&spec, &state, &header, &txs, &[], &withdrawals);
        let executed = executed.unwrap_or_else(|error| panic!("block {}: {error}", header.number));
        executed.diff.assert_sorted();
        pool.install(|| {
            let mut rng = SmallRng::seed_from_u64(header.number);
            engine_tests::check(&mut rng, &input, &state);
            if header.number >= SPURIOUS_DRAGON {
                access_list_tests::check(&mut rng, &input, &state);
            }
        });
        blocks += 1;
        transactions += txs.len();
        gas += executed.gas_used;
    }
    println!("{blocks} mainnet blocks, {transactions} transactions, {gas} gas");
    assert!(blocks >= 30, "only {blocks} blocks were run");
}
