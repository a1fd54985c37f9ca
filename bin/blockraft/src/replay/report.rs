//! What is said of each block, and of all.

use super::{blocks::PreparedBlock, pre_state::PreState};
use alloy_primitives::B256;
use blockraft_execution::{ExecutionError, HeaderMismatch};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Status {
    /// The header says what execution gives, both ways.
    Passed,
    /// Something differs.
    Failed,
    /// Its files do not hold all that it reads.
    Incomplete,
    /// Its files cannot be read.
    Unreadable,
}

/// Where something differs, and how.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    #[serde(skip)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_hash: Option<B256>,
    /// Of the header, or of the transaction's receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    reason: String,
}

/// Seconds of one turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) plain: f64,
    pub(super) serial: f64,
    pub(super) engine: f64,
}

/// An executor's part of a block.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Share {
    pub(super) executor: usize,
    pub(super) transactions: usize,
    /// Of the last turn.
    pub(super) seconds: f64,
}

/// One block.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockReport {
    block: Option<u64>,
    path: PathBuf,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Difference>,
    transactions: usize,
    gas_used: u64,
    #[serde(skip)]
    pub(super) times: Vec<Times>,
    #[serde(flatten)]
    speed: Option<Speed>,
    /// Outcomes that had read what an earlier transaction then changed, in one turn.
    pub(super) conflicts: usize,
    /// Transactions that ran a second time, in one turn.
    pub(super) executed_again: usize,
    pub(super) shares: Vec<Share>,
}

/// By the medians of the turns.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Speed {
    plain_mgas_per_second: f64,
    serial_mgas_per_second: f64,
    engine_mgas_per_second: f64,
    /// Of the engine over the serial executor.
    speed_up: f64,
    /// Of the engine over the plain loop.
    speed_up_over_plain: f64,
}

/// All blocks that passed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Total {
    transactions: usize,
    gas_used: u64,
    /// Of each turn.
    plain_seconds: Vec<f64>,
    /// Of each turn.
    serial_seconds: Vec<f64>,
    /// Of each turn.
    engine_seconds: Vec<f64>,
    #[serde(flatten)]
    speed: Option<Speed>,
    conflicts: usize,
    executed_again: usize,
    /// Transactions that each executor ran.
    share_per_executor: Vec<usize>,
}

impl Difference {
    pub(super) fn of_serial(error: ExecutionError, state: &PreState) -> Self {
        let mut difference = Self::of_engine(&error);
        difference.reason = error.to_string();
        if matches!(error, ExecutionError::State(_)) {
            difference.status = Status::Incomplete;
            if state.missing_codes() > 1 {
                let others =
                    format!("; {} codes of its accounts are missing", state.missing_codes());
                difference.reason.push_str(&others);
            }
        }
        difference
    }

    /// From an error of the plain loop where the oracle has none.
    pub(super) fn of_plain(error: &ExecutionError) -> Self {
        Self { reason: format!("the plain loop alone: {error}"), ..Self::of_engine(error) }
    }

    /// From an error of the engine where the oracle has none.
    pub(super) fn of_engine(error: &ExecutionError) -> Self {
        let (transaction, field) = match error {
            ExecutionError::Transaction { index, hash, .. }
            | ExecutionError::GasLimit { index, hash, .. }
            | ExecutionError::Poison { index, hash, .. } => (Some((*index, *hash)), None),
            ExecutionError::Header { mismatch, .. } => (None, Some(header_field(mismatch))),
            _ => (None, None),
        };
        Self {
            status: Status::Failed,
            transaction_index: transaction.map(|(index, _)| index),
            transaction_hash: transaction.map(|(_, hash)| hash),
            field,
            reason: format!("the engine alone: {error}"),
        }
    }

    pub(super) fn of_receipt(
        index: usize,
        hash: B256,
        field: &'static str,
        reason: String,
    ) -> Self {
        Self {
            transaction_index: Some(index),
            transaction_hash: Some(hash),
            ..Self::of_block(field, reason)
        }
    }

    pub(super) fn of_block(field: &'static str, reason: String) -> Self {
        Self {
            status: Status::Failed,
            transaction_index: None,
            transaction_hash: None,
            field: Some(field),
            reason,
        }
    }
}

/// The field's name in JSON-RPC.
fn header_field(mismatch: &HeaderMismatch) -> &'static str {
    match mismatch {
        HeaderMismatch::GasUsed { .. } => "gasUsed",
        HeaderMismatch::ReceiptsRoot { .. } => "receiptsRoot",
        HeaderMismatch::LogsBloom { .. } => "logsBloom",
        HeaderMismatch::BlobGasUsed { .. } => "blobGasUsed",
        HeaderMismatch::RequestsHash { .. } => "requestsHash",
    }
}

impl BlockReport {
    pub(super) fn new(folder: &Path, block: &PreparedBlock) -> Self {
        Self {
            block: Some(block.header.number),
            path: folder.to_owned(),
            status: Status::Passed,
            error: None,
            transactions: block.transactions.len(),
            gas_used: block.header.gas_used,
            times: Vec::new(),
            speed: None,
            conflicts: 0,
            executed_again: 0,
            shares: Vec::new(),
        }
    }

    pub(super) fn unreadable(folder: &Path, error: &anyhow::Error) -> Self {
        let error = Difference {
            status: Status::Unreadable,
            transaction_index: None,
            transaction_hash: None,
            field: None,
            reason: format!("{error:#}"),
        };
        Self {
            block: None,
            path: folder.to_owned(),
            status: Status::Unreadable,
            error: Some(error),
            transactions: 0,
            gas_used: 0,
            times: Vec::new(),
            speed: None,
            conflicts: 0,
            executed_again: 0,
            shares: Vec::new(),
        }
    }

    pub(super) fn passed(self) -> Self {
        let speed = Speed::of(self.gas_used, &self.times);
        Self { speed, ..self }
    }

    pub(super) fn failed(self, difference: Difference) -> Self {
        Self { status: difference.status, error: Some(difference), ..self }
    }
}

impl Speed {
    /// `None` where there is nothing to compare: no turns, or no gas.
    fn of(gas: u64, times: &[Times]) -> Option<Self> {
        if gas == 0 || times.is_empty() {
            return None;
        }
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let of = |seconds: fn(&Times) -> f64| median(times.iter().map(seconds).collect());
        Some(Self {
            plain_mgas_per_second: gas as f64 / 1e6 / of(|turn| turn.plain),
            serial_mgas_per_second: gas as f64 / 1e6 / of(|turn| turn.serial),
            engine_mgas_per_second: gas as f64 / 1e6 / of(|turn| turn.engine),
            speed_up: of(|turn| turn.serial / turn.engine),
            speed_up_over_plain: of(|turn| turn.plain / turn.engine),
        })
    }
}

impl Total {
    pub(super) fn of(reports: &[BlockReport], executors: usize, repeats: usize) -> Self {
        let passed: Vec<&BlockReport> =
            reports.iter().filter(|report| report.status == Status::Passed).collect();
        let turns: Vec<Times> = (0..repeats)
            .map(|turn| Times {
                plain: passed.iter().map(|report| report.times[turn].plain).sum(),
                serial: passed.iter().map(|report| report.times[turn].serial).sum(),
                engine: passed.iter().map(|report| report.times[turn].engine).sum(),
            })
            .collect();
        let gas_used = passed.iter().map(|report| report.gas_used).sum();
        let mut share_per_executor = vec![0; executors];
        for share in passed.iter().flat_map(|report| &report.shares) {
            share_per_executor[share.executor] += share.transactions;
        }
        Self {
            transactions: passed.iter().map(|report| report.transactions).sum(),
            gas_used,
            plain_seconds: turns.iter().map(|turn| turn.plain).collect(),
            serial_seconds: turns.iter().map(|turn| turn.serial).collect(),
            engine_seconds: turns.iter().map(|turn| turn.engine).collect(),
            speed: Speed::of(gas_used, &turns),
            conflicts: passed.iter().map(|report| report.conflicts).sum(),
            executed_again: passed.iter().map(|report| report.executed_again).sum(),
            share_per_executor,
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "engine {:.1} Mgas/s, serial {:.1} Mgas/s, {:.2}x, plain loop {:.1} Mgas/s, {:.2}x",
            self.engine_mgas_per_second,
            self.serial_mgas_per_second,
            self.speed_up,
            self.plain_mgas_per_second,
            self.speed_up_over_plain
        )
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Incomplete => "INCOMPLETE",
            Status::Unreadable => "UNREADABLE",
            _ => "FAILED",
        };
        write!(f, "{status}: ")?;
        if let (Some(index), Some(hash)) = (self.transaction_index, self.transaction_hash) {
            write!(f, "transaction {index} ({hash}): ")?;
        }
        if let Some(field) = self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl fmt::Display for BlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            Some(number) => write!(f, "block {number}: ")?,
            None => write!(f, "{}: ", self.path.display())?,
        }
        if let Some(error) = &self.error {
            return write!(f, "{error}");
        }
        let Self { transactions, conflicts, executed_again, .. } = self;
        write!(f, "{transactions} transactions, {:.2} Mgas", self.gas_used as f64 / 1e6)?;
        if let Some(speed) = &self.speed {
            write!(f, ", {speed}")?;
        }
        let shares: Vec<usize> = self.shares.iter().map(|share| share.transactions).collect();
        write!(f, ", conflicts {conflicts}, re-executions {executed_again}, shares {shares:?}")
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transactions, conflicts, executed_again, .. } = self;
        write!(f, "total: {transactions} transactions, {:.2} Mgas", self.gas_used as f64 / 1e6)?;
        if let Some(speed) = &self.speed {
            write!(f, ", {speed}")?;
        }
        write!(f, ", conflicts {conflicts}, re-executions {executed_again}, share per executor")?;
        let percent = |count: &usize| 100.0 * *count as f64 / (*transactions).max(1) as f64;
        let mut shares = self.share_per_executor.iter();
        shares.try_for_each(|count| write!(f, " {count} ({:.0} %)", percent(count)))
    }
}
