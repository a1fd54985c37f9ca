//! Starting, serving, stopping, and starting again.

use crate::harness::{
    Devnet, assert_same_chain, block_number, call, eventually, receipt, transfer,
};
use alloy_primitives::Address;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn every_node_takes_transactions_and_shows_the_same_chain() {
    let dir = tempfile::tempdir().unwrap();
    let net = Devnet::start(dir.path(), &["--block-time", "0"]);
    let clients: Vec<_> = net.nodes.iter().map(|n| n.client()).collect();
    for (index, sender) in clients.iter().enumerate() {
        let to = Address::repeat_byte(0xa0 + index as u8);
        let (hash, raw) = transfer(&net.keys[index], 0, to);
        let answer =
            call(sender, "eth_sendRawTransaction", vec![raw.clone().into()]).await.unwrap();
        assert_eq!(answer, hash.to_string());
        // Sent twice, anywhere, the same transaction has the same answer.
        for other in &clients {
            let again =
                call(other, "eth_sendRawTransaction", vec![raw.clone().into()]).await.unwrap();
            assert_eq!(again, answer);
        }
        for reader in &clients {
            let receipt = receipt(reader, hash).await;
            assert_eq!(receipt["status"], "0x1");
            let balance =
                call(reader, "eth_getBalance", vec![to.to_string().into(), "latest".into()]);
            assert_eq!(balance.await.unwrap(), "0x1");
        }
    }
    assert_same_chain(&clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_devnet_goes_on_from_its_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Devnet::start(dir.path(), &["--block-time", "0"]);
    let (first, raw) = transfer(&net.keys[0], 0, Address::repeat_byte(1));
    call(&net.nodes[0].client(), "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
    receipt(&net.nodes[0].client(), first).await;
    assert!(net.interrupt().success(), "Ctrl-C ends a devnet cleanly");

    let net = Devnet::start(dir.path(), &["--block-time", "0"]);
    for node in &net.nodes {
        assert_eq!(receipt(&node.client(), first).await["status"], "0x1");
    }
    let (second, raw) = transfer(&net.keys[0], 1, Address::repeat_byte(1));
    call(&net.nodes[1].client(), "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
    assert_eq!(receipt(&net.nodes[2].client(), second).await["status"], "0x1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_stop_hands_over_and_exits_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Devnet::start(dir.path(), &["--block-time", "0.1"]);
    let leader = net.leader;
    // A node of this test, so that its exit status can be read.
    net.node(leader).kill();
    net.node(leader).restart();
    let clients: Vec<_> = net.nodes.iter().map(|n| n.client()).collect();
    let own = net.node(leader).client();
    eventually("the node leads or follows again", Duration::from_secs(20), async || {
        let status = call(&own, "blockraft_status", vec![]).await.ok()?;
        status["leader"].as_u64()
    })
    .await;
    let started = std::time::Instant::now();
    assert!(net.node(leader).terminate().success(), "SIGTERM ends a node with status 0");
    assert!(started.elapsed() < Duration::from_secs(10), "within 10 s");
    let other = clients.iter().zip(&net.nodes).find(|(_, n)| n.id != leader).unwrap().0;
    let before = block_number(other).await.unwrap();
    eventually("the others go on", Duration::from_secs(10), async || {
        block_number(other).await.filter(|n| *n > before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lags_behind_the_log_catches_up_by_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        [("BLOCKRAFT_RAFT_SNAPSHOT_ENTRIES", "40"), ("BLOCKRAFT_RAFT_LOG_ENTRIES_KEPT", "10")];
    let mut net = Devnet::start_with(dir.path(), &["--block-time", "0.05"], &settings);
    let late = net.nodes.iter().map(|n| n.id).find(|id| *id != net.leader).unwrap();
    net.node(late).kill();
    let others: Vec<_> = net.nodes.iter().filter(|n| n.id != late).map(|n| n.client()).collect();
    let (hash, raw) = transfer(&net.keys[0], 0, Address::repeat_byte(7));
    call(&others[0], "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
    let height = block_number(&others[0]).await.unwrap();
    eventually("the log moves on and is purged", Duration::from_secs(30), async || {
        block_number(&others[0]).await.filter(|n| *n > height + 200)
    })
    .await;
    net.node(late).restart();
    let client = net.node(late).client();
    let target = block_number(&others[0]).await.unwrap();
    eventually("the late node catches up", Duration::from_secs(30), async || {
        block_number(&client).await.filter(|n| *n >= target)
    })
    .await;
    let log = std::fs::read_to_string(net.node(late).datadir.join("node.log")).unwrap();
    assert!(log.contains("snapshot installed"), "it came by snapshot: {log}");
    assert_eq!(receipt(&client, hash).await["status"], "0x1");
    let balance = call(
        &client,
        "eth_getBalance",
        vec![Address::repeat_byte(7).to_string().into(), "latest".into()],
    );
    assert_eq!(balance.await.unwrap(), "0x1");
    assert_same_chain(&[others[0].clone(), client]).await;
}
