//! Notifications over WebSocket.

use crate::fixture::{Node, STORE, call, node, raw, transfer};
use jsonrpsee::{
    core::client::{ClientT, Subscription, SubscriptionClientT},
    rpc_params,
    ws_client::{WsClient, WsClientBuilder},
};
use serde_json::{Value, json};

async fn connect(node: &Node) -> WsClient {
    let url = format!("ws://{}", node.running.local_addr());
    WsClientBuilder::default().build(url).await.expect("connects")
}

async fn subscribe(client: &WsClient, params: Vec<Value>) -> Subscription<Value> {
    client.subscribe("eth_subscribe", params, "eth_unsubscribe").await.expect("subscribes")
}

async fn next(subscription: &mut Subscription<Value>) -> Value {
    subscription.next().await.expect("a notification").expect("of JSON")
}

#[tokio::test]
async fn new_heads_are_headers() {
    let node = node().await;
    let client = connect(&node).await;
    let mut heads = subscribe(&client, vec![json!("newHeads")]).await;
    node.append(&[]);
    node.append(&[transfer(0, 1)]);
    for number in ["0x1", "0x2"] {
        let expected = node.client.result("eth_getHeaderByNumber", json!([number])).await;
        assert_eq!(next(&mut heads).await, expected);
    }
    // Ordinary calls go over the same connection.
    let chain: Value = client.request("eth_chainId", rpc_params![]).await.expect("answers");
    assert_eq!(chain, "0x539");
}

#[tokio::test]
async fn logs_are_those_that_match() {
    let node = node().await;
    let store = node.deploy(0, STORE);
    let client = connect(&node).await;
    let mut matching = subscribe(&client, vec![json!("logs"), json!({"address": store})]).await;
    let mut all = subscribe(&client, vec![json!("logs")]).await;
    node.append(&[transfer(1, 1), call(2, store, &[5; 32])]);
    let expected = node.client.result("eth_getLogs", json!([{}])).await;
    assert_eq!(next(&mut matching).await, expected[0]);
    assert_eq!(next(&mut all).await, expected[0]);
}

#[tokio::test]
async fn logs_of_blocks_that_are_taken_back_come_again_as_removed() {
    let node = node().await;
    let store = node.deploy(0, STORE);
    let client = connect(&node).await;
    let mut logs = subscribe(&client, vec![json!("logs")]).await;
    let mut heads = subscribe(&client, vec![json!("newHeads")]).await;
    let block = node.append(&[call(1, store, &[5; 32]), call(2, store, &[6; 32])]);
    node.remove(block);
    node.append(&[]);
    let (first, second) = (next(&mut logs).await, next(&mut logs).await);
    for mut log in [second, first] {
        assert_eq!(log["removed"], false);
        log["removed"] = true.into();
        assert_eq!(next(&mut logs).await, log);
    }
    // The block that was taken back is no new head.
    assert_eq!(next(&mut heads).await["number"], "0x2");
    assert_eq!(next(&mut heads).await["number"], "0x3");
}

#[tokio::test]
async fn pending_transactions_are_hashes_or_whole() {
    let node = node().await;
    let client = connect(&node).await;
    let kind = json!("newPendingTransactions");
    let mut hashes = subscribe(&client, vec![kind.clone()]).await;
    let mut whole = subscribe(&client, vec![kind, json!(true)]).await;
    let tx = transfer(0, 1);
    let hash: Value =
        client.request("eth_sendRawTransaction", rpc_params![raw(&tx)]).await.expect("sent");
    assert_eq!(next(&mut hashes).await, hash);
    let shown = node.client.result("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(next(&mut whole).await, shown);
}

#[tokio::test]
async fn ids_are_hex_and_unknown_kinds_are_refused() {
    let node = node().await;
    let client = connect(&node).await;
    let heads = subscribe(&client, vec![json!("newHeads")]).await;
    let jsonrpsee::core::client::SubscriptionKind::Subscription(id) = heads.kind() else {
        panic!("a subscription")
    };
    let id = serde_json::to_value(id).unwrap();
    let digits = id.as_str().expect("a string").strip_prefix("0x").expect("hex");
    assert!(digits.len() <= 32 && digits.chars().all(|c| c.is_ascii_hexdigit()), "{digits}");

    let refused = client
        .subscribe::<Value, _>("eth_subscribe", rpc_params!["newCats"], "eth_unsubscribe")
        .await;
    let text = refused.expect_err("no such kind").to_string();
    assert!(
        text.contains(r#"no \"newCats\" subscription in eth namespace"#)
            || text.contains(r#"no "newCats" subscription"#),
        "{text}"
    );
}

#[tokio::test]
async fn http_cannot_carry_notifications() {
    let node = node().await;
    let refusal = node.client.refusal("eth_subscribe", json!(["newHeads"])).await;
    assert_eq!(refusal, (-32601, "notifications not supported".to_owned()));
}
