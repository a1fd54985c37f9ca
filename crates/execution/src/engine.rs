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
mod wire;

pub use outcome::Outcome;
pub use wire::{OUTCOMES_VERSION, OutcomesError, decode_outcomes, encode_outcomes};

use crate::{
    BlockAttributes, BuiltBlock, ExecutedBlock, ExecutionError,
    build::{Selection, assemble, build_block, check_attributes},
    collision,
    env::{evm_env, next_header},
    runner::{Finished, Transfers},
    serial,
    system::{after_transactions, before_transactions},
};
use alloy_consensus::{Header, Sealed, Transaction as _};
use alloy_eips::eip4895::Withdrawal;
use alloy_evm::{EthEvm, Evm, EvmEnv, block::BlockExecutionError, precompiles::PrecompilesMap};
use alloy_primitives::B256;
use blockraft_primitives::{ChainSpec, StateDiff, StateReader, Transaction};
use executor::Executor;
use memory::{Memory, Place};
use revm::{inspector::NoOpInspector, primitives::hardfork::SpecId};
use schedule::{Frontier, Schedule};
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

/// What the engine made of candidates, and how hard it was.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildResult {
    /// Equal to what [`build_block`] gives.
    pub block: BuiltBlock,
    /// Seeds whose reads held.
    pub seeds_kept: usize,
    /// Transactions that had to run a second time.
    pub executed_again: usize,
}

/// A block to be built: see [`build_block`].
#[derive(Clone, Copy, Debug)]
pub struct BuildInput<'a> {
    /// The rules.
    pub spec: &'a ChainSpec,
    /// The block that it follows.
    pub parent: &'a Sealed<Header>,
    /// What the proposer chooses.
    pub attributes: &'a BlockAttributes,
    /// In the order in which they shall run.
    pub candidates: &'a [Transaction],
}

/// Executes a given block on `threads` threads of the current rayon pool, and checks its header as
/// [`execute_block`](crate::execute_block) does. `seeds` are outcomes that were computed elsewhere, by
/// index; missing, stale and duplicate ones only cost time.
pub fn execute<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    seeds: Vec<(usize, Outcome)>,
    threads: usize,
) -> Result<BlockResult, ExecutionError> {
    let serially = |transfers| {
        let block = serial::run(input, &state, transfers)?;
        Ok(BlockResult { block, seeds_kept: 0, executed_again: 0 })
    };
    if is_light(input.transactions, &seeds, threads) {
        return serially(Transfers::Direct);
    }
    let memory = Memory::new(&state, parent_of(input.header));
    let Some((frontier, finished)) = run(input, &memory, None, seeds, threads)? else {
        return serially(Transfers::InEvm);
    };
    let finished = Finished { diff: memory.into_diff()?, ..finished };
    Ok(BlockResult {
        block: serial::checked(input.spec, input.header, input.transactions, finished)?,
        seeds_kept: frontier.seeds_kept,
        executed_again: frontier.executed_again,
    })
}

/// Builds a block on `threads` threads of the current rayon pool: [`build_block`], faster where the
/// candidates are work enough. `seeds` are outcomes of the candidates by index, computed elsewhere.
pub fn build<S: StateReader>(
    input: &BuildInput<'_>,
    state: S,
    seeds: Vec<(usize, Outcome)>,
    threads: usize,
) -> Result<BuildResult, ExecutionError> {
    let BuildInput { spec, parent, attributes, candidates } = *input;
    let serially = || {
        let block = build_block(spec, &state, parent, attributes, candidates)?;
        Ok(BuildResult { block, seeds_kept: 0, executed_again: 0 })
    };
    if is_light(candidates, &seeds, threads) {
        return serially();
    }
    check_attributes(parent, attributes)?;
    let header = next_header(spec, parent, attributes);
    let block = BlockInput {
        spec,
        header: &header,
        transactions: candidates,
        ommers: &[],
        withdrawals: &attributes.withdrawals,
    };
    let memory = Memory::new(&state, parent_of(&header));
    let selection = Selection::new(spec, &header, attributes, candidates.len());
    let Some((frontier, finished)) = run(&block, &memory, Some(selection), seeds, threads)? else {
        return serially();
    };
    let finished = Finished { diff: memory.into_diff()?, ..finished };
    let selection = frontier.selection.expect("it went in above");
    Ok(BuildResult {
        block: assemble(spec, header, &attributes.withdrawals, selection, finished),
        seeds_kept: frontier.seeds_kept,
        executed_again: frontier.executed_again,
    })
}

/// Whether threads would cost more than they bring: nobody helps, or nearly all is plain transfers, which
/// one thread does faster than several can share them out.
fn is_light(transactions: &[Transaction], seeds: &[(usize, Outcome)], threads: usize) -> bool {
    let heavy = || transactions.iter().filter(|tx| !tx.input().is_empty() || tx.is_create());
    seeds.is_empty() && (threads < 2 || heavy().count() * 8 < transactions.len())
}

/// Runs a block; the diff stays in the memory. `None`: not with this state or in this fork.
fn run<S: StateReader>(
    input: &BlockInput<'_>,
    memory: &Memory<S>,
    selection: Option<Selection>,
    seeds: Vec<(usize, Outcome)>,
    threads: usize,
) -> Result<Option<(Frontier, Finished)>, ExecutionError> {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    let env = evm_env(spec, header);
    if env.cfg_env.spec < SpecId::SPURIOUS_DRAGON || env.cfg_env.spec >= SpecId::AMSTERDAM {
        return Ok(None);
    }
    // Tips do not read it, but whether it is irregular must be known.
    memory.account(header.beneficiary, 0)?;
    system(memory, &env, 0, |evm| before_transactions(spec, evm, header))?;
    let schedule = Schedule::new(memory, &env, transactions, FIRST, selection, seeds);
    if threads < 2 {
        schedule.work();
    } else {
        rayon::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|_| schedule.work());
            }
        });
    }
    let mut frontier = schedule.into_frontier();
    if memory.is_irregular() {
        return Ok(None);
    }
    if let Some(failure) = frontier.failure {
        return Err(failure);
    }
    let receipts = std::mem::take(&mut frontier.receipts);
    let last = FIRST + transactions.len() as Place;
    let requests = system(memory, &env, last, |evm| {
        after_transactions(spec, evm, &receipts, ommers, withdrawals)
    })?;
    let finished = Finished {
        receipts,
        requests,
        gas_used: frontier.gas_used,
        blob_gas_used: frontier.blob_gas_used,
        diff: StateDiff::default(),
    };
    Ok((!memory.is_irregular()).then_some((frontier, finished)))
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

fn parent_of(header: &Header) -> (u64, B256) {
    (header.number.saturating_sub(1), header.parent_hash)
}

type SystemEvm<'a, S> = EthEvm<View<'a, S>, NoOpInspector, PrecompilesMap>;

/// Runs system calls from `place` on.
fn system<'a, S: StateReader, T>(
    memory: &'a Memory<S>,
    env: &EvmEnv,
    place: Place,
    calls: impl FnOnce(&mut SystemEvm<'a, S>) -> Result<T, BlockExecutionError>,
) -> Result<T, ExecutionError> {
    let mut evm = collision::new_evm(View::new(memory, place), env.clone());
    let result = calls(&mut evm);
    let failure = evm.db_mut().failure.take();
    match (failure, result) {
        (Some(failure), _) => Err(ExecutionError::State(failure)),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => Err(ExecutionError::System(error)),
    }
}
