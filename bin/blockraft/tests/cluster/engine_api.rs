//! The Engine API of a devnet: one port and one secret, and blocks only at a consensus client's word.

use crate::harness::{Devnet, block_number, call, client, free_ports, transfer};
use alloy_primitives::Address;
use blockraft_node::JwtSecret;
use jsonrpsee::http_client::{HeaderMap, HeaderValue, HttpClient, HttpClientBuilder};
use serde_json::json;
use std::time::SystemTime;

fn authorized(url: &str, secret: &JwtSecret) -> HttpClient {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let bearer = HeaderValue::from_str(&format!("Bearer {}", secret.token(now))).unwrap();
    let headers = HeaderMap::from_iter([("authorization".parse().unwrap(), bearer)]);
    HttpClientBuilder::default().set_headers(headers).build(url).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devnet_with_a_consensus_client_makes_blocks_for_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports(3);
    let net = Devnet::start(dir.path(), &["--authrpc.port", &port.to_string()]);
    let secret = std::fs::read_to_string(dir.path().join("jwtsecret")).unwrap();
    let secret = JwtSecret::from_hex(&secret).unwrap();
    let (hash, raw) = transfer(&net.keys[0], 0, Address::repeat_byte(1));
    call(&net.nodes[0].client(), "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();

    for (offset, node) in (0..).zip(&net.nodes) {
        let url = format!("http://127.0.0.1:{}", port + offset);
        let refused = call(&client(&url), "eth_chainId", vec![]).await.unwrap_err();
        assert!(refused.to_string().contains("401"), "{refused}");
        let engine = authorized(&url, &secret);
        let methods = call(&engine, "engine_exchangeCapabilities", vec![json!([])]).await.unwrap();
        assert!(methods.as_array().unwrap().contains(&json!("engine_newPayloadV4")));
        // Admitted by the cluster, and in no block until somebody asks for one.
        assert_eq!(block_number(&node.client()).await, Some(0));
    }
    let engine = authorized(&format!("http://127.0.0.1:{}", port + 1), &secret);
    let head = call(&engine, "eth_getBlockByNumber", vec!["latest".into(), false.into()]).await;
    let head = head.unwrap()["hash"].clone();
    let zero = format!("0x{}", "0".repeat(64));
    let state = json!({
        "headBlockHash": head, "safeBlockHash": zero, "finalizedBlockHash": zero,
    });
    let attributes = json!({
        "timestamp": format!("0x{:x}", u32::MAX), "prevRandao": zero, "withdrawals": [],
        "suggestedFeeRecipient": Address::ZERO, "parentBeaconBlockRoot": zero,
    });
    let updated = call(&engine, "engine_forkchoiceUpdatedV3", vec![state, attributes]).await;
    let id = updated.unwrap()["payloadId"].clone();
    let built = call(&engine, "engine_getPayloadV5", vec![id]).await.unwrap();
    let payload = built["executionPayload"].clone();
    assert_eq!(payload["transactions"].as_array().map(Vec::len), Some(1), "{hash}: {payload}");
    let params =
        vec![payload.clone(), json!([]), zero.clone().into(), built["executionRequests"].clone()];
    let status = call(&engine, "engine_newPayloadV4", params).await.unwrap();
    assert_eq!(status["status"], "VALID");
    let state = json!({
        "headBlockHash": payload["blockHash"], "safeBlockHash": zero, "finalizedBlockHash": zero,
    });
    let updated = call(&engine, "engine_forkchoiceUpdatedV3", vec![state]).await.unwrap();
    assert_eq!(updated["payloadStatus"]["status"], "VALID");
    assert_eq!(block_number(&net.nodes[1].client()).await, Some(1));
}
