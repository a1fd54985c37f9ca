//! Imported chains, served: for reading where no cluster made them, and continued where one did.

use crate::{
    files::{blocks_of, errors, every_fork, exported, import_command, last_line},
    server::Server,
};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, TxKind, U256, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_chain_that_no_cluster_made_is_served_for_reading_and_takes_more_blocks_later() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    let file = dir.path().join("part.rlp");
    fs::write(&file, blocks_of(&chain.bytes())[..36].concat()).unwrap();
    assert!(chain.import(&file, &datadir, &[]).status.success());

    let raw =
        "0xf86d8085e8d4a51000825208947dcd17433742f4c0ca53122ab541d0ba67fc27df8609184e72a000801ca0";
    let check = |server: &Server, head: u64| {
        let head = format!("0x{head:x}");
        assert_eq!(server.result("eth_blockNumber", json!([])), head);
        for tag in ["latest", "safe", "finalized"] {
            let block = server.result("eth_getBlockByNumber", json!([tag, false]));
            assert_eq!(block["number"], head, "{tag}");
        }
        let chain_id = server.result("eth_chainId", json!([]));
        assert_eq!(chain_id, format!("{:#x}", 3503995874084926u64));
        let refused = server.call("eth_sendRawTransaction", json!([raw]));
        assert_eq!(refused["error"]["code"], -32000, "{refused}");
        let text = refused["error"]["message"].as_str().unwrap();
        assert!(text.contains("served for reading alone"), "{text}");
        // A fork without a field has no such field; receipts before Byzantium have a root and no status.
        let old = server.result("eth_getBlockByNumber", json!(["0x4", true]));
        for field in
            ["baseFeePerGas", "withdrawals", "withdrawalsRoot", "blobGasUsed", "requestsHash"]
        {
            assert_eq!(old.get(field), None, "{field}");
        }
        assert_ne!(old["difficulty"], "0x0");
        let receipts = server.result("eth_getBlockReceipts", json!(["0x2"]));
        for receipt in receipts.as_array().unwrap() {
            assert!(receipt["root"].is_string() && receipt.get("status").is_none(), "{receipt}");
        }
        // The state of an early block, and of the last.
        let balance = |tag: &str| server.result("eth_getBalance", json!([old["miner"], tag]));
        assert_ne!(balance("0x1"), balance("latest"));
    };
    let server = Server::dev(&datadir, &[]);
    assert_eq!(server.banner["readOnly"], true);
    assert_eq!(server.banner["accounts"], json!([]));
    check(&server, 36);
    drop(server);

    let output = chain.import(&chain.file(), &datadir, &[]);
    assert!(last_line(&output).starts_with("imported 18 blocks"), "{}", errors(&output));
    check(&Server::dev(&datadir, &[]), 54);
    check(&Server::node(&datadir, &[]), 54);
    assert!(exported(&datadir) == chain.bytes(), "serving changed nothing");
}

/// A cluster's genesis with one rich account.
fn cluster_genesis(rich: Address) -> Value {
    json!({
        "config": {
            "chainId": 1337, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
            "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0,
            "berlinBlock": 0, "londonBlock": 0, "terminalTotalDifficulty": 0, "shanghaiTime": 0,
            "cancunTime": 0, "pragueTime": 0, "osakaTime": 0, "blockraft": { "shards": 2 },
        },
        "difficulty": "0x0", "gasLimit": "0x1c9c380",
        "alloc": { rich.to_string(): { "balance": "0xffffffffffffffffffff" } },
    })
}

#[test]
fn a_clusters_chain_is_continued_where_it_was_imported() {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKeySigner::from_slice(&[0x45; 32]).unwrap();
    let genesis = dir.path().join("genesis.json");
    fs::write(&genesis, cluster_genesis(key.address()).to_string()).unwrap();
    let genesis_flag = ["--genesis", genesis.to_str().unwrap()];
    let send = |server: &Server, nonce: u64| {
        let tx = TxEip1559 {
            chain_id: 1337,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 100_000_000_000,
            to: TxKind::Call(Address::repeat_byte(9)),
            value: U256::from(1),
            ..Default::default()
        };
        let signature = key.sign_hash_sync(&tx.signature_hash()).unwrap();
        let raw = TxEnvelope::from(tx.into_signed(signature)).encoded_2718();
        let receipt =
            server.result("eth_sendRawTransactionSync", json!([hex::encode_prefixed(raw)]));
        assert_eq!(receipt["status"], "0x1");
    };
    let first = dir.path().join("first");
    let server = Server::dev(&first, &genesis_flag);
    (0..3).for_each(|nonce| send(&server, nonce));
    drop(server);
    let file = dir.path().join("chain.rlp");
    fs::write(&file, exported(&first)).unwrap();

    let second = dir.path().join("second");
    let output = import_command(&genesis, &file, &second).output().unwrap();
    assert!(last_line(&output).starts_with("imported 3 blocks"), "{}", errors(&output));
    let server = Server::dev(&second, &[]);
    assert_eq!(server.banner["readOnly"], false);
    send(&server, 3);
    assert_eq!(server.result("eth_blockNumber", json!([])), "0x4");
    let balance = server.result("eth_getBalance", json!([Address::repeat_byte(9), "latest"]));
    assert_eq!(balance, "0x4");
    drop(server);
    // From here on its blocks come from its log alone.
    let output = import_command(&genesis, &file, &second).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("a node of a cluster has run"), "{}", errors(&output));
}
