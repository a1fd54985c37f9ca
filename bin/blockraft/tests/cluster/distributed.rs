//! Blocks that several members ran together, under kills and pauses: equal on every member, and equal to
//! what running them serially on a fresh state gives.

use crate::{
    harness::{Devnet, assert_same_chain, block_number, call, client_with, eventually, signal},
    replay,
};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use jsonrpsee::{core::ClientError, http_client::HttpClient};
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

const SENDERS: usize = 16;

/// `balances[caller] -= arg1; balances[arg0] += arg1`, with the balances in the mapping of slot 0.
const TOKEN: &str =
    "33600052600060205260406000208054602435900390556004356000526040600020805460243501905500";
/// Hashes for a while; then `slot[0] += arg0` and a log. Whoever calls it meets everybody else.
const POOL: &str = "60ff5b6020600020600052600190038060025750600054600435016000556020600 0a000";
/// Hashes for a while; then `slot[caller] += 1`. Nobody meets anybody.
pub(crate) const LOOP: &str = "60ff5b6020600020600052600190038060025750335460010133 5500";

#[tokio::test(flavor = "multi_thread")]
async fn one_member_replays_serially() {
    run(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_agree_and_replay_serially() {
    run(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_members_agree_and_replay_serially() {
    run(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_members_agree_and_replay_serially() {
    run(7).await;
}

async fn run(members: usize) {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("BLOCKRAFT_DISTRIBUTION", "always"), ("BLOCKRAFT_ROOT_SHARING", "always")];
    let accounts = SENDERS.to_string();
    let extra = ["--block-time", "0.1", "--accounts", &accounts];
    let mut net = Devnet::start_many(members as u16, dir.path(), &extra, &settings);
    let load = Load::start(&net).await;
    let calm = async |load: &Load| {
        let goal = load.count() + 150;
        eventually("the load goes on", Duration::from_secs(60), async || {
            (load.count() >= goal).then_some(())
        })
        .await;
    };
    calm(&load).await;
    if members > 1 {
        // Now, since a process that is killed takes its counters along.
        eventually("others run and hash units", Duration::from_secs(60), async || {
            let answered = |name| net.nodes.iter().any(|node| metric(&node.url, name) > 0);
            (answered(ANSWERED) && answered(HASHED)).then_some(())
        })
        .await;
    }
    for round in 0..2 {
        let leader = leader(&net).await;
        let follower = net.nodes.iter().map(|n| n.id).find(|id| *id != leader);
        if let Some(follower) = follower {
            pause(net.node(follower).pid, Duration::from_millis(700)).await;
            calm(&load).await;
            net.node(follower).kill();
            calm(&load).await;
            net.node(follower).restart();
        }
        if round == 0 && members > 1 {
            pause(net.node(leader).pid, Duration::from_millis(1_500)).await;
        } else {
            net.node(leader).kill();
            net.node(leader).restart();
        }
        calm(&load).await;
    }
    let acknowledged = load.stop().await;
    println!("{members} members: {acknowledged} transactions");

    let clients: Vec<HttpClient> = net.nodes.iter().map(|n| n.client()).collect();
    let target = settled(&clients).await;
    assert!(assert_same_chain(&clients).await >= target);
    let datadirs: Vec<PathBuf> = net.nodes.iter().map(|n| n.datadir.clone()).collect();
    net.stop();
    for datadir in datadirs {
        let replayed = replay::serially(&datadir);
        assert!(replayed.height >= target, "{replayed:?}");
        assert!(replayed.transactions >= acknowledged, "{replayed:?}, {acknowledged} acknowledged");
    }
}

/// Units that others ran in time.
pub(crate) const ANSWERED: &str = r#"blockraft_execution_units_total{event="answered"}"#;

/// Parts of the state that others hashed in time.
const HASHED: &str = r#"blockraft_root_units_total{event="answered"}"#;

/// SIGSTOP, and SIGCONT after a while.
async fn pause(pid: u32, time: Duration) {
    signal(pid, "STOP");
    tokio::time::sleep(time).await;
    signal(pid, "CONT");
}

pub(crate) async fn leader(net: &Devnet) -> u64 {
    let clients: Vec<HttpClient> = net.nodes.iter().map(|n| n.client()).collect();
    eventually("all agree on a leader", Duration::from_secs(20), async || {
        let mut leaders = Vec::new();
        for client in &clients {
            leaders.push(call(client, "blockraft_status", vec![]).await.ok()?["leader"].as_u64()?);
        }
        leaders.iter().all(|l| *l == leaders[0]).then_some(leaders[0])
    })
    .await
}

/// Waits until everything is in blocks, and all nodes have what the highest has then.
async fn settled(clients: &[HttpClient]) -> u64 {
    for client in clients {
        eventually("the pool empties", Duration::from_secs(30), async || {
            let status = call(client, "txpool_status", vec![]).await.ok()?;
            (status["pending"] == "0x0" && status["queued"] == "0x0").then_some(())
        })
        .await;
    }
    let mut target = 0;
    for client in clients {
        target = target.max(block_number(client).await.unwrap_or(0));
    }
    for client in clients {
        eventually("all catch up", Duration::from_secs(30), async || {
            block_number(client).await.filter(|n| *n >= target)
        })
        .await;
    }
    target
}

/// A counter of `GET /metrics`; 0 where it is not there yet.
pub(crate) fn metric(url: &str, name: &str) -> u64 {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
}

/// Senders that go on until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(net: &Devnet) -> Self {
        let clients: Vec<HttpClient> =
            net.nodes.iter().map(|n| client_with(&n.url, Duration::from_secs(3))).collect();
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let deployer = &net.keys[0];
        for (nonce, code) in [TOKEN, POOL, LOOP].into_iter().enumerate() {
            let raw = sign(deployer, nonce as u64, TxKind::Create, deployment(code), 0);
            send(&clients, nonce, &raw).await;
        }
        let contracts: [Address; 3] = std::array::from_fn(|n| deployer.address().create(n as u64));
        let spawn = |(index, key): (usize, &PrivateKeySigner)| {
            let sender = Sender {
                key: key.clone(),
                index,
                nonce: if index == 0 { 3 } else { 0 },
                everybody: net.keys.iter().map(|key| key.address()).collect(),
                contracts,
            };
            tokio::task::spawn(sender.run(clients.clone(), stop.clone(), acknowledged.clone()))
        };
        let tasks = net.keys.iter().take(SENDERS).enumerate().map(spawn).collect();
        Self { stop, acknowledged, tasks }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.acknowledged.load(Ordering::Relaxed)
    }
}

struct Sender {
    key: PrivateKeySigner,
    index: usize,
    nonce: u64,
    everybody: Vec<Address>,
    contracts: [Address; 3],
}

impl Sender {
    async fn run(mut self, clients: Vec<HttpClient>, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
        while !stop.load(Ordering::Relaxed) {
            let raw = self.next();
            send(&clients, self.index + self.nonce as usize, &raw).await;
            sent.fetch_add(1, Ordering::Relaxed);
            self.nonce += 1;
        }
    }

    /// Ether and tokens to a hub and to other senders, calls that meet, calls that do not, and some that
    /// fail for lack of gas.
    fn next(&self) -> String {
        let [token, pool, own] = self.contracts;
        let hub = Address::repeat_byte(0x77);
        let other = self.everybody[(self.index * 7 + self.nonce as usize) % self.everybody.len()];
        let tokens = |to: Address| call_data(&[to.into_word(), B256::with_last_byte(3)]);
        let (to, data, value) = match (self.index as u64 * 5 + self.nonce) % 9 {
            0 => (hub, Bytes::new(), 1),
            1 => (other, Bytes::new(), 1_000_000),
            2 => (token, tokens(hub), 0),
            3 | 4 => (token, tokens(other), 0),
            5 | 6 => (pool, call_data(&[B256::with_last_byte(self.nonce as u8)]), 0),
            _ => (own, call_data(&[]), 0),
        };
        sign(&self.key, self.nonce, TxKind::Call(to), data, value)
    }
}

pub(crate) fn call_data(words: &[B256]) -> Bytes {
    let mut data = vec![1, 2, 3, 4];
    words.iter().for_each(|word| data.extend_from_slice(word.as_slice()));
    data.into()
}

/// Creation code that leaves this code.
pub(crate) fn deployment(code: &str) -> Bytes {
    let code = hex::decode(code.replace(' ', "")).unwrap();
    let header = [0x60, code.len() as u8, 0x80, 0x60, 0x0b, 0x60, 0, 0x39, 0x60, 0, 0xf3];
    [&header[..], &code].concat().into()
}

pub(crate) fn sign(
    key: &PrivateKeySigner,
    nonce: u64,
    to: TxKind,
    input: Bytes,
    value: u64,
) -> String {
    let tx = TxEip1559 {
        chain_id: crate::harness::CHAIN_ID,
        nonce,
        gas_limit: if nonce % 11 == 10 { 30_000 } else { 200_000 },
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to,
        value: U256::from(value),
        input,
        ..Default::default()
    };
    let signature = key.sign_hash_sync(&tx.signature_hash()).unwrap();
    hex::encode_prefixed(TxEnvelope::from(tx.into_signed(signature)).encoded_2718())
}

/// Sends until some node has acknowledged it.
async fn send(clients: &[HttpClient], turn: usize, raw: &str) {
    for turn in turn.. {
        let client = &clients[turn % clients.len()];
        match call(client, "eth_sendRawTransaction", vec![raw.into()]).await {
            Ok(_) => return,
            Err(ClientError::Call(error)) => {
                assert_eq!(error.code(), -32002, "only `no leader` may be refused: {error}");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
