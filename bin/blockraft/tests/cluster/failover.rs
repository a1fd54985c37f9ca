//! The leader dies under load: nothing that was acknowledged is lost, and blocks go on.

use crate::harness::{
    Devnet, assert_same_chain, block_number, call, eventually, quantity, transfer,
};
use alloy_primitives::{Address, B256};
use jsonrpsee::http_client::HttpClient;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leader_under_load_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Devnet::start(dir.path(), &["--block-time", "0.1"]);
    let clients: Vec<HttpClient> = net.nodes.iter().map(|n| n.client()).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..6)
        .map(|i| {
            let (key, clients) = (net.keys[i].clone(), clients.clone());
            tokio::task::spawn(send_until_stopped(key, clients, i, stop.clone()))
        })
        .collect();

    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let leader = leader(&clients).await;
        let others: Vec<_> = survivors(&net, &clients, leader);
        let before = highest(&others).await;
        net.node(leader).kill();
        let killed = Instant::now();
        eventually("blocks go on", Duration::from_secs(5), async || {
            (highest(&others).await > before).then_some(())
        })
        .await;
        println!("round {round}: next block {} ms after the kill", killed.elapsed().as_millis());
        net.node(leader).restart();
        let restarted = net.node(leader).client();
        let target = highest(&others).await;
        eventually("the killed node catches up", Duration::from_secs(20), async || {
            block_number(&restarted).await.filter(|n| *n >= target)
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut last) = (Vec::new(), Vec::new());
    for task in load {
        let hashes = task.await.unwrap();
        last.extend(hashes.last().copied());
        acknowledged.extend(hashes);
    }
    assert!(acknowledged.len() > 100, "the load ran: {}", acknowledged.len());
    assert_each_has_one_receipt(&clients, &acknowledged, &last).await;
    let height = assert_same_chain(&clients).await;
    println!("{} acknowledged transactions, {height} equal blocks", acknowledged.len());
}

/// Sends one account's transfers in order over all nodes in turn; a transaction that was not
/// acknowledged is sent again, elsewhere. Returns the acknowledged hashes.
async fn send_until_stopped(
    key: alloy_signer_local::PrivateKeySigner,
    clients: Vec<HttpClient>,
    account: usize,
    stop: Arc<AtomicBool>,
) -> Vec<B256> {
    let mut acknowledged = Vec::new();
    let mut turn = account;
    let mut nonce = 0;
    while !stop.load(Ordering::Relaxed) {
        let (hash, raw) = transfer(&key, nonce, Address::with_last_byte(0xf0 + account as u8));
        loop {
            turn += 1;
            let client = &clients[turn % clients.len()];
            match call(client, "eth_sendRawTransaction", vec![raw.clone().into()]).await {
                Ok(answer) => {
                    assert_eq!(answer, hash.to_string());
                    break;
                }
                Err(jsonrpsee::core::ClientError::Call(error)) => {
                    assert_eq!(error.code(), -32002, "only `no leader` may be refused: {error}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        acknowledged.push(hash);
        nonce += 1;
    }
    acknowledged
}

async fn leader(clients: &[HttpClient]) -> u64 {
    eventually("all agree on a leader", Duration::from_secs(20), async || {
        let mut leaders = Vec::new();
        for client in clients {
            leaders.push(call(client, "blockraft_status", vec![]).await.ok()?["leader"].as_u64()?);
        }
        leaders.iter().all(|l| *l == leaders[0]).then_some(leaders[0])
    })
    .await
}

fn survivors(net: &Devnet, clients: &[HttpClient], leader: u64) -> Vec<HttpClient> {
    let pairs = net.nodes.iter().zip(clients).filter(|(n, _)| n.id != leader);
    pairs.map(|(_, client)| client.clone()).collect()
}

async fn highest(clients: &[HttpClient]) -> u64 {
    let mut highest = 0;
    for client in clients {
        highest = highest.max(block_number(client).await.unwrap_or(0));
    }
    highest
}

/// Every acknowledged transaction is in exactly one block, on every node. Once the last one of each
/// account is in a block, all the others must be: an account's nonces run in order.
async fn assert_each_has_one_receipt(clients: &[HttpClient], acknowledged: &[B256], last: &[B256]) {
    for client in clients {
        for hash in last {
            crate::harness::receipt(client, *hash).await;
        }
        let height = block_number(client).await.unwrap();
        let mut included = std::collections::BTreeMap::<String, usize>::new();
        for number in 0..=height {
            let params: Vec<Value> = vec![format!("0x{number:x}").into()];
            let receipts = call(client, "eth_getBlockReceipts", params).await.unwrap();
            for receipt in receipts.as_array().unwrap() {
                assert_eq!(quantity(&receipt["blockNumber"]), number);
                *included
                    .entry(receipt["transactionHash"].as_str().unwrap().into())
                    .or_default() += 1;
            }
        }
        for hash in acknowledged {
            assert_eq!(included.get(&hash.to_string()), Some(&1), "receipts of {hash}");
        }
    }
}
