//! The Engine API's port: who is let in, the shape of calls, and that each method is described.

use crate::{
    fixture::{Node, node_with},
    http::{Answer, Client},
};
use alloy_consensus::Header;
use alloy_primitives::B256;
use alloy_rpc_types_engine::{
    ExecutionPayloadV1, ForkchoiceUpdated, PayloadStatus, PayloadStatusEnum,
};
use blockraft_rpc::{EngineCall, EngineConfig, EngineError, JwtSecret};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{sync::mpsc, task::JoinSet};

const NOW: u64 = 1_700_000_000;
const SECRET: JwtSecret = JwtSecret::new([0x2a; 32]);

/// A node whose engine finds every payload valid and moves nothing.
struct Served {
    node: Node,
    client: Client,
    _engine: JoinSet<()>,
}

async fn served() -> Served {
    let (calls, mut taken) = mpsc::channel(8);
    let node = node_with(|config| {
        config.engine = Some(EngineConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            secret: SECRET,
            hosts: vec!["engine.example".to_owned()],
            clock: Arc::new(|| NOW),
            calls,
        });
    })
    .await;
    let mut engine = JoinSet::new();
    engine.spawn(async move {
        while let Some(call) = taken.recv().await {
            let _gone = match call {
                EngineCall::NewPayload { hash, reply, .. } => reply.send(Ok(valid(hash))).is_ok(),
                EngineCall::Forkchoice { state, reply, .. } => {
                    reply.send(Ok(ForkchoiceUpdated::new(valid(state.head_block_hash)))).is_ok()
                }
                EngineCall::GetPayload { reply, .. } => {
                    reply.send(Err(EngineError::UnknownPayload)).is_ok()
                }
            };
        }
    });
    let client = Client::new(node.running.engine_addr().expect("it is served"));
    Served { node, client, _engine: engine }
}

fn valid(hash: B256) -> PayloadStatus {
    PayloadStatus::new(PayloadStatusEnum::Valid, Some(hash))
}

impl Served {
    async fn post(&self, headers: &str, method: &str, params: Value) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let headers = format!("Content-Type: application/json\r\n{headers}");
        self.client.send("POST", "/", &headers, &body.to_string()).await
    }

    /// A call with a token.
    async fn call(&self, method: &str, params: Value) -> Value {
        let headers = format!("Host: localhost\r\n{}", bearer(NOW));
        let answer = self.post(&headers, method, params).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    async fn refusal(&self, method: &str, params: Value) -> (i64, String) {
        let answer = self.call(method, params).await;
        let error = &answer["error"];
        let text = error["message"].as_str().unwrap_or_else(|| panic!("{method}: {answer}"));
        (error["code"].as_i64().expect("a code"), text.to_owned())
    }
}

fn bearer(iat: u64) -> String {
    format!("Authorization: Bearer {}\r\n", SECRET.token(iat))
}

#[tokio::test]
async fn nobody_comes_in_without_a_fresh_token() {
    let served = served().await;
    let foreign = format!("Authorization: Bearer {}\r\n", JwtSecret::new([1; 32]).token(NOW));
    let rows = [
        (String::new(), "missing token"),
        (foreign, "signature is invalid"),
        (bearer(NOW - 61), "stale token"),
        (bearer(NOW + 61), "future token"),
    ];
    for (header, text) in rows {
        let headers = format!("Host: localhost\r\n{header}");
        let answer = served.post(&headers, "eth_chainId", json!([])).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, format!("{text}\n").as_str()));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    // The upgrade to a WebSocket is a request like any other.
    let upgrade = "Host: localhost\r\nUpgrade: websocket\r\n";
    assert_eq!(served.client.send("GET", "/", upgrade, "").await.status, 401);
    // A token does not open the door to every name.
    for (host, status) in [("engine.example", 200), ("evil.example", 403)] {
        let headers = format!("Host: {host}\r\n{}", bearer(NOW));
        let answer = served.post(&headers, "eth_chainId", json!([])).await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test]
async fn the_port_serves_the_engine_namespace_and_all_others() {
    let served = served().await;
    assert_eq!(served.call("eth_chainId", json!([])).await["result"], "0x539");
    assert_eq!(served.call("eth_syncing", json!([])).await["result"], false);
    let versions = served.call("engine_getClientVersionV1", json!([{}])).await;
    assert_eq!(versions["result"][0]["name"], "BlockRaFT");
    // And the public port does not serve it.
    let refused = served.node.client.refusal("engine_exchangeCapabilities", json!([[]])).await;
    assert_eq!(refused.0, -32601);
}

#[tokio::test]
async fn what_is_registered_and_what_is_documented_are_the_same() {
    let served = served().await;
    let text = include_str!("../../../../rpc-spec/engine.json");
    let document: Value = serde_json::from_str(text).expect("JSON");
    let methods = document["methods"].as_array().expect("methods").iter();
    let documented: Vec<&str> = methods.map(|m| m["name"].as_str().expect("a name")).collect();
    let names = served.node.running.engine_method_names().expect("it is served");
    let registered: Vec<&str> =
        names.iter().copied().filter(|name| name.starts_with("engine_")).collect();
    assert_eq!(documented, registered);
    let capabilities = served.call("engine_exchangeCapabilities", json!([[]])).await;
    let capable: Vec<&str> =
        registered.iter().copied().filter(|name| *name != "engine_exchangeCapabilities").collect();
    assert_eq!(capabilities["result"], json!(capable));
}

/// A Paris payload, as V1 has it.
fn payload() -> Value {
    let header = Header { base_fee_per_gas: Some(7), ..Header::default() };
    let block = alloy_consensus::Block::<alloy_consensus::TxEnvelope>::uncle(header);
    serde_json::to_value(ExecutionPayloadV1::from_block_slow(&block)).expect("JSON")
}

#[tokio::test]
async fn payloads_are_taken_at_their_word_and_hash() {
    let served = served().await;
    // The chain of the fixture is at Osaka: V1 has the wrong shape for none, so only its hash counts.
    let good = payload();
    let answer = served.call("engine_newPayloadV1", json!([good])).await;
    let expected =
        json!({"status": "VALID", "latestValidHash": good["blockHash"], "validationError": null});
    assert_eq!(answer["result"], expected);

    let mut other = payload();
    other["gasUsed"] = json!("0x1");
    let answer = served.call("engine_newPayloadV1", json!([other])).await;
    assert_eq!(answer["result"]["status"], "INVALID");
    assert_eq!(answer["result"]["latestValidHash"], Value::Null);
    let text = answer["result"]["validationError"].as_str().expect("a text");
    assert!(text.starts_with("block hash mismatch"), "{text}");

    let mut broken = payload();
    broken["transactions"] = json!(["0x02c0", "0x"]);
    let answer = served.call("engine_newPayloadV1", json!([broken])).await;
    assert_eq!(answer["result"]["status"], "INVALID");
    let text = answer["result"]["validationError"].as_str().expect("a text");
    assert!(text.starts_with("invalid transaction 0: "), "{text}");
}

#[tokio::test]
async fn errors_have_the_specifications_codes() {
    let served = served().await;
    let state = json!({
        "headBlockHash": B256::repeat_byte(1),
        "safeBlockHash": B256::ZERO,
        "finalizedBlockHash": B256::ZERO,
    });
    let mut early = json!({
        "timestamp": "0x1", "prevRandao": B256::ZERO,
        "suggestedFeeRecipient": "0x0000000000000000000000000000000000000001",
    });
    let rows = [
        ("engine_getPayloadV5", json!(["0x0000000000000001"]), -38001, "Unknown payload"),
        ("engine_getPayloadV5", json!(["0x01"]), -32602, "invalid argument 0"),
        (
            "engine_newPayloadV4",
            json!([payload(), [], B256::ZERO, []]),
            -32602,
            "Invalid parameters",
        ),
        ("engine_newPayloadV2", json!([payload()]), -38005, "Unsupported fork"),
        ("engine_newPayloadV1", json!([]), -32602, "missing value"),
        ("engine_forkchoiceUpdatedV3", json!([{}]), -32602, "invalid argument 0"),
        ("engine_forkchoiceUpdatedV3", json!([state, early]), -38003, "Invalid payload attributes"),
        ("engine_forkchoiceUpdatedV1", json!([state, early]), -38005, "Unsupported fork"),
    ];
    for (method, params, code, text) in rows {
        let got = served.refusal(method, params).await;
        assert!(got.0 == code && got.1.starts_with(text), "{method}: {got:?}");
    }
    early["withdrawals"] = json!([]);
    early["parentBeaconBlockRoot"] = json!(B256::ZERO);
    let answer = served.call("engine_forkchoiceUpdatedV3", json!([state, early])).await;
    assert_eq!(answer["result"]["payloadStatus"]["status"], "VALID");
}
