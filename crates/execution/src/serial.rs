//! Given blocks, one transaction after the other: the oracle of everything faster.

use crate::{
    BlockInput, ExecutionError,
    env::evm_env,
    roots::receipts_root_and_bloom,
    runner::{Aids, Course, Finished, Runner, Transfers},
    validate::Commitments,
};
use alloy_consensus::Header;
use alloy_eips::{eip4895::Withdrawal, eip7685::Requests};
use alloy_primitives::{B256, Bloom};
use blockraft_primitives::{ChainSpec, Receipt, StateDiff, StateReader, Transaction};

/// What a given block came to.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutedBlock {
    /// One a transaction, in block order.
    pub receipts: Vec<Receipt>,
    /// Net change of the state.
    pub diff: StateDiff,
    /// Gas of all transactions.
    pub gas_used: u64,
    /// EIP-4844; zero before Cancun.
    pub blob_gas_used: u64,
    /// EIP-7685; empty before Prague.
    pub requests: Requests,
}

/// Executes a block in its order and checks the header's gas used, receipts root, bloom, blob gas and
/// requests hash. The state root is the caller's to check: it takes a trie. Every fork from Frontier to
/// Osaka; the rules between a header and its parent's are not looked at.
///
/// `state` is that of the parent block; `ommers` and `withdrawals` are empty where the fork has none.
pub fn execute_block<S: StateReader>(
    spec: &ChainSpec,
    state: S,
    header: &Header,
    transactions: &[Transaction],
    ommers: &[Header],
    withdrawals: &[Withdrawal],
) -> Result<ExecutedBlock, ExecutionError> {
    let input = BlockInput { spec, header, transactions, ommers, withdrawals };
    run(&input, state, Transfers::InEvm, Aids::default(), None)
}

/// [`execute_block`] for blocks before Byzantium, whose receipts carry the state root after their
/// transaction: `root_of` gives the root of the parent state under a diff. Each diff it gets covers those
/// before it, so they may be applied one upon the other.
pub fn execute_block_with_roots<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    root_of: &mut dyn FnMut(&StateDiff) -> B256,
) -> Result<ExecutedBlock, ExecutionError> {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    let env = evm_env(spec, header);
    let course = Course::oracle(transactions.len());
    let mut runner = Runner::begin(spec, env, state, header, course)?;
    for (index, tx) in transactions.iter().enumerate() {
        runner.run(tx).map_err(|refusal| refusal.of_given(index, tx))?;
        let root = root_of(&runner.touched()?);
        runner.set_post_state(root);
    }
    let finished = runner.finish(ommers, withdrawals, None)?;
    let roots = receipts_root_and_bloom(transactions, &finished.receipts);
    checked(spec, header, finished, roots)
}

/// Executes one transaction alone, without what a block does before and after its transactions: what the
/// public state tests ask for.
pub fn execute_transaction<S: StateReader>(
    spec: &ChainSpec,
    state: S,
    header: &Header,
    tx: &Transaction,
) -> Result<(Receipt, StateDiff), ExecutionError> {
    let env = evm_env(spec, header);
    let mut runner = Runner::bare(spec, env, state, header, Course::oracle(1));
    runner.run(tx).map_err(|refusal| refusal.of_given(0, tx))?;
    let (mut receipts, diff) = runner.into_parts()?;
    Ok((receipts.pop().expect("a transaction that ran has a receipt"), diff))
}

/// Executes a given block on this thread. `touched` gets all that the block looked at, as it is after it.
pub(crate) fn run<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    transfers: Transfers,
    aids: Aids,
    touched: Option<&mut StateDiff>,
) -> Result<ExecutedBlock, ExecutionError> {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    let env = evm_env(spec, header);
    let course = Course { transfers, tx_count: transactions.len(), aids };
    let mut runner = Runner::begin(spec, env, state, header, course)?;
    for (index, tx) in transactions.iter().enumerate() {
        runner.run(tx).map_err(|refusal| refusal.of_given(index, tx))?;
    }
    let finished = runner.finish(ommers, withdrawals, touched)?;
    let roots = receipts_root_and_bloom(transactions, &finished.receipts);
    checked(spec, header, finished, roots)
}

/// A finished block, if its header says what execution gave; with the root and bloom of its receipts.
pub(crate) fn checked(
    spec: &ChainSpec,
    header: &Header,
    finished: Finished,
    roots: (B256, Bloom),
) -> Result<ExecutedBlock, ExecutionError> {
    Commitments::new(spec, header.timestamp, &finished, roots).check(spec, header)?;
    Ok(ExecutedBlock {
        receipts: finished.receipts,
        diff: finished.diff,
        gas_used: finished.gas_used,
        blob_gas_used: finished.blob_gas_used,
        requests: finished.requests,
    })
}
