//! One block both ways, turn by turn, and what differs.

use super::{
    blocks::PreparedBlock,
    report::{BlockReport, Difference, Share, Times},
};
use alloy_consensus::{Header, Transaction as _};
use alloy_eips::{
    eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
};
use alloy_primitives::keccak256;
use blockraft_execution::{
    Basis, BlockInput, BlockResult, CodeCache, ExecutedBlock, ExecutionError, HeaderMismatch,
    Means, PlainState, decode_outcomes, encode_outcomes, evm_env, execute_block,
    execute_share_with, execute_with, receipts_root_and_bloom,
};
use blockraft_primitives::{ChainSpec, Receipt, Transaction};
use nix::time::{ClockId, clock_gettime};
use std::path::Path;

/// Header fields that execution gives.
const EXECUTED_FIELDS: usize = 5;

/// How blocks are replayed.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) spec: ChainSpec,
    pub(super) pool: rayon::ThreadPool,
    pub(super) executors: usize,
    pub(super) threads: usize,
    pub(super) repeats: usize,
    /// Of the blocks so far, as a node has them.
    pub(super) codes: CodeCache,
}

/// What the engine made of a block once.
struct Run {
    result: BlockResult,
    seeds: usize,
    shares: Vec<Share>,
    seconds: f64,
}

impl Set {
    /// Runs a block: a first turn that checks and warms up, then those that count.
    pub(super) fn replay(&self, folder: &Path, block: &PreparedBlock) -> BlockReport {
        // Both ways on the same thread, whose pool the engine's helpers come from.
        self.pool.install(|| self.turns(folder, block))
    }

    fn turns(&self, folder: &Path, block: &PreparedBlock) -> BlockReport {
        let mut report = BlockReport::new(folder, block);
        let result = self.first_turn(block).and_then(|(header, serial)| {
            let plain_state = PlainState::new(block.state.known());
            for turn in 0..=self.repeats {
                let input = input(&self.spec, block, &header);
                let plain_seconds = plain_run(&input, plain_state.clone(), &serial)?;
                let (serial_seconds, _) = timed(|| serial_run(&input, block));
                let run = self
                    .engine(&input, block)
                    .map_err(|error| self.engine_difference(&input, block, &serial, error))?;
                if let Some(difference) = differs(&block.transactions, &serial, &run.result.block) {
                    return Err(difference);
                }
                if turn > 0 {
                    let (plain, serial, engine) = (plain_seconds, serial_seconds, run.seconds);
                    report.times.push(Times { plain, serial, engine });
                    report.conflicts += run.seeds - run.result.seeds_kept;
                    report.executed_again += run.result.executed_again;
                    report.shares = run.shares;
                }
            }
            Ok(())
        });
        report.conflicts = report.conflicts.max(report.executed_again).div_ceil(self.repeats);
        report.executed_again = report.executed_again.div_ceil(self.repeats);
        match result {
            Ok(()) => report.passed(),
            Err(difference) => report.failed(difference),
        }
    }

    /// The oracle's result, and the header that it was checked against. A pre-state without the request
    /// contracts cannot tell what they hold, so there the requests' hash is taken from execution.
    fn first_turn(&self, block: &PreparedBlock) -> Result<(Header, ExecutedBlock), Difference> {
        let mut header = block.header.clone();
        let requests =
            [WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS];
        let has_requests = requests.iter().all(|address| block.state.has_code(address));
        loop {
            match serial_run(&input(&self.spec, block, &header), block) {
                Ok(serial) => return Ok((header, serial)),
                Err(ExecutionError::Header {
                    mismatch: HeaderMismatch::RequestsHash { expected, .. },
                    ..
                }) if !has_requests && header.requests_hash != expected => {
                    header.requests_hash = expected;
                }
                Err(error) => return Err(Difference::of_serial(error, &block.state)),
            }
        }
    }

    fn engine(&self, input: &BlockInput<'_>, block: &PreparedBlock) -> Result<Run, ExecutionError> {
        let (mut shares, mut answers, mut slowest) = (Vec::new(), Vec::new(), 0.0_f64);
        if self.executors > 1 {
            for (executor, share) in self.shares(block).iter().enumerate() {
                let (seconds, answer) = timed(|| {
                    let outcomes = execute_share_with(input, &block.state, share, self.means());
                    outcomes.map(|outcomes| encode_outcomes(&outcomes))
                });
                answers.push(answer?);
                slowest = slowest.max(seconds);
                shares.push(Share { executor, transactions: share.len(), seconds });
            }
        }
        let (seconds, result) = timed(|| {
            let mut seeds = Vec::new();
            for answer in &answers {
                seeds.extend(decode_outcomes(answer).expect("they were encoded above"));
            }
            let count = seeds.len();
            let (threads, basis) = (self.threads, Basis::Parent);
            let means = Means { threads, seeds, basis, ..self.means() };
            execute_with(input, &block.state, means).map(|result| (count, result))
        });
        let (seeds, result) = result?;
        if shares.is_empty() {
            shares.push(Share { executor: 0, transactions: block.transactions.len(), seconds });
        }
        Ok(Run { result, seeds, shares, seconds: slowest + seconds })
    }

    fn means<'m>(&self) -> Means<'m> {
        Means { codes: Some(self.codes.clone()), ..Means::default() }
    }

    /// Which executor runs which transaction: the owner of its anchor, which is the called contract, or
    /// else the sender. Executors own ranges of the 256 partitions.
    fn shares(&self, block: &PreparedBlock) -> Vec<Vec<usize>> {
        let mut shares = vec![Vec::new(); self.executors];
        for (index, tx) in block.transactions.iter().enumerate() {
            let called = tx.to().filter(|to| block.state.has_code(to));
            let partition = keccak256(called.unwrap_or_else(|| tx.signer()))[0];
            shares[usize::from(partition) * self.executors / 256].push(index);
        }
        shares
    }

    /// Where the engine's receipts leave the oracle's, when the engine calls a header wrong that the oracle
    /// calls right.
    fn engine_difference(
        &self,
        input: &BlockInput<'_>,
        block: &PreparedBlock,
        serial: &ExecutedBlock,
        mut error: ExecutionError,
    ) -> Difference {
        let mut header = input.header.clone();
        for _ in 0..EXECUTED_FIELDS {
            let ExecutionError::Header { mismatch, .. } = &error else { break };
            believe(&mut header, mismatch);
            match self.engine(&BlockInput { header: &header, ..*input }, block) {
                Ok(run) => {
                    let difference = differs(&block.transactions, serial, &run.result.block);
                    return difference.unwrap_or_else(|| Difference::of_engine(&error));
                }
                Err(other) => error = other,
            }
        }
        Difference::of_engine(&error)
    }
}

fn input<'a>(spec: &'a ChainSpec, block: &'a PreparedBlock, header: &'a Header) -> BlockInput<'a> {
    BlockInput {
        spec,
        header,
        transactions: &block.transactions,
        // Their rewards change balances alone, and no receipt.
        ommers: &[],
        withdrawals: &block.withdrawals,
    }
}

fn serial_run(
    input: &BlockInput<'_>,
    block: &PreparedBlock,
) -> Result<ExecutedBlock, ExecutionError> {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    execute_block(spec, &block.state, header, transactions, ommers, withdrawals)
}

/// Seconds that the plain loop takes, with all that a node needs of a block after running it: receipts with
/// their root and bloom, and the net change.
fn plain_run(
    input: &BlockInput<'_>,
    mut state: PlainState,
    serial: &ExecutedBlock,
) -> Result<f64, Difference> {
    let env = evm_env(input.spec, input.header);
    let (seconds, result) = timed(|| {
        let block = state.run_block(&env, input.transactions)?;
        let roots = receipts_root_and_bloom(input.transactions, &block.receipts);
        Ok((block, roots))
    });
    let (block, _) = result.map_err(|error| Difference::of_plain(&error))?;
    let gas_used = block.receipts.last().map_or(0, |receipt| receipt.cumulative_gas_used);
    if gas_used != serial.gas_used {
        let reason = format!("the plain loop uses {gas_used}, the serial loop {}", serial.gas_used);
        return Err(Difference::of_block("gasUsed", reason));
    }
    Ok(seconds)
}

/// Writes into the header what execution says.
fn believe(header: &mut Header, mismatch: &HeaderMismatch) {
    match mismatch {
        HeaderMismatch::GasUsed { expected, .. } => header.gas_used = *expected,
        HeaderMismatch::ReceiptsRoot { expected, .. } => header.receipts_root = *expected,
        HeaderMismatch::LogsBloom { expected, .. } => header.logs_bloom = **expected,
        HeaderMismatch::BlobGasUsed { expected, .. } => header.blob_gas_used = *expected,
        HeaderMismatch::RequestsHash { expected, .. } => header.requests_hash = *expected,
    }
}

/// The first thing in which the engine's result is not the oracle's.
fn differs(
    transactions: &[Transaction],
    serial: &ExecutedBlock,
    engine: &ExecutedBlock,
) -> Option<Difference> {
    if serial == engine {
        return None;
    }
    let pairs = serial.receipts.iter().zip(&engine.receipts);
    for (index, (tx, (expected, got))) in transactions.iter().zip(pairs).enumerate() {
        if let Some((field, reason)) = receipt_differs(expected, got) {
            return Some(Difference::of_receipt(index, *tx.tx_hash(), field, reason));
        }
    }
    let field = match () {
        () if serial.receipts.len() != engine.receipts.len() => "receipts",
        () if serial.gas_used != engine.gas_used => "gasUsed",
        () if serial.blob_gas_used != engine.blob_gas_used => "blobGasUsed",
        () if serial.requests != engine.requests => "requestsHash",
        () => "stateDiff",
    };
    Some(Difference::of_block(field, "the engine's is not the serial loop's".to_owned()))
}

fn receipt_differs(expected: &Receipt, got: &Receipt) -> Option<(&'static str, String)> {
    let says = |got: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        format!("the engine has {got:?}, the serial loop {expected:?}")
    };
    if expected.status != got.status {
        return Some(("status", says(&got.status, &expected.status)));
    }
    if expected.cumulative_gas_used != got.cumulative_gas_used {
        let gas = says(&got.cumulative_gas_used, &expected.cumulative_gas_used);
        return Some(("cumulativeGasUsed", gas));
    }
    (expected.logs != got.logs).then(|| ("logs", says(&got.logs, &expected.logs)))
}

/// Wall seconds that something took.
fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock exists");
        time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
    };
    let start = now();
    let result = run();
    (now() - start, result)
}
