//! The task that takes raw transactions from clients: has them decoded and their senders recovered in
//! batches (`recovery.rs`), gets them into the replicated pool wherever the leader is, and answers.
//!
//! Batches reach the leader in the order in which their transactions arrived, so that the nonces of
//! one client stay in order; verdicts are awaited side by side. A batch whose leader was lost is sent
//! again: admitting is idempotent, because the pool knows each transaction by its hash.

use crate::{
    chain::Chain,
    data_plane::{Peers, PendingVerdicts},
    producer::ProducerHandle,
    recovery::{Recovery, Results},
};
use blockraft_primitives::{
    AdmitBatch, NodeId, Transaction,
    limits::{ADMIT_BYTES_MAX, ADMIT_TX_COUNT_MAX, LEADER_WAIT_MS},
};
use blockraft_protocol::{PoolError, Refusal, SubmissionRules};
use blockraft_raft::RaftStatus;
use blockraft_rpc::{Submission, SubmitError, Verdict};
use futures::{
    future::FutureExt,
    stream::{FuturesOrdered, StreamExt},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;

/// Batches that are being decoded or wait for their turn to be sent.
const DECODING_COUNT_MAX: usize = 8;
/// Pause before a batch is offered again after a leader was lost.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// What the gateway works with.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) chain: Arc<Chain>,
    pub(crate) node_id: NodeId,
    pub(crate) raft: watch::Receiver<RaftStatus>,
    pub(crate) producer: ProducerHandle,
    pub(crate) peers: Peers,
    pub(crate) tracker: TaskTracker,
    pub(crate) submission: SubmissionRules,
    pub(crate) recovery: Arc<Recovery>,
}

/// Where the verdicts of one submission come together; answered when the last one is there.
struct Answer {
    verdicts: Vec<Option<Verdict>>,
    missing: usize,
    reply: Option<oneshot::Sender<Vec<Verdict>>>,
}

/// The place of one transaction in its submission's answer.
struct Reply {
    answer: Arc<Mutex<Answer>>,
    place: usize,
}

impl Reply {
    /// One for each transaction of a submission. When one is dropped without a verdict, whoever waits learns
    /// it from the dropped channel.
    fn all(count: usize, reply: oneshot::Sender<Vec<Verdict>>) -> impl Iterator<Item = Self> {
        let verdicts = (0..count).map(|_| None).collect();
        let answer = Answer { verdicts, missing: count, reply: Some(reply) };
        let answer = Arc::new(Mutex::new(answer));
        (0..count).map(move |place| Self { answer: answer.clone(), place })
    }

    fn send(self, verdict: Verdict) {
        let mut answer = self.answer.lock();
        answer.verdicts[self.place] = Some(verdict);
        answer.missing -= 1;
        if answer.missing > 0 {
            return;
        }
        let verdicts = std::mem::take(&mut answer.verdicts).into_iter().flatten().collect();
        if let Some(reply) = answer.reply.take() {
            // The client may be gone; that changes nothing.
            let _ = reply.send(verdicts);
        }
    }
}

/// Transactions that passed every check which needs no state, with who waits for them.
#[derive(Default)]
struct Decoded {
    transactions: Vec<Transaction>,
    replies: Vec<Reply>,
}

impl Gateway {
    /// Runs until every sender of submissions is gone.
    pub(crate) async fn run(self, mut submissions: mpsc::Receiver<Submission>) {
        let mut decoding = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                Some(decoded) = decoding.next() => {
                    if let Ok(decoded) = decoded {
                        self.offer(decoded).await;
                    }
                }
                first = submissions.recv(), if decoding.len() < DECODING_COUNT_MAX => {
                    let Some(first) = first else { return };
                    let batch = gather(first, &mut submissions);
                    let chain = self.chain.clone();
                    let mut rules = chain.rules();
                    rules.submission = self.submission;
                    let received = chain.timelines.now();
                    let recovery = self.recovery.clone();
                    decoding.push_back(self.tracker.spawn(async move {
                        let raw = batch.iter().flat_map(|s| s.raw.iter().cloned()).collect();
                        let results = recovery.decode(raw, rules).await;
                        let decoded = sort_out(batch, results);
                        chain.timelines.received(&decoded.transactions, received);
                        decoded
                    }));
                }
            }
        }
    }

    /// Sends a batch on its way in order, and lets its verdicts come when they come.
    async fn offer(&self, mut decoded: Decoded) {
        self.answer_known(&mut decoded);
        for part in parts(decoded) {
            let first_try = self.start(&part.transactions).await;
            let gateway = self.clone();
            self.tracker.spawn(async move { gateway.finish(part, first_try).await });
        }
    }

    /// Answers what the cluster has already: the same raw transaction, sent twice, anywhere, gives
    /// the same hash.
    fn answer_known(&self, decoded: &mut Decoded) {
        let all = std::mem::take(decoded);
        let known = self.chain.are_known(&all.transactions);
        for ((tx, reply), known) in all.transactions.into_iter().zip(all.replies).zip(known) {
            if known {
                reply.send(Ok(*tx.tx_hash()));
            } else {
                decoded.transactions.push(tx);
                decoded.replies.push(reply);
            }
        }
    }

    /// One attempt: hands the batch to the leader that this node knows of, in the order of these
    /// calls. The verdicts come when they come.
    async fn start(&self, transactions: &[Transaction]) -> PendingVerdicts {
        let leader = self.raft.borrow().leader;
        let not_proposed = || futures::future::ready(Err(Refusal::NotLeader { leader })).boxed();
        match leader {
            None => not_proposed(),
            Some(id) if id == self.node_id => {
                let Some(verdicts) = self.producer.submit(transactions.to_vec()).await else {
                    return not_proposed();
                };
                verdicts.map(|v| v.unwrap_or(Err(Refusal::OutcomeUnknown))).boxed()
            }
            Some(id) => {
                metrics::counter!("blockraft_rpc_server_forwarded_total")
                    .increment(transactions.len() as u64);
                let batch = AdmitBatch { transactions: transactions.to_vec() };
                let mut pending = self.peers.submit(id, batch);
                match (&mut pending).now_or_never() {
                    Some(verdicts) => futures::future::ready(verdicts).boxed(),
                    None => pending,
                }
            }
        }
    }

    /// Waits for the verdicts, offering the batch again for as long as a write may wait.
    async fn finish(self, part: Decoded, first_try: PendingVerdicts) {
        let deadline = Instant::now() + Duration::from_millis(LEADER_WAIT_MS);
        let mut raft = self.raft.clone();
        let mut pending = first_try;
        let mut maybe_proposed = false;
        loop {
            match pending.await {
                Ok(verdicts) => return self.answer(part, verdicts),
                Err(Refusal::NotLeader { .. }) => {}
                Err(Refusal::OutcomeUnknown) => maybe_proposed = true,
                Err(Refusal::QueueFull | Refusal::BatchTooLarge) => return refuse(part),
            }
            if Instant::now() >= deadline {
                break;
            }
            // A change of Raft's state is worth another attempt at once.
            let _ = tokio::time::timeout(RETRY_PAUSE, raft.changed()).await;
            tokio::time::sleep(RETRY_PAUSE).await;
            pending = self.start(&part.transactions).await;
        }
        let status = raft.borrow().clone();
        for (tx, reply) in part.transactions.iter().zip(part.replies) {
            let error = if self.chain.is_known(tx.tx_hash()) {
                reply.send(Ok(*tx.tx_hash()));
                continue;
            } else if maybe_proposed {
                SubmitError::OutcomeUnknown { hash: *tx.tx_hash() }
            } else {
                SubmitError::NoLeader {
                    term: status.term,
                    last_leader: status.leader,
                    retry_after_ms: 1000,
                }
            };
            reply.send(Err(error));
        }
    }

    fn answer(&self, part: Decoded, verdicts: Vec<Result<(), PoolError>>) {
        for ((tx, reply), verdict) in part.transactions.iter().zip(part.replies).zip(verdicts) {
            let hash = *tx.tx_hash();
            let answer = match verdict {
                Ok(()) | Err(PoolError::AlreadyKnown) => Ok(hash),
                // An earlier attempt of this very transaction was admitted, and is in a block by now.
                Err(PoolError::NonceTooLow { .. }) if self.chain.is_known(&hash) => Ok(hash),
                Err(error) => Err(error.into()),
            };
            reply.send(answer);
        }
    }
}

/// The leader has no room: the client may try again.
fn refuse(part: Decoded) {
    for reply in part.replies {
        reply.send(Err(SubmitError::Busy));
    }
}

/// What has come in meanwhile, up to what fits one entry or a little more.
fn gather(first: Submission, more: &mut mpsc::Receiver<Submission>) -> Vec<Submission> {
    let mut count = first.raw.len();
    let mut batch = vec![first];
    while count < ADMIT_TX_COUNT_MAX
        && let Ok(next) = more.try_recv()
    {
        count += next.raw.len();
        batch.push(next);
    }
    batch
}

/// Answers what is refused already.
fn sort_out(batch: Vec<Submission>, results: Results) -> Decoded {
    let replies = batch.into_iter().flat_map(|s| Reply::all(s.raw.len(), s.reply));
    let mut decoded = Decoded::default();
    for (reply, result) in replies.zip(results) {
        match result {
            Ok(tx) => {
                decoded.transactions.push(tx);
                decoded.replies.push(reply);
            }
            Err(error) => reply.send(Err(error.into())),
        }
    }
    decoded
}

/// Cuts a batch so that each part fits one `Admit` entry.
fn parts(decoded: Decoded) -> Vec<Decoded> {
    let mut parts: Vec<Decoded> = Vec::new();
    let mut bytes = 0;
    for (tx, reply) in decoded.transactions.into_iter().zip(decoded.replies) {
        let length = alloy_eips::Encodable2718::encode_2718_len(tx.inner());
        let fits = parts.last().is_some_and(|part| {
            bytes + length <= ADMIT_BYTES_MAX && part.transactions.len() < ADMIT_TX_COUNT_MAX
        });
        if !fits {
            parts.push(Decoded::default());
            bytes = 0;
        }
        bytes += length;
        let part = parts.last_mut().expect("one was pushed if there was none");
        part.transactions.push(tx);
        part.replies.push(reply);
    }
    parts
}
