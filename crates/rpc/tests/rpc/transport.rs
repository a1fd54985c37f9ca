//! HTTP and JSON-RPC itself: bad input, limits, who may ask, probes.

use crate::fixture::{node, node_with};
use blockraft_rpc::{RpcConfig, RpcServerError};
use serde_json::{Value, json};
use std::sync::Arc;

const JSON: &str = "Content-Type: application/json\r\n";
const CHAIN_ID: &str = r#"{"jsonrpc":"2.0","id":7,"method":"eth_chainId"}"#;

#[tokio::test]
async fn requests_that_are_none_have_their_codes() {
    let node = node().await;
    let rows = [
        (r#"{"jsonrpc":"2.0","id":1,"#, json!({"id": null, "code": -32700})),
        ("{{{", json!({"id": null, "code": -32700})),
        ("[1,2", json!({"id": null, "code": -32700})),
        (r#"{"id":1}"#, json!({"id": 1, "code": -32600})),
        ("[]", json!({"id": null, "code": -32600})),
    ];
    for (body, expected) in rows {
        let answer = node.client.post(body).await.json();
        let got = json!({"id": answer["id"], "code": answer["error"]["code"]});
        assert_eq!(got, expected, "{body}: {answer}");
    }
    let method = node.client.get("/").await;
    assert_eq!(method.status, 405);
    let form = node.client.send("POST", "/", "Host: localhost\r\n", CHAIN_ID).await;
    assert_eq!(form.status, 415);
    // A refused request harms nothing.
    assert_eq!(node.client.result("eth_chainId", json!([])).await, "0x539");
}

#[tokio::test]
async fn unknown_methods_and_wrong_arguments_have_geths_words() {
    let node = node().await;
    let rows = [
        (
            "eth_fillTransaction",
            json!([{}]),
            json!({"code": -32601, "message": "the method eth_fillTransaction does not exist/is not available"}),
        ),
        (
            "eth_chainId",
            json!([1]),
            json!({"code": -32602, "message": "too many arguments, want at most 0"}),
        ),
        (
            "eth_getBalance",
            json!([]),
            json!({"code": -32602, "message": "missing value for required argument 0"}),
        ),
        (
            "eth_getBalance",
            json!({"address": 1}),
            json!({"code": -32602, "message": "non-array args"}),
        ),
    ];
    for (method, params, expected) in rows {
        assert_eq!(node.client.error(method, params).await, expected, "{method}");
    }
    let (code, text) = node.client.refusal("eth_getBalance", json!(["0x12"])).await;
    assert!(code == -32602 && text.starts_with("invalid argument 0: "), "{text}");
}

#[tokio::test]
async fn params_may_be_absent_and_ids_are_echoed() {
    let node = node().await;
    for id in [json!(7), json!("seven"), Value::Null] {
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "eth_chainId"}).to_string();
        let expected = json!({"jsonrpc": "2.0", "id": id, "result": "0x539"});
        assert_eq!(node.client.post(&body).await.json(), expected);
    }
}

#[tokio::test]
async fn a_batch_mixes_answers_errors_and_notifications() {
    let node = node().await;
    let body = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": "b", "method": "nope"},
        {"jsonrpc": "2.0", "method": "eth_chainId"},
        5,
    ]);
    let expected = json!([
        {"jsonrpc": "2.0", "id": 1, "result": "0x539"},
        {"jsonrpc": "2.0", "id": "b", "error": {
            "code": -32601, "message": "the method nope does not exist/is not available",
        }},
        {"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "invalid request"}},
    ]);
    assert_eq!(node.client.post(&body.to_string()).await.json(), expected);
}

#[tokio::test]
async fn a_batch_that_is_too_long_is_refused_id_by_id() {
    let node = node().await;
    let call = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "eth_chainId"});
    let most: Vec<Value> = (0..1000).map(call).collect();
    let answer = node.client.post(&Value::from(most).to_string()).await.json();
    assert_eq!(answer[999], json!({"jsonrpc": "2.0", "id": 999, "result": "0x539"}));

    let more: Vec<Value> = (0..1001).map(call).collect();
    let answer = node.client.post(&Value::from(more).to_string()).await.json();
    let refused = |id: u64| {
        json!({
            "jsonrpc": "2.0", "id": id, "error": {"code": -32600, "message": "batch too large"},
        })
    };
    assert_eq!(answer, Value::from((0..1001).map(refused).collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let node = node().await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 5242881\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(node.client.exchange(&request).await.status, 413);
}

#[tokio::test]
async fn strangers_names_are_refused_on_both_transports() {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let node = node_with(|config| config.hosts.push("node.example".to_owned())).await;
    let rows = [
        ("localhost", 200),
        ("LOCALHOST:8545", 200),
        ("127.0.0.1:8545", 200),
        ("[::1]:8545", 200),
        ("10.1.2.3", 200),
        ("node.example:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
    ];
    for (host, status) in rows {
        let host = format!("Host: {host}\r\n");
        let answer = node.client.send("POST", "/", &format!("{host}{JSON}"), CHAIN_ID).await;
        assert_eq!(answer.status, status, "{host}");
    }
    let evil = format!("Host: evil.example\r\n{upgrade}");
    assert_eq!(node.client.send("GET", "/", &evil, "").await.status, 403);
    // A page from elsewhere, talking to the local node by WebSocket.
    let foreign = format!("Host: localhost\r\nOrigin: https://evil.example\r\n{upgrade}");
    assert_eq!(node.client.send("GET", "/", &foreign, "").await.status, 403);

    let open = node_with(|config| config.hosts.push("*".to_owned())).await;
    let headers = format!("Host: evil.example\r\n{JSON}");
    assert_eq!(open.client.send("POST", "/", &headers, CHAIN_ID).await.status, 200);
}

#[tokio::test]
async fn browsers_are_let_in_only_when_configured() {
    let preflight = "Host: localhost\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n";
    let allowed = "access-control-allow-origin";
    let closed = node().await;
    assert_eq!(closed.client.send("OPTIONS", "/", preflight, "").await.header(allowed), None);
    let open = node_with(|config| config.cors_origins.push("https://app.example".to_owned())).await;
    let answer = open.client.send("OPTIONS", "/", preflight, "").await;
    assert_eq!((answer.status, answer.header(allowed)), (200, Some("https://app.example")));
}

#[tokio::test]
async fn answers_say_which_state_they_come_from() {
    let node = node().await;
    node.append(&[]);
    let answer = node.client.post(CHAIN_ID).await;
    let named = |name: &str| answer.header(name).map(str::to_owned);
    assert_eq!(named("x-blockraft-block").as_deref(), Some("1"));
    assert_eq!(named("x-blockraft-term").as_deref(), Some("3"));
    assert_eq!(named("x-blockraft-role").as_deref(), Some("leader"));
}

#[tokio::test]
async fn probes_say_why_not_and_skip_the_host_check() {
    let node = node_with(|config| {
        config.metrics = Some(Arc::new(|| "blockraft_up 1\n".to_owned()));
    })
    .await;
    let probe = |path: &'static str| {
        let client = node.client;
        async move { client.send("GET", path, "Host: evil.example\r\n", "").await }
    };
    assert_eq!(probe("/livez").await.status, 200);
    let ready = probe("/readyz").await;
    let expected = json!({
        "ready": true, "reasons": [], "nodeId": 1, "role": "leader", "term": 3, "leader": 1,
        "appliedLag": 0, "block": 0,
    });
    assert_eq!((ready.status, ready.json()), (200, expected));
    assert_eq!(probe("/metrics").await.body, "blockraft_up 1\n");

    node.cluster.send_modify(|status| {
        status.leader = None;
        status.committed_index = 5_009;
    });
    let ready = probe("/readyz").await;
    let reasons = json!(["no leader is known", "5000 committed entries are not applied yet"]);
    assert_eq!((ready.status, &ready.json()["reasons"]), (503, &reasons));
    assert_eq!(probe("/livez").await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = node().await;
    let taken = first.running.local_addr();
    let second = tokio::net::TcpListener::bind(taken).await;
    assert!(second.is_err(), "the port is taken");
    let error = crate::fixture::start_at(&first, RpcConfig::new(taken)).await;
    assert!(matches!(error, RpcServerError::AddressInUse { addr } if addr == taken), "{error}");
    assert_eq!(
        error.to_string(),
        format!("RPC address {taken} is already in use by another process")
    );
}

#[tokio::test]
async fn a_stopped_server_frees_its_port() {
    let node = node().await;
    let addr = node.running.local_addr();
    node.running.stop();
    node.running.stop();
    node.running.stopped().await;
    tokio::net::TcpListener::bind(addr).await.expect("the port is free");
}
