//! Nodes in this process, driven by a consensus client.

use crate::client::{Client, SECRET};
use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip4844, TxEip4844WithSidecar, TxEnvelope,
};
use alloy_eips::{
    eip2718::Encodable2718,
    eip4844::Blob,
    eip7594::{BlobTransactionSidecarEip7594, BlobTransactionSidecarVariant},
};
use alloy_primitives::{Address, B256, TxKind, U256, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use blockraft_node::{
    Distribution, EngineApiConfig, Member, Node, NodeConfig, RecoverAt,
    import::{ChainSource, Workers, import_chain},
};
use blockraft_primitives::{ClusterGenesis, limits, network};
use blockraft_storage::{Identity, Store, init};
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
};
use tempfile::TempDir;

/// Receives transfers.
pub(crate) const BOB: Address = Address::repeat_byte(0xb0);

/// A cluster and its directories.
pub(crate) struct World {
    nodes: Vec<Option<Node>>,
    datadirs: Vec<TempDir>,
    members: Vec<(u64, Member)>,
    distribution: Distribution,
}

pub(crate) fn alice() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap()
}

/// A chain at Osaka with everything that its blocks call, and Alice's funds.
pub(crate) fn genesis() -> ClusterGenesis {
    genesis_with(&json!({}))
}

/// The `config` of a chain that has merged from its genesis on.
pub(crate) fn merged_config(chain_id: u64) -> Value {
    serde_json::to_value(network("Paris", chain_id).unwrap()).unwrap()
}

/// The same with other keys in its `config`.
pub(crate) fn genesis_with(changes: &Value) -> ClusterGenesis {
    use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
    let mut config = merged_config(7);
    for time in ["shanghaiTime", "cancunTime", "pragueTime", "osakaTime"] {
        config[time] = 0.into();
    }
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let mut alloc = json!({ alice().address().to_string(): { "balance": "0xffffffffffffffffff" } });
    for (address, code) in [
        (eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE,
        ),
        (
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE,
        ),
    ] {
        alloc[address.to_string()] = json!({ "balance": "0x0", "nonce": "0x1", "code": code });
    }
    let text = json!({
        "config": config, "gasLimit": "0x3938700", "difficulty": "0x0", "alloc": alloc,
        "baseFeePerGas": "0x7",
    });
    ClusterGenesis::from_json(&text.to_string()).unwrap()
}

/// Attributes of the block after the one with this timestamp.
pub(crate) fn attributes(timestamp: u64, fee_recipient: Address) -> Value {
    json!({
        "timestamp": format!("{timestamp:#x}"),
        "prevRandao": B256::repeat_byte(3),
        "suggestedFeeRecipient": fee_recipient,
        "withdrawals": [],
        "parentBeaconBlockRoot": B256::repeat_byte(4),
    })
}

/// One of Alice's transfers to Bob.
pub(crate) fn transfer(nonce: u64, wei: u64) -> String {
    let tx = TxEip1559 {
        chain_id: 7,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1_000,
        to: TxKind::Call(BOB),
        value: U256::from(wei),
        ..Default::default()
    };
    let signature = alice().sign_hash_sync(&tx.signature_hash()).unwrap();
    hex::encode_prefixed(TxEnvelope::from(tx.into_signed(signature)).encoded_2718())
}

/// One of Alice's blob transactions, with the proofs of its cells, and the hash of its blob.
pub(crate) fn blob_transfer(nonce: u64) -> (String, B256) {
    let sidecar = BlobTransactionSidecarEip7594::try_from_blobs(vec![Blob::repeat_byte(2)]);
    let sidecar = BlobTransactionSidecarVariant::Eip7594(sidecar.unwrap());
    let blob_versioned_hashes: Vec<B256> = sidecar.versioned_hashes().collect();
    let blob = blob_versioned_hashes[0];
    let tx = TxEip4844 {
        chain_id: 7,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1_000,
        max_fee_per_blob_gas: 1_000_000,
        blob_versioned_hashes,
        to: BOB,
        ..Default::default()
    };
    let tx = TxEip4844WithSidecar { tx, sidecar };
    let signature = alice().sign_hash_sync(&tx.signature_hash()).unwrap();
    let envelope = TxEnvelope::from(tx.into_signed(signature));
    (hex::encode_prefixed(envelope.encoded_2718()), blob)
}

/// Below the range from which the system takes ports for outgoing connections: a node that starts again
/// finds its port free.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 40) as u16 * 250;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 250;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

impl World {
    /// Starts a cluster on a new chain and waits for its leader.
    pub(crate) async fn start(genesis: &ClusterGenesis, count: u64) -> Self {
        Self::start_with(genesis, (count, Distribution::Auto), |_| ()).await
    }

    /// Starts a cluster that shares every block out.
    pub(crate) async fn start_sharing(genesis: &ClusterGenesis, count: u64) -> Self {
        Self::start_with(genesis, (count, Distribution::Always), |_| ()).await
    }

    /// Starts a node over a chain of imported blocks.
    pub(crate) async fn start_over(genesis: &ClusterGenesis, blocks: &[u8]) -> Self {
        Self::start_with(genesis, (1, Distribution::Off), |datadir| {
            let store = Store::open(datadir).unwrap();
            let workers = Workers { executors: 1, threads: 1 };
            let source = ChainSource::new(blocks);
            let imported = import_chain(&store, genesis, workers, source, &mut |_| ()).unwrap();
            assert!(imported.failure.is_none(), "{:?}", imported.failure);
        })
        .await
    }

    /// Starts a cluster over directories that `prepare` has seen.
    async fn start_with(
        genesis: &ClusterGenesis,
        (count, distribution): (u64, Distribution),
        prepare: impl Fn(&Path),
    ) -> Self {
        let datadirs: Vec<TempDir> = (0..count).map(|_| TempDir::new().unwrap()).collect();
        let members = (1..=count).map(|id| {
            let (raft, rpc) = (free_address(), free_address());
            (id, Member { raft_addr: raft.to_string(), rpc_addr: rpc.to_string() })
        });
        let members = members.collect();
        for (id, datadir) in (1..).zip(&datadirs) {
            let identity = Identity { cluster_id: genesis.hash(), node_id: id };
            init(datadir.path(), genesis, &identity).unwrap();
            prepare(datadir.path());
        }
        let nodes = (0..count).map(|_| None).collect();
        let mut world = Self { nodes, datadirs, members, distribution };
        for id in 1..=count {
            world.start_node(id).await;
        }
        for node in world.nodes.iter().flatten() {
            node.ready().await.unwrap();
        }
        world
    }

    /// Starts a node over its directory.
    pub(crate) async fn start_node(&mut self, id: u64) {
        let member = &self.members[id as usize - 1].1;
        let config = NodeConfig {
            trie_memory_bytes: None,
            trie_checkpoint: false,
            threads: None,
            distribution: self.distribution,
            root_sharing: Distribution::Off,
            recover_at: RecoverAt::Auto,
            node_id: Some(id),
            datadir: self.datadirs[id as usize - 1].path().to_owned(),
            raft_addr: member.raft_addr.parse().unwrap(),
            rpc_addr: member.rpc_addr.parse().unwrap(),
            members: self.members.clone(),
            bootstrap: true,
            block_time_ms: None,
            fee_recipient: None,
            submission: Default::default(),
            cors_domains: Vec::new(),
            virtual_hosts: Vec::new(),
            engine_api: Some(EngineApiConfig {
                listen: "127.0.0.1:0".parse().unwrap(),
                secret: SECRET,
                virtual_hosts: Vec::new(),
            }),
            raft_heartbeat_ms: 50,
            // A node alone need not wait long for itself.
            raft_election_ms: if self.members.len() == 1 { 60 } else { 400 },
            snapshot_entry_interval: limits::SNAPSHOT_ENTRY_INTERVAL,
            log_entries_kept: limits::LOG_ENTRIES_KEPT,
            history_blocks: None,
        };
        self.nodes[id as usize - 1] = Some(Node::start(config).await.unwrap());
    }

    /// Waits until a node knows a leader.
    pub(crate) async fn ready(&self, id: u64) {
        self.nodes[id as usize - 1].as_ref().unwrap().ready().await.unwrap();
    }

    /// Stops a node.
    pub(crate) async fn stop_node(&mut self, id: u64) {
        self.nodes[id as usize - 1].take().unwrap().shutdown().await;
    }

    /// Stops all of them.
    pub(crate) async fn stop(mut self) {
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            node.shutdown().await;
        }
    }

    /// The consensus client of a node.
    pub(crate) fn client(&self, id: u64) -> Client {
        Client(self.nodes[id as usize - 1].as_ref().unwrap().engine_addr().unwrap())
    }
}
