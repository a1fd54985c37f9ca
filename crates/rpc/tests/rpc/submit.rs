//! Sending transactions.

use crate::fixture::{Node, node, raw, transfer};
use serde_json::{Value, json};

async fn send(node: &Node, nonce: u64) -> Value {
    node.client.result("eth_sendRawTransaction", json!([raw(&transfer(nonce, 1))])).await
}

#[tokio::test]
async fn the_same_transaction_twice_is_the_same_hash() {
    let node = node().await;
    let tx = transfer(0, 1);
    assert_eq!(send(&node, 0).await, json!(tx.tx_hash()));
    // In the pool.
    assert_eq!(send(&node, 0).await, json!(tx.tx_hash()));
    node.append(std::slice::from_ref(&tx));
    *node.pool.write() = blockraft_protocol::Pool::new();
    // In a block.
    assert_eq!(send(&node, 0).await, json!(tx.tx_hash()));
    // Another one with the same nonce is what it is.
    let refusal =
        node.client.refusal("eth_sendRawTransaction", json!([raw(&transfer(0, 2))])).await;
    assert_eq!(refusal, (-32000, "nonce too low: next nonce 1, tx nonce 0".to_owned()));
}

#[tokio::test]
async fn refusals_have_geths_words() {
    let node = node().await;
    let rows = [
        (json!(["0x"]), -32000, "typed transaction too short"),
        (json!(["0x7f01"]), -32000, "transaction type not supported"),
        (json!(["0xf86c"]), -32000, "rlp: "),
        (json!(["nothex"]), -32602, "invalid argument 0: "),
        (json!([]), -32602, "missing value for required argument 0"),
        (json!([raw(&transfer(500, 1))]), -32000, "nonce too high: tx nonce 500, gapped nonce 0"),
    ];
    for (params, code, text) in rows {
        let refusal = node.client.refusal("eth_sendRawTransaction", params).await;
        assert!(refusal.0 == code && refusal.1.starts_with(text), "{text}: {refusal:?}");
    }
}

#[tokio::test]
async fn without_a_leader_a_write_says_when_to_come_back() {
    let node = node().await;
    node.cluster.send_modify(|status| status.leader = None);
    let tx = transfer(0, 1);
    let error = node.client.error("eth_sendRawTransaction", json!([raw(&tx)])).await;
    let expected = json!({
        "code": -32002, "message": "no leader",
        "data": {"term": 3, "lastLeader": 2, "retryAfterMs": 250},
    });
    assert_eq!(error, expected);
    let error = node.client.error("eth_sendRawTransactionSync", json!([raw(&tx)])).await;
    assert_eq!(error, json!({"code": 5, "message": "no leader", "data": tx.tx_hash()}));
}

#[tokio::test]
async fn a_synchronous_send_waits_for_the_receipt() {
    let node = node().await;
    let tx = transfer(0, 1);
    let wait = async {
        // A hex timeout is taken as well as a plain one.
        node.client.result("eth_sendRawTransactionSync", json!([raw(&tx), "0x2710"])).await
    };
    let include = async {
        while node.pool.read().is_empty() {
            tokio::task::yield_now().await;
        }
        node.append(&[]);
        node.append(std::slice::from_ref(&tx));
    };
    let (receipt, ()) = tokio::join!(wait, include);
    let same = node.client.result("eth_getTransactionReceipt", json!([tx.tx_hash()])).await;
    assert_eq!(receipt, same);
    assert_eq!(receipt["blockNumber"], "0x2");
    // Sent again when it is in a block, it answers at once.
    let again = node.client.result("eth_sendRawTransactionSync", json!([raw(&tx)])).await;
    assert_eq!(again, receipt);
}

#[tokio::test]
async fn a_synchronous_send_gives_up_with_the_hash() {
    let node = node().await;
    let first = transfer(0, 1);
    let error = node.client.error("eth_sendRawTransactionSync", json!([raw(&first), 1])).await;
    let text = "the transaction was added to the pool but was not included within 1 ms";
    assert_eq!(error, json!({"code": 4, "message": text, "data": first.tx_hash()}));
    let gapped = transfer(7, 1);
    let error = node.client.error("eth_sendRawTransactionSync", json!([raw(&gapped)])).await;
    let text = "the transaction was added to the pool but waits for an earlier nonce";
    assert_eq!(error, json!({"code": 5, "message": text, "data": gapped.tx_hash()}));
}

#[tokio::test]
async fn the_pool_is_shown_by_sender_and_nonce() {
    let node = node().await;
    let client = node.client;
    for nonce in [0, 2] {
        send(&node, nonce).await;
    }
    let status = client.result("txpool_status", json!([])).await;
    assert_eq!(status, json!({"pending": "0x1", "queued": "0x1"}));
    let sender = crate::fixture::alice().address();
    let line = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8: 1 wei + 21000 gas × 2000000000 wei";
    let inspect = client.result("txpool_inspect", json!([])).await;
    let name = sender.to_string();
    let expected = json!({"pending": {&name: {"0": line}}, "queued": {&name: {"2": line}}});
    assert_eq!(inspect, expected);

    let content = client.result("txpool_content", json!([])).await;
    let from = client.result("txpool_contentFrom", json!([sender])).await;
    let by_hash = json!([transfer(2, 1).tx_hash()]);
    let queued = client.result("eth_getTransactionByHash", by_hash).await;
    assert_eq!(content["queued"][&name]["2"], queued);
    assert_eq!(
        from,
        json!({"pending": content["pending"][&name], "queued": content["queued"][&name]})
    );
    let empty = client.result("txpool_contentFrom", json!([crate::fixture::NOBODY])).await;
    assert_eq!(empty, json!({"pending": {}, "queued": {}}));
}

#[tokio::test]
async fn each_transaction_of_a_batch_has_its_own_verdict() {
    let node = node().await;
    let call = |id: u64, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction", "params": params});
    let params = [
        json!([raw(&transfer(0, 1))]),
        json!(["nothex"]),
        json!([raw(&transfer(1, 1))]),
        json!([raw(&transfer(500, 1))]),
        json!([]),
        json!([raw(&transfer(0, 1))]),
    ];
    let batch: Vec<Value> = params.iter().zip(0..).map(|(p, id)| call(id, p.clone())).collect();
    let answer = node.client.post(&Value::from(batch).to_string()).await.json();
    for (id, params) in params.iter().enumerate() {
        // As if it had been sent alone.
        let body = call(id as u64, params.clone()).to_string();
        assert_eq!(answer[id], node.client.post(&body).await.json(), "{params}");
    }
    assert_eq!(answer[0]["result"], json!(transfer(0, 1).tx_hash()));
    assert_eq!(answer[1]["error"]["code"], -32602);
    assert_eq!(node.pool.read().len(), 2);
}

#[tokio::test]
async fn a_batch_of_transactions_is_answered_in_its_order() {
    let node = node().await;
    let call = |id: u64| {
        json!({
            "jsonrpc": "2.0", "id": id, "method": "eth_sendRawTransaction",
            "params": [raw(&transfer(id, 1))],
        })
    };
    let mut batch: Vec<Value> = (0..40).map(call).collect();
    let sender = crate::fixture::alice().address();
    batch.push(json!({
        "jsonrpc": "2.0", "id": 40, "method": "eth_getTransactionCount", "params": [sender, "pending"],
    }));
    let answer = node.client.post(&Value::from(batch).to_string()).await.json();
    let hash = |id: u64| json!({"jsonrpc": "2.0", "id": id, "result": transfer(id, 1).tx_hash()});
    let mut expected: Vec<Value> = (0..40).map(hash).collect();
    // A read after the writes sees them.
    expected.push(json!({"jsonrpc": "2.0", "id": 40, "result": "0x28"}));
    assert_eq!(answer, Value::from(expected));
}
