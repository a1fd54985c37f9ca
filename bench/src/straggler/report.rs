//! What the phases came to.

use crate::{
    scale::metrics::Metrics,
    send::report::{Latency, Report},
};
use serde::Serialize;
use std::fmt;

/// Blocks may take so many times as long as with healthy members, at the 99th percentile.
const RATIO_MAX: f64 = 2.0;

/// How the straggler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    /// In no figure: members get to know each other's pace.
    WarmUp,
    /// Like the others.
    Healthy,
    /// With a small part of the others' quota.
    Slow,
    /// By SIGSTOP.
    Stopped,
}

/// What became of the leader's units of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Units {
    sent: u64,
    answered: u64,
    hedged: u64,
    given_up: u64,
    probed: u64,
}

impl Units {
    pub(crate) fn of(metrics: &Metrics) -> Self {
        let count =
            |event| metrics.value(&format!("blockraft_execution_units_total{{event=\"{event}\"}}"));
        Self {
            sent: count("sent"),
            answered: count("answered"),
            hedged: count("hedged"),
            given_up: count("given_up"),
            probed: count("probed"),
        }
    }

    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            answered: self.answered - before.answered,
            hedged: self.hedged - before.hedged,
            given_up: self.given_up - before.given_up,
            probed: self.probed - before.probed,
        }
    }
}

/// One phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    phase: Phase,
    rate: f64,
    /// From one block to the next, as clients of healthy members see them.
    block: Latency,
    blocks: usize,
    ack: Latency,
    units: Units,
    clean: bool,
}

impl Measured {
    pub(crate) fn of(phase: Phase, sent: &Report, units: Units) -> Self {
        Self {
            phase,
            rate: sent.included_per_s,
            block: sent.blocks.interval,
            blocks: sent.blocks.count,
            ack: sent.ack,
            units,
            clean: sent.is_clean(),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, rate, block, blocks, ack, units, clean } = self;
        let Units { sent, answered, hedged, given_up, probed } = units;
        write!(
            f,
            "{:<9}{rate:>6.0}/s  {blocks} blocks, block time p50 {:.0} p90 {:.0} p99 {:.0} max {:.0} ms, ack p50 {:.0} \
             p99 {:.0} ms, units {sent} sent {answered} answered {hedged} hedged {given_up} given up {probed} probed{}",
            format!("{phase:?}"),
            block.p50_ms,
            block.p90_ms,
            block.p99_ms,
            block.max_ms,
            ack.p50_ms,
            ack.p99_ms,
            if *clean { "" } else { ": NOT CLEAN" }
        )
    }
}

/// The command's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Straggler {
    phases: Vec<Measured>,
    /// Block time at the 99th percentile against that of the healthy phases.
    slow: f64,
    /// The same with the member stopped.
    stopped: f64,
}

impl Straggler {
    pub(crate) fn of(phases: Vec<Measured>) -> Self {
        let p99 = |wanted: Phase| {
            let all = phases.iter().filter(|measured| measured.phase == wanted);
            let (sum, count) = all.fold((0.0, 0.0), |(sum, count), measured| {
                (sum + measured.block.p99_ms, count + 1.0)
            });
            sum / f64::max(count, 1.0)
        };
        let healthy = p99(Phase::Healthy).max(1e-9);
        let (slow, stopped) = (p99(Phase::Slow) / healthy, p99(Phase::Stopped) / healthy);
        Self { phases, slow, stopped }
    }

    /// Nothing was lost, and blocks kept coming.
    pub(crate) fn holds(&self) -> bool {
        self.phases.iter().all(|measured| measured.clean)
            && self.slow < RATIO_MAX
            && self.stopped < RATIO_MAX
    }
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for measured in &self.phases {
            writeln!(f, "{measured}")?;
        }
        let verdict = |ratio: f64| if ratio < RATIO_MAX { "holds" } else { "DOES NOT HOLD" };
        let Self { slow, stopped, .. } = *self;
        writeln!(f, "block time p99, means of phases, against healthy (must be < {RATIO_MAX}x):")?;
        writeln!(f, "  one member slow     {slow:.2}x  {}", verdict(slow))?;
        write!(f, "  one member stopped  {stopped:.2}x  {}", verdict(stopped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(phase: Phase, p99_ms: f64) -> Measured {
        let block = Latency { p99_ms, ..Latency::default() };
        let sent = Report::default();
        Measured { block, ..Measured::of(phase, &sent, Units::default()) }
    }

    #[test]
    fn phases_are_held_against_the_healthy_ones() {
        let phases = vec![
            measured(Phase::WarmUp, 9_000.0),
            measured(Phase::Healthy, 260.0),
            measured(Phase::Slow, 480.0),
            measured(Phase::Healthy, 240.0),
            measured(Phase::Stopped, 600.0),
        ];
        let all = Straggler::of(phases.clone());
        assert!((all.slow - 1.92).abs() < 1e-9 && (all.stopped - 2.4).abs() < 1e-9, "{all:?}");
        assert!(!all.holds() && Straggler::of(phases[..4].to_vec()).holds());
    }

    #[test]
    fn units_are_those_of_the_phase() {
        let before = Units { sent: 3, hedged: 1, ..Units::default() };
        let after = Units { sent: 10, hedged: 1, probed: 2, ..Units::default() };
        assert_eq!(after.since(&before), Units { sent: 7, probed: 2, ..Units::default() });
    }
}
