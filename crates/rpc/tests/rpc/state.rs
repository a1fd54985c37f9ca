//! Reads of the state at a block.

use crate::fixture::{BOB, NOBODY, STORE, alice, call, node, node_with_history, transfer};
use serde_json::{Value, json};

#[tokio::test]
async fn state_reads_follow_the_block_that_they_name() {
    let node = node().await;
    let block = node.append(&[transfer(0, 5)]);
    let start = json!("0x21e19e0c9bab2400000");
    let after = json!("0x21e19e0c9bab2400005");
    let (latest, hash) = (json!("latest"), json!(block.hash()));
    let genesis = json!(node.store.header(0).unwrap().unwrap().hash());
    let rows: [(Value, &Value); 10] = [
        (json!([BOB]), &after),
        (json!([BOB, latest]), &after),
        (json!([BOB, "safe"]), &after),
        (json!([BOB, "finalized"]), &after),
        (json!([BOB, "pending"]), &after),
        (json!([BOB, "earliest"]), &start),
        (json!([BOB, "0x0"]), &start),
        (json!([BOB, hash]), &after),
        (json!([BOB, {"blockHash": genesis, "requireCanonical": true}]), &start),
        (json!([BOB, {"blockNumber": "0x1"}]), &after),
    ];
    for (params, expected) in rows {
        let balance = node.client.result("eth_getBalance", params.clone()).await;
        assert_eq!(&balance, expected, "{params}");
    }
    assert_eq!(node.client.result("eth_getBalance", json!([NOBODY])).await, "0x0");
}

#[tokio::test]
async fn state_that_was_let_go_is_refused_as_geth_refuses_it() {
    let node = node_with_history(2).await;
    for nonce in 0..6 {
        node.append(&[transfer(nonce, 5)]);
        node.store.persist().unwrap();
    }
    let oldest = node.store.oldest_state();
    assert_eq!(oldest, 4);
    for number in 0..=6u64 {
        let params = json!([BOB, format!("{number:#x}")]);
        if number >= oldest {
            let balance = node.client.result("eth_getBalance", params).await;
            assert_eq!(balance, format!("{:#x}", 10_000 * 10u128.pow(18) + 5 * u128::from(number)));
            continue;
        }
        let root = node.store.header(number).unwrap().unwrap().state_root;
        let text = format!("historical state {} is not available", &root.to_string()[2..]);
        assert_eq!(node.client.refusal("eth_getBalance", params).await, (-32000, text));
        let block =
            node.client.result("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
        assert!(block.await.is_object(), "the block itself stays");
    }
}

#[tokio::test]
async fn code_and_storage_are_read_back() {
    let node = node().await;
    let contract = node.deploy(0, STORE);
    node.append(&[call(1, contract, &[0x11; 32])]);
    let client = node.client;
    let word = json!("0x1111111111111111111111111111111111111111111111111111111111111111");
    let zero = json!("0x0000000000000000000000000000000000000000000000000000000000000000");
    assert_eq!(client.result("eth_getCode", json!([contract])).await, STORE);
    assert_eq!(client.result("eth_getCode", json!([NOBODY, "latest"])).await, "0x");
    assert_eq!(client.result("eth_getStorageAt", json!([contract, "0x0", "latest"])).await, word);
    assert_eq!(client.result("eth_getStorageAt", json!([contract, "0x0", "0x1"])).await, zero);
    assert_eq!(client.result("eth_getStorageAt", json!([NOBODY, "0x1"])).await, zero);
    let request = json!([{contract.to_string(): ["0x0", "0x1"], NOBODY.to_string(): ["0x0"]}]);
    let expected = json!({
        format!("{contract:#x}"): [word, zero], format!("{NOBODY:#x}"): [zero],
    });
    assert_eq!(client.result("eth_getStorageValues", request).await, expected);
    let empty = client.refusal("eth_getStorageValues", json!([{}, "latest"])).await;
    assert_eq!(empty, (-32602, "empty request".to_owned()));
}

#[tokio::test]
async fn a_block_that_is_not_there_has_no_state() {
    let node = node().await;
    let unknown = "0x00000000000000000000000000000000000000000000000000000000deadbeef";
    let rows = [
        (json!([BOB, "0x99"]), "header not found"),
        (json!([BOB, unknown]), "header for hash not found"),
        (json!([BOB, {"blockHash": unknown}]), "header for hash not found"),
    ];
    for (params, text) in rows {
        let refusal = node.client.refusal("eth_getBalance", params).await;
        assert_eq!(refusal, (-32000, text.to_owned()));
    }
}

#[tokio::test]
async fn the_pending_nonce_counts_the_pool() {
    let node = node().await;
    let client = node.client;
    let count = |tag: &'static str| async move {
        client.result("eth_getTransactionCount", json!([alice().address(), tag])).await
    };
    assert_eq!((count("latest").await, count("pending").await), (json!("0x0"), json!("0x0")));
    for nonce in [0, 1, 3] {
        let sent = json!([crate::fixture::raw(&transfer(nonce, 1))]);
        client.result("eth_sendRawTransaction", sent).await;
    }
    // Nonce 3 waits for 2.
    assert_eq!((count("latest").await, count("pending").await), (json!("0x0"), json!("0x2")));
}

#[tokio::test]
async fn proofs_come_from_the_node() {
    let node = node().await;
    let full = "0x0000000000000000000000000000000000000000000000000000000000000003";
    let proof = node.client.result("eth_getProof", json!([BOB, ["0x00", full]])).await;
    let expected = json!({
        "address": format!("{BOB:#x}"),
        "balance": "0x7",
        "nonce": "0x0",
        "codeHash": "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
        "storageHash": "0x0202020202020202020202020202020202020202020202020202020202020202",
        "accountProof": [format!("{BOB:#x}")],
        // A short key comes back as a number, a full one as it is: geth's way.
        "storageProof": [
            {"key": "0x0", "value": "0x0", "proof": []},
            {"key": full, "value": "0x3", "proof": []},
        ],
    });
    assert_eq!(proof, expected);
    let many = vec!["0x0"; 1025];
    let refusal = node.client.refusal("eth_getProof", json!([BOB, many])).await;
    assert_eq!(refusal, (-32602, "too many slots (max 1024)".to_owned()));
}
