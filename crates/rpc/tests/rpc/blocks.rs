//! Blocks, transactions and receipts, field by field.

use crate::fixture::{BOB, STORE, alice, call, node, raw, transfer};
use serde_json::{Value, json};

const UNKNOWN: &str = "0x00000000000000000000000000000000000000000000000000000000deadbeef";

#[tokio::test]
async fn a_block_reads_as_geth_writes_it() {
    let node = node().await;
    let block = node.append(&[transfer(0, 5)]);
    let header = &block.header;
    let mut expected = json!({
        "hash": block.hash(),
        "parentHash": header.parent_hash,
        "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
        "miner": "0xfefefefefefefefefefefefefefefefefefefefe",
        "stateRoot": header.state_root,
        "transactionsRoot": header.transactions_root,
        "receiptsRoot": header.receipts_root,
        "logsBloom": header.logs_bloom,
        "difficulty": "0x0",
        "number": "0x1",
        "gasLimit": format!("{:#x}", header.gas_limit),
        "gasUsed": "0x5208",
        "timestamp": format!("{:#x}", header.timestamp),
        "extraData": "0x",
        "mixHash": header.mix_hash,
        "nonce": "0x0000000000000000",
        "baseFeePerGas": format!("{:#x}", header.base_fee_per_gas.unwrap()),
        "withdrawalsRoot": "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
        "blobGasUsed": "0x0",
        "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": header.parent_beacon_block_root.unwrap(),
        "requestsHash": "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "uncles": [],
        "withdrawals": [],
        "transactions": [block.transactions[0].tx_hash()],
    });
    let client = node.client;
    let length = client.result("debug_getRawBlock", json!(["0x1"])).await;
    let length = (length.as_str().unwrap().len() - 2) / 2;
    expected["size"] = json!(format!("{length:#x}"));

    for params in [json!(["0x1", false]), json!(["latest"]), json!(["finalized", null])] {
        assert_eq!(client.result("eth_getBlockByNumber", params).await, expected);
    }
    let by_hash = client.result("eth_getBlockByHash", json!([block.hash(), false])).await;
    assert_eq!(by_hash, expected);

    let mut alone = expected.clone();
    for name in ["size", "transactions", "uncles", "withdrawals"] {
        alone.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(client.result("eth_getHeaderByNumber", json!(["latest"])).await, alone);
    assert_eq!(client.result("eth_getHeaderByHash", json!([block.hash()])).await, alone);

    expected["transactions"] = json!([transaction(&block, 0)]);
    assert_eq!(client.result("eth_getBlockByNumber", json!(["0x1", true])).await, expected);
}

/// A transfer's JSON; in a block, or pending.
fn transaction(block: &blockraft_primitives::SealedBlock, index: usize) -> Value {
    let tx = &block.transactions[index];
    let signature = tx.signature();
    let parity = format!("{:#x}", u8::from(signature.v()));
    json!({
        "blockHash": block.hash(),
        "blockNumber": format!("{:#x}", block.number()),
        "blockTimestamp": format!("{:#x}", block.header.timestamp),
        "transactionIndex": format!("{index:#x}"),
        "hash": tx.tx_hash(),
        "type": "0x2",
        "chainId": "0x539",
        "nonce": "0x0",
        "from": format!("{:#x}", alice().address()),
        "to": format!("{BOB:#x}"),
        "value": "0x5",
        "input": "0x",
        "gas": "0x5208",
        "gasPrice": format!("{:#x}", block.effective_gas_price(index)),
        "maxFeePerGas": "0x77359400",
        "maxPriorityFeePerGas": "0x1",
        "accessList": [],
        "v": parity,
        "yParity": parity,
        "r": format!("{:#x}", signature.r()),
        "s": format!("{:#x}", signature.s()),
    })
}

#[tokio::test]
async fn a_transaction_is_found_by_hash_and_by_place() {
    let node = node().await;
    let block = node.append(&[transfer(0, 5)]);
    let expected = transaction(&block, 0);
    let hash = block.transactions[0].tx_hash();
    let rows = [
        ("eth_getTransactionByHash", json!([hash])),
        ("eth_getTransactionByBlockHashAndIndex", json!([block.hash(), "0x0"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0x0"])),
    ];
    for (method, params) in rows {
        assert_eq!(node.client.result(method, params).await, expected, "{method}");
    }
    let bytes = json!(raw(&block.transactions[0]));
    let rows = [
        ("eth_getRawTransactionByHash", json!([hash])),
        ("eth_getRawTransactionByBlockHashAndIndex", json!([block.hash(), "0x0"])),
        ("eth_getRawTransactionByBlockNumberAndIndex", json!(["0x1", 0])),
        ("debug_getRawTransaction", json!([hash])),
    ];
    for (method, params) in rows {
        assert_eq!(node.client.result(method, params).await, bytes, "{method}");
    }
}

#[tokio::test]
async fn receipts_name_their_logs_places() {
    let node = node().await;
    let contract = node.deploy(0, STORE);
    let block =
        node.append(&[transfer(1, 5), call(2, contract, &[1; 32]), call(3, contract, &[2; 32])]);
    let (hash, receipt) = (block.transactions[2].tx_hash(), &block.receipts[2]);
    let place = json!({
        "blockHash": block.hash(), "blockNumber": "0x2",
        "transactionHash": hash, "transactionIndex": "0x2",
    });
    let with_place = |mut value: Value| {
        let fields = value.as_object_mut().unwrap();
        fields.extend(place.as_object().unwrap().clone());
        value
    };
    let log = with_place(json!({
        "address": format!("{contract:#x}"),
        "topics": ["0x000000000000000000000000000000000000000000000000000000000000002a"],
        "data": format!("0x{}", "02".repeat(32)),
        "blockTimestamp": format!("{:#x}", block.header.timestamp),
        "logIndex": "0x1",
        "removed": false,
    }));
    let expected = with_place(json!({
        "type": "0x2",
        "status": "0x1",
        "from": format!("{:#x}", alice().address()),
        "to": format!("{contract:#x}"),
        "contractAddress": null,
        "gasUsed": format!("{:#x}", block.gas_used_by(2)),
        "cumulativeGasUsed": format!("{:#x}", receipt.cumulative_gas_used),
        "effectiveGasPrice": format!("{:#x}", block.effective_gas_price(2)),
        "logsBloom": receipt.bloom_slow(),
        "logs": [log],
    }));
    let client = node.client;
    assert_eq!(client.result("eth_getTransactionReceipt", json!([hash])).await, expected);
    let all = client.result("eth_getBlockReceipts", json!(["latest"])).await;
    assert_eq!((all.as_array().unwrap().len(), &all[2]), (3, &expected));
    let by_hash = client.result("eth_getBlockReceipts", json!([block.hash()])).await;
    assert_eq!(by_hash, all);

    let creation = node.store.block(1).unwrap().unwrap();
    let creation = client
        .result("eth_getTransactionReceipt", json!([creation.transactions[0].tx_hash()]))
        .await;
    assert_eq!(creation["contractAddress"], format!("{contract:#x}"));
    assert_eq!(creation["to"], Value::Null);
}

#[tokio::test]
async fn counts_are_counted() {
    let node = node().await;
    let block = node.append(&[transfer(0, 1), transfer(1, 1)]);
    let rows = [
        ("eth_getBlockTransactionCountByNumber", json!(["latest"]), json!("0x2")),
        ("eth_getBlockTransactionCountByHash", json!([block.hash()]), json!("0x2")),
        ("eth_getBlockTransactionCountByNumber", json!(["0x0"]), json!("0x0")),
        ("eth_getUncleCountByBlockNumber", json!(["latest"]), json!("0x0")),
        ("eth_getUncleCountByBlockHash", json!([block.hash()]), json!("0x0")),
    ];
    for (method, params, expected) in rows {
        assert_eq!(node.client.result(method, params).await, expected, "{method}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_null() {
    let node = node().await;
    let rows = [
        ("eth_getBlockByNumber", json!(["0x99", true])),
        ("eth_getBlockByHash", json!([UNKNOWN, true])),
        ("eth_getHeaderByNumber", json!(["0x99"])),
        ("eth_getHeaderByHash", json!([UNKNOWN])),
        ("eth_getBlockReceipts", json!([UNKNOWN])),
        ("eth_getBlockTransactionCountByNumber", json!(["0x99"])),
        ("eth_getBlockTransactionCountByHash", json!([UNKNOWN])),
        ("eth_getTransactionByHash", json!([UNKNOWN])),
        ("eth_getTransactionByBlockHashAndIndex", json!([UNKNOWN, "0x0"])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["0x0", "0x0"])),
        ("eth_getTransactionReceipt", json!([UNKNOWN])),
        ("eth_getRawTransactionByHash", json!([UNKNOWN])),
        ("eth_getUncleByBlockNumberAndIndex", json!(["0x0", "0x0"])),
        ("eth_getUncleByBlockHashAndIndex", json!([UNKNOWN, "0x0"])),
        ("eth_getUncleCountByBlockHash", json!([UNKNOWN])),
    ];
    for (method, params) in rows {
        assert_eq!(node.client.result(method, params).await, Value::Null, "{method}");
    }
}

#[tokio::test]
async fn the_pending_block_is_the_pool_on_top_of_the_head() {
    let node = node().await;
    let block = node.append(&[transfer(0, 5)]);
    let tx = transfer(1, 6);
    let client = node.client;
    client.result("eth_sendRawTransaction", json!([raw(&tx)])).await;
    let pending = client.result("eth_getBlockByNumber", json!(["pending", false])).await;
    let shown = |name: &str| pending[name].clone();
    assert_eq!(shown("number"), "0x2");
    assert_eq!(shown("parentHash"), json!(block.hash()));
    assert_eq!(shown("transactions"), json!([tx.tx_hash()]));
    assert_eq!([shown("hash"), shown("nonce"), shown("miner")], [const { Value::Null }; 3]);
    let full = client.result("eth_getBlockByNumber", json!(["pending", true])).await;
    assert_eq!(full["transactions"][0]["hash"], json!(tx.tx_hash()));
    assert_eq!(full["transactions"][0]["blockHash"], Value::Null);
    let count = client.result("eth_getBlockTransactionCountByNumber", json!(["pending"])).await;
    assert_eq!(count, "0x1");
}

#[tokio::test]
async fn raw_forms_decode_to_the_same_hashes() {
    use alloy_primitives::{Bytes, keccak256};
    let node = node().await;
    let block = node.append(&[transfer(0, 5)]);
    let header: Bytes =
        serde_json::from_value(node.client.result("debug_getRawHeader", json!(["0x1"])).await)
            .unwrap();
    assert_eq!(keccak256(header), block.hash());
    let receipts = node.client.result("debug_getRawReceipts", json!(["0x1"])).await;
    assert!(receipts[0].as_str().unwrap().starts_with("0x02"), "{receipts}");
    let bad = node.client.refusal("debug_getRawHeader", json!(["2"])).await;
    assert_eq!(bad.0, -32602);
}
