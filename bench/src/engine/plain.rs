//! The plain loop: revm over a database in memory, one transaction after the other.

use alloy_consensus::{Eip658Value, Receipt as AlloyReceipt};
use alloy_evm::{EvmEnv, ToTxEnv, eth::EthEvmBuilder};
use alloy_primitives::KECCAK256_EMPTY;
use anyhow::Context;
use blockraft_primitives::{MemoryState, Receipt, Transaction};
use revm::{
    ExecuteCommitEvm,
    context::TxEnv,
    database::{CacheDB, EmptyDB},
    state::{AccountInfo, Bytecode},
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

/// Runs the transactions, each on what those before it left, and keeps their receipts.
pub(crate) fn run(
    database: &mut Database,
    env: &EvmEnv,
    transactions: &[Transaction],
) -> anyhow::Result<Vec<Receipt>> {
    let mut evm = EthEvmBuilder::new(database, env.clone()).build().into_inner();
    let mut receipts = Vec::with_capacity(transactions.len());
    let mut cumulative_gas_used = 0;
    for tx in transactions {
        let result = evm
            .transact_commit(ToTxEnv::<TxEnv>::to_tx_env(tx.as_ref()))
            .with_context(|| format!("transaction {}", tx.tx_hash()))?;
        cumulative_gas_used += result.gas().tx_gas_used();
        receipts.push(AlloyReceipt {
            status: Eip658Value::Eip658(result.is_success()),
            cumulative_gas_used,
            logs: result.into_logs(),
        });
    }
    Ok(receipts)
}
