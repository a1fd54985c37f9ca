//! What gas costs, and which logs match.

use crate::fixture::{NOBODY, STORE, call, node, node_of, transfer};
use blockraft_primitives::ClusterGenesis;
use serde_json::{Value, json};

#[tokio::test]
async fn prices_are_the_next_base_fee_and_the_tips_of_late() {
    let node = node().await;
    node.append(&[transfer(0, 1), transfer(1, 1)]);
    let client = node.client;
    let next = {
        let params = alloy_eips::eip1559::BaseFeeParams::ethereum();
        node.store.head().next_block_base_fee(params).unwrap()
    };
    assert_eq!(client.result("eth_maxPriorityFeePerGas", json!([])).await, "0x1");
    let price = json!(format!("{:#x}", next + 1));
    assert_eq!(client.result("eth_gasPrice", json!([])).await, price);
    assert_eq!(client.result("eth_baseFee", json!([])).await, format!("{next:#x}"));
    assert_eq!(client.result("eth_blobBaseFee", json!([])).await, "0x1");
}

#[tokio::test]
async fn a_gasless_chain_asks_for_nothing() {
    let mut genesis: Value =
        serde_json::from_str(include_str!("../../../../genesis/dev.json")).unwrap();
    genesis["config"]["blockraft"]["gasless"] = json!(true);
    let genesis = ClusterGenesis::from_json(&genesis.to_string()).unwrap();
    let node = node_of(&genesis, |_| {}).await;
    for method in ["eth_gasPrice", "eth_maxPriorityFeePerGas", "eth_baseFee"] {
        assert_eq!(node.client.result(method, json!([])).await, "0x0", "{method}");
    }
}

#[tokio::test]
async fn fee_history_is_one_figure_a_block_and_the_next() {
    let node = node().await;
    let block = node.append(&[transfer(0, 1)]);
    let client = node.client;
    let history = client.result("eth_feeHistory", json!(["0x2", "latest", [25.0, 75.0]])).await;
    let next = {
        let params = alloy_eips::eip1559::BaseFeeParams::ethereum();
        block.header.next_block_base_fee(params).unwrap()
    };
    let genesis = node.store.header(0).unwrap().unwrap();
    let hex = |fee: u64| format!("{fee:#x}");
    let used = 21_000.0 / block.header.gas_limit as f64;
    let expected = json!({
        "oldestBlock": "0x0",
        "baseFeePerGas": [
            hex(genesis.base_fee_per_gas.unwrap()), hex(block.header.base_fee_per_gas.unwrap()), hex(next),
        ],
        "gasUsedRatio": [0.0, used],
        "baseFeePerBlobGas": ["0x1", "0x1", "0x1"],
        "blobGasUsedRatio": [0.0, 0.0],
        "reward": [["0x0", "0x0"], ["0x1", "0x1"]],
    });
    assert_eq!(history, expected);
    // As many as there are; decimal counts are taken too.
    let all = client.result("eth_feeHistory", json!([1024, "latest", null])).await;
    assert_eq!((all["oldestBlock"].clone(), all.get("reward")), (json!("0x0"), None));
    let rows = [
        (json!(["0x1", "0x9"]), "request beyond head block: requested 9, head 1"),
        (json!(["0x1", "latest", [101.0]]), "invalid reward percentile: 101"),
        (json!(["0x1", "latest", [5.0, 5.0]]), "invalid reward percentile: #0:5 >= #1:5"),
    ];
    for (params, text) in rows {
        let refusal = client.refusal("eth_feeHistory", params).await;
        assert_eq!(refusal, (-32000, text.to_owned()));
    }
}

#[tokio::test]
async fn logs_are_found_by_block_address_and_topic() {
    let node = node().await;
    let store = node.deploy(0, STORE);
    let first = node.append(&[call(1, store, &[1; 32])]);
    node.append(&[transfer(2, 1)]);
    let third = node.append(&[call(3, store, &[3; 32]), call(4, store, &[4; 32])]);
    let topic = "0x000000000000000000000000000000000000000000000000000000000000002a";
    let other = "0x000000000000000000000000000000000000000000000000000000000000002b";
    let client = node.client;
    let data = |filter: Value| async move {
        let logs = client.result("eth_getLogs", json!([filter])).await;
        let logs = logs.as_array().unwrap().clone();
        logs.iter().map(|log| log["data"].as_str().unwrap()[2..4].to_owned()).collect::<Vec<_>>()
    };
    let rows = [
        (json!({"fromBlock": "0x0"}), vec!["01", "03", "04"]),
        (json!({"fromBlock": "0x0", "toBlock": "0x3"}), vec!["01"]),
        (
            json!({"fromBlock": "earliest", "toBlock": "latest", "address": store}),
            vec!["01", "03", "04"],
        ),
        (json!({"fromBlock": "0x0", "address": [NOBODY]}), vec![]),
        (json!({"fromBlock": "0x0", "topics": [topic]}), vec!["01", "03", "04"]),
        (json!({"fromBlock": "0x0", "topics": [[other, topic]]}), vec!["01", "03", "04"]),
        (json!({"fromBlock": "0x0", "topics": [null]}), vec!["01", "03", "04"]),
        (json!({"fromBlock": "0x0", "topics": [other]}), vec![]),
        (json!({"fromBlock": "0x0", "topics": [topic, topic]}), vec![]),
        (json!({}), vec!["03", "04"]),
        (json!({"blockHash": first.hash()}), vec!["01"]),
        (json!({"blockHash": third.hash(), "topics": [topic]}), vec!["03", "04"]),
    ];
    for (filter, expected) in rows {
        assert_eq!(data(filter.clone()).await, expected, "{filter}");
    }

    let unknown = "0x00000000000000000000000000000000000000000000000000000000deadbeef";
    let rows = [
        (json!({"fromBlock": "0x3", "toBlock": "0x2"}), (-32602, "invalid block range params")),
        (json!({"blockHash": unknown}), (-32000, "unknown block")),
        (
            json!({"fromBlock": "0x99", "toBlock": "0x9a"}),
            (-32602, "block range extends beyond current head block"),
        ),
    ];
    for (filter, (code, text)) in rows {
        let refusal = client.refusal("eth_getLogs", json!([filter])).await;
        assert_eq!(refusal, (code, text.to_owned()));
    }
    let both = json!([{"blockHash": unknown, "fromBlock": "0x1"}]);
    assert_eq!(client.refusal("eth_getLogs", both).await.0, -32602);
    let many =
        json!([{"fromBlock": "0x0", "topics": [vec![topic; 1]], "address": addresses(1001)}]);
    assert_eq!(client.refusal("eth_getLogs", many).await.0, -32602);
}

fn addresses(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("{n:#042x}")).collect()
}

#[tokio::test]
async fn filters_report_what_is_new_since_the_last_time() {
    let node = node().await;
    let store = node.deploy(0, STORE);
    let client = node.client;
    let blocks = client.result("eth_newBlockFilter", json!([])).await;
    let logs = client.result("eth_newFilter", json!([{"address": store}])).await;
    let arrivals = client.result("eth_newPendingTransactionFilter", json!([])).await;
    let changes =
        |id: Value| async move { client.result("eth_getFilterChanges", json!([id])).await };
    for id in [&blocks, &logs, &arrivals] {
        assert_eq!(changes(id.clone()).await, json!([]));
    }
    let tx = call(1, store, &[1; 32]);
    client.result("eth_sendRawTransaction", json!([crate::fixture::raw(&tx)])).await;
    let first = node.append(std::slice::from_ref(&tx));
    let second = node.append(&[]);
    assert_eq!(changes(blocks.clone()).await, json!([first.hash(), second.hash()]));
    assert_eq!(changes(arrivals.clone()).await, json!([tx.tx_hash()]));
    let reported = changes(logs.clone()).await;
    assert_eq!(
        (reported.as_array().unwrap().len(), &reported[0]["transactionHash"]),
        (1, &json!(tx.tx_hash()))
    );
    for id in [&blocks, &logs, &arrivals] {
        assert_eq!(changes(id.clone()).await, json!([]));
    }
    let uninstall = json!([blocks]);
    assert_eq!(client.result("eth_uninstallFilter", uninstall.clone()).await, true);
    assert_eq!(client.result("eth_uninstallFilter", uninstall).await, false);
    let gone = client.refusal("eth_getFilterChanges", json!([blocks])).await;
    assert_eq!(gone, (-32000, "filter not found".to_owned()));
    let wrong = client.refusal("eth_getFilterLogs", json!([arrivals])).await;
    assert_eq!(wrong, (-32000, "filter not found".to_owned()));
}
