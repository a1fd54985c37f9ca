//! What needs no block: the chain, the node, the cluster.

use crate::fixture::node;
use alloy_primitives::B256;
use serde_json::json;

#[tokio::test]
async fn the_chain_and_the_node_introduce_themselves() {
    let node = node().await;
    let rows = [
        ("eth_chainId", json!([]), json!("0x539")),
        ("eth_blockNumber", json!([]), json!("0x0")),
        ("eth_syncing", json!([]), json!(false)),
        ("eth_accounts", json!([]), json!([])),
        ("eth_mining", json!([]), json!(false)),
        ("net_version", json!([]), json!("1337")),
        ("net_listening", json!([]), json!(true)),
        ("net_peerCount", json!([]), json!("0x2")),
        ("web3_clientVersion", json!([]), json!("blockraft/test")),
        (
            "web3_sha3",
            json!(["0x68656c6c6f20776f726c64"]),
            json!("0x47173285a8d7341e5e972fc677286384f802f8ef42a5ec5f03bbfa254cb01fad"),
        ),
        (
            "rpc_modules",
            json!([]),
            json!({
                "blockraft": "1.0", "debug": "1.0", "eth": "1.0", "net": "1.0", "rpc": "1.0",
                "txpool": "1.0", "web3": "1.0",
            }),
        ),
    ];
    for (method, params, expected) in rows {
        assert_eq!(node.client.result(method, params).await, expected, "{method}");
    }
}

#[tokio::test]
async fn status_is_raft_block_and_pool() {
    let node = node().await;
    let member = |id: u64| {
        json!({
            "id": id, "raftAddr": format!("127.0.0.1:{}", 8559 + id),
            "rpcAddr": format!("127.0.0.1:{}", 8544 + id), "voter": true, "matched": 9,
        })
    };
    let expected = json!({
        "nodeId": 1, "role": "leader", "term": 3, "leader": 1, "lastLogIndex": 9,
        "committedIndex": 9, "appliedIndex": 9, "members": [member(1), member(2), member(3)],
        "blockNumber": 0, "blockHash": node.store.head().hash(), "poolPending": 0, "poolQueued": 0,
        "clientVersion": "blockraft/test",
    });
    assert_eq!(node.client.result("blockraft_status", json!([])).await, expected);
}

#[tokio::test]
async fn evidence_names_both_members_and_what_they_said() {
    let expected = json!([{
        "leader": 1, "term": 4, "blockNumber": 3, "parentHash": B256::repeat_byte(2), "transactions": [B256::repeat_byte(7)],
        "answers": [{ "node": 2, "outcomes": "0xaa" }, { "node": 3, "outcomes": "0xbb" }],
    }]);
    assert_eq!(node().await.client.result("blockraft_evidence", json!([])).await, expected);
}

#[tokio::test]
async fn a_timeline_is_what_the_node_saw() {
    let node = node().await;
    let hash = B256::repeat_byte(9);
    let expected = json!({
        "transactionHash": hash, "blockNumber": 3, "blockHash": B256::repeat_byte(3),
        "transactionIndex": 1, "nodeId": 2, "builderId": 1,
        "startUnixMicros": 1_700_000_000_000_000_u64,
        "stages": {
            "received": null, "admitted": 0, "begun": null, "inBlock": null, "executed": null,
            "rooted": null, "proposed": null, "committed": null, "applied": 250,
        },
    });
    assert_eq!(node.client.result("blockraft_txTimeline", json!([hash])).await, expected);
    let unknown = node.client.result("blockraft_txTimeline", json!([B256::ZERO])).await;
    assert_eq!(unknown, json!(null));
}
