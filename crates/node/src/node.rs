//! A member from start to stop.

use crate::{
    EngineApiConfig, NodeConfig,
    application::ChainApplication,
    chain::{BlockOptions, Chain},
    circumstances::Circumstances,
    clock,
    data_plane::{DataPlane, Peers},
    distributor::Distributor,
    engine::{Engine, Proposer},
    error::NodeError,
    executor::{Executor, ExecutorHandle},
    gateway::Gateway,
    persister::Persistence,
    producer::{Producer, ProducerHandle},
    reading,
    recovery::Recovery,
    root_sharing::RootSharing,
    scrub::{Pace, Scrub},
    status, telemetry,
    trie_start::TrieOptions,
};
use alloy_primitives::{Address, U256};
use blockraft_primitives::{
    NodeId, StateError,
    limits::{ENGINE_CALL_QUEUE_LEN_MAX, ENGINE_REORG_BLOCK_COUNT_MAX, SUBMISSION_QUEUE_LEN_MAX},
};
use blockraft_raft::{RaftConfig, RaftNode, RaftStatus, Spawner, Transport, TransportConfig};
use blockraft_rpc::{
    AccountProof, ClusterStatus, EngineConfig, ProofError, RpcConfig, RpcContext, RpcServer,
    RunningRpc, SlotProof,
};
use blockraft_storage::{StorageError, Store, StoreOptions};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// How long a leader that stops waits for another to take over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long open RPC connections may hold up a stop.
const RPC_STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long tasks may take to end.
const TASKS_STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long [`Node::ready`] waits for a leader, seconds.
const READY_TIMEOUT_S: u64 = 30;

/// How long a start waits for the process that used the directory before: one that was killed holds it until
/// the kernel has taken it apart, and may be replaced before that.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A running member.
#[derive(Debug)]
pub struct Node {
    raft: RaftNode,
    rpc: RunningRpc,
    spawner: Spawner,
    chain: Arc<Chain>,
    persistence: Arc<Persistence>,
    persister: Option<std::thread::JoinHandle<()>>,
    persister_failed: Option<oneshot::Receiver<NodeError>>,
    scrub_failed: oneshot::Receiver<NodeError>,
    node_id: NodeId,
    read_only: bool,
}

impl Node {
    /// Starts a member over its data directory. It serves reads as soon as this returns; writes wait
    /// for a leader.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let metrics = telemetry::install()?;
        let spawner = Spawner::default();
        let (store, chain) = open(&config, &spawner).await?;
        let identity = *store.identity();
        let node_id = identity.node_id;

        let persistence = Arc::new(Persistence::default());
        let (persister, persister_failed) = start_persister(&store, &persistence)?;
        let (progress, progressed) = watch::channel(0);
        let application = Arc::new(ChainApplication {
            chain: chain.clone(),
            persistence: persistence.clone(),
            incoming: config.datadir.join("incoming.snapshot"),
            progress,
        });
        let transport = Transport::new(identity, TransportConfig::default(), spawner.clone());
        for (peer, member) in config.members.iter().filter(|(id, _)| *id != node_id) {
            transport.pin_address(*peer, &member.raft_addr);
        }
        let listen = |source| NodeError::Listen { address: config.raft_addr, source };
        let listener = Transport::bind(&config.raft_addr.to_string()).await.map_err(listen)?;
        let raft = RaftNode::start(
            raft_config(&config),
            Arc::new(store.raft_log()),
            application,
            transport.clone(),
            spawner.clone(),
        )
        .await?;

        let (producer, queue) = ProducerHandle::channel();
        let executor = start_executor(&chain, &raft, &progressed, &spawner, node_id);
        let data_plane = DataPlane {
            node_id,
            chain: chain.clone(),
            raft: raft.status(),
            log: raft.clone(),
            producer: producer.clone(),
            executor,
        };
        transport.serve(listener, raft.handler(Arc::new(data_plane))).map_err(listen)?;
        share_blocks_out(&chain, &raft, &progressed, &transport, &spawner, &config);
        let options = &store.genesis().options;
        let driven = options.engine || config.engine_api.is_some();
        let block_time_ms = config.block_time_ms.unwrap_or(options.block_time_ms);
        let read_only = !driven && reading::is_read_only(&store);
        let block_time_ms = (!driven && !read_only).then_some(block_time_ms);
        let task = Producer::new(
            chain.clone(),
            raft.clone(),
            node_id,
            block_time_ms,
            spawner.clone(),
            &queue,
        );
        spawner.tasks.spawn(task.run(queue, progressed));
        start_watchdog(&chain, &spawner);

        let (submissions, submitted) = mpsc::channel(SUBMISSION_QUEUE_LEN_MAX);
        let peers = Peers { transport };
        let tracker = spawner.tasks.clone();
        let recover_at = config.recover_at;
        let recovery =
            Recovery::new(node_id, raft.status(), peers.clone(), tracker.clone(), recover_at);
        let gateway = Gateway {
            chain: chain.clone(),
            node_id,
            raft: raft.status(),
            producer,
            peers: peers.clone(),
            tracker,
            submission: config.submission,
            recovery: Arc::new(recovery),
        };
        if read_only {
            tracing::info!("the chain is not a cluster's: it is served for reading alone");
            spawner.tasks.spawn(until_stopped(reading::refuse(submitted), spawner.clone()));
        } else {
            spawner.tasks.spawn(until_stopped(gateway.run(submitted), spawner.clone()));
        }
        let (fault, faults) = watch::channel(None);
        let cluster = publish_status(&raft, faults, &spawner);
        let (failed, scrub_failed) = oneshot::channel();
        let scrub = Scrub {
            chain: chain.clone(),
            raft: raft.clone(),
            spawner: spawner.clone(),
            pace: Pace::default(),
            fault,
            failed,
        };
        spawner.tasks.spawn(scrub.run());
        let context = rpc_context(&chain, node_id, submissions, cluster);
        let mut rpc_config = rpc_config(&config, metrics);
        rpc_config.finality = driven.then(|| chain.finality.subscribe());
        if let Some(api) = &config.engine_api {
            let proposer = Proposer { chain: chain.clone(), node_id, raft: raft.clone(), peers };
            let engine = Engine::new(chain.clone(), proposer);
            rpc_config.engine = Some(start_engine(engine, api, &spawner));
        }
        let rpc = RpcServer::start(rpc_config, context).await?;
        if config.bootstrap && !config.members.is_empty() {
            raft.initialize(config.members.into_iter().collect()).await?;
        }
        if let Some(address) = rpc.engine_addr() {
            tracing::info!(node_id, %address, "the engine API is served");
        }
        tracing::info!(node_id, raft = %config.raft_addr, rpc = %rpc.local_addr(), head = chain.store.head().number, "node started");
        Ok(Self {
            raft,
            rpc,
            spawner,
            chain,
            persistence,
            persister: Some(persister),
            persister_failed: Some(persister_failed),
            scrub_failed,
            node_id,
            read_only,
        })
    }

    /// Whether the chain is served for reading alone, see [`crate::is_read_only`].
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Where the Engine API listens, if it is served; the port is the real one when the configured one was 0.
    pub fn engine_addr(&self) -> Option<std::net::SocketAddr> {
        self.rpc.engine_addr()
    }

    /// Completes once a leader is known that has applied everything up to its term.
    pub async fn ready(&self) -> Result<(), NodeError> {
        let mut status = self.raft.status();
        let ready = status.wait_for(|s| s.leader.is_some() && s.applied_index.is_some());
        match tokio::time::timeout(Duration::from_secs(READY_TIMEOUT_S), ready).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(NodeError::TaskEnded("raft task")),
            Err(_) => Err(NodeError::NoLeader(READY_TIMEOUT_S)),
        }
    }

    /// Completes when the node cannot go on: another member leads, this process should end.
    pub async fn failed(&mut self) -> NodeError {
        let Some(persister) = &mut self.persister_failed else {
            return NodeError::RaftFailed(self.raft.failed().await);
        };
        let mut divergence = self.chain.divergence();
        tokio::select! {
            biased;
            Ok(found) = divergence.wait_for(Option::is_some) => {
                NodeError::Diverged(found.clone().unwrap_or_default())
            }
            error = self.raft.failed() => NodeError::RaftFailed(error),
            error = persister => error.unwrap_or(NodeError::TaskEnded("persister thread")),
            Ok(error) = &mut self.scrub_failed => error,
        }
    }

    /// Hands leadership over, takes no more requests, and writes down what is applied.
    pub async fn shutdown(mut self) {
        self.hand_over().await;
        self.rpc.stop();
        // Connections that stay open longer are cut.
        let _ = tokio::time::timeout(RPC_STOP_TIMEOUT, self.rpc.stopped()).await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
        self.spawner.stop.cancel();
        self.spawner.tasks.close();
        if tokio::time::timeout(TASKS_STOP_TIMEOUT, self.spawner.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.persistence.stop();
        if let Some(persister) = self.persister.take() {
            // A panic of that thread has been reported already.
            let _ = tokio::task::spawn_blocking(move || persister.join()).await;
        }
        let chain = self.chain.clone();
        let left = tokio::task::spawn_blocking(move || chain.leave_trie_checkpoint()).await;
        if let Ok(Err(error)) = left {
            tracing::warn!(%error, "no checkpoint of the state trie");
        }
        tracing::info!(node_id = self.node_id, "node stopped");
    }

    async fn hand_over(&self) {
        let status = self.raft.status().borrow().clone();
        let others = status.members.iter().any(|m| m.voter && m.id != self.node_id);
        if !status.is_leader() || !others {
            return;
        }
        let transfer = self.raft.transfer_leadership(None);
        match tokio::time::timeout(HANDOVER_TIMEOUT, transfer).await {
            Ok(Ok(to)) => tracing::info!(to, "leadership handed over"),
            Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
            Err(_) => tracing::warn!("leadership was not handed over in time"),
        }
    }
}

/// Opens store and chain on a worker thread: rebuilding the trie takes a while.
async fn open(config: &NodeConfig, spawner: &Spawner) -> Result<(Store, Arc<Chain>), NodeError> {
    let mut options = StoreOptions::default();
    options.history_blocks = config.history_blocks.unwrap_or(options.history_blocks);
    let store = open_store(&config.datadir, options, LOCK_PATIENCE, spawner).await?;
    let config = config.clone();
    let opening = spawner.tasks.spawn_blocking(move || {
        let got = store.identity().node_id;
        if let Some(expected) = config.node_id.filter(|expected| *expected != got) {
            return Err(NodeError::WrongNodeId { got, expected });
        }
        let genesis = store.genesis();
        let driven = genesis.options.engine || config.engine_api.is_some();
        if driven && options.history_blocks < ENGINE_REORG_BLOCK_COUNT_MAX {
            let (got, expected) = (options.history_blocks, ENGINE_REORG_BLOCK_COUNT_MAX);
            return Err(NodeError::ShortHistory { got, expected });
        }
        let trie_options = TrieOptions {
            memory_bytes_max: config.trie_memory_bytes,
            checkpoint: config.trie_checkpoint,
        };
        let block_options = BlockOptions {
            fee_recipient: config.fee_recipient.unwrap_or(genesis.options.fee_recipient),
            gas_limit: genesis.block_gas_limit(),
            gasless: genesis.options.gasless,
            threads: config.threads,
        };
        let chain = Arc::new(Chain::open(store.clone(), block_options, trie_options)?);
        Ok((store, chain))
    });
    opening.await.map_err(|_| OPENING_ENDED)?
}

const OPENING_ENDED: NodeError = NodeError::TaskEnded("opening of the database");

/// Opens the store, once nobody else uses the directory any more.
async fn open_store(
    datadir: &Path,
    options: StoreOptions,
    patience: Duration,
    spawner: &Spawner,
) -> Result<Store, NodeError> {
    let deadline = Instant::now() + patience;
    loop {
        let datadir = datadir.to_owned();
        let opening = spawner.tasks.spawn_blocking(move || Store::open_with(&datadir, options));
        match opening.await.map_err(|_| OPENING_ENDED)? {
            Err(StorageError::Locked { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY_PAUSE).await;
            }
            opened => return Ok(opened?),
        }
    }
}

type PersisterThread = (std::thread::JoinHandle<()>, oneshot::Receiver<NodeError>);

fn start_persister(
    store: &Store,
    persistence: &Arc<Persistence>,
) -> Result<PersisterThread, NodeError> {
    let (failed, receiver) = oneshot::channel();
    let (store, persistence) = (store.clone(), persistence.clone());
    let thread = std::thread::Builder::new()
        .name("persister".to_owned())
        .spawn(move || {
            if let Err(error) = persistence.run(&store) {
                tracing::error!(%error, "persisting failed");
                // Nobody waits any more when the node is stopping.
                let _ = failed.send(error);
            }
        })
        .map_err(NodeError::Thread)?;
    Ok((thread, receiver))
}

/// Starts the task that runs units of work for other members.
fn start_executor(
    chain: &Arc<Chain>,
    raft: &RaftNode,
    progress: &watch::Receiver<u64>,
    spawner: &Spawner,
    node_id: NodeId,
) -> ExecutorHandle {
    let (handle, queue) = ExecutorHandle::channel(node_id);
    let (chain, progress) = (chain.clone(), progress.clone());
    let executor = Executor::new(chain, node_id, raft.status(), progress, spawner.clone());
    spawner.tasks.spawn(executor.run(queue));
    handle
}

/// Lets other members run and hash parts of the blocks that this node builds.
fn share_blocks_out(
    chain: &Arc<Chain>,
    raft: &RaftNode,
    progress: &watch::Receiver<u64>,
    transport: &Transport,
    spawner: &Spawner,
    config: &NodeConfig,
) {
    let threads = chain.threads();
    let circumstances =
        || Circumstances { raft: raft.status(), progress: progress.clone(), chain: chain.clone() };
    let distributor =
        Distributor::new(transport.clone(), spawner.clone(), threads, config.distribution);
    spawner.tasks.spawn(distributor.clone().follow(circumstances()));
    chain.set_distributor(distributor);
    let sharing =
        RootSharing::new(transport.clone(), spawner.clone(), threads, config.root_sharing);
    spawner.tasks.spawn(sharing.clone().follow(circumstances()));
    chain.set_root_sharing(sharing);
}

/// Time passes for transactions that run.
fn start_watchdog(chain: &Arc<Chain>, spawner: &Spawner) {
    let watchdog = chain.watchdog.clone();
    let ticking = async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            watchdog.tick();
        }
    };
    spawner.tasks.spawn(until_stopped(ticking, spawner.clone()));
}

async fn until_stopped(task: impl Future<Output = ()>, spawner: Spawner) {
    // Stopped or out of senders: either way it ends.
    let _ = spawner.stop.run_until_cancelled(task).await;
}

/// Starts the task that a consensus client talks to.
fn start_engine(engine: Engine, api: &EngineApiConfig, spawner: &Spawner) -> EngineConfig {
    let (calls, taken) = mpsc::channel(ENGINE_CALL_QUEUE_LEN_MAX);
    let stop = spawner.stop.clone();
    spawner.tasks.spawn(async move {
        // Stopped or out of callers: either way it ends.
        let _ = stop.run_until_cancelled(engine.run(taken)).await;
    });
    EngineConfig {
        listen: api.listen,
        secret: api.secret,
        hosts: api.virtual_hosts.clone(),
        clock: Arc::new(clock::unix_seconds),
        calls,
    }
}

fn raft_config(config: &NodeConfig) -> RaftConfig {
    RaftConfig {
        heartbeat_ms: config.raft_heartbeat_ms,
        election_min_ms: config.raft_election_ms,
        election_max_ms: 2 * config.raft_election_ms,
        snapshot_entry_interval: config.snapshot_entry_interval,
        log_entries_kept: config.log_entries_kept,
    }
}

fn rpc_config(
    config: &NodeConfig,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> RpcConfig {
    RpcConfig {
        cors_origins: config.cors_domains.clone(),
        hosts: config.virtual_hosts.clone(),
        metrics: Some(Arc::new(move || metrics.render())),
        ..RpcConfig::new(config.rpc_addr)
    }
}

fn rpc_context(
    chain: &Arc<Chain>,
    node_id: NodeId,
    submissions: mpsc::Sender<blockraft_rpc::Submission>,
    cluster: watch::Receiver<ClusterStatus>,
) -> RpcContext {
    let (prover, timelines, evidence) = (chain.clone(), chain.clone(), chain.clone());
    RpcContext {
        store: chain.store.clone(),
        pool: chain.pool.clone(),
        submissions,
        heads: chain.heads.clone(),
        pending: chain.pending.clone(),
        cluster,
        timelines: Arc::new(move |transaction| timelines.timeline(transaction, node_id)),
        evidence: Arc::new(move || evidence.evidence()),
        proofs: Arc::new(move |number, address, slots| prove(&prover, number, address, &slots)),
        runtime: tokio::runtime::Handle::current(),
    }
}

fn prove(
    chain: &Chain,
    number: u64,
    address: Address,
    slots: &[U256],
) -> Result<AccountProof, ProofError> {
    let proof = chain.prove(number, address, slots).map_err(|error| match error {
        NodeError::State(error) => error,
        other => StateError::Database(other.to_string()),
    })?;
    let account = proof.account.unwrap_or_default();
    let slot =
        |s: blockraft_trie::SlotProof| SlotProof { slot: s.slot, value: s.value, nodes: s.nodes };
    Ok(AccountProof {
        nonce: account.nonce,
        balance: account.balance,
        code_hash: account.code_hash,
        storage_root: proof.storage_root,
        nodes: proof.nodes,
        slots: proof.slots.into_iter().map(slot).collect(),
    })
}

/// Keeps the RPC server's and the metrics' view of Raft, and of this node's health, fresh.
fn publish_status(
    raft: &RaftNode,
    mut faults: watch::Receiver<Option<String>>,
    spawner: &Spawner,
) -> watch::Receiver<ClusterStatus> {
    let mut raft_status: watch::Receiver<RaftStatus> = raft.status();
    let first = status::cluster_status(&raft_status.borrow(), None);
    let (sender, receiver) = watch::channel(first);
    let stop = spawner.stop.clone();
    spawner.tasks.spawn(async move {
        let follow = async {
            loop {
                tokio::select! {
                    changed = raft_status.changed() => if changed.is_err() { return },
                    // Without a sender nothing can be wrong any more.
                    Ok(()) = faults.changed() => {}
                }
                let now = raft_status.borrow_and_update().clone();
                let fault = faults.borrow_and_update().clone();
                sender.send_replace(status::cluster_status(&now, fault));
            }
        };
        // Stopped or without a source: either way it ends.
        let _ = stop.run_until_cancelled(follow).await;
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tests::World;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_waits_for_the_process_that_used_the_directory_before_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let before = World::new(&path, &[("shanghai", 0)], 0);
        let spawner = Spawner::default();
        let open = |patience| open_store(&path, StoreOptions::default(), patience, &spawner);

        let refused = open(Duration::ZERO).await.unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
        let leave = async {
            tokio::time::sleep(LOCK_RETRY_PAUSE).await;
            drop(before);
        };
        let (opened, ()) = tokio::join!(open(Duration::from_secs(600)), leave);
        assert_eq!(opened.unwrap().head().number, 0);
    }
}
