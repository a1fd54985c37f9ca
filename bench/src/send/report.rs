//! What a run measured.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;

/// Percentiles of a duration, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Latency {
    /// Median.
    pub(crate) p50_ms: f64,
    /// 90th percentile.
    pub(crate) p90_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// 99.9th percentile.
    pub(crate) p999_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Latency {
    /// Percentiles of microseconds, to three digits.
    pub(crate) fn of(durations_us: impl IntoIterator<Item = u64>) -> Self {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
        for duration_us in durations_us {
            histogram.record(duration_us).expect("the histogram grows by itself");
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1e3,
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = self;
        write!(
            f,
            "p50 {p50_ms:.2}  p90 {p90_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  max {max_ms:.2} ms"
        )
    }
}

/// The blocks of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blocks {
    /// Number of the first block with a transaction.
    pub(crate) first: u64,
    /// Number of the last one.
    pub(crate) last: u64,
    /// Blocks that hold a transaction.
    pub(crate) count: usize,
    /// Transactions in the fullest block.
    pub(crate) tx_max: u64,
    /// Median of the transactions in a block.
    pub(crate) tx_p50: u64,
    /// From one of them to the next; as coarse as the poll.
    pub(crate) interval: Latency,
    /// Gas that all transactions took.
    pub(crate) gas_total: u64,
}

/// CPU that one process used during the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cpu {
    /// The process.
    pub(crate) pid: u32,
    /// User and system time of all its threads, milliseconds.
    pub(crate) ms: u64,
    /// The same for each included transaction.
    pub(crate) ms_per_tx: f64,
}

/// A run of `send`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// What the node calls itself.
    pub(crate) client: String,
    /// Transactions in the file, setup not counted.
    pub(crate) count: usize,
    /// Acknowledged with their hash.
    pub(crate) acked: usize,
    /// Repeated, then found to be known already.
    pub(crate) known: usize,
    /// Refused for good.
    pub(crate) rejected: usize,
    /// Without an answer when the time was up.
    pub(crate) unanswered: usize,
    /// Receipts with status 1.
    pub(crate) succeeded: u64,
    /// Receipts with status 0.
    pub(crate) failed: usize,
    /// Acknowledged and without a receipt.
    pub(crate) lost: usize,
    /// With more than one receipt.
    pub(crate) duplicated: usize,
    /// The first refusals, for a reader.
    pub(crate) refusals: Vec<String>,
    /// From the first send to the last acknowledgement, seconds.
    pub(crate) submit_s: f64,
    /// From the first send to when the last block was seen, seconds.
    pub(crate) include_s: f64,
    /// Acknowledged transactions a second.
    pub(crate) submitted_per_s: f64,
    /// Included transactions a second, from the first send to the last block.
    pub(crate) included_per_s: f64,
    /// Send (or due time, with a rate) to acknowledgement.
    pub(crate) ack: Latency,
    /// Send (or due time) to when the block was seen; as coarse as the poll.
    pub(crate) inclusion: Latency,
    /// The blocks.
    pub(crate) blocks: Blocks,
    /// HTTP requests that carried transactions.
    pub(crate) requests: u64,
    /// Requests repeated.
    pub(crate) retries: u64,
    /// The processes under test.
    pub(crate) cpu: Vec<Cpu>,
    /// This process.
    pub(crate) own_cpu: Option<Cpu>,
}

impl Report {
    /// Every transaction of the file was accepted and succeeded, once.
    pub(crate) fn is_clean(&self) -> bool {
        self.rejected + self.unanswered + self.failed + self.lost + self.duplicated == 0
            && self.succeeded == self.count as u64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.client)?;
        writeln!(
            f,
            "  transactions  {} sent, {} acknowledged, {} known, {} rejected, {} unanswered",
            self.count, self.acked, self.known, self.rejected, self.unanswered
        )?;
        writeln!(
            f,
            "  receipts      {} succeeded, {} failed, {} lost, {} duplicated",
            self.succeeded, self.failed, self.lost, self.duplicated
        )?;
        for refusal in &self.refusals {
            writeln!(f, "  refused       {refusal}")?;
        }
        writeln!(
            f,
            "  submitted     {:.0}/s over {:.2} s ({} requests, {} repeated)",
            self.submitted_per_s, self.submit_s, self.requests, self.retries
        )?;
        writeln!(f, "  included      {:.0}/s over {:.2} s", self.included_per_s, self.include_s)?;
        writeln!(f, "  ack           {}", self.ack)?;
        writeln!(f, "  inclusion     {}", self.inclusion)?;
        let Blocks { first, last, count, tx_max, tx_p50, interval, gas_total } = self.blocks;
        writeln!(
            f,
            "  blocks        {count} with transactions ({first} to {last}), p50 {tx_p50}, max {tx_max} transactions, {:.1} Mgas/s",
            gas_total as f64 / 1e6 / self.include_s.max(1e-9)
        )?;
        writeln!(f, "  block time    {interval}")?;
        for Cpu { pid, ms, ms_per_tx } in &self.cpu {
            writeln!(f, "  cpu pid {pid:<6} {ms} ms, {ms_per_tx:.4} ms a transaction")?;
        }
        if let Some(Cpu { ms, ms_per_tx, .. }) = &self.own_cpu {
            write!(f, "  cpu loader    {ms} ms, {ms_per_tx:.4} ms a transaction")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_values() {
        let latency = Latency::of((1..=1000).map(|ms| ms * 1000));
        let Latency { p50_ms, p90_ms, p99_ms, max_ms, .. } = latency;
        for (found, expected) in
            [(p50_ms, 500.0), (p90_ms, 900.0), (p99_ms, 990.0), (max_ms, 1000.0)]
        {
            assert!((found / expected - 1.0).abs() < 0.002, "{found} {expected}");
        }
        assert_eq!(Latency::of([]), Latency::default());
    }

    #[test]
    fn a_report_is_clean_only_when_everything_succeeded_once() {
        let clean = || Report { count: 2, acked: 2, succeeded: 2, ..Default::default() };
        assert!(clean().is_clean());
        for dirty in [
            Report { succeeded: 1, lost: 1, ..clean() },
            Report { succeeded: 1, failed: 1, ..clean() },
            Report { rejected: 1, ..clean() },
            Report { duplicated: 1, ..clean() },
            Report { unanswered: 1, ..clean() },
        ] {
            assert!(!dirty.is_clean(), "{dirty:?}");
        }
    }
}
