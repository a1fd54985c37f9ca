//! Members of a cluster in one process: real log, real sockets, an application in memory.

use super::memory::MemoryApplication;
use crate::{
    Handler, Member, Plane, RaftConfig, RaftNode, RaftStatus, Refused, Spawner, Transport,
    TransportConfig,
};
use alloy_primitives::B256;
use blockraft_primitives::{ClusterGenesis, NodeId};
use blockraft_storage::{Identity, RaftLog, StorageError, Store, StoreOptions};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};

/// Long enough for two busy cores; nothing waits for all of it unless it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const CLUSTER: B256 = B256::repeat_byte(0xc1);

/// The Raft log of a data directory, which is made when there is none.
pub(super) fn open_log(dir: &Path) -> RaftLog {
    let genesis = r#"{"config":{"chainId":1337,"homesteadBlock":0,"eip150Block":0,"eip155Block":0,
        "eip158Block":0,"byzantiumBlock":0,"constantinopleBlock":0,"petersburgBlock":0,
        "istanbulBlock":0,"berlinBlock":0,"londonBlock":0},
        "gasLimit":"0x1c9c380","difficulty":"0x0","alloc":{}}"#;
    let genesis = ClusterGenesis::from_json(genesis).unwrap();
    let identity = Identity { cluster_id: CLUSTER, node_id: 1 };
    let options = StoreOptions { map_bytes_max: 1 << 30, ..StoreOptions::default() };
    for _ in 0..10_000_000 {
        let opened = blockraft_storage::init(dir, &genesis, &identity)
            .and_then(|()| Store::open_with(dir, options));
        match opened {
            Ok(store) => return store.raft_log(),
            // The tasks of the node that just stopped are about to let go of it.
            Err(StorageError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the data directory stays locked");
}

/// Answers the data plane with what it is asked.
pub(super) struct Echo;

impl Handler for Echo {
    fn handle(
        &self,
        _peer: NodeId,
        _plane: Plane,
        kind: u8,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        let refused = kind == 0;
        async move { if refused { Err(Refused("no".to_owned())) } else { Ok(payload) } }.boxed()
    }
}

/// Quick, but with room for a loaded machine.
pub(super) fn config() -> RaftConfig {
    RaftConfig { snapshot_entry_interval: 100_000, ..RaftConfig::default() }
}

/// One member and what it leaves behind when it stops.
pub(super) struct TestNode {
    pub(super) id: NodeId,
    pub(super) address: String,
    pub(super) application: Arc<MemoryApplication>,
    pub(super) raft: RaftNode,
    pub(super) transport: Transport,
    spawner: Spawner,
    config: RaftConfig,
    dir: TempDir,
}

impl TestNode {
    pub(super) async fn start(id: NodeId, config: RaftConfig) -> Self {
        let listener = Transport::bind("127.0.0.1:0").await.unwrap();
        let application = Arc::new(MemoryApplication::new());
        Self::run(id, config, listener, application, tempfile::tempdir().unwrap()).await
    }

    async fn run(
        id: NodeId,
        config: RaftConfig,
        listener: TcpListener,
        application: Arc<MemoryApplication>,
        dir: TempDir,
    ) -> Self {
        let spawner = Spawner::default();
        let identity = Identity { cluster_id: CLUSTER, node_id: id };
        let transport = Transport::new(identity, TransportConfig::default(), spawner.clone());
        let log = Arc::new(open_log(dir.path()));
        let raft = RaftNode::start(
            config.clone(),
            log,
            Arc::clone(&application) as _,
            transport.clone(),
            spawner.clone(),
        )
        .await
        .unwrap();
        let address = transport.serve(listener, raft.handler(Arc::new(Echo))).unwrap().to_string();
        Self { id, address, application, raft, transport, spawner, config, dir }
    }

    /// Stops as if the power went: nothing is handed over, what was not written behind is lost.
    pub(super) async fn crash(self) -> Crashed {
        self.spawner.stop.cancel();
        self.raft.shutdown().await.unwrap();
        let Self { id, address, application, raft, transport, spawner, config, dir } = self;
        drop((raft, transport));
        spawner.tasks.close();
        timeout(PATIENCE, spawner.tasks.wait()).await.expect("all tasks end");
        let application = Arc::new(application.restarted());
        Crashed { id, address, application, config, dir }
    }

    pub(super) fn member(&self) -> Member {
        Member { raft_addr: self.address.clone(), rpc_addr: format!("rpc-of-{}", self.id) }
    }

    /// Waits until the status is as wished for.
    pub(super) async fn until(&self, wish: impl FnMut(&RaftStatus) -> bool) -> RaftStatus {
        let mut status = self.raft.status();
        let reached = timeout(PATIENCE, status.wait_for(wish)).await;
        let reached = reached.map(|status| status.expect("the node runs").clone());
        reached.unwrap_or_else(|_| panic!("not reached, it is {:?}", self.raft.status().borrow()))
    }
}

/// A member that is down.
pub(super) struct Crashed {
    pub(super) id: NodeId,
    address: String,
    application: Arc<MemoryApplication>,
    config: RaftConfig,
    dir: TempDir,
}

impl Crashed {
    pub(super) async fn restart(self) -> TestNode {
        let Self { id, address, application, config, dir } = self;
        let listener = Transport::bind(&address).await.unwrap();
        TestNode::run(id, config, listener, application, dir).await
    }
}

/// `count` members that form a cluster.
pub(super) async fn cluster(count: u64, config: RaftConfig) -> BTreeMap<NodeId, TestNode> {
    let mut nodes = BTreeMap::new();
    for id in 1..=count {
        nodes.insert(id, TestNode::start(id, config.clone()).await);
    }
    let members: BTreeMap<NodeId, Member> =
        nodes.values().map(|node| (node.id, node.member())).collect();
    for node in nodes.values() {
        node.raft.initialize(members.clone()).await.unwrap();
    }
    nodes
}

/// Waits until all of them agree on a leader, which is ready to lead.
pub(super) async fn leader(nodes: &BTreeMap<NodeId, TestNode>) -> NodeId {
    timeout(PATIENCE, async {
        loop {
            let first = nodes.values().next().unwrap();
            let leader = first.until(|status| status.leader.is_some()).await.leader.unwrap();
            let Some(node) = nodes.get(&leader) else {
                // A dead one, not yet missed.
                first.until(|status| status.leader != Some(leader)).await;
                continue;
            };
            if node.raft.barrier().await.is_err() {
                tokio::task::yield_now().await;
                continue;
            }
            for node in nodes.values() {
                node.until(|status| status.leader == Some(leader)).await;
            }
            return leader;
        }
    })
    .await
    .expect("a leader is elected")
}

/// Waits until all of them have applied `index`.
pub(super) async fn applied(nodes: &BTreeMap<NodeId, TestNode>, index: u64) {
    for node in nodes.values() {
        node.until(|status| status.applied_index >= Some(index)).await;
    }
}

/// The n-th test entry.
pub(super) fn item(n: u64) -> Bytes {
    Bytes::from(format!("item {n}"))
}
