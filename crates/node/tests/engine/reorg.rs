//! Branches: the head goes from one to the other, and the chain reads as if it had always been there.

use crate::{
    client::{Client, Payload, forkchoice_state, syncing, valid},
    world::{BOB, World, attributes, genesis, transfer},
};
use alloy_primitives::{Address, B256};
use blockraft_primitives::limits::ENGINE_REORG_BLOCK_COUNT_MAX;
use serde_json::json;

const FEES: Address = Address::repeat_byte(0xfe);

/// Builds blocks on `parent`, each made the head, with timestamps that tell branches apart.
async fn extend(
    client: &Client,
    parent: B256,
    numbers: std::ops::RangeInclusive<u64>,
    lag: u64,
) -> Vec<Payload> {
    let mut payloads: Vec<Payload> = Vec::new();
    for number in numbers {
        let parent = payloads.last().map_or(parent, Payload::hash);
        payloads.push(client.build(parent, attributes(12 * number + lag, FEES)).await);
    }
    let tip = payloads.last().unwrap().hash();
    assert_eq!(client.set_head(tip).await, valid(tip));
    payloads
}

async fn balance_of_bob(client: &Client) -> u64 {
    let text = client.result("eth_getBalance", json!([BOB, "latest"])).await;
    u64::from_str_radix(text.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_goes_to_another_branch_and_back() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let trunk = extend(&client, genesis.hash(), 1..=2, 0).await;
    let fork = trunk[1].hash();

    // Branch a pays Bob once.
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    let a = extend(&client, fork, 3..=5, 0).await;
    assert_eq!(balance_of_bob(&client).await, 100);
    let paid = a[0].payload["transactions"][0].as_str().unwrap().to_owned();
    assert_eq!(paid, transfer(0, 100));

    // Back to the fork: what branch a had included waits in the pool again.
    assert_eq!(client.set_head(fork).await, valid(fork));
    assert_eq!((client.head().await, balance_of_bob(&client).await), ((2, fork), 0));
    let pool = client.result("txpool_status", json!([])).await;
    assert_eq!(pool, json!({"pending": "0x1", "queued": "0x0"}));
    for payload in &a {
        let gone = client.result("eth_getBlockByHash", json!([payload.hash(), false])).await;
        assert!(gone.is_null());
    }

    // Branch b pays him twice.
    client.result("eth_sendRawTransaction", json!([transfer(1, 1000)])).await;
    let b = extend(&client, fork, 3..=4, 1).await;
    assert_eq!(b[0].transaction_count(), 2);
    assert_eq!((client.head().await, balance_of_bob(&client).await), ((4, b[1].hash()), 1100));

    // And back, and forth: both are known. The second transfer is in no block of branch a.
    let tip = a[2].hash();
    assert_eq!(client.set_head(tip).await, valid(tip));
    assert_eq!((client.head().await, balance_of_bob(&client).await), ((5, tip), 100));
    let pool = client.result("txpool_status", json!([])).await;
    assert_eq!(pool, json!({"pending": "0x1", "queued": "0x0"}));
    assert_eq!(client.set_head(b[0].hash()).await, valid(b[0].hash()));
    assert_eq!((client.head().await, balance_of_bob(&client).await), ((3, b[0].hash()), 1100));

    // The state is that of its branch at every height.
    let at = |id: &'static str| client.result("eth_getBalance", json!([BOB, id]));
    assert_eq!((at("0x2").await, at("0x3").await), (json!("0x0"), json!("0x44c")));
    // And the chain goes on there.
    let on = extend(&client, b[0].hash(), 4..=6, 2).await;
    assert_eq!(client.head().await, (6, on[2].hash()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_any_known_branch_are_executed() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    let a = extend(&client, genesis.hash(), 1..=4, 0).await;
    assert_eq!(client.set_head(genesis.hash()).await, valid(genesis.hash()));
    let b = extend(&client, genesis.hash(), 1..=3, 1).await;
    world.stop().await;

    // Another cluster is told of them without being moved: child after child, branch beside branch.
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    assert_eq!(client.new_payload(&a[1]).await, syncing());
    for payload in [&a[0], &b[0], &a[1], &a[2], &b[1], &a[3], &b[2]] {
        assert_eq!(client.new_payload(payload).await, valid(payload.hash()));
    }
    assert_eq!(client.head().await, (0, genesis.hash()));
    for tip in [&a[3], &b[1], &a[1], &b[2]] {
        assert_eq!(client.set_head(tip.hash()).await, valid(tip.hash()));
        assert_eq!(client.head().await, (tip.number(), tip.hash()));
        assert_eq!(balance_of_bob(&client).await, 100);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_may_be_too_deep() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let first = client.build(genesis.hash(), attributes(12, FEES)).await;
    let beside = client.build(genesis.hash(), attributes(13, FEES)).await;
    let count = ENGINE_REORG_BLOCK_COUNT_MAX + 1;
    extend(&client, first.hash(), 2..=count, 0).await;
    let state = forkchoice_state(beside.hash(), B256::ZERO, B256::ZERO);
    let far = forkchoice_state(genesis.hash(), B256::ZERO, B256::ZERO);
    assert_eq!(client.code("engine_forkchoiceUpdatedV3", json!([far])).await, -38006);
    // It is known, or was once: in no case the head goes there.
    let answer = client.call("engine_forkchoiceUpdatedV3", json!([state])).await;
    let refused = answer["error"]["code"] == -38006
        || answer["result"]["payloadStatus"]["status"] == "SYNCING";
    assert!(refused, "{answer}");
    let status = client.result(beside.method(), beside.params()).await;
    assert!(status["status"] == "ACCEPTED" || status["status"] == "VALID", "{status}");
    assert_eq!(client.head().await.0, count);
    // As deep as it may be.
    assert_eq!(client.set_head(first.hash()).await, valid(first.hash()));
    assert_eq!(client.head().await, (1, first.hash()));
    world.stop().await;
}
