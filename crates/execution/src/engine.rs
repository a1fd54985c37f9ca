//! The block engine: one block on many threads, with the result of running it serially.
//!
//! Optimistic and in block order: transactions run on a [multi-version memory](memory) that shows each of
//! them the latest values written before its place, note what they read, and are final when everything
//! before them is and their reads still hold; see [`schedule`]. Outcomes that other machines computed
//! enter as *seeds* and are judged the same way. Fee recipients' tips and plain transfers are credits, so
//! that they do not tie transactions together.
//!
//! **Invariant**: whatever the number of threads, their speed and the seeds: receipts, gas, logs, requests
//! and diff are those of [`execute_block`](crate::execute_block). Blocks on which that is not worth
//! arguing (before EIP-161, or on made-up states with empty accounts or absurd balances) are given to it.

mod executor;
mod memory;
mod outcome;
mod schedule;
mod view;

pub use outcome::Outcome;

use crate::{
    ExecutedBlock, ExecutionError,
    env::evm_env,
    runner::Finished,
    serial::checked,
    serial::execute_block,
    system::{after_transactions, before_transactions},
};
use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_evm::block::BlockExecutionError;
use alloy_evm::{EthEvm, Evm, EvmEnv, eth::EthEvmBuilder, precompiles::PrecompilesMap};
use blockraft_primitives::{ChainSpec, StateReader, Transaction};
use executor::Executor;
use memory::{Memory, Place};
use revm::{inspector::NoOpInspector, primitives::hardfork::SpecId};
use schedule::Schedule;
use view::View;

/// Places before the first transaction: one for each change that system calls make.
const FIRST: Place = 8;

/// A given block, in parts.
#[derive(Clone, Copy, Debug)]
pub struct BlockInput<'a> {
    /// The rules.
    pub spec: &'a ChainSpec,
    /// The block's header.
    pub header: &'a Header,
    /// In block order.
    pub transactions: &'a [Transaction],
    /// Empty from the merge on.
    pub ommers: &'a [Header],
    /// Empty before Shanghai.
    pub withdrawals: &'a [Withdrawal],
}

/// What the engine made of a block, and how hard it was.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockResult {
    /// Equal to the oracle's.
    pub block: ExecutedBlock,
    /// Seeds whose reads held.
    pub seeds_kept: usize,
    /// Transactions that had to run a second time.
    pub executed_again: usize,
}

/// Executes a given block on `threads` threads of the current rayon pool, and checks its header as
/// [`execute_block`] does. `seeds` are outcomes that were computed elsewhere, by index; missing, stale and
/// duplicate ones only cost time.
pub fn execute<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    seeds: Vec<(usize, Outcome)>,
    threads: usize,
) -> Result<BlockResult, ExecutionError> {
    let env = evm_env(input.spec, input.header);
    if env.cfg_env.spec < SpecId::SPURIOUS_DRAGON || env.cfg_env.spec >= SpecId::AMSTERDAM {
        return serially(input, &state);
    }
    let memory = Memory::new(&state, parent_of(input.header));
    // Tips do not read it, but whether it is irregular must be known.
    memory.account(input.header.beneficiary, 0)?;
    system(&memory, &env, 0, |evm| before_transactions(input.spec, evm, input.header))?;
    let alone = threads < 2 && seeds.is_empty();
    let schedule = Schedule::new(&memory, &env, input.transactions, FIRST, seeds, alone);
    if threads < 2 || input.transactions.len() < 2 {
        schedule.work();
    } else {
        rayon::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|_| schedule.work());
            }
        });
    }
    let frontier = schedule.into_frontier();
    if memory.is_irregular() {
        return serially(input, &state);
    }
    if let Some(failure) = frontier.failure {
        return Err(failure);
    }
    let last = FIRST + input.transactions.len() as Place;
    let requests = system(&memory, &env, last, |evm| {
        let receipts = &frontier.receipts;
        after_transactions(input.spec, evm, receipts, input.ommers, input.withdrawals)
    })?;
    if memory.is_irregular() {
        return serially(input, &state);
    }
    let finished = Finished {
        receipts: frontier.receipts,
        requests,
        gas_used: frontier.gas_used,
        blob_gas_used: frontier.blob_gas_used,
        diff: memory.into_diff()?,
    };
    Ok(BlockResult {
        block: checked(input.spec, input.header, input.transactions, finished)?,
        seeds_kept: frontier.seeds_kept,
        executed_again: frontier.executed_again,
    })
}

/// An executor's share: runs the transactions at `indices` (ascending) on the parent state and one
/// another, and returns their outcomes as seeds for [`execute`].
pub fn execute_share<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    indices: &[usize],
) -> Result<Vec<(usize, Outcome)>, ExecutionError> {
    let env = evm_env(input.spec, input.header);
    let memory = Memory::new(&state, parent_of(input.header));
    system(&memory, &env, 0, |evm| before_transactions(input.spec, evm, input.header))?;
    let mut executor = Executor::new(&memory, env);
    let outcomes = indices.iter().map(|&index| {
        let place = FIRST + index as Place;
        let outcome = executor.run(&input.transactions[index], place, true);
        memory.publish(place, &outcome.writes);
        (index, outcome)
    });
    Ok(outcomes.collect())
}

fn parent_of(header: &Header) -> (u64, alloy_primitives::B256) {
    (header.number.saturating_sub(1), header.parent_hash)
}

fn serially<S: StateReader>(
    input: &BlockInput<'_>,
    state: &S,
) -> Result<BlockResult, ExecutionError> {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    let block = execute_block(spec, state, header, transactions, ommers, withdrawals)?;
    Ok(BlockResult { block, seeds_kept: 0, executed_again: 0 })
}

type SystemEvm<'a, S> = EthEvm<View<'a, S>, NoOpInspector, PrecompilesMap>;

/// Runs system calls from `place` on.
fn system<'a, S: StateReader, T>(
    memory: &'a Memory<S>,
    env: &EvmEnv,
    place: Place,
    calls: impl FnOnce(&mut SystemEvm<'a, S>) -> Result<T, BlockExecutionError>,
) -> Result<T, ExecutionError> {
    let mut evm = EthEvmBuilder::new(View::new(memory, place), env.clone()).build();
    let result = calls(&mut evm);
    let failure = evm.db_mut().failure.take();
    match (failure, result) {
        (Some(failure), _) => Err(ExecutionError::State(failure)),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => Err(ExecutionError::System(error)),
    }
}
