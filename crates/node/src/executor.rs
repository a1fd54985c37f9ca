//! The task that runs units of work for whoever leads.

use crate::{chain::Chain, clock::Stopwatch};
use blockraft_primitives::{
    NodeId,
    limits::{UNIT_PARENT_WAIT_MS, UNIT_QUEUE_LEN_MAX},
};
use blockraft_protocol::{
    Admittance, Gate, Response, RootAnswer, RootUnit, Standing, Unit, UnitAnswer, UnitId,
    UnitRefusal, UnitRefused,
};
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
    work: Work,
    reply: oneshot::Sender<Response>,
}

#[derive(Debug)]
enum Work {
    Execute(Unit),
    Hash(RootUnit),
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
    gates: Arc<Mutex<Gates>>,
}

/// Maps of work and of hashing are counted apart.
#[derive(Debug, Default)]
struct Gates {
    execute: Gate,
    hash: Gate,
}

impl ExecutorHandle {
    /// A handle, and the queue for [`Executor::run`].
    pub(crate) fn channel(node_id: NodeId) -> (Self, ExecutorQueue) {
        let (jobs, queue) = mpsc::channel(UNIT_QUEUE_LEN_MAX);
        (Self { node_id, jobs }, ExecutorQueue(queue))
    }

    /// Has a unit run. A full queue refuses at once: the leader has other ways.
    pub(crate) async fn execute(&self, unit: Unit) -> Response {
        self.have_done(Work::Execute(unit)).await
    }

    /// Has subtries hashed, likewise.
    pub(crate) async fn hash(&self, unit: RootUnit) -> Response {
        self.have_done(Work::Hash(unit)).await
    }

    async fn have_done(&self, work: Work) -> Response {
        let echo = work.id();
        let refuse =
            |refusal| Response::NotExecuted(UnitRefused { echo, executor: self.node_id, refusal });
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job { work, reply }) {
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
        Self { chain, node_id, raft, progress, spawner, gates: Arc::default() }
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
                let response = executor.answer(job.work).await;
                drop(worker);
                // The leader may have gone.
                let _ = job.reply.send(response);
            });
        }
    }

    async fn answer(mut self, work: Work) -> Response {
        let (echo, executor) = (work.id(), self.node_id);
        let done = match self.admit(&work).await {
            Ok(()) => {
                let chain = self.chain.clone();
                let running =
                    self.spawner.tasks.spawn_blocking(move || do_work(&chain, &work, executor));
                // A panic has been reported; the leader does the work itself.
                running.await.unwrap_or(Err(UnitRefusal::Failed))
            }
            Err(refusal) => Err(refusal),
        };
        done.unwrap_or_else(|refusal| {
            tracing::debug!(%refusal, height = echo.fence.height, "a unit of work is refused");
            metrics::counter!("blockraft_execution_units_not_run_total", "reason" => refusal.name())
                .increment(1);
            Response::NotExecuted(UnitRefused { echo, executor, refusal })
        })
    }

    /// Waits for the unit's parent and pool, as long as that may take.
    async fn admit(&mut self, work: &Work) -> Result<(), UnitRefusal> {
        let until = Instant::now() + Duration::from_millis(UNIT_PARENT_WAIT_MS);
        loop {
            self.progress.borrow_and_update();
            let standing = self.chain.standing(&self.raft.borrow());
            match self.gates.lock().check(work, &standing) {
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

impl Work {
    fn id(&self) -> UnitId {
        match self {
            Self::Execute(unit) => unit.id,
            Self::Hash(unit) => unit.id,
        }
    }
}

impl Gates {
    fn check(&mut self, work: &Work, standing: &Standing) -> Admittance {
        match work {
            Work::Execute(unit) => self.execute.check(unit, standing),
            Work::Hash(unit) => self.hash.check_root(unit, standing),
        }
    }
}

/// For a worker thread.
fn do_work(chain: &Chain, work: &Work, node: NodeId) -> Result<Response, UnitRefusal> {
    let stopwatch = Stopwatch::start();
    match work {
        Work::Execute(unit) => {
            let outcomes = chain.run_unit(unit)?.into();
            let run_us = stopwatch.elapsed_ns() / 1000;
            stopwatch.record_stage("unit");
            let count = unit.work.transaction_count() as u64;
            metrics::counter!("blockraft_execution_units_run_total").increment(1);
            metrics::counter!("blockraft_execution_unit_txs_total").increment(count);
            let answer = UnitAnswer { echo: unit.id, executor: node, run_us, outcomes };
            Ok(Response::Executed(answer))
        }
        Work::Hash(unit) => {
            let roots = chain.hash_unit(unit)?;
            let run_us = stopwatch.elapsed_ns() / 1000;
            stopwatch.record_stage("root_unit");
            metrics::counter!("blockraft_root_units_hashed_total").increment(1);
            Ok(Response::Hashed(RootAnswer { echo: unit.id, owner: node, run_us, roots }))
        }
    }
}
