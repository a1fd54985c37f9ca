//! The block engine: one block on many threads, with the result of running it serially.
//!
//! Optimistic and in block order: transactions run on a [multi-version memory](memory) that shows each of
//! them the latest values written before its place, note what they read, and are final when everything
//! before them is and their reads still hold; see [`schedule`]. Outcomes that other machines computed
//! enter as *seeds* and are judged the same way; those from the block's beginning on that hold are merged
//! before any thread starts, see [`merge`]. What comes to and goes from balances that a transaction
//! does not look at (tips, plain transfers, ether that calls take along) is kept as differences, so that
//! they do not tie transactions together.
//!
//! **Invariant**: whatever the number of threads, their speed and the seeds: receipts, gas, logs, requests
//! and diff are those of [`execute_block`](crate::execute_block). Blocks on which that is not worth
//! arguing (before EIP-161, or on made-up states with empty accounts or absurd balances) are given to it.

mod access_list;
mod alone;
mod balances;
mod claims;
mod executor;
mod footprint;
mod ledger;
mod memory;
mod merge;
mod outcome;
mod schedule;
mod source;
mod stream;
mod sync;
mod versions;
mod view;
mod wire;

pub use alone::execute_transaction_shared;
pub(crate) use balances::Balances;
pub use outcome::Outcome;
pub use wire::{OUTCOMES_VERSION, OutcomesError, decode_outcomes, encode_outcomes};

use crate::{
    BlockAttributes, BuiltBlock, ExecutedBlock, ExecutionError,
    build::{self, Selection, assemble, check_attributes},
    codes::CodeCache,
    env::{evm_env, next_header},
    instructions::new_evm,
    late::{LateParent, Parent},
    roots::receipts_root_and_bloom,
    runner::{Aids, Finished, Transfers},
    serial,
    system::{after_transactions, before_transactions},
    watchdog::{Watch, Watchdog},
};
use access_list::{AccessList, Location};
use alloy_consensus::{Header, Sealed, Transaction as _};
use alloy_eips::{
    eip2935::HISTORY_STORAGE_ADDRESS, eip4895::Withdrawal, eip7685::Requests,
    eip7928::BlockAccessList,
};
use alloy_evm::{EthEvm, Evm, EvmEnv, block::BlockExecutionError, precompiles::PrecompilesMap};
use alloy_primitives::{B256, Bloom};
use blockraft_primitives::{ChainSpec, Receipt, StateDiff, StateReader, Transaction};
use executor::{Executor, Way};
use ledger::Ledger;
use memory::{Expected, Memory, Place};
use merge::Start;
use outcome::Writes;
use revm::{inspector::NoOpInspector, primitives::hardfork::SpecId};
use schedule::{Frontier, Schedule};
use source::Source;
use std::fmt;
use stream::Stream;
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
    /// Equal to what [`build_block`](crate::build_block) gives.
    pub block: BuiltBlock,
    /// Seeds whose reads held.
    pub seeds_kept: usize,
    /// Transactions that had to run a second time.
    pub executed_again: usize,
}

/// A block to be built: see [`build_block`](crate::build_block).
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

/// What state seeds were computed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// Any: what they read is compared, value by value, with what the block's parent state has.
    #[default]
    Unknown,
    /// The block's parent state, for which whoever hands them in vouches: by fences that name the parent's
    /// hash. What they read of it is not read again.
    Parent,
}

/// How to run a block: nothing of it changes what comes out.
#[derive(Default)]
pub struct Means<'a> {
    /// Threads of the current rayon pool to use.
    pub threads: usize,
    /// Outcomes that were computed elsewhere, by the index of their transaction; missing, stale and
    /// duplicate ones only cost time.
    pub seeds: Vec<(usize, Outcome)>,
    /// What the seeds were computed on.
    pub basis: Basis,
    /// Takes the block's change in chunks while later transactions still run. Applied in order they lead to
    /// the state that the block's diff leads to. Called by one thread at a time, which other threads
    /// may come to wait for: long work belongs elsewhere. Of a block that fails, chunks are of no use.
    pub sink: Option<&'a mut (dyn FnMut(StateDiff) + Send)>,
    /// Stands for the header's parent hash (and PREVRANDAO) where that is not known yet.
    pub parent: Option<LateParent>,
    /// Ends transactions that run for too long.
    pub watchdog: Option<Watchdog>,
    /// Codes of earlier blocks, ready to run.
    pub codes: Option<CodeCache>,
    /// Filled with what the block looks at and changes (EIP-7928). Costs notes of every read. Left as it is
    /// where the engine leaves a block to serial execution: before EIP-161 and on made-up states.
    pub access_list: Option<&'a mut BlockAccessList>,
}

impl Means<'_> {
    /// Some threads and nothing else.
    pub fn threads(threads: usize) -> Self {
        Self { threads, ..Self::default() }
    }

    fn aids(&self) -> Aids {
        Aids {
            parent: self.parent.clone(),
            watchdog: self.watchdog.clone(),
            codes: self.codes.clone(),
        }
    }
}

impl fmt::Debug for Means<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means")
            .field("threads", &self.threads)
            .field("seeds", &self.seeds.len())
            .finish_non_exhaustive()
    }
}

/// [`execute_with`] with threads and seeds alone.
pub fn execute<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    seeds: Vec<(usize, Outcome)>,
    threads: usize,
) -> Result<BlockResult, ExecutionError> {
    execute_with(input, state, Means { threads, seeds, ..Means::default() })
}

/// Executes a given block on threads of the current rayon pool, and checks its header as
/// [`execute_block`](crate::execute_block) does.
pub fn execute_with<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    means: Means<'_>,
) -> Result<BlockResult, ExecutionError> {
    let aids = means.aids();
    let serially = |transfers, stream: Option<Stream<'_>>| {
        let block = handing_on(stream, |touched| {
            let block = serial::run(input, &state, transfers, aids.clone(), touched)?;
            Ok((block.diff.clone(), block))
        })?;
        Ok(BlockResult { block, seeds_kept: 0, executed_again: 0 })
    };
    if is_light(input.transactions, &means) {
        return serially(Transfers::Direct, means.sink.map(Stream::new));
    }
    let memory = new_memory(input, &state, &means);
    match run(input, memory, None, means)? {
        Run::Done(done) => {
            let Done { frontier, finished, roots } = *done;
            let roots = roots.expect("nothing is chosen in a given block");
            Ok(BlockResult {
                block: serial::checked(input.spec, input.header, finished, roots)?,
                seeds_kept: frontier.seeds_kept,
                executed_again: frontier.executed_again,
            })
        }
        Run::Unfit(stream) => serially(Transfers::InEvm, stream),
    }
}

/// [`build_with`] with threads and seeds alone.
pub fn build<S: StateReader>(
    input: &BuildInput<'_>,
    state: S,
    seeds: Vec<(usize, Outcome)>,
    threads: usize,
) -> Result<BuildResult, ExecutionError> {
    build_with(input, state, Means { threads, seeds, ..Means::default() })
}

/// Builds a block on threads of the current rayon pool: [`build_block`](crate::build_block), faster where the candidates are
/// work enough. Seeds are outcomes of the candidates. With a late parent the hash of `input.parent` does
/// not count.
pub fn build_with<S: StateReader>(
    input: &BuildInput<'_>,
    state: S,
    means: Means<'_>,
) -> Result<BuildResult, ExecutionError> {
    let BuildInput { spec, parent, attributes, candidates } = *input;
    let aids = means.aids();
    let serially = |stream: Option<Stream<'_>>| {
        let block = handing_on(stream, |touched| {
            let block = build::run(input, &state, aids.clone(), touched)?;
            Ok((block.diff.clone(), block))
        })?;
        Ok(BuildResult { block, seeds_kept: 0, executed_again: 0 })
    };
    if is_light(candidates, &means) {
        return serially(means.sink.map(Stream::new));
    }
    check_attributes(parent, attributes)?;
    let mut header = next_header(spec, parent, attributes);
    let block = BlockInput {
        spec,
        header: &header,
        transactions: candidates,
        ommers: &[],
        withdrawals: &attributes.withdrawals,
    };
    let memory = new_memory(&block, &state, &means);
    let selection = Selection::new(spec, &header, attributes, candidates.len());
    match run(&block, memory, Some(selection), means)? {
        Run::Unfit(stream) => serially(stream),
        Run::Done(done) => {
            let Done { frontier, finished, .. } = *done;
            build::complete(&mut header, aids.parent)?;
            let selection = frontier.selection.expect("it went in above");
            Ok(BuildResult {
                block: assemble(spec, header, &attributes.withdrawals, selection, finished),
                seeds_kept: frontier.seeds_kept,
                executed_again: frontier.executed_again,
            })
        }
    }
}

/// Whether threads would cost more than they bring, so that one runs the block: nobody helps, or nearly all is
/// plain transfers, which one thread does faster than several can share them out.
pub fn is_light(transactions: &[Transaction], means: &Means<'_>) -> bool {
    let heavy = || transactions.iter().filter(|tx| !tx.input().is_empty() || tx.is_create());
    means.access_list.is_none()
        && means.seeds.is_empty()
        && (means.threads < 2 || heavy().count() * 8 < transactions.len())
}

/// A memory of the size that the block will probably need.
fn new_memory<S: StateReader>(input: &BlockInput<'_>, state: S, means: &Means<'_>) -> Memory<S> {
    let (count, seeds) = (input.transactions.len(), &means.seeds);
    let calls = || input.transactions.iter().filter(|tx| !tx.input().is_empty()).count();
    let sum = |of: fn(&Outcome) -> usize| seeds.iter().map(|(_, seed)| of(seed)).sum::<usize>();
    let slots = match means.basis {
        _ if seeds.is_empty() => 2 * calls(),
        // Reads come to the memory as well.
        Basis::Unknown => sum(|seed| seed.reads.len()).saturating_sub(2 * calls()),
        Basis::Parent => sum(|seed| seed.writes.accounts.iter().map(|a| a.storage.len()).sum()),
    };
    let accounts = account_count(input.transactions);
    let expected = Expected { places: FIRST as usize + count, accounts, slots };
    let parent = Parent::of(input.header, means.parent.clone());
    Memory::new(state, parent, input.header.beneficiary, expected).with_codes(means.codes.clone())
}

/// A guess at how many accounts transactions touch: senders, and who gets plain transfers.
fn account_count<'a>(transactions: impl IntoIterator<Item = &'a Transaction>) -> usize {
    transactions.into_iter().map(|tx| if tx.input().is_empty() { 2 } else { 1 }).sum()
}

/// Runs a block serially and hands its diff on in one piece. Where chunks went out already, they are those
/// of the block's beginning, and what they changed may have changed back: so all that was touched follows.
fn handing_on<T>(
    stream: Option<Stream<'_>>,
    run: impl FnOnce(Option<&mut StateDiff>) -> Result<(StateDiff, T), ExecutionError>,
) -> Result<T, ExecutionError> {
    let Some(mut stream) = stream else { return Ok(run(None)?.1) };
    if !stream.is_started {
        let (diff, result) = run(None)?;
        stream.push(diff);
        return Ok(result);
    }
    let mut touched = StateDiff::default();
    let (diff, result) = run(Some(&mut touched))?;
    stream.push(StateDiff { codes: diff.codes, ..touched });
    Ok(result)
}

/// What became of a run.
enum Run<'a> {
    Done(Box<Done<'a>>),
    /// Not with this state or in this fork. Chunks that went out are right as far as they go.
    Unfit(Option<Stream<'a>>),
}

struct Done<'a> {
    /// Without its receipts.
    frontier: Frontier<'a>,
    finished: Finished,
    /// Root and bloom of the receipts, where no transaction was left out.
    roots: Option<(B256, Bloom)>,
}

/// Runs a block.
fn run<'a, S: StateReader>(
    input: &BlockInput<'_>,
    mut memory: Memory<S>,
    selection: Option<Selection>,
    means: Means<'a>,
) -> Result<Run<'a>, ExecutionError> {
    let BlockInput { spec, header, transactions, .. } = *input;
    let Means { threads, seeds, basis, sink, watchdog, access_list: wanted, .. } = means;
    let mut stream = sink.map(Stream::new);
    let env = evm_env(spec, header);
    if env.cfg_env.spec < SpecId::SPURIOUS_DRAGON || env.cfg_env.spec >= SpecId::AMSTERDAM {
        return Ok(Run::Unfit(stream));
    }
    // Tips do not read it, but whether it is irregular must be known.
    memory.account(header.beneficiary, 0)?;
    let before = memory.parent().header_for_calls(header, memory.reader())?;
    let mut access_list = wanted.is_some().then(|| AccessList::new(header.beneficiary));
    let calls = system(&memory, &env, 0, |evm| before_transactions(spec, evm, &before))?;
    note(&mut stream, &calls.committed);
    calls.list(&mut access_list, &memory, 0, 0)?;
    let start = Start { selection, seeds, basis, stream, access_list, watchdog, threads };
    let merged = start.merge(&mut memory, env.block_env.gas_limit, transactions, FIRST);
    let schedule = Schedule::new(&memory, &env, transactions, FIRST, merged);
    if threads < 2 {
        schedule.work(None);
    } else {
        rayon::scope(|scope| schedule.work(Some(scope)));
    }
    let mut frontier = schedule.into_frontier();
    if memory.is_irregular() {
        return Ok(Run::Unfit(frontier.stream));
    }
    if let Some(failure) = frontier.failure {
        return Err(failure);
    }
    let receipts = std::mem::take(&mut frontier.receipts);
    let is_given = frontier.selection.is_none();
    let hash = || is_given.then(|| receipts_root_and_bloom(transactions, &receipts));
    let close = || close(input, &env, memory, &mut frontier, &receipts, wanted);
    // The end of a block is one thread's work, which leaves the others to the receipts.
    let (closed, roots) = if threads < 2 { (close(), hash()) } else { rayon::join(close, hash) };
    let Some(Closed { requests, diff }) = closed? else {
        return Ok(Run::Unfit(frontier.stream));
    };
    let finished = Finished {
        receipts,
        requests,
        gas_used: frontier.gas_used,
        blob_gas_used: frontier.blob_gas_used,
        diff,
    };
    Ok(Run::Done(Box::new(Done { frontier, finished, roots })))
}

/// What a block comes to after its transactions.
struct Closed {
    requests: Requests,
    diff: StateDiff,
}

/// Runs what comes after the transactions and draws up the change; `None` on a state that is irregular.
fn close<S: StateReader>(
    input: &BlockInput<'_>,
    env: &EvmEnv,
    memory: Memory<S>,
    frontier: &mut Frontier<'_>,
    receipts: &[Receipt],
    wanted: Option<&mut BlockAccessList>,
) -> Result<Option<Closed>, ExecutionError> {
    let BlockInput { spec, transactions, ommers, withdrawals, .. } = *input;
    let last = FIRST + transactions.len() as Place;
    let calls = system(&memory, env, last, |evm| {
        after_transactions(spec, evm, receipts, ommers, withdrawals)
    })?;
    note(&mut frontier.stream, &calls.committed);
    calls.list(&mut frontier.access_list, &memory, last, receipts.len() as u64 + 1)?;
    if let Some(stream) = &mut frontier.stream {
        stream.flush(&memory, Place::MAX)?;
    }
    if memory.is_irregular() {
        return Ok(None);
    }
    if let (Some(list), Some(wanted)) = (frontier.access_list.take(), wanted) {
        *wanted = list.finish(&memory)?;
    }
    let late = memory.parent().is_late();
    let diff = memory.into_diff()?;
    if let Some(stream) = frontier.stream.as_mut().filter(|_| late) {
        stream.push_account(&diff, HISTORY_STORAGE_ADDRESS);
    }
    Ok(Some(Closed { requests: calls.value, diff }))
}

fn note(stream: &mut Option<Stream<'_>>, writes: &[Writes]) {
    if let Some(stream) = stream {
        writes.iter().for_each(|writes| stream.note(writes));
    }
}

/// An executor's share: runs the transactions at `indices` (ascending) on the parent state and one
/// another, and returns their outcomes as seeds for [`execute`].
pub fn execute_share<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    indices: &[usize],
) -> Result<Vec<(usize, Outcome)>, ExecutionError> {
    execute_share_with(input, state, indices, Means::default())
}

/// [`execute_share`] with a late parent, a watchdog or codes; an executor has no use for the other means.
pub fn execute_share_with<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    indices: &[usize],
    means: Means<'_>,
) -> Result<Vec<(usize, Outcome)>, ExecutionError> {
    let env = evm_env(input.spec, input.header);
    let accounts = account_count(indices.iter().map(|index| &input.transactions[*index]));
    let ledger = Ledger::new(&state, Parent::of(input.header, means.parent), accounts)
        .with_codes(means.codes);
    ledger.account(input.header.beneficiary, 0)?;
    let before = ledger.parent().header_for_calls(input.header, ledger.reader())?;
    system(&ledger, &env, 0, |evm| before_transactions(input.spec, evm, &before))?;
    let mut executor = Executor::new(&ledger, env, means.watchdog);
    let outcomes = indices.iter().map(|&index| {
        let place = FIRST + index as Place;
        let outcome = executor.run(&input.transactions[index], place, Way::Share);
        ledger.publish(place, &outcome.writes);
        (index, outcome)
    });
    Ok(outcomes.collect())
}

type SystemEvm<'a, M> = EthEvm<View<'a, M>, NoOpInspector, PrecompilesMap>;

/// What system calls gave and wrote.
struct Calls<T> {
    value: T,
    committed: Vec<Writes>,
    loaded: Vec<Vec<Location>>,
}

impl<T> Calls<T> {
    /// Puts what was committed from `place` on into a list, all with one index.
    fn list<S: StateReader>(
        &self,
        list: &mut Option<AccessList>,
        memory: &Memory<S>,
        place: Place,
        index: u64,
    ) -> Result<(), ExecutionError> {
        let Some(list) = list else { return Ok(()) };
        let commits = self.loaded.iter().zip(&self.committed);
        for (place, (loaded, writes)) in (place..).zip(commits) {
            list.add(memory, place, index, loaded.iter().copied(), writes)?;
        }
        Ok(())
    }
}

/// Runs system calls from `place` on.
fn system<'a, M: Source, T>(
    memory: &'a M,
    env: &EvmEnv,
    place: Place,
    calls: impl FnOnce(&mut SystemEvm<'a, M>) -> Result<T, BlockExecutionError>,
) -> Result<Calls<T>, ExecutionError> {
    let mut view = View::new(memory, place, Watch::default());
    view.traced = true;
    let mut evm = new_evm(view, env.clone());
    let result = calls(&mut evm);
    let view = evm.db_mut();
    match (view.failure.take(), result) {
        (Some(failure), _) => Err(ExecutionError::State(failure)),
        (None, Ok(value)) => Ok(Calls {
            value,
            committed: std::mem::take(&mut view.committed),
            loaded: std::mem::take(&mut view.loaded),
        }),
        (None, Err(error)) => Err(ExecutionError::System(error)),
    }
}
