//! Executing a block by several executors, as a cluster does, in one process.
//!
//! Each executor sees the parent state and its own share, nothing else; what it found goes through its
//! encoding for the wire and enters the engine as seeds. The result is the same for any number of them.

use blockraft_execution::{
    Basis, BlockInput, ExecutedBlock, ExecutionError, Means, Outcome, decode_outcomes,
    encode_outcomes, execute_block, execute_share, execute_with,
};
use blockraft_primitives::StateReader;
use blockraft_protocol::{PARTITION_COUNT, PartitionId, anchor};
use rayon::prelude::*;

/// Who executes blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Executors that share a block; one has it all.
    pub executors: usize,
    /// Threads of the current rayon pool that the engine may use.
    pub threads: usize,
}

/// Executes a block and checks its header as [`execute_block`] does, which one executor with one thread is.
pub(super) fn execute<S: StateReader>(
    input: &BlockInput<'_>,
    state: S,
    workers: Workers,
) -> Result<ExecutedBlock, ExecutionError> {
    if workers == (Workers { executors: 1, threads: 1 }) {
        let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
        return execute_block(spec, state, header, transactions, ommers, withdrawals);
    }
    let seeds = seeds(input, &state, workers.executors)?;
    let means = Means { seeds, basis: Basis::Parent, ..Means::threads(workers.threads) };
    Ok(execute_with(input, state, means)?.block)
}

/// What the executors make of their shares.
fn seeds<S: StateReader>(
    input: &BlockInput<'_>,
    state: &S,
    executors: usize,
) -> Result<Vec<(usize, Outcome)>, ExecutionError> {
    if executors < 2 {
        return Ok(Vec::new());
    }
    let mut shares = vec![Vec::new(); executors];
    for (index, tx) in input.transactions.iter().enumerate() {
        let PartitionId(partition) = PartitionId::of(anchor(tx));
        shares[usize::from(partition) * executors / PARTITION_COUNT].push(index);
    }
    let outcomes = shares.par_iter().filter(|share| !share.is_empty()).map(|share| {
        let sent = encode_outcomes(&execute_share(input, state, share)?);
        Ok(decode_outcomes(&sent).expect("what was encoded decodes"))
    });
    let outcomes = outcomes.collect::<Result<Vec<_>, ExecutionError>>()?;
    Ok(outcomes.into_iter().flatten().collect())
}
