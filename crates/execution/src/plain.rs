//! The plain loop: revm over its own database in memory, one transaction after the other. It is what faster
//! ways of running a block are measured against, and nobody's way of running one: it knows neither system
//! calls nor rewards and checks no header.

use crate::ExecutionError;
use alloy_consensus::Eip658Value;
use alloy_evm::{EvmEnv, ToTxEnv, eth::EthEvmBuilder};
use alloy_primitives::{Address, KECCAK256_EMPTY, U256};
use blockraft_primitives::{MemoryState, Receipt, Transaction};
use revm::{
    ExecuteCommitEvm, ExecuteEvm,
    context::{TxEnv, result::ResultAndState},
    context_interface::result::EVMError,
    database::{CacheDB, EmptyDB},
    state::{AccountInfo, Bytecode, EvmState},
};

/// A whole state as revm's own database holds it, with all codes ready to run: nothing is looked up anywhere
/// else.
#[derive(Clone, Debug)]
pub struct PlainState(CacheDB<EmptyDB>);

/// What the plain loop makes of a block.
#[derive(Debug)]
pub struct PlainBlock {
    /// One a transaction.
    pub receipts: Vec<Receipt>,
    /// Who was touched, sorted.
    pub accounts: Vec<Address>,
    /// Slots that were changed, sorted, with their new values.
    pub slots: Vec<(Address, U256, U256)>,
}

impl PlainState {
    /// Holds all of a state.
    pub fn new(state: &MemoryState) -> Self {
        let mut database = CacheDB::new(EmptyDB::default());
        for (hash, code) in &state.codes {
            database.cache.contracts.insert(*hash, Bytecode::new_raw(code.clone()));
        }
        for (number, hash) in &state.block_hashes {
            database.cache.block_hashes.insert(U256::from(*number), *hash);
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
        Self(database)
    }

    /// Runs the transactions, each on what those before it left, and keeps their receipts.
    pub fn run(
        &mut self,
        env: &EvmEnv,
        transactions: &[Transaction],
    ) -> Result<Vec<Receipt>, ExecutionError> {
        self.run_noting(env, transactions, |_| {})
    }

    /// [`Self::run`], and the change that a trie and a store would need next.
    pub fn run_block(
        &mut self,
        env: &EvmEnv,
        transactions: &[Transaction],
    ) -> Result<PlainBlock, ExecutionError> {
        let (mut accounts, mut slots) = (Vec::new(), Vec::new());
        let receipts = self.run_noting(env, transactions, |state| {
            for (address, account) in state.iter().filter(|(_, account)| account.is_touched()) {
                accounts.push(*address);
                slots.extend(account.changed_storage_slots().map(|(slot, _)| (*address, *slot)));
            }
        })?;
        accounts.sort_unstable();
        accounts.dedup();
        slots.sort_unstable();
        slots.dedup();
        // Who is gone has no slots left.
        let value = |address, slot| {
            let storage = self.0.cache.accounts.get(&address).map(|account| &account.storage);
            storage.and_then(|storage| storage.get(&slot)).copied().unwrap_or_default()
        };
        let slots = slots.into_iter().map(|(a, slot)| (a, slot, value(a, slot))).collect();
        Ok(PlainBlock { receipts, accounts, slots })
    }

    fn run_noting(
        &mut self,
        env: &EvmEnv,
        transactions: &[Transaction],
        mut note: impl FnMut(&EvmState),
    ) -> Result<Vec<Receipt>, ExecutionError> {
        let mut evm = EthEvmBuilder::new(&mut self.0, env.clone()).build().into_inner();
        let mut receipts = Vec::with_capacity(transactions.len());
        let mut cumulative_gas_used = 0;
        for (index, tx) in transactions.iter().enumerate() {
            let ResultAndState { result, state } = evm
                .transact(ToTxEnv::<TxEnv>::to_tx_env(tx.as_ref()))
                .map_err(|error| failure(index, tx, error))?;
            note(&state);
            evm.commit(state);
            cumulative_gas_used += result.gas().tx_gas_used();
            receipts.push(Receipt {
                status: Eip658Value::Eip658(result.is_success()),
                cumulative_gas_used,
                logs: result.into_logs(),
            });
        }
        Ok(receipts)
    }
}

fn failure<E: std::fmt::Display>(
    index: usize,
    tx: &Transaction,
    error: EVMError<E>,
) -> ExecutionError {
    let hash = *tx.tx_hash();
    match error {
        EVMError::Transaction(error) => ExecutionError::Transaction { index, hash, error },
        error => ExecutionError::Poison { index, hash, reason: error.to_string() },
    }
}
