//! One transaction by way of the engine: what the public state tests ask for of several executors.

use super::{
    Basis, BlockInput, FIRST, Ledger, Means, Parent, account_count, decode_outcomes,
    encode_outcomes,
    executor::{Executor, Way},
    merge::Start,
    new_memory,
    schedule::Schedule,
    source::Source,
};
use crate::{ExecutionError, env::evm_env, execute_transaction};
use alloy_consensus::Header;
use blockraft_primitives::{ChainSpec, Receipt, StateDiff, StateReader, Transaction};
use revm::primitives::hardfork::SpecId;
use std::slice;

/// As [`execute_transaction`], but an executor runs the transaction; its outcome, encoded and read back, is
/// judged and merged as that of a block's transaction is.
pub fn execute_transaction_shared<S: StateReader>(
    spec: &ChainSpec,
    state: S,
    header: &Header,
    tx: &Transaction,
) -> Result<(Receipt, StateDiff), ExecutionError> {
    let env = evm_env(spec, header);
    if env.cfg_env.spec < SpecId::SPURIOUS_DRAGON {
        return execute_transaction(spec, state, header, tx);
    }
    let transactions = slice::from_ref(tx);
    let input = BlockInput { spec, header, transactions, ommers: &[], withdrawals: &[] };
    let ledger = Ledger::new(&state, Parent::of(header, None), account_count(transactions));
    ledger.account(header.beneficiary, 0)?;
    let outcome = Executor::new(&ledger, env.clone(), None).run(tx, FIRST, Way::Share);
    let bytes = encode_outcomes(&[(0, outcome)]);
    let seeds = decode_outcomes(&bytes).expect("bytes that were just encoded");

    let mut memory = new_memory(&input, &state, &Means::default());
    memory.account(header.beneficiary, 0)?;
    let start = Start { seeds, basis: Basis::Parent, threads: 1, ..Start::default() };
    let merged = start.merge(&mut memory, env.block_env.gas_limit, transactions, FIRST);
    let schedule = Schedule::new(&memory, &env, transactions, FIRST, merged);
    schedule.work(None);
    let mut frontier = schedule.into_frontier();
    if memory.is_irregular() {
        return execute_transaction(spec, state, header, tx);
    }
    if let Some(failure) = frontier.failure {
        return Err(failure);
    }
    let receipt = frontier.receipts.pop().expect("a transaction that ran has a receipt");
    Ok((receipt, memory.into_diff()?))
}
