//! The public suites through the Engine API: a sample of each, the same each time. Loudly skipped where the
//! packs are not on this machine.

use crate::{
    client::{Client, Payload, valid},
    cluster::follows,
    world::World,
};
use alloy_consensus::{Block, TxEnvelope};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_genesis::Genesis;
use alloy_primitives::{B256, Bytes, U256};
use alloy_rlp::Decodable;
use blockraft_primitives::{ClusterGenesis, network};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::PathBuf, process::Command};
use tempfile::TempDir;

/// Unpacks the files of a pack whose name fits, in order of their names.
pub(crate) fn unpacked(pack: &str, fits: impl Fn(&str) -> bool) -> Option<(TempDir, Vec<PathBuf>)> {
    sample(pack, fits, 1)
}

/// The same of every `step`th JSON file.
fn sample_json(
    pack: &str,
    fits: impl Fn(&str) -> bool,
    step: usize,
) -> Option<(TempDir, Vec<PathBuf>)> {
    sample(pack, |name| name.ends_with(".json") && fits(name), step)
}

fn sample(pack: &str, fits: impl Fn(&str) -> bool, step: usize) -> Option<(TempDir, Vec<PathBuf>)> {
    let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let pack = packs.join(pack);
    if !pack.exists() {
        eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", pack.display());
        return None;
    }
    let tar = |arguments: &[&str]| {
        let output = Command::new("tar").arg("--zstd").args(arguments).output().unwrap();
        assert!(output.status.success(), "tar {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pack = pack.to_str().unwrap();
    let list = tar(&["-tf", pack]);
    let mut names: Vec<&str> = list.lines().filter(|name| fits(name)).collect();
    names.sort_unstable();
    let names: Vec<&str> = names.into_iter().skip(step / 2).step_by(step).collect();
    let target = TempDir::new().unwrap();
    tar(&[&["-xf", pack, "-C", target.path().to_str().unwrap()], &names[..]].concat());
    let paths = names.iter().map(|name| target.path().join(name)).collect();
    Some((target, paths))
}

/// The chain of a test; `None` where it begins before the merge.
fn genesis_of(test: &Value) -> Option<ClusterGenesis> {
    let chain_id = number(&test["config"]["chainid"]).unwrap_or(1);
    let config = network(test["network"].as_str().unwrap(), chain_id).unwrap();
    if config.terminal_total_difficulty != Some(U256::ZERO) {
        return None;
    }
    let mut config = serde_json::to_value(config).unwrap();
    let mut schedule = Map::new();
    for (fork, params) in test["config"]["blobSchedule"].as_object().into_iter().flatten() {
        let params = params.as_object().unwrap().iter();
        let params: Map<_, _> =
            params.map(|(key, value)| (key.clone(), number(value).into())).collect();
        schedule.insert(fork.to_lowercase(), params.into());
    }
    config["blobSchedule"] = schedule.into();
    let header = &test["genesisBlockHeader"];
    let mut genesis = json!({
        "config": config, "alloc": test["pre"], "coinbase": header["coinbase"],
        "difficulty": header["difficulty"], "extraData": header["extraData"],
        "gasLimit": header["gasLimit"], "nonce": header["nonce"], "mixHash": header["mixHash"],
        "timestamp": header["timestamp"], "parentHash": header["parentHash"],
    });
    for key in ["baseFeePerGas", "blobGasUsed", "excessBlobGas"] {
        if let Some(value) = header.get(key) {
            genesis[key] = value.clone();
        }
    }
    let genesis: Genesis = serde_json::from_value(with_padded_slots(genesis)).unwrap();
    let genesis = ClusterGenesis::new(genesis).unwrap();
    assert_eq!(json!(genesis.hash()), header["hash"], "the genesis is the test's");
    Some(genesis)
}

/// The suites write slots without leading zeros, genesis files with them.
fn with_padded_slots(mut genesis: Value) -> Value {
    for account in genesis["alloc"].as_object_mut().unwrap().values_mut() {
        let slots = account["storage"].as_object().cloned().unwrap_or_default();
        let pad = |text: &str| format!("0x{:0>64}", text.trim_start_matches("0x"));
        let slots: Map<_, _> = slots
            .iter()
            .map(|(slot, value)| (pad(slot), pad(value.as_str().unwrap()).into()))
            .collect();
        account["storage"] = slots.into();
    }
    genesis
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.trim_start_matches("0x"), 16).ok()
}

async fn head_of(client: &Client) -> B256 {
    client.head().await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_the_benchmark_suite_are_valid() {
    let fits = |name: &str| name.contains("/blockchain_tests_engine/");
    let Some((_keep, files)) = sample_json("eest-benchmark.tar.zst", fits, 1) else { return };
    let mut count = 0;
    for file in files {
        let tests = tests_in(file);
        let Some((name, test)) = tests.first_key_value() else { continue };
        let genesis = genesis_of(test).expect("the suite is of Osaka");
        let world = World::start(&genesis, 1).await;
        count += drive(&world.client(1), name, test).await;
        world.stop().await;
    }
    assert!(count >= 35, "only {count} payloads");
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_the_benchmark_suite_are_valid_where_three_nodes_share_them_out() {
    let fits = |name: &str| name.contains("/blockchain_tests_engine/");
    let Some((_keep, files)) = sample_json("eest-benchmark.tar.zst", fits, 5) else { return };
    for (turn, file) in (0..).zip(files) {
        let tests = tests_in(file);
        let Some((name, test)) = tests.last_key_value() else { continue };
        let genesis = genesis_of(test).expect("the suite is of Osaka");
        let world = World::start_sharing(&genesis, 3).await;
        let client = world.client(1 + turn % 3);
        assert_ne!(drive(&client, name, test).await, 0);
        let head = client.head().await;
        for id in 1..=3 {
            follows(&world.client(id), head).await;
        }
        world.stop().await;
    }
}

/// Names a test's payloads, each made the head, and looks at what comes of them. How many they were.
async fn drive(client: &Client, name: &str, test: &Value) -> usize {
    let payloads = test["engineNewPayloads"].as_array().unwrap();
    for call in payloads {
        let version = |key: &str| call[key].as_str().unwrap().to_owned();
        let method = format!("engine_newPayloadV{}", version("newPayloadVersion"));
        let status = client.result(&method, call["params"].clone()).await;
        let hash: B256 = serde_json::from_value(call["params"][0]["blockHash"].clone()).unwrap();
        assert_eq!(status["status"], "VALID", "{name}: {status}");
        let method = format!("engine_forkchoiceUpdatedV{}", version("forkchoiceUpdatedVersion"));
        let state = crate::client::forkchoice_state(hash, B256::ZERO, B256::ZERO);
        let updated = client.result(&method, json!([state])).await;
        assert_eq!(updated["payloadStatus"]["status"], "VALID", "{name}: {updated}");
    }
    assert_eq!(json!(head_of(client).await), test["lastblockhash"], "{name}");
    check_state(client, name, test).await;
    payloads.len()
}

/// Balances, nonces and slots that the test names.
async fn check_state(client: &Client, name: &str, test: &Value) {
    let Some(accounts) = test["postState"].as_object() else { return };
    for (address, account) in accounts.iter().take(20) {
        for (method, field) in [("eth_getBalance", "balance"), ("eth_getTransactionCount", "nonce")]
        {
            let got = client.result(method, json!([address, "latest"])).await;
            let digits = |v: &Value| {
                let digits = v.as_str().unwrap().trim_start_matches("0x");
                digits.trim_start_matches('0').to_owned()
            };
            assert_eq!(digits(&got), digits(&account[field]), "{name}: {field} of {address}");
        }
    }
}

/// What becomes of one block of a test as a payload.
async fn play(
    client: &Client,
    name: &str,
    block: &Value,
    genesis: &ClusterGenesis,
) -> Option<bool> {
    use alloy_hardforks::EthereumHardforks;
    let rlp: Bytes = serde_json::from_value(block["rlp"].clone()).unwrap();
    // Bytes that are no block cannot be a payload; requests are not in a block.
    let decoded = Block::<TxEnvelope>::decode(&mut rlp.as_ref()).ok()?;
    if decoded.header.requests_hash.is_some_and(|hash| hash != EMPTY_REQUESTS_HASH) {
        return None;
    }
    let time = decoded.header.timestamp;
    let version = match &genesis.spec {
        spec if spec.is_prague_active_at_timestamp(time) => 4,
        spec if spec.is_cancun_active_at_timestamp(time) => 3,
        _ => 2,
    };
    let payload = Payload::of_block(version, &decoded);
    let answer = client.call(payload.method(), payload.params()).await;
    let status = &answer["result"]["status"];
    if block.get("expectException").is_some() {
        // A block that lacks what its version has is refused before it is looked at.
        let refused = status == "INVALID" || answer["error"]["code"] == -32602;
        assert!(refused, "{name}: taken, expected {}: {answer}", block["expectException"]);
        if status == "INVALID" {
            let text = answer["result"]["validationError"].as_str().unwrap();
            assert!(text.len() > 10, "{name}: {text}");
        }
        return Some(false);
    }
    assert_eq!(status, "VALID", "{name}: {answer}");
    assert_eq!(client.set_head(payload.hash()).await, valid(payload.hash()), "{name}");
    Some(true)
}

/// Plays a test in a cluster of its own; adds up the payloads taken and those refused.
async fn play_test(name: &str, test: &Value, sums: &mut (usize, usize)) {
    let Some(genesis) = genesis_of(test) else { return };
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let mut complete = true;
    for block in test["blocks"].as_array().unwrap() {
        match play(&client, name, block, &genesis).await {
            Some(true) => sums.0 += 1,
            Some(false) => sums.1 += 1,
            None => {
                complete = false;
                break;
            }
        }
    }
    if complete {
        assert_eq!(json!(head_of(&client).await), test["lastblockhash"], "{name}");
        check_state(&client, name, test).await;
    }
    world.stop().await;
}

fn tests_in(file: PathBuf) -> BTreeMap<String, Value> {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_blocks_of_the_block_tests_are_valid_payloads() {
    let fits = |name: &str| name.contains("blockchain_tests/");
    let Some((_keep, files)) = sample_json("eest-blockchain.tar.zst", fits, 10) else { return };
    let mut sums = (0, 0);
    for file in files {
        if let Some((name, test)) = tests_in(file).pop_last() {
            play_test(&name, &test, &mut sums).await;
        }
    }
    assert!(sums.0 >= 100, "{sums:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_blocks_of_the_block_tests_are_invalid_payloads() {
    // Folders and files of the suite that are about what a block must not be.
    const ABOUT: [&str; 5] =
        ["_invalid_", "/validation/", "/stEIP1559/", "_system_contract_", "/stTransactionTest/"];
    let fits = |name: &str| ABOUT.iter().any(|about| name.contains(about));
    let Some((_keep, files)) = sample_json("eest-blockchain.tar.zst", fits, 1) else { return };
    let mut sums = (0, 0);
    for file in files {
        let is_invalid = |test: &Value| {
            let blocks = test["blocks"].as_array().unwrap();
            blocks.iter().any(|block| block.get("expectException").is_some())
        };
        let tests = tests_in(file);
        // One of the oldest fork in question, one of the newest.
        let invalid: Vec<_> = tests.iter().filter(|(_, test)| is_invalid(test)).collect();
        for (name, test) in [invalid.first(), invalid.last()].into_iter().flatten() {
            play_test(name, test, &mut sums).await;
        }
    }
    assert!(sums.1 >= 40, "{sums:?}");
}
