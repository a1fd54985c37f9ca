//! The Engine API of a devnet: one port and one secret, and blocks only at a consensus client's word.

use crate::{
    distributed::{ANSWERED, LOOP, call_data, deployment, leader, metric, sign},
    harness::{
        Devnet, assert_same_chain, block_number, call, client, eventually, free_ports, quantity,
        transfer,
    },
};
use alloy_primitives::{Address, B256, TxKind};
use blockraft_node::JwtSecret;
use jsonrpsee::http_client::{HeaderMap, HeaderValue, HttpClient, HttpClientBuilder};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

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

/// A devnet whose blocks are always shared out, with its consensus client.
struct Driven {
    net: Devnet,
    port: u16,
    secret: JwtSecret,
    /// The next block's.
    timestamp: u64,
}

impl Driven {
    fn start(dir: &Path) -> Self {
        let port = free_ports(3);
        let arguments = ["--authrpc.port", &port.to_string(), "--accounts", "12"];
        let net = Devnet::start_with(dir, &arguments, &[("BLOCKRAFT_DISTRIBUTION", "always")]);
        let secret = std::fs::read_to_string(dir.join("jwtsecret")).unwrap();
        let secret = JwtSecret::from_hex(&secret).unwrap();
        Self { net, port, secret, timestamp: u64::from(u32::MAX) }
    }

    fn engine(&self, id: u64) -> HttpClient {
        authorized(&format!("http://127.0.0.1:{}", u64::from(self.port) + id - 1), &self.secret)
    }

    /// A block that a node makes out of the pool, on its head.
    async fn build(&mut self, id: u64) -> Value {
        let engine = self.engine(id);
        let latest = vec!["latest".into(), false.into()];
        let head = call(&engine, "eth_getBlockByNumber", latest).await.unwrap()["hash"].clone();
        self.timestamp += 1;
        let attributes = json!({
            "timestamp": format!("0x{:x}", self.timestamp), "prevRandao": B256::ZERO,
            "withdrawals": [], "suggestedFeeRecipient": Address::ZERO,
            "parentBeaconBlockRoot": B256::ZERO,
        });
        let params = vec![state_of(&head), attributes];
        let updated = call(&engine, "engine_forkchoiceUpdatedV3", params).await.unwrap();
        call(&engine, "engine_getPayloadV5", vec![updated["payloadId"].clone()]).await.unwrap()
    }

    /// Names a block to a node, which has not seen it. How long the answer took.
    async fn name(&self, id: u64, built: &Value) -> Duration {
        let requests = built["executionRequests"].clone();
        let payload = built["executionPayload"].clone();
        let params = vec![payload, json!([]), json!(B256::ZERO), requests];
        let began = Instant::now();
        let status = call(&self.engine(id), "engine_newPayloadV4", params).await.unwrap();
        assert_eq!(status["status"], "VALID", "{status}");
        began.elapsed()
    }

    /// Makes it the head, and waits until some nodes have it.
    async fn adopt(&self, id: u64, built: &Value, everybody: &[u64]) {
        let hash = &built["executionPayload"]["blockHash"];
        let what = "the head moves";
        eventually(what, Duration::from_secs(30), async || {
            let params = vec![state_of(hash)];
            let answer = call(&self.engine(id), "engine_forkchoiceUpdatedV3", params).await.ok()?;
            (answer["payloadStatus"]["status"] == "VALID").then_some(())
        })
        .await;
        let number = quantity(&built["executionPayload"]["blockNumber"]);
        for id in everybody {
            let client = self.net.nodes[*id as usize - 1].client();
            eventually("the others follow", Duration::from_secs(30), async || {
                (block_number(&client).await == Some(number)).then_some(())
            })
            .await;
        }
    }

    /// A transaction of every account: first it makes a contract, then it calls it.
    async fn send_from_all(&self, id: u64, nonce: u64) {
        let client = self.net.nodes[id as usize - 1].client();
        for key in &self.net.keys {
            let raw = match nonce {
                0 => sign(key, nonce, TxKind::Create, deployment(LOOP), 0),
                _ => {
                    let contract = TxKind::Call(key.address().create(0));
                    sign(key, nonce, contract, call_data(&[]), 0)
                }
            };
            call(&client, "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
        }
    }
}

fn state_of(head: &Value) -> Value {
    json!({"headBlockHash": head, "safeBlockHash": B256::ZERO, "finalizedBlockHash": B256::ZERO})
}

/// Units that this node ran for others.
const RUN: &str = "blockraft_execution_units_run_total";

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_executed_by_the_members_together_and_without_one_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = Driven::start(dir.path());
    let leading = leader(&driven.net).await;
    // Asked is one that does not lead.
    let others: Vec<u64> = (1..=3).filter(|id| *id != leading).collect();
    let (asked, third) = (others[0], others[1]);
    let metric_of =
        |driven: &Driven, id: u64, name: &str| metric(&driven.net.nodes[id as usize - 1].url, name);

    // The leader has each block when it is named: what others run from then on is for the node that is asked.
    // On a machine that does other things too, some of it comes too late to count.
    let run = |driven: &Driven| metric_of(driven, leading, RUN) + metric_of(driven, third, RUN);
    let mut blocks = 0;
    eventually("units are run and come back in time", Duration::from_secs(120), async || {
        driven.send_from_all(leading, blocks).await;
        let built = driven.build(leading).await;
        let count = built["executionPayload"]["transactions"].as_array().unwrap().len();
        assert_eq!(count, driven.net.keys.len());
        let (ran, answered) = (run(&driven), metric_of(&driven, asked, ANSWERED));
        driven.name(asked, &built).await;
        driven.adopt(asked, &built, &[1, 2, 3]).await;
        blocks += 1;
        (blocks > 2 && run(&driven) > ran && metric_of(&driven, asked, ANSWERED) > answered)
            .then_some(())
    })
    .await;

    // A member falls. It is asked, does not answer, and the block is valid all the same.
    driven.send_from_all(leading, blocks).await;
    let built = driven.build(leading).await;
    driven.net.node(third).kill();
    let took = driven.name(asked, &built).await;
    assert!(took < Duration::from_secs(5), "a killed member cost {took:?}");
    driven.adopt(asked, &built, &[leading, asked]).await;
    driven.net.node(third).restart();
    driven.adopt(asked, &built, &[1, 2, 3]).await;
    let clients: Vec<HttpClient> = driven.net.nodes.iter().map(|node| node.client()).collect();
    assert_eq!(assert_same_chain(&clients).await, blocks + 1);
}
