//! Decoding what clients send, and recovering its senders: on all cores of this node, or with another member's help.

use crate::{
    clock::{Clock, Stopwatch},
    data_plane::Peers,
};
use alloy_consensus::TxEnvelope;
use alloy_primitives::{Address, Bytes};
use blockraft_primitives::{NodeId, Transaction};
use blockraft_protocol::{
    AdmissionRules, PoolError, RecoverAt, Recoverers, SignedHash, parse, recover, with_sender,
};
use blockraft_raft::RaftStatus;
use parking_lot::Mutex;
use rayon::prelude::*;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Transactions from which on a batch is spread over all cores: a smaller one is not worth waking them, and several are
/// decoded side by side.
const PARALLEL_COUNT_MIN: usize = 32;

/// One result a raw transaction, in order.
pub(crate) type Results = Vec<Result<Transaction, PoolError>>;

/// A raw transaction as far as its own node has looked at it.
type Parsed = Result<(TxEnvelope, SignedHash), PoolError>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Recovery {
    node_id: NodeId,
    raft: watch::Receiver<RaftStatus>,
    peers: Peers,
    tracker: TaskTracker,
    clock: Clock,
    recoverers: Mutex<Recoverers>,
}

impl Recovery {
    pub(crate) fn new(
        node_id: NodeId,
        raft: watch::Receiver<RaftStatus>,
        peers: Peers,
        tracker: TaskTracker,
        recover_at: RecoverAt,
    ) -> Self {
        let recoverers = Mutex::new(Recoverers::new(recover_at));
        Self { node_id, raft, peers, tracker, clock: Clock::start(), recoverers }
    }

    /// Decodes, checks and recovers. What the process is too late for, because it is stopping, has no result.
    pub(crate) async fn decode(&self, raw: Vec<Bytes>, rules: AdmissionRules) -> Results {
        let Some(peer) = self.choose(raw.len()) else {
            return self.work(move || decode_here(&raw, &rules)).await;
        };
        let parsed = self.work(move || parse_all(&raw, &rules)).await;
        let known = parsed.iter().filter_map(|one| one.as_ref().ok());
        let wanted: Vec<SignedHash> = known.map(|(_, signed)| *signed).collect();
        let senders = self.peers.recover(peer, wanted).await;
        self.recoverers.lock().done(self.clock.micros(), peer, senders.is_some());
        let place = if senders.is_some() { "peer" } else { "here_after_all" };
        metrics::counter!("blockraft_gateway_recovered_total", "where" => place)
            .increment(parsed.len() as u64);
        let finish = move || match senders {
            Some(senders) => put_together(parsed, senders, &rules),
            None => on_cores(parsed.len(), parsed, |one| recover(one?.0, &rules)),
        };
        self.work(finish).await
    }

    fn choose(&self, count: usize) -> Option<NodeId> {
        let status = self.raft.borrow();
        let others = status.members.iter().filter(|m| m.voter).map(|m| m.id);
        let here = (self.node_id, status.leader);
        let chosen = self.recoverers.lock().choose(self.clock.micros(), here, others, count);
        if chosen.is_none() {
            metrics::counter!("blockraft_gateway_recovered_total", "where" => "here")
                .increment(count as u64);
        }
        chosen
    }

    /// Off the tasks' threads. Nothing where the process is stopping.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Vec<T> + Send + 'static,
    ) -> Vec<T> {
        self.tracker.spawn_blocking(work).await.unwrap_or_default()
    }
}

fn decode_here(raw: &[Bytes], rules: &AdmissionRules) -> Results {
    let stopwatch = Stopwatch::start();
    let decode = |raw: &Bytes| parse(raw, rules).and_then(|tx| recover(tx, rules));
    let results = on_cores(raw.len(), raw, decode);
    stopwatch.record_stage("recover");
    results
}

fn parse_all(raw: &[Bytes], rules: &AdmissionRules) -> Vec<Parsed> {
    let parse = |raw: &Bytes| {
        let tx = parse(raw, rules)?;
        let signed = SignedHash::of(&tx, rules)?;
        Ok((tx, signed))
    };
    raw.iter().map(parse).collect()
}

/// `senders` has one for each that was parsed.
fn put_together(
    parsed: Vec<Parsed>,
    senders: Vec<Option<Address>>,
    rules: &AdmissionRules,
) -> Results {
    let mut senders = senders.into_iter();
    let join = |one: Parsed| {
        let (tx, _) = one?;
        let sender = senders.next().flatten().ok_or(PoolError::Signature)?;
        with_sender(tx, sender, rules)
    };
    parsed.into_iter().map(join).collect()
}

/// Recovers for another member.
pub(crate) fn recover_all(signed: &[SignedHash]) -> Vec<Option<Address>> {
    let stopwatch = Stopwatch::start();
    let senders = on_cores(signed.len(), signed, SignedHash::recover);
    stopwatch.record_stage("recover");
    senders
}

/// What `work` makes of each of `count`, in order: on all cores where that pays.
fn on_cores<I, T>(
    count: usize,
    all: I,
    work: impl Fn(<I as IntoParallelIterator>::Item) -> T + Send + Sync,
) -> Vec<T>
where
    I: IntoParallelIterator<Iter: IndexedParallelIterator>
        + IntoIterator<Item = <I as IntoParallelIterator>::Item>,
    T: Send,
{
    if count < PARALLEL_COUNT_MIN {
        all.into_iter().map(work).collect()
    } else {
        all.into_par_iter().map(work).collect()
    }
}
