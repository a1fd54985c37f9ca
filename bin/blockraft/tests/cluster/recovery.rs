//! A leader leaves senders to the others to recover, while they are there.

use crate::{
    distributed::{leader, metric},
    harness::{Devnet, receipt, signal, transfer},
};
use alloy_primitives::Address;
use jsonrpsee::{
    core::{client::ClientT, params::BatchRequestBuilder},
    http_client::HttpClient,
    rpc_params,
};
use serde_json::{Value, json};

const BY_PEER: &str = r#"blockraft_gateway_recovered_total{where="peer"}"#;
/// Transactions that arrive in one request.
const BATCH: u64 = 100;

/// Sends transfers of one account in one request; all are accepted, and their receipts name the sender.
async fn send_batch(net: &Devnet, client: &HttpClient, first_nonce: u64) {
    let key = &net.keys[0];
    let signed: Vec<_> = (first_nonce..first_nonce + BATCH)
        .map(|nonce| transfer(key, nonce, Address::repeat_byte(9)))
        .collect();
    let mut batch = BatchRequestBuilder::new();
    for (_, raw) in &signed {
        batch.insert("eth_sendRawTransaction", rpc_params![raw]).unwrap();
    }
    let answers = client.batch_request::<Value>(batch).await.unwrap();
    let answers: Vec<Value> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let hashes: Vec<Value> = signed.iter().map(|(hash, _)| json!(hash)).collect();
    assert_eq!(answers, hashes);
    for (hash, _) in signed {
        let sender = format!("{:#x}", key.address());
        assert_eq!(receipt(client, hash).await["from"], sender);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_has_the_others_recover_its_senders_and_recovers_alone_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Devnet::start(dir.path(), &["--block-time", "0.1"]);
    let first = leader(&net).await;
    let client = net.node(first).client();
    send_batch(&net, &client, 0).await;
    let by_peer = net.nodes.iter().map(|node| metric(&node.url, BY_PEER)).sum::<u64>();
    assert!(by_peer > 0, "nobody recovered for the leader");

    // A member that does not answer, then one that is not there.
    let mut others = net.nodes.iter().filter(|node| node.id != first).map(|node| node.id);
    let (paused, killed) = (others.next().unwrap(), others.next().unwrap());
    signal(net.node(paused).pid, "STOP");
    send_batch(&net, &client, BATCH).await;
    signal(net.node(paused).pid, "CONT");
    net.node(killed).kill();
    send_batch(&net, &client, 2 * BATCH).await;
}
