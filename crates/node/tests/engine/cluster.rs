//! Three nodes: the consensus client talks to any of them, and all have the same chain.

use crate::{
    client::{Client, Payload, syncing, valid},
    world::{World, attributes, genesis, transfer},
};
use alloy_primitives::{Address, B256};
use serde_json::json;
use std::time::{Duration, Instant};

const FEES: Address = Address::repeat_byte(0xfe);
/// How long a node may take to follow.
const PATIENCE: Duration = Duration::from_secs(30);

async fn leader(client: &Client) -> u64 {
    client.result("blockraft_status", json!([])).await["leader"].as_u64().unwrap()
}

/// Waits until a node's head is this block.
pub(crate) async fn follows(client: &Client, head: (u64, B256)) {
    let began = Instant::now();
    while client.head().await != head {
        assert!(began.elapsed() < PATIENCE, "the node does not follow");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks again while the cluster elects a leader.
async fn set_head(client: &Client, head: B256) {
    let began = Instant::now();
    loop {
        let state = crate::client::forkchoice_state(head, B256::ZERO, B256::ZERO);
        let answer = client.call("engine_forkchoiceUpdatedV3", json!([state])).await;
        if answer["result"]["payloadStatus"]["status"] == "VALID" {
            return;
        }
        assert!(answer["error"]["code"] == -32000, "{answer}");
        assert!(began.elapsed() < PATIENCE, "{answer}");
    }
}

async fn name(client: &Client, payloads: &[&Payload]) {
    for payload in payloads {
        assert_eq!(client.new_payload(payload).await, valid(payload.hash()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_may_talk_to_any_node_and_nodes_may_fall() {
    let genesis = genesis();
    let mut world = World::start(&genesis, 3).await;
    let first_leader = leader(&world.client(1)).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != first_leader).collect();

    // To the leader.
    let client = world.client(first_leader);
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    let one = client.build(genesis.hash(), attributes(12, FEES)).await;
    name(&client, &[&one]).await;
    set_head(&client, one.hash()).await;
    for id in 1..=3 {
        follows(&world.client(id), (1, one.hash())).await;
    }

    // To a follower: it executes, the leader only orders.
    let follower = world.client(others[0]);
    follower.result("eth_sendRawTransaction", json!([transfer(1, 100)])).await;
    let two = follower.build(one.hash(), attributes(24, FEES)).await;
    let beside = follower.build(one.hash(), attributes(25, FEES)).await;
    name(&follower, &[&two, &beside]).await;
    set_head(&follower, two.hash()).await;
    assert_eq!(follower.head().await, (2, two.hash()));
    // Blocks are taken back on every node.
    set_head(&follower, beside.hash()).await;
    for id in 1..=3 {
        follows(&world.client(id), (2, beside.hash())).await;
        assert_eq!(
            world.client(id).result("eth_getBlockByHash", json!([two.hash(), false])).await,
            json!(null)
        );
    }

    // The leader falls; the client goes on with another node, and names what that has not heard of.
    world.stop_node(first_leader).await;
    let client = world.client(others[1]);
    assert_eq!(client.set_head(two.hash()).await, syncing());
    name(&client, &[&two]).await;
    set_head(&client, two.hash()).await;
    let three = client.build(two.hash(), attributes(36, FEES)).await;
    name(&client, &[&three]).await;
    set_head(&client, three.hash()).await;
    follows(&world.client(others[0]), (3, three.hash())).await;

    // And who comes back has it all.
    world.start_node(first_leader).await;
    follows(&world.client(first_leader), (3, three.hash())).await;
    let nonces = world
        .client(first_leader)
        .result("eth_getTransactionCount", json!([crate::world::alice().address(), "latest"]))
        .await;
    assert_eq!(nonces, "0x2");
    world.stop().await;
}
