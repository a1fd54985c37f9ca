//! When the last blocks and their transactions passed the stages of their way, as this node saw it.
//!
//! Nothing here is replicated: a gateway knows when a transaction came in, the leader how a block was
//! made, and every node when it applied what. Clocks of different machines are not mixed.

use crate::clock::MicroClock;
use alloy_primitives::{B256, map::B256Map};
use blockraft_primitives::{
    SealedBlock, Transaction,
    limits::{TIMELINE_BLOCK_COUNT_MAX, TIMELINE_TX_COUNT_MAX},
};
use blockraft_rpc::StageTimes;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Microseconds on this process's clock; zero where nobody looked.
pub(crate) type Micros = u64;

/// How a block was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BuildStages {
    pub(crate) begun: Micros,
    /// The candidates were taken from the pool.
    pub(crate) cut: Micros,
    pub(crate) executed: Micros,
    /// The state root is known.
    pub(crate) rooted: Micros,
    /// The log entry is written.
    pub(crate) encoded: Micros,
    /// It was given to Raft.
    pub(crate) proposed: Micros,
}

/// Where a transaction's times are found, and what they are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Microseconds since 1970.
    pub(crate) start_unix_micros: u64,
    /// After the start.
    pub(crate) stages: StageTimes,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Timelines {
    clock: MicroClock,
    arrivals: Mutex<Arrivals>,
    /// Blocks of this node that are proposed and not applied.
    proposed: Mutex<VecDeque<(B256, BuildStages)>>,
    blocks: Mutex<VecDeque<BlockTimes>>,
}

/// Transactions that are in no block yet. Those that never come into one are forgotten with their
/// generation.
#[derive(Debug, Default)]
struct Arrivals {
    young: B256Map<Arrival>,
    old: B256Map<Arrival>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Arrival {
    received: Micros,
    admitted: Micros,
}

#[derive(Debug)]
struct BlockTimes {
    hash: B256,
    build: BuildStages,
    committed: Micros,
    applied: Micros,
    /// One a transaction.
    arrivals: Vec<Arrival>,
}

impl Arrivals {
    fn note(&mut self, hash: &B256, note: impl FnOnce(&mut Arrival)) {
        if let Some(known) = self.young.get_mut(hash) {
            return note(known);
        }
        if self.young.len() >= TIMELINE_TX_COUNT_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let mut arrival = self.old.get(hash).copied().unwrap_or_default();
        note(&mut arrival);
        self.young.insert(*hash, arrival);
    }

    fn get(&self, hash: &B256) -> Arrival {
        self.young.get(hash).or_else(|| self.old.get(hash)).copied().unwrap_or_default()
    }
}

impl Timelines {
    pub(crate) fn new() -> Self {
        Self {
            clock: MicroClock::start(),
            arrivals: Mutex::default(),
            proposed: Mutex::default(),
            blocks: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }

    /// A client's transactions came in here.
    pub(crate) fn received(&self, transactions: &[Transaction], at: Micros) {
        let mut arrivals = self.arrivals.lock();
        for tx in transactions {
            // Sent again: the first time counts.
            arrivals.note(tx.tx_hash(), |arrival| {
                if arrival.received == 0 {
                    arrival.received = at;
                }
            });
        }
    }

    /// Transactions entered the pool.
    pub(crate) fn admitted<'a>(&self, transactions: impl Iterator<Item = &'a Transaction>) {
        let now = self.now();
        let mut arrivals = self.arrivals.lock();
        transactions.for_each(|tx| arrivals.note(tx.tx_hash(), |arrival| arrival.admitted = now));
    }

    /// A block of this node is given to Raft.
    pub(crate) fn proposed(&self, hash: B256, stages: BuildStages) {
        let mut proposed = self.proposed.lock();
        if proposed.len() >= TIMELINE_BLOCK_COUNT_MAX {
            proposed.pop_front();
        }
        proposed.push_back((hash, BuildStages { proposed: self.now(), ..stages }));
    }

    /// A block became visible; this node learnt at `committed` that it is committed.
    pub(crate) fn applied(&self, block: &SealedBlock, committed: Micros) {
        let applied = self.now();
        let hash = block.hash();
        let build = {
            let mut proposed = self.proposed.lock();
            let at = proposed.iter().position(|(of, _)| *of == hash);
            // Those before it came to nothing.
            at.and_then(|at| proposed.drain(..=at).next_back()).map(|(_, stages)| stages)
        };
        if let Some(build) = build {
            record_stages(&build, committed);
        }
        let arrivals = {
            let known = self.arrivals.lock();
            block.transactions.iter().map(|tx| known.get(tx.tx_hash())).collect()
        };
        let build = build.unwrap_or_default();
        let mut blocks = self.blocks.lock();
        blocks.push_back(BlockTimes { hash, build, committed, applied, arrivals });
        let mut count: usize = blocks.iter().map(|block| block.arrivals.len()).sum();
        while blocks.len() > TIMELINE_BLOCK_COUNT_MAX || count > TIMELINE_TX_COUNT_MAX {
            count -= blocks.pop_front().map_or(0, |block| block.arrivals.len());
        }
    }

    /// What is known of the transaction at `index` of a block.
    pub(crate) fn find(&self, block: &B256, index: usize) -> Option<Found> {
        let blocks = self.blocks.lock();
        let times = blocks.iter().rev().find(|times| times.hash == *block)?;
        let arrival = times.arrivals.get(index)?;
        let BuildStages { begun, cut, executed, rooted, proposed, .. } = times.build;
        let all = [
            arrival.received,
            arrival.admitted,
            begun,
            cut,
            executed,
            rooted,
            proposed,
            times.committed,
            times.applied,
        ];
        let start = all.into_iter().filter(|at| *at != 0).min()?;
        let after = |at: Micros| (at != 0).then(|| at - start);
        let stages = StageTimes {
            received: after(arrival.received),
            admitted: after(arrival.admitted),
            begun: after(begun),
            in_block: after(cut),
            executed: after(executed),
            rooted: after(rooted),
            proposed: after(proposed),
            committed: after(times.committed),
            applied: after(times.applied),
        };
        Some(Found { start_unix_micros: self.clock.unix_micros(start), stages })
    }
}

/// How long each stage of an own block took.
fn record_stages(build: &BuildStages, committed: Micros) {
    let stages = [
        ("cut", build.begun, build.cut),
        ("execute", build.cut, build.executed),
        ("root", build.executed, build.rooted),
        ("encode", build.rooted, build.encoded),
        ("propose", build.encoded, build.proposed),
        ("replicate", build.proposed, committed),
    ];
    for (stage, from, to) in stages {
        let seconds = to.saturating_sub(from) as f64 / 1e6;
        metrics::histogram!("blockraft_pipeline_stage_duration_seconds", "stage" => stage)
            .record(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::{Signed, TxEnvelope, TxLegacy, transaction::Recovered};
    use alloy_primitives::{Address, Signature};
    use std::sync::Arc;

    fn transaction(nonce: u64) -> Transaction {
        let tx = TxLegacy { nonce, ..TxLegacy::default() };
        let signed = Signed::new_unhashed(tx, Signature::test_signature());
        Arc::new(Recovered::new_unchecked(TxEnvelope::Legacy(signed), Address::ZERO))
    }

    fn block(number: u64, transactions: Vec<Transaction>) -> SealedBlock {
        let header = alloy_consensus::Header { number, ..Default::default() };
        SealedBlock {
            header: alloy_consensus::Sealable::seal_slow(header),
            transactions,
            receipts: Vec::new(),
            ommers: Vec::new(),
            withdrawals: None,
        }
    }

    #[test]
    fn stages_come_in_order_and_are_those_that_this_node_saw() {
        let timelines = Timelines::new();
        let (own, foreign) = (block(1, vec![transaction(0)]), block(2, vec![transaction(1)]));
        timelines.received(&own.transactions, timelines.now());
        timelines.admitted(own.transactions.iter());
        let now = || timelines.now();
        let stages = BuildStages {
            begun: now(),
            cut: now(),
            executed: now(),
            rooted: now(),
            encoded: now(),
            proposed: 0,
        };
        // One that was built and came to nothing is forgotten.
        timelines.proposed(B256::repeat_byte(1), stages);
        timelines.proposed(own.hash(), stages);
        timelines.applied(&own, now());
        timelines.applied(&foreign, now());

        let found = timelines.find(&own.hash(), 0).unwrap().stages;
        let seen = [
            found.received,
            found.admitted,
            found.begun,
            found.in_block,
            found.executed,
            found.rooted,
            found.proposed,
            found.committed,
            found.applied,
        ];
        assert_eq!(found.received, Some(0));
        assert!(seen.iter().all(Option::is_some) && seen.is_sorted(), "{found:?}");
        assert!(timelines.proposed.lock().is_empty());

        let found = timelines.find(&foreign.hash(), 0).unwrap().stages;
        let applied = found.applied;
        assert_eq!(found, StageTimes { committed: Some(0), applied, ..StageTimes::default() });
        assert_eq!(timelines.find(&foreign.hash(), 1), None);
        assert_eq!(timelines.find(&B256::ZERO, 0), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let timelines = Timelines::new();
        for number in 0..TIMELINE_BLOCK_COUNT_MAX as u64 + 1 {
            timelines.applied(&block(number, vec![transaction(number)]), timelines.now());
        }
        assert_eq!(timelines.find(&block(0, Vec::new()).hash(), 0), None);
        assert!(timelines.find(&block(1, Vec::new()).hash(), 0).is_some());
        let many: Vec<_> = (0..TIMELINE_TX_COUNT_MAX as u64).map(transaction).collect();
        timelines.admitted(many.iter());
        timelines.admitted(many.iter());
        let arrivals = timelines.arrivals.lock();
        assert!(arrivals.young.len() + arrivals.old.len() <= TIMELINE_TX_COUNT_MAX);
    }
}
