//! A node without Raft: a store with a few blocks, a pool, and a gateway that admits at once.

use crate::http::Client;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, hex, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use blockraft_execution::{BlockAttributes, build_block};
use blockraft_primitives::{
    Account, AdmitBatch, Applied, ClusterGenesis, SealedBlock, StateReader, Transaction,
};
use blockraft_protocol::{AdmissionRules, Pool, decode};
use blockraft_rpc::{
    AccountProof, ClusterStatus, Disagreement, DisagreementAnswer, HeadChange, MemberStatus,
    ProofError, Role, RpcConfig, RpcContext, RpcServer, RpcServerError, RunningRpc, SlotProof,
    StageTimes, Submission, SubmitError, TxTimeline,
};
use blockraft_storage::{AppliedStep, Identity, StorageError, Store, StoreOptions, init};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
};

/// Returns what it is called with, reverts with it when it begins with a zero byte:
/// `calldatacopy(0,0,size); if calldata[0]==0 revert(0,size) else return(0,size)`.
pub(crate) const ECHO: &str = "0x365f5f375f3560f81c600f57365ffd5b365ff3";
/// Stores the caller's word in slot 0 and logs it with topic 0x2a:
/// `sstore(0, calldataload(0)); mstore(0, calldataload(0)); log1(0, 32, 0x2a)`.
pub(crate) const STORE: &str = "0x5f355f555f355f52602a60205fa100";
/// Jumps to itself for ever.
pub(crate) const LOOP: &str = "0x5b5f56";

/// Where nobody lives.
pub(crate) const NOBODY: Address = address!("0x00000000000000000000000000000000deadbeef");
/// Receives transfers.
pub(crate) const BOB: Address = address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8");

/// The first common development account.
pub(crate) fn alice() -> PrivateKeySigner {
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80".parse().expect("a key")
}

/// A server with its node.
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) pool: Arc<RwLock<Pool>>,
    pub(crate) cluster: watch::Sender<ClusterStatus>,
    pub(crate) running: RunningRpc,
    pub(crate) pending: broadcast::Sender<Arc<[Transaction]>>,
    heads: broadcast::Sender<HeadChange>,
    log_index: Arc<RwLock<u64>>,
    _gateway: JoinSet<()>,
    _datadir: tempfile::TempDir,
}

/// A node with nothing but the genesis block.
pub(crate) async fn node() -> Node {
    node_with(|_| {}).await
}

/// Likewise, configured.
pub(crate) async fn node_with(configure: impl FnOnce(&mut RpcConfig)) -> Node {
    let genesis = ClusterGenesis::from_json(include_str!("../../../../genesis/dev.json"));
    node_of(&genesis.expect("dev genesis"), configure).await
}

/// Likewise, of a genesis.
pub(crate) async fn node_of(
    genesis: &ClusterGenesis,
    configure: impl FnOnce(&mut RpcConfig),
) -> Node {
    start(genesis, StoreOptions::default(), configure).await
}

/// A node that keeps the state of so many blocks below the head.
pub(crate) async fn node_with_history(history_blocks: u64) -> Node {
    let genesis = ClusterGenesis::from_json(include_str!("../../../../genesis/dev.json"));
    let options = StoreOptions { history_blocks, ..StoreOptions::default() };
    start(&genesis.expect("dev genesis"), options, |_| {}).await
}

async fn start(
    genesis: &ClusterGenesis,
    options: StoreOptions,
    configure: impl FnOnce(&mut RpcConfig),
) -> Node {
    let datadir = tempfile::tempdir().expect("a directory");
    let identity = Identity { cluster_id: B256::repeat_byte(1), node_id: 1 };
    init(datadir.path(), genesis, &identity).expect("init");
    let store = Store::open_with(datadir.path(), options).expect("open");
    let pool = Arc::new(RwLock::new(Pool::new()));
    let (submissions, submitted) = mpsc::channel(64);
    let (heads, pending) = (broadcast::channel(64).0, broadcast::channel(64).0);
    let (cluster, watched) = watch::channel(cluster_status());
    let log_index = Arc::new(RwLock::new(1));

    let mut gateway = JoinSet::new();
    gateway.spawn(admit_all(
        submitted,
        store.clone(),
        pool.clone(),
        pending.clone(),
        log_index.clone(),
        watched.clone(),
    ));
    let context = RpcContext {
        store: store.clone(),
        pool: pool.clone(),
        submissions,
        heads: heads.clone(),
        pending: pending.clone(),
        cluster: watched,
        timelines: Arc::new(timeline),
        evidence: Arc::new(|| vec![disagreement()]),
        proofs: Arc::new(|block, address, slots| {
            Ok(AccountProof {
                nonce: block,
                balance: U256::from(7),
                code_hash: keccak256([]),
                storage_root: B256::repeat_byte(2),
                nodes: vec![Bytes::copy_from_slice(address.as_slice())],
                slots: slots
                    .into_iter()
                    .map(|slot| SlotProof { slot, value: slot, nodes: Vec::new() })
                    .collect(),
            })
        }),
        runtime: tokio::runtime::Handle::current(),
    };
    let mut config = RpcConfig::new("127.0.0.1:0".parse().expect("an address"));
    config.client_version = "blockraft/test".to_owned();
    configure(&mut config);
    let running = RpcServer::start(config, context).await.expect("start");
    Node {
        client: Client::new(running.local_addr()),
        store,
        pool,
        cluster,
        running,
        pending,
        heads,
        log_index,
        _gateway: gateway,
        _datadir: datadir,
    }
}

/// Of every transaction but one.
fn timeline(hash: B256) -> Result<Option<TxTimeline>, StorageError> {
    Ok((hash != B256::ZERO).then(|| TxTimeline {
        transaction_hash: hash,
        block_number: 3,
        block_hash: B256::repeat_byte(3),
        transaction_index: 1,
        node_id: 2,
        builder_id: Some(1),
        start_unix_micros: 1_700_000_000_000_000,
        stages: StageTimes { admitted: Some(0), applied: Some(250), ..StageTimes::default() },
    }))
}

/// What every node has found.
fn disagreement() -> Disagreement {
    let answer = |node, byte: u8| DisagreementAnswer { node, outcomes: Bytes::from(vec![byte]) };
    Disagreement {
        leader: 1,
        term: 4,
        block_number: 3,
        parent_hash: B256::repeat_byte(2),
        transactions: vec![B256::repeat_byte(7)],
        answers: vec![answer(2, 0xaa), answer(3, 0xbb)],
    }
}

/// Starts a second server beside a node's, which must fail.
pub(crate) async fn start_at(node: &Node, config: RpcConfig) -> RpcServerError {
    let context = RpcContext {
        store: node.store.clone(),
        pool: node.pool.clone(),
        submissions: mpsc::channel(1).0,
        heads: node.heads.clone(),
        pending: node.pending.clone(),
        cluster: node.cluster.subscribe(),
        timelines: Arc::new(timeline),
        evidence: Arc::new(|| vec![disagreement()]),
        proofs: Arc::new(|block, _, _| {
            Err(ProofError::TooOld { requested: block, oldest: block + 1 })
        }),
        runtime: tokio::runtime::Handle::current(),
    };
    RpcServer::start(config, context).await.expect_err("does not start")
}

fn cluster_status() -> ClusterStatus {
    let member = |id: u64| MemberStatus {
        id,
        raft_addr: format!("127.0.0.1:{}", 8559 + id),
        rpc_addr: format!("127.0.0.1:{}", 8544 + id),
        voter: true,
        matched: Some(9),
    };
    ClusterStatus {
        node_id: 1,
        role: Role::Leader,
        term: 3,
        leader: Some(1),
        last_log_index: 9,
        committed_index: 9,
        applied_index: 9,
        members: (1..=3).map(member).collect(),
        fault: None,
    }
}

async fn admit_all(
    mut submitted: mpsc::Receiver<Submission>,
    store: Store,
    pool: Arc<RwLock<Pool>>,
    pending: broadcast::Sender<Arc<[Transaction]>>,
    log_index: Arc<RwLock<u64>>,
    cluster: watch::Receiver<ClusterStatus>,
) {
    while let Some(Submission { raw, reply }) = submitted.recv().await {
        let verdicts = raw.iter().map(|raw| {
            let verdict = admit(raw, &store, &pool, &log_index, &cluster);
            if let Ok(tx) = &verdict {
                let _nobody_listens = pending.send(Arc::from([tx.clone()]));
            }
            verdict.map(|tx| *tx.tx_hash())
        });
        let _gone = reply.send(verdicts.collect());
    }
}

fn admit(
    raw: &[u8],
    store: &Store,
    pool: &RwLock<Pool>,
    log_index: &RwLock<u64>,
    cluster: &watch::Receiver<ClusterStatus>,
) -> Result<Transaction, SubmitError> {
    if cluster.borrow().leader.is_none() {
        return Err(SubmitError::NoLeader { term: 3, last_leader: Some(2), retry_after_ms: 250 });
    }
    let head = store.head();
    let genesis = store.genesis();
    let rules = AdmissionRules::at(&genesis.spec, &head, &genesis.options);
    let tx = decode(raw, &rules)?;
    let view = store.view(head.number).expect("the head has a state");
    let account_of = |address| -> Account {
        view.account(address).expect("a readable state").unwrap_or_default()
    };
    let index = next(log_index);
    let batch = AdmitBatch { transactions: vec![tx.clone()] };
    let mut admitted = pool.write().admit(index, &batch, account_of, &rules);
    admitted.verdicts.remove(0).map(|_| tx).map_err(SubmitError::from)
}

fn next(log_index: &RwLock<u64>) -> u64 {
    let mut index = log_index.write();
    *index += 1;
    *index
}

impl Node {
    /// Appends a block with these transactions, a second after the last one.
    pub(crate) fn append(&self, transactions: &[Transaction]) -> Arc<SealedBlock> {
        let head = self.store.head();
        let genesis = self.store.genesis();
        let attributes = BlockAttributes {
            timestamp: head.timestamp + 1,
            fee_recipient: Address::repeat_byte(0xfe),
            gas_limit: genesis.block_gas_limit(),
            ..Default::default()
        };
        let view = self.store.view(head.number).expect("the head has a state");
        let built =
            build_block(&genesis.spec, view, &head, &attributes, transactions).expect("a block");
        assert_eq!(built.included.len(), transactions.len(), "all fit: {:?}", built.dropped);
        // Nothing here looks at the root.
        let committed = built.seal(keccak256(head.number.to_be_bytes()));
        let block = committed.block.clone();
        next(&self.log_index);
        self.store.apply(AppliedStep {
            applied: Applied::default(),
            block: Some(committed),
            pool: Vec::new(),
        });
        let _nobody_listens = self.heads.send(HeadChange::Added(block.clone()));
        block
    }

    /// Tells that a block was taken back.
    pub(crate) fn remove(&self, block: Arc<SealedBlock>) {
        let _nobody_listens = self.heads.send(HeadChange::Removed(block));
    }

    /// Appends a block with a contract that has this code, and says where.
    pub(crate) fn deploy(&self, nonce: u64, code: &str) -> Address {
        let code = hex::decode(code).expect("hex");
        // push1 size, dup1, push1 9, push0, codecopy, push0, return: nine bytes before the code.
        let mut init = vec![0x60, code.len() as u8, 0x80, 0x60, 9, 0x5f, 0x39, 0x5f, 0xf3];
        init.extend(code);
        let tx = sign(TxEip1559 {
            nonce,
            gas_limit: 500_000,
            to: TxKind::Create,
            input: init.into(),
            ..transfer_of(0)
        });
        self.append(&[tx]);
        alice().address().create(nonce)
    }
}

fn transfer_of(wei: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: 1337,
        nonce: 0,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(BOB),
        value: U256::from(wei),
        access_list: Default::default(),
        input: Bytes::new(),
    }
}

/// One of Alice's transfers to Bob.
pub(crate) fn transfer(nonce: u64, wei: u64) -> Transaction {
    sign(TxEip1559 { nonce, ..transfer_of(wei) })
}

/// One of Alice's calls.
pub(crate) fn call(nonce: u64, to: Address, input: &[u8]) -> Transaction {
    sign(TxEip1559 {
        nonce,
        gas_limit: 200_000,
        to: TxKind::Call(to),
        input: Bytes::copy_from_slice(input),
        ..transfer_of(0)
    })
}

fn sign(tx: TxEip1559) -> Transaction {
    let signature = alice().sign_hash_sync(&tx.signature_hash()).expect("signs");
    let envelope = TxEnvelope::Eip1559(tx.into_signed(signature));
    Arc::new(Recovered::new_unchecked(envelope, alice().address()))
}

/// The transaction as a client sends it.
pub(crate) fn raw(tx: &Transaction) -> String {
    hex::encode_prefixed(tx.encoded_2718())
}
