//! What a failover run found.

use serde::Serialize;
use std::fmt;

/// One kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    /// From 1.
    pub(crate) round: u32,
    /// The leader that was killed.
    pub(crate) killed: u64,
    /// Term in which it led.
    pub(crate) term: u64,
    /// Who leads after it.
    pub(crate) new_leader: u64,
    /// From the kill until a survivor names a new leader, milliseconds.
    pub(crate) leader_ms: f64,
    /// From the kill until a survivor shows a block that it did not have when the new leader was
    /// first seen, milliseconds.
    pub(crate) block_ms: f64,
    /// From the start of the killed node until it has the height that the others had at its start,
    /// milliseconds.
    pub(crate) catch_up_ms: f64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round, killed, term, new_leader, leader_ms, block_ms, catch_up_ms } = self;
        write!(
            f,
            "round {round:>2}: killed node {killed} (term {term}), node {new_leader} leads after {leader_ms:.0} ms, \
             next block after {block_ms:.0} ms, caught up {catch_up_ms:.0} ms after its start"
        )
    }
}

/// The whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failover {
    /// Each kill.
    pub(crate) rounds: Vec<Round>,
    /// Transactions sent.
    pub(crate) sent: usize,
    /// Answered with their hash.
    pub(crate) acked: usize,
    /// Repeated, then found to be known.
    pub(crate) known: usize,
    /// Refused for good.
    pub(crate) rejected: usize,
    /// The first refusals.
    pub(crate) refusals: Vec<String>,
    /// Requests repeated.
    pub(crate) retries: u64,
    /// Acknowledged, without a receipt.
    pub(crate) lost: usize,
    /// Acknowledged, with a receipt of status 0.
    pub(crate) failed: usize,
    /// With more than one receipt.
    pub(crate) duplicated: usize,
    /// Last block; all nodes agree on hash and state root up to it.
    pub(crate) height: u64,
    /// Median of [`Round::block_ms`].
    pub(crate) block_p50_ms: f64,
    /// The longest [`Round::block_ms`].
    pub(crate) block_max_ms: f64,
    /// What a round may take at most, milliseconds.
    pub(crate) limit_ms: f64,
}

impl Failover {
    /// Nothing lost, nothing doubled, no round too long.
    pub(crate) fn is_clean(&self) -> bool {
        self.rejected + self.lost + self.failed + self.duplicated == 0
            && self.block_max_ms <= self.limit_ms
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, known, rejected, retries, lost, failed, duplicated, .. } = self;
        writeln!(
            f,
            "transactions  {sent} sent, {acked} acknowledged, {known} known, {rejected} rejected, {retries} requests repeated"
        )?;
        for refusal in &self.refusals {
            writeln!(f, "refused       {refusal}")?;
        }
        writeln!(f, "receipts      {lost} lost, {failed} failed, {duplicated} duplicated")?;
        writeln!(
            f,
            "agreement     same hash and state root on all nodes, blocks 0 to {}",
            self.height
        )?;
        write!(
            f,
            "kill to block {} rounds, p50 {:.0} ms, max {:.0} ms (limit {:.0} ms)",
            self.rounds.len(),
            self.block_p50_ms,
            self.block_max_ms,
            self.limit_ms
        )
    }
}
