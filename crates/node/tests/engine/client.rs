//! A consensus client, as far as tests need one: JSON-RPC over HTTP with a token.

use alloy_consensus::{Block, TxEnvelope};
use alloy_eips::eip4844::kzg_to_versioned_hash;
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_engine::{ExecutionPayloadV1, ExecutionPayloadV2, ExecutionPayloadV3};
use blockraft_node::JwtSecret;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::SystemTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What all nodes of these tests share with their consensus client.
pub(crate) const SECRET: JwtSecret = JwtSecret::new([0x5e; 32]);

/// Talks to one node's Engine API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) SocketAddr);

impl Client {
    /// A call's whole answer.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let body = body.to_string();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            SECRET.token(now),
            body.len()
        );
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// A call's result.
    pub(crate) async fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params).await;
        answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone()
    }

    /// The code of a call's error.
    pub(crate) async fn code(&self, method: &str, params: Value) -> i64 {
        let answer = self.call(method, params).await;
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{method}: {answer}"))
    }

    /// `status` and `latestValidHash`; a valid or unknown payload has no error text, an invalid one has.
    pub(crate) async fn new_payload(&self, payload: &Payload) -> (String, Option<B256>) {
        let status = self.result(payload.method(), payload.params()).await;
        assert_eq!(
            status["validationError"].is_string(),
            status["status"] == "INVALID",
            "{status}"
        );
        parts(&status)
    }

    /// The same of the head after forkchoice, nothing being safe or final.
    pub(crate) async fn set_head(&self, head: B256) -> (String, Option<B256>) {
        let updated = self.forkchoice(head, B256::ZERO, B256::ZERO).await;
        parts(&updated["payloadStatus"])
    }

    /// The whole answer of forkchoice.
    pub(crate) async fn forkchoice(&self, head: B256, safe: B256, finalized: B256) -> Value {
        let state = forkchoice_state(head, safe, finalized);
        self.result("engine_forkchoiceUpdatedV3", json!([state])).await
    }

    /// Forkchoice, then the block that the node builds on that head.
    pub(crate) async fn build(&self, head: B256, attributes: Value) -> Payload {
        let state = forkchoice_state(head, B256::ZERO, B256::ZERO);
        let updated = self.result("engine_forkchoiceUpdatedV3", json!([state, attributes])).await;
        assert_eq!(updated["payloadStatus"]["status"], "VALID", "{updated}");
        let built = self.result("engine_getPayloadV5", json!([updated["payloadId"]])).await;
        let commitments: Vec<Bytes> =
            serde_json::from_value(built["blobsBundle"]["commitments"].clone()).unwrap();
        let versioned_hashes = commitments.iter().map(|c| kzg_to_versioned_hash(c)).collect();
        Payload {
            version: 4,
            payload: built["executionPayload"].clone(),
            versioned_hashes,
            beacon_root: serde_json::from_value(attributes["parentBeaconBlockRoot"].clone())
                .unwrap(),
            requests: serde_json::from_value(built["executionRequests"].clone()).unwrap(),
        }
    }

    /// The head's number and hash.
    pub(crate) async fn head(&self) -> (u64, B256) {
        self.block("latest").await.unwrap()
    }

    /// Number and hash of a block, if there is one.
    pub(crate) async fn block(&self, id: &str) -> Option<(u64, B256)> {
        let block = self.result("eth_getBlockByNumber", json!([id, false])).await;
        let number = u64::from_str_radix(block["number"].as_str()?.trim_start_matches("0x"), 16);
        Some((number.unwrap(), block["hash"].as_str()?.parse().unwrap()))
    }
}

pub(crate) fn forkchoice_state(head: B256, safe: B256, finalized: B256) -> Value {
    json!({"headBlockHash": head, "safeBlockHash": safe, "finalizedBlockHash": finalized})
}

fn parts(status: &Value) -> (String, Option<B256>) {
    let hash = serde_json::from_value(status["latestValidHash"].clone()).unwrap();
    (status["status"].as_str().unwrap().to_owned(), hash)
}

pub(crate) fn valid(hash: B256) -> (String, Option<B256>) {
    ("VALID".to_owned(), Some(hash))
}

pub(crate) fn invalid(latest_valid: B256) -> (String, Option<B256>) {
    ("INVALID".to_owned(), Some(latest_valid))
}

pub(crate) fn syncing() -> (String, Option<B256>) {
    ("SYNCING".to_owned(), None)
}

/// The arguments of one `engine_newPayload`.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    pub(crate) version: u8,
    pub(crate) payload: Value,
    pub(crate) versioned_hashes: Vec<B256>,
    pub(crate) beacon_root: B256,
    pub(crate) requests: Vec<Bytes>,
}

impl Payload {
    /// A block as a payload of a version. Its requests are not in a block: they are none here.
    pub(crate) fn of_block(version: u8, block: &Block<TxEnvelope>) -> Self {
        use alloy_consensus::Transaction;
        let blobs = block.body.transactions.iter().filter_map(|tx| tx.blob_versioned_hashes());
        let payload = match (version, block.body.withdrawals.is_some()) {
            (1, _) | (2, false) => serde_json::to_value(ExecutionPayloadV1::from_block_slow(block)),
            (2, true) => serde_json::to_value(ExecutionPayloadV2::from_block_slow(block)),
            _ => serde_json::to_value(ExecutionPayloadV3::from_block_slow(block)),
        };
        Self {
            version,
            payload: payload.unwrap(),
            versioned_hashes: blobs.flatten().copied().collect(),
            beacon_root: block.header.parent_beacon_block_root.unwrap_or_default(),
            requests: Vec::new(),
        }
    }

    pub(crate) fn method(&self) -> &'static str {
        match self.version {
            1 => "engine_newPayloadV1",
            2 => "engine_newPayloadV2",
            3 => "engine_newPayloadV3",
            _ => "engine_newPayloadV4",
        }
    }

    pub(crate) fn params(&self) -> Value {
        match self.version {
            1 | 2 => json!([self.payload]),
            3 => json!([self.payload, self.versioned_hashes, self.beacon_root]),
            _ => json!([self.payload, self.versioned_hashes, self.beacon_root, self.requests]),
        }
    }

    pub(crate) fn hash(&self) -> B256 {
        serde_json::from_value(self.payload["blockHash"].clone()).unwrap()
    }

    pub(crate) fn parent(&self) -> B256 {
        serde_json::from_value(self.payload["parentHash"].clone()).unwrap()
    }

    pub(crate) fn number(&self) -> u64 {
        let text = self.payload["blockNumber"].as_str().unwrap();
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    }

    pub(crate) fn transaction_count(&self) -> usize {
        self.payload["transactions"].as_array().unwrap().len()
    }
}
