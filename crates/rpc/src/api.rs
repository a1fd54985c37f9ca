//! What every method can reach.

use crate::{
    EvidenceSource, TimelineSource,
    config::{Finality, RpcConfig},
    context::{ClusterStatus, HeadChange, ProofSource, RpcContext, Submission},
    filters::Filters,
    workers::Workers,
};
use blockraft_primitives::{ChainSpec, Transaction, limits::SUBMISSION_QUEUE_LEN_MAX};
use blockraft_protocol::Pool;
use blockraft_storage::Store;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

/// The state behind the methods.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) pool: Arc<RwLock<Pool>>,
    pub(crate) submissions: mpsc::Sender<Submission>,
    /// One permit for each transaction that waits for its verdict.
    pub(crate) submission_room: Semaphore,
    pub(crate) heads: broadcast::Sender<HeadChange>,
    pub(crate) pending: broadcast::Sender<Arc<[Transaction]>>,
    pub(crate) cluster: watch::Receiver<ClusterStatus>,
    pub(crate) proofs: Arc<ProofSource>,
    pub(crate) timelines: Arc<TimelineSource>,
    pub(crate) evidence: Arc<EvidenceSource>,
    pub(crate) finality: Option<watch::Receiver<Finality>>,
    pub(crate) workers: Workers,
    pub(crate) filters: Filters,
    pub(crate) client_version: String,
    /// The suggested tip and the head that it was found at.
    pub(crate) tip_at: Mutex<Option<(u64, u128)>>,
}

impl Api {
    pub(crate) fn new(config: &RpcConfig, context: RpcContext) -> Self {
        let RpcContext {
            store,
            pool,
            submissions,
            heads,
            pending,
            cluster,
            proofs,
            timelines,
            evidence,
            runtime,
        } = context;
        Self {
            store,
            pool,
            submissions,
            submission_room: Semaphore::new(SUBMISSION_QUEUE_LEN_MAX),
            heads,
            pending,
            cluster,
            proofs,
            timelines,
            evidence,
            finality: config.finality.clone(),
            workers: Workers::new(runtime, config.read_worker_count, config.call_worker_count),
            filters: Filters::default(),
            client_version: config.client_version.clone(),
            tip_at: Mutex::new(None),
        }
    }

    pub(crate) fn spec(&self) -> &ChainSpec {
        &self.store.genesis().spec
    }

    /// Whether the genesis asks for a chain without fees.
    pub(crate) fn is_gasless(&self) -> bool {
        self.store.genesis().options.gasless
    }
}
