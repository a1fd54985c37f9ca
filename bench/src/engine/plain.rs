//! The plain loop: revm over a database in memory, one transaction after the other.

use alloy_consensus::{Eip658Value, Receipt as AlloyReceipt};
use alloy_evm::{EvmEnv, ToTxEnv, eth::EthEvmBuilder};
use alloy_primitives::{Address, KECCAK256_EMPTY, U256};
use anyhow::Context;
use blockraft_primitives::{MemoryState, Receipt, Transaction};
use revm::{
    ExecuteCommitEvm, ExecuteEvm,
    context::{TxEnv, result::ResultAndState},
    database::{CacheDB, EmptyDB},
    state::{AccountInfo, Bytecode, EvmState},
};

/// revm's own database in memory.
pub(crate) type Database = CacheDB<EmptyDB>;

/// The whole state as revm's own database holds it, code and all.
pub(crate) fn database(state: &MemoryState) -> Database {
    let mut database = Database::new(EmptyDB::default());
    for (hash, code) in &state.codes {
        database.cache.contracts.insert(*hash, Bytecode::new_raw(code.clone()));
    }
    for (address, account) in &state.accounts {
        let info = AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            code: (account.code_hash == KECCAK256_EMPTY).then(Bytecode::default),
            ..Default::default()
        };
        database.insert_account_info(*address, info);
        let slots = state.storage.get(address).into_iter().flatten();
        let storage = &mut database.cache.accounts.entry(*address).or_default().storage;
        storage.extend(slots.map(|(slot, value)| (*slot, *value)));
    }
    database
}

/// What the plain loop makes of a block.
pub(crate) struct Block {
    pub(crate) receipts: Vec<Receipt>,
    /// Net change, sorted: accounts, and slots with their new values.
    pub(crate) accounts: Vec<Address>,
    pub(crate) slots: Vec<(Address, U256, U256)>,
}

/// Runs the transactions, each on what those before it left, and keeps their receipts.
pub(crate) fn run(
    database: &mut Database,
    env: &EvmEnv,
    transactions: &[Transaction],
) -> anyhow::Result<Vec<Receipt>> {
    run_noting(database, env, transactions, |_| {})
}

/// [`run`], and the change that a trie and a store would need next.
pub(crate) fn run_block(
    database: &mut Database,
    env: &EvmEnv,
    transactions: &[Transaction],
) -> anyhow::Result<Block> {
    let (mut accounts, mut slots) = (Vec::new(), Vec::new());
    let receipts = run_noting(database, env, transactions, |state| {
        for (address, account) in state.iter().filter(|(_, account)| account.is_touched()) {
            accounts.push(*address);
            slots.extend(account.changed_storage_slots().map(|(slot, _)| (*address, *slot)));
        }
    })?;
    accounts.sort_unstable();
    accounts.dedup();
    slots.sort_unstable();
    slots.dedup();
    let value = |(address, slot)| (address, slot, database.cache.accounts[&address].storage[&slot]);
    let slots = slots.into_iter().map(value).collect();
    Ok(Block { receipts, accounts, slots })
}

fn run_noting(
    database: &mut Database,
    env: &EvmEnv,
    transactions: &[Transaction],
    mut note: impl FnMut(&EvmState),
) -> anyhow::Result<Vec<Receipt>> {
    let mut evm = EthEvmBuilder::new(database, env.clone()).build().into_inner();
    let mut receipts = Vec::with_capacity(transactions.len());
    let mut cumulative_gas_used = 0;
    for tx in transactions {
        let ResultAndState { result, state } = evm
            .transact(ToTxEnv::<TxEnv>::to_tx_env(tx.as_ref()))
            .with_context(|| format!("transaction {}", tx.tx_hash()))?;
        note(&state);
        evm.commit(state);
        cumulative_gas_used += result.gas().tx_gas_used();
        receipts.push(AlloyReceipt {
            status: Eip658Value::Eip658(result.is_success()),
            cumulative_gas_used,
            logs: result.into_logs(),
        });
    }
    Ok(receipts)
}
