//! What the runs came to.

use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// A calibration that drifts further says that something else used the machine, percent.
const DRIFT_MAX_PERCENT: f64 = 10.0;

/// One workload on one cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) nodes: u16,
    /// Percent of a core that each node had; 0 is no quota.
    pub(crate) quota: u64,
    pub(crate) leader: u64,
    /// Included transactions a second.
    pub(crate) rate: f64,
    /// CPU of each node for each transaction, microseconds, by id.
    pub(crate) cpu_us: Vec<f64>,
    pub(crate) loader_us: f64,
    /// Periods in which a node wanted more than its share.
    pub(crate) throttled: Vec<u64>,
    pub(crate) loader_throttled: u64,
    /// Written to the leader's log, with the setup.
    pub(crate) log_bytes: u64,
    /// Sent by all nodes to one another, with the setup.
    pub(crate) wire_bytes: u64,
    /// Outcomes of members that their leader did not compute again.
    pub(crate) shared: u64,
    /// Raw transactions, with the setup.
    pub(crate) raw_bytes: u64,
    /// With the setup.
    pub(crate) transactions: u64,
    pub(crate) blocks: u64,
    /// Every transaction was included once and succeeded.
    pub(crate) clean: bool,
}

impl Run {
    fn cpu_sum(&self) -> f64 {
        self.cpu_us.iter().sum()
    }

    fn leader_percent(&self) -> f64 {
        100.0 * self.cpu_us.get(self.leader as usize - 1).unwrap_or(&0.0) / self.cpu_sum().max(1e-9)
    }

    fn log_ratio(&self) -> f64 {
        self.log_bytes as f64 / self.raw_bytes.max(1) as f64
    }

    fn wire_bytes_per_tx(&self) -> f64 {
        self.wire_bytes as f64 / self.transactions.max(1) as f64
    }

    fn shared_percent(&self) -> f64 {
        100.0 * self.shared as f64 / self.transactions.max(1) as f64
    }

    fn is_throttled(&self) -> bool {
        self.throttled.iter().all(|periods| *periods > 0)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu: Vec<_> = self.cpu_us.iter().map(|us| format!("{us:.0}")).collect();
        write!(
            f,
            "{} on {} at {} %: {:.0}/s, CPU us/tx {} (leader {}: {:.0} %, loader {:.0}), throttled {:?} \
             (loader {}), {} blocks, {:.0} % run by units",
            self.workload,
            self.nodes,
            self.quota,
            self.rate,
            cpu.join(" "),
            self.leader,
            self.leader_percent(),
            self.loader_us,
            self.throttled,
            self.loader_throttled,
            self.blocks,
            self.shared_percent(),
        )
    }
}

/// A fixed loop before each run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Calibration {
    min: f64,
    max: f64,
}

impl Calibration {
    /// Hashes a millisecond.
    pub(crate) fn add(&mut self, rate: f64) {
        self.min = if self.min == 0.0 { rate } else { self.min.min(rate) };
        self.max = self.max.max(rate);
    }

    fn drift_percent(&self) -> f64 {
        100.0 * (self.max - self.min) / self.max.max(1e-9)
    }
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values[middle - 1] + values[middle]) / 2.0,
        };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }
}

/// All runs of one setup.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    workload: String,
    nodes: u16,
    quota: u64,
    rate: Spread,
    /// Rate over that of the workload's first setup.
    ratio: f64,
    /// Of all nodes together, microseconds.
    cpu_us: Spread,
    leader_percent: Spread,
    log_ratio: Spread,
    wire_bytes_per_tx: Spread,
    /// Transactions whose outcome came from a unit of work.
    shared_percent: Spread,
    /// The quota was what held every node back, in every run.
    throttled: bool,
    loader_throttled: bool,
}

/// The command's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scale {
    rows: Vec<Row>,
    calibration: Calibration,
    runs: Vec<Run>,
}

impl Scale {
    /// Puts runs of one setup together. There is at least one run.
    pub(crate) fn of(runs: Vec<Run>, calibration: Calibration) -> Self {
        let mut order = Vec::new();
        for run in &runs {
            let key = (run.workload.clone(), run.nodes, run.quota);
            if !order.contains(&key) {
                order.push(key);
            }
        }
        let mut first_rates = BTreeMap::new();
        let rows = order.into_iter().map(|(workload, nodes, quota)| {
            let of_setup: Vec<&Run> = runs
                .iter()
                .filter(|r| r.workload == workload && r.nodes == nodes && r.quota == quota)
                .collect();
            let spread = |value: fn(&Run) -> f64| Spread::of(of_setup.iter().map(|run| value(run)));
            let rate = spread(|run| run.rate);
            let first = *first_rates.entry(workload.clone()).or_insert(rate.median);
            Row {
                nodes,
                quota,
                ratio: rate.median / first,
                rate,
                cpu_us: spread(Run::cpu_sum),
                leader_percent: spread(Run::leader_percent),
                log_ratio: spread(Run::log_ratio),
                wire_bytes_per_tx: spread(Run::wire_bytes_per_tx),
                shared_percent: spread(Run::shared_percent),
                throttled: of_setup.iter().all(|run| run.is_throttled()),
                loader_throttled: of_setup.iter().any(|run| run.loader_throttled > 0),
                workload,
            }
        });
        Self { rows: rows.collect(), calibration, runs }
    }

    /// Whether every run included every transaction once.
    pub(crate) fn is_clean(&self) -> bool {
        self.runs.iter().all(|run| run.clean)
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10}{:>6}{:>8}{:>24}{:>8}{:>22}{:>9}{:>9}{:>9}{:>8}  throttled",
            "workload",
            "nodes",
            "quota",
            "tx/s (min-max)",
            "ratio",
            "CPU us/tx, all nodes",
            "leader",
            "log/raw",
            "wire B",
            "units"
        )?;
        for row in &self.rows {
            let spread = |s: &Spread| format!("{:.0} ({:.0}-{:.0})", s.median, s.min, s.max);
            let held = if row.quota == 0 {
                "no quota"
            } else if !row.throttled {
                "NOT ALL NODES: the quota did not bind"
            } else if row.loader_throttled {
                "nodes, and the loader too"
            } else {
                "nodes"
            };
            writeln!(
                f,
                "{:<10}{:>6}{:>7}%{:>24}{:>7.2}x{:>22}{:>8.0}%{:>9.2}{:>9.0}{:>7.0}%  {held}",
                row.workload,
                row.nodes,
                row.quota,
                spread(&row.rate),
                row.ratio,
                spread(&row.cpu_us),
                row.leader_percent.median,
                row.log_ratio.median,
                row.wire_bytes_per_tx.median,
                row.shared_percent.median,
            )?;
        }
        let drift = self.calibration.drift_percent();
        write!(
            f,
            "every block replayed serially: roots, receipts and gas are equal\ncalibration drift {drift:.1} %"
        )?;
        if drift > DRIFT_MAX_PERCENT {
            write!(f, ": something else used the machine, the rates do not count")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(nodes: u16, rate: f64, cpu_us: &[f64]) -> Run {
        Run {
            workload: "transfer".to_owned(),
            nodes,
            quota: 20,
            leader: 1,
            rate,
            cpu_us: cpu_us.to_vec(),
            loader_us: 2.0,
            throttled: vec![1; cpu_us.len()],
            loader_throttled: 0,
            log_bytes: 150,
            wire_bytes: 300,
            shared: 1,
            raw_bytes: 100,
            transactions: 1,
            blocks: 3,
            clean: true,
        }
    }

    #[test]
    fn runs_of_a_setup_become_a_row() {
        let runs = vec![run(1, 100.0, &[70.0]), run(3, 210.0, &[40.0, 30.0, 30.0])];
        let more = vec![run(1, 120.0, &[72.0]), run(3, 230.0, &[40.0, 30.0, 30.0])];
        let scale = Scale::of([runs, more].concat(), Calibration::default());
        assert_eq!(scale.rows.len(), 2);
        let row = &scale.rows[1];
        assert_eq!((row.nodes, row.ratio, row.leader_percent.median), (3, 2.0, 40.0));
        assert_eq!(row.rate, Spread { median: 220.0, min: 210.0, max: 230.0 });
        assert!(row.throttled && scale.is_clean());
    }
}
