//! Real processes of the real binary, and a small client for them.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, TxKind, U256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use jsonrpsee::{
    core::{ClientError, client::ClientT},
    http_client::{HttpClient, HttpClientBuilder},
    rpc_params,
};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// The binary under test.
pub(crate) const BLOCKRAFT: &str = env!("CARGO_BIN_EXE_blockraft");
/// Chain id of the built-in genesis.
pub(crate) const CHAIN_ID: u64 = 1337;

/// A `blockraft devnet` with its nodes.
pub(crate) struct Devnet {
    parent: Child,
    pub(crate) nodes: Vec<Node>,
    pub(crate) keys: Vec<PrivateKeySigner>,
    pub(crate) leader: u64,
}

/// One node of it. A node that the test restarted is the test's own child.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) raft: String,
    pub(crate) datadir: PathBuf,
    pub(crate) pid: u32,
    settings: Vec<(String, String)>,
    restarted: Option<Child>,
}

/// Ports of one process, below those that the kernel gives to whoever connects to something.
const PORTS: u16 = 400;
const FIRST_PORT: u16 = 20_000;

/// `count` consecutive free ports that no other test of this process was given.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = FIRST_PORT + (std::process::id() % 31) as u16 * PORTS;
    for _ in 0..PORTS / count {
        let base = start + NEXT.fetch_add(count, Ordering::Relaxed) % PORTS;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + count).all(free) {
            return base;
        }
    }
    panic!("no {count} consecutive free ports");
}

/// The binary with arguments and no inherited settings.
pub(crate) fn blockraft(args: &[&str]) -> Command {
    let mut command = Command::new(BLOCKRAFT);
    command.args(args).env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
    command
}

impl Devnet {
    /// Starts three nodes and waits until they are ready.
    pub(crate) fn start(datadir: &Path, extra: &[&str]) -> Self {
        Self::start_with(datadir, extra, &[])
    }

    /// The same with settings for every node, as environment variables.
    pub(crate) fn start_with(datadir: &Path, extra: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_many(3, datadir, extra, settings)
    }

    /// The same with so many nodes, at most five.
    pub(crate) fn start_many(
        count: u16,
        datadir: &Path,
        extra: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        let port = free_ports(2 * count);
        let (rpc, raft) = (port.to_string(), (port + count).to_string());
        let mut parent = blockraft(&["devnet", "-o", "json", "--port", &rpc, "--raft-port", &raft])
            .args(["--nodes", &count.to_string()])
            .arg("--datadir")
            .arg(datadir)
            .args(extra)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let banner = read_json(&mut parent);
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let nodes = banner["nodes"].as_array().expect("nodes").iter().map(|node| Node {
            id: node["id"].as_u64().expect("an id"),
            url: text(&node["rpc"]),
            raft: text(&node["raft"]),
            datadir: text(&node["datadir"]).into(),
            pid: node["pid"].as_u64().expect("a pid") as u32,
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            restarted: None,
        });
        let keys = banner["accounts"].as_array().expect("accounts").iter();
        Self {
            nodes: nodes.collect(),
            keys: keys.map(|a| text(&a["privateKey"]).parse().expect("a key")).collect(),
            leader: banner["leader"].as_u64().expect("a leader"),
            parent,
        }
    }

    /// The node with this id.
    pub(crate) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.id == id).expect("a node of the devnet")
    }

    /// Stops all nodes.
    pub(crate) fn stop(&mut self) {
        for node in &mut self.nodes {
            if node.restarted.is_some() {
                node.terminate();
            }
        }
        self.interrupt();
    }

    /// Ctrl-C, and what came of it.
    pub(crate) fn interrupt(&mut self) -> ExitStatus {
        signal(self.parent.id(), "INT");
        wait(&mut self.parent, Duration::from_secs(20))
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.restarted {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if self.parent.try_wait().is_ok_and(|status| status.is_none()) {
            signal(self.parent.id(), "TERM");
            let _ = self.parent.wait();
        }
    }
}

impl Node {
    /// kill -9.
    pub(crate) fn kill(&mut self) {
        signal(self.pid, "KILL");
        if let Some(child) = &mut self.restarted {
            let _ = child.wait();
        }
    }

    /// SIGTERM to a node that this test started, and what came of it.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal(self.pid, "TERM");
        wait(self.restarted.as_mut().expect("a node of this test"), Duration::from_secs(20))
    }

    /// Starts the node again, as the devnet tells its user to.
    pub(crate) fn restart(&mut self) {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .open(self.datadir.join("node.log"))
            .expect("the node's log");
        let child = blockraft(&["node", "--config"])
            .arg(self.datadir.join("node.toml"))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.pid = child.id();
        self.restarted = Some(child);
    }

    /// A client of this node.
    pub(crate) fn client(&self) -> HttpClient {
        client(&self.url)
    }
}

/// A client of any node.
pub(crate) fn client(url: &str) -> HttpClient {
    client_with(url, Duration::from_secs(15))
}

/// A client that waits so long for each answer.
pub(crate) fn client_with(url: &str, timeout: Duration) -> HttpClient {
    HttpClientBuilder::default().request_timeout(timeout).build(url).expect("an HTTP address")
}

/// Sends a signal to a process that this test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -{name} {pid}");
}

/// Waits for a process to end, and fails if it does not.
pub(crate) fn wait(child: &mut Child, timeout: Duration) -> ExitStatus {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().expect("a child of this test") {
            return status;
        }
        assert!(Instant::now() < deadline, "process {} did not end", child.id());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first JSON document on a child's standard output.
fn read_json(child: &mut Child) -> Value {
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        let end = line == "}";
        text += &line;
        if end {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
    panic!("the devnet ended without a banner: {text}");
}

/// A signed transfer of one wei.
pub(crate) fn transfer(key: &PrivateKeySigner, nonce: u64, to: Address) -> (B256, String) {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(to),
        value: U256::from(1),
        ..Default::default()
    };
    let signature = key.sign_hash_sync(&tx.signature_hash()).expect("a local key signs");
    let envelope = TxEnvelope::from(tx.into_signed(signature));
    (*envelope.tx_hash(), format!("0x{}", alloy_primitives::hex::encode(envelope.encoded_2718())))
}

/// One call.
pub(crate) async fn call(
    client: &HttpClient,
    method: &str,
    params: Vec<Value>,
) -> Result<Value, ClientError> {
    let mut array = rpc_params![];
    for param in params {
        array.insert(param).expect("JSON");
    }
    client.request(method, array).await
}

/// Polls until `probe` yields something, and fails after `timeout`.
pub(crate) async fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {timeout:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// A block's number from its hexadecimal form.
pub(crate) fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("a quantity").trim_start_matches("0x"), 16)
        .expect("hexadecimal")
}

/// The receipt of a transaction at one node, once it is there.
pub(crate) async fn receipt(client: &HttpClient, hash: B256) -> Value {
    eventually(&format!("receipt of {hash}"), Duration::from_secs(20), async || {
        call(client, "eth_getTransactionReceipt", vec![hash.to_string().into()])
            .await
            .ok()
            .filter(|receipt| !receipt.is_null())
    })
    .await
}

/// The head's number at one node.
pub(crate) async fn block_number(client: &HttpClient) -> Option<u64> {
    call(client, "eth_blockNumber", vec![]).await.ok().as_ref().map(quantity)
}

/// Asserts that all nodes have the same block at every height up to the lowest head.
pub(crate) async fn assert_same_chain(clients: &[HttpClient]) -> u64 {
    let mut lowest = u64::MAX;
    for client in clients {
        lowest = lowest.min(block_number(client).await.expect("a node that answers"));
    }
    for number in 0..=lowest {
        let mut blocks = Vec::new();
        for client in clients {
            let params = vec![format!("0x{number:x}").into(), false.into()];
            let block = call(client, "eth_getBlockByNumber", params).await.expect("a block");
            blocks.push((block["hash"].clone(), block["stateRoot"].clone()));
        }
        assert!(
            blocks.iter().all(|b| *b == blocks[0] && !b.0.is_null()),
            "block {number}: {blocks:?}"
        );
    }
    lowest
}
