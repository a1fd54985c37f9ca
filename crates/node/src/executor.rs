//! The task that runs units of work for whoever leads.

use crate::{chain::Chain, clock::Stopwatch};
use blockraft_primitives::{
    NodeId,
    limits::{UNIT_PARENT_WAIT_MS, UNIT_QUEUE_LEN_MAX},
};
use blockraft_protocol::{Admittance, Gate, Response, Unit, UnitAnswer, UnitRefusal, UnitRefused};
use blockraft_raft::{RaftStatus, Spawner};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

/// The way to the executor; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ExecutorHandle {
    node_id: NodeId,
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    unit: Unit,
    reply: oneshot::Sender<Response>,
}

/// The task's state.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) chain: Arc<Chain>,
    pub(crate) node_id: NodeId,
    pub(crate) raft: watch::Receiver<RaftStatus>,
    /// Tells of every applied entry.
    pub(crate) progress: watch::Receiver<u64>,
    pub(crate) spawner: Spawner,
    gate: Arc<Mutex<Gate>>,
}

impl ExecutorHandle {
    /// A handle, and the queue for [`Executor::run`].
    pub(crate) fn channel(node_id: NodeId) -> (Self, ExecutorQueue) {
        let (jobs, queue) = mpsc::channel(UNIT_QUEUE_LEN_MAX);
        (Self { node_id, jobs }, ExecutorQueue(queue))
    }

    /// Has a unit run. A full queue refuses at once: the leader has other ways.
    pub(crate) async fn execute(&self, unit: Unit) -> Response {
        let echo = unit.id;
        let refuse =
            |refusal| Response::NotExecuted(UnitRefused { echo, executor: self.node_id, refusal });
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job { unit, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| refuse(UnitRefusal::Failed)),
            Err(_) => refuse(UnitRefusal::Busy),
        }
    }
}

/// The executor's end of its handle.
#[derive(Debug)]
pub(crate) struct ExecutorQueue(mpsc::Receiver<Job>);

impl Executor {
    pub(crate) fn new(
        chain: Arc<Chain>,
        node_id: NodeId,
        raft: watch::Receiver<RaftStatus>,
        progress: watch::Receiver<u64>,
        spawner: Spawner,
    ) -> Self {
        Self { chain, node_id, raft, progress, spawner, gate: Arc::default() }
    }

    /// Runs until the node stops: as many units at a time as the node has threads for blocks, which are
    /// idle on who does not lead.
    pub(crate) async fn run(self, mut queue: ExecutorQueue) {
        let workers = Arc::new(Semaphore::new(self.chain.threads()));
        let stop = self.spawner.stop.clone();
        loop {
            let next = async {
                // The semaphore is never closed.
                let worker = workers.clone().acquire_owned().await.ok()?;
                Some((worker, queue.0.recv().await?))
            };
            let Some(Some((worker, job))) = stop.run_until_cancelled(next).await else { return };
            let executor = self.clone();
            self.spawner.tasks.spawn(async move {
                let response = executor.answer(job.unit).await;
                drop(worker);
                // The leader may have gone.
                let _ = job.reply.send(response);
            });
        }
    }

    async fn answer(mut self, unit: Unit) -> Response {
        let (echo, executor) = (unit.id, self.node_id);
        let done = match self.admit(&unit).await {
            Ok(()) => {
                let chain = self.chain.clone();
                let run = move || {
                    let stopwatch = Stopwatch::start();
                    let outcomes = chain.run_unit(&unit)?;
                    stopwatch.record_stage("unit");
                    Ok((stopwatch.elapsed_ns() / 1000, outcomes, unit.work.transaction_count()))
                };
                let running = self.spawner.tasks.spawn_blocking(run);
                // A panic has been reported; the leader runs the share.
                running.await.unwrap_or(Err(UnitRefusal::Failed))
            }
            Err(refusal) => Err(refusal),
        };
        match done {
            Ok((run_us, outcomes, count)) => {
                metrics::counter!("blockraft_execution_units_run_total").increment(1);
                metrics::counter!("blockraft_execution_unit_txs_total").increment(count as u64);
                let outcomes = outcomes.into();
                Response::Executed(UnitAnswer { echo, executor, run_us, outcomes })
            }
            Err(refusal) => {
                tracing::debug!(%refusal, height = echo.fence.height, "a unit of work is refused");
                metrics::counter!("blockraft_execution_units_not_run_total", "reason" => refusal.name())
                    .increment(1);
                Response::NotExecuted(UnitRefused { echo, executor, refusal })
            }
        }
    }

    /// Waits for the unit's parent and pool, as long as that may take.
    async fn admit(&mut self, unit: &Unit) -> Result<(), UnitRefusal> {
        let until = Instant::now() + Duration::from_millis(UNIT_PARENT_WAIT_MS);
        loop {
            self.progress.borrow_and_update();
            let standing = self.chain.standing(&self.raft.borrow());
            match self.gate.lock().check(unit, &standing) {
                Admittance::Run => return Ok(()),
                Admittance::Refuse(refusal) => return Err(refusal),
                Admittance::Wait => {}
            }
            match timeout_at(until, self.progress.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(standing.lagging()),
            }
        }
    }
}
