//! A node alone under a consensus client: blocks are built, named and made the head.

use crate::{
    client::{forkchoice_state, syncing, valid},
    world::{BOB, World, attributes, blob_transfer, genesis, genesis_with, transfer},
};
use alloy_primitives::{Address, B256};
use serde_json::json;

const FEES: Address = Address::repeat_byte(0xfe);

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_the_pool_become_a_block_only_when_the_client_says_so() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    for nonce in 0..3 {
        client.result("eth_sendRawTransaction", json!([transfer(nonce, 100)])).await;
    }
    assert_eq!(client.head().await, (0, genesis.hash()));

    let built = client.build(genesis.hash(), attributes(12, FEES)).await;
    assert_eq!((built.number(), built.parent(), built.transaction_count()), (1, genesis.hash(), 3));
    assert_eq!(client.new_payload(&built).await, valid(built.hash()));
    assert_eq!(client.head().await, (0, genesis.hash()));
    assert_eq!(client.set_head(built.hash()).await, valid(built.hash()));
    assert_eq!(client.head().await, (1, built.hash()));
    assert_eq!(client.result("eth_getBalance", json!([BOB, "latest"])).await, "0x12c");
    let pool = client.result("txpool_status", json!([])).await;
    assert_eq!(pool, json!({"pending": "0x0", "queued": "0x0"}));
    // Said twice, it changes nothing.
    assert_eq!(client.new_payload(&built).await, valid(built.hash()));
    assert_eq!(client.set_head(built.hash()).await, valid(built.hash()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_named_once_and_stays_what_it_is() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let state = forkchoice_state(genesis.hash(), B256::ZERO, B256::ZERO);
    let begin = |attributes| {
        let params = json!([state, attributes]);
        async move { client.result("engine_forkchoiceUpdatedV3", params).await["payloadId"].clone() }
    };
    let id = begin(attributes(12, FEES)).await;
    assert_eq!(begin(attributes(12, FEES)).await, id);
    let other = begin(attributes(12, BOB)).await;
    assert_ne!(other, id);
    let first = client.result("engine_getPayloadV5", json!([id])).await;
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    assert_eq!(client.result("engine_getPayloadV5", json!([id])).await, first);
    // A transaction that came before the payload is asked for is in it, and pays.
    let second = client.result("engine_getPayloadV5", json!([other])).await;
    assert_eq!(second["executionPayload"]["transactions"], json!([transfer(0, 100)]));
    assert_eq!(second["blockValue"], format!("{:#x}", 21_000 * 1_000));
    assert_eq!(second["blobsBundle"], json!({"commitments": [], "proofs": [], "blobs": []}));
    for (version, code) in [(1, -38005), (2, -38005), (3, -38005), (4, -38005)] {
        let method = format!("engine_getPayloadV{version}");
        assert_eq!(client.code(&method, json!([id])).await, code, "{method}");
    }
    assert_eq!(client.code("engine_getPayloadV5", json!(["0x0123456789abcdef"])).await, -38001);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_the_pool_come_with_the_block_that_includes_their_transaction() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let (raw, blob) = blob_transfer(0);
    let hash = client.result("eth_sendRawTransaction", json!([raw])).await;
    // The same again is the same success.
    assert_eq!(client.result("eth_sendRawTransaction", json!([raw])).await, hash);
    let pooled = client.result("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(pooled["blobVersionedHashes"], json!([blob]));
    assert!(pooled.get("blobs").is_none());
    let blobs = client.result("engine_getBlobsV2", json!([[blob]])).await;
    assert_eq!(blobs[0]["proofs"].as_array().unwrap().len(), 128);
    let unknown = json!([[blob, B256::repeat_byte(1)]]);
    assert!(client.result("engine_getBlobsV2", unknown.clone()).await.is_null());
    assert_eq!(client.code("engine_getBlobsV1", unknown).await, -38005);
    let many = json!([vec![blob; 129]]);
    assert_eq!(client.code("engine_getBlobsV2", many).await, -38004);

    let state = forkchoice_state(genesis.hash(), B256::ZERO, B256::ZERO);
    let params = json!([state, attributes(12, FEES)]);
    let id = client.result("engine_forkchoiceUpdatedV3", params).await["payloadId"].clone();
    let payload = client.result("engine_getPayloadV5", json!([id])).await;
    let bundle = &payload["blobsBundle"];
    assert_eq!(bundle["blobs"], json!([blobs[0]["blob"]]));
    assert_eq!(bundle["proofs"], blobs[0]["proofs"]);
    assert_eq!(bundle["commitments"].as_array().unwrap().len(), 1);

    // In the block the transaction is without its blobs.
    let built = client.build(genesis.hash(), attributes(12, FEES)).await;
    assert_eq!(built.versioned_hashes, [blob]);
    let included = built.payload["transactions"][0].as_str().unwrap();
    assert!(included.len() < 1_000);
    assert_eq!(built.payload["blobGasUsed"], "0x20000");
    assert_eq!(client.new_payload(&built).await, valid(built.hash()));
    assert_eq!(client.set_head(built.hash()).await, valid(built.hash()));
    let receipt = client.result("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!((&receipt["status"], &receipt["blobGasUsed"]), (&json!("0x1"), &json!("0x20000")));
    assert!(client.result("engine_getBlobsV2", json!([[blob]])).await.is_null());
    // Sent once more, it is known from the chain.
    assert_eq!(client.result("eth_sendRawTransaction", json!([raw])).await, hash);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_checked_after_the_head_has_moved() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let built = client.build(genesis.hash(), attributes(12, FEES)).await;
    let state = forkchoice_state(built.hash(), B256::ZERO, B256::ZERO);
    let late = json!([state, attributes(12, FEES)]);
    assert_eq!(client.code("engine_forkchoiceUpdatedV3", late).await, -38003);
    assert_eq!(client.head().await, (1, built.hash()));
    let old = json!({
        "timestamp": "0x18", "prevRandao": B256::ZERO, "suggestedFeeRecipient": FEES,
        "withdrawals": [],
    });
    assert_eq!(client.code("engine_forkchoiceUpdatedV3", json!([state, old])).await, -38003);
    assert_eq!(client.code("engine_forkchoiceUpdatedV2", json!([state, old])).await, -38005);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_have_their_transactions_and_withdrawals() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    let withdrawal =
        json!({"index": "0x1", "validatorIndex": "0x2", "address": BOB, "amount": "0x3"});
    let mut paying = attributes(12, FEES);
    paying["withdrawals"] = json!([withdrawal]);
    let first = client.build(genesis.hash(), paying).await;
    let second = client.build(first.hash(), attributes(24, FEES)).await;
    assert_eq!(client.new_payload(&first).await, valid(first.hash()));
    assert_eq!(client.set_head(second.hash()).await, valid(second.hash()));
    let wei = 100 + 3 * 1_000_000_000_u64;
    let balance = client.result("eth_getBalance", json!([BOB, "latest"])).await;
    assert_eq!(balance, format!("{wei:#x}"));

    let bodies = [
        json!({"transactions": [transfer(0, 100)], "withdrawals": [withdrawal]}),
        json!({"transactions": [], "withdrawals": []}),
    ];
    let hashes = json!([[second.hash(), B256::repeat_byte(9), first.hash()]]);
    let by_hash = client.result("engine_getPayloadBodiesByHashV1", hashes).await;
    assert_eq!(by_hash, json!([bodies[1], null, bodies[0]]));
    let by_range = |start: &str, count: &str| {
        let params = json!([start, count]);
        async move { client.result("engine_getPayloadBodiesByRangeV1", params).await }
    };
    assert_eq!(by_range("0x1", "0x5").await, json!(bodies));
    assert_eq!(by_range("0x2", "0x1").await, json!([bodies[1]]));
    assert_eq!(by_range("0x3", "0x20").await, json!([]));
    let method = "engine_getPayloadBodiesByRangeV1";
    for (params, code) in [
        (json!(["0x0", "0x1"]), -32602),
        (json!(["0x1", "0x0"]), -32602),
        (json!(["0x1", "0x401"]), -38004),
    ] {
        assert_eq!(client.code(method, params).await, code);
    }
    let many = json!([vec![B256::ZERO; 1025]]);
    assert_eq!(client.code("engine_getPayloadBodiesByHashV1", many).await, -38004);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_and_final_blocks_are_those_that_the_client_names() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    assert_eq!(client.block("finalized").await, None);
    let mut hashes = vec![genesis.hash()];
    for number in 1..=3 {
        let built = client.build(hashes[number - 1], attributes(12 * number as u64, FEES)).await;
        hashes.push(built.hash());
    }
    let updated = client.forkchoice(hashes[3], hashes[2], hashes[1]).await;
    assert_eq!(updated["payloadStatus"]["status"], "VALID");
    assert_eq!(client.block("latest").await, Some((3, hashes[3])));
    assert_eq!(client.block("safe").await, Some((2, hashes[2])));
    assert_eq!(client.block("finalized").await, Some((1, hashes[1])));

    let unknown = B256::repeat_byte(9);
    for (safe, finalized) in [(unknown, B256::ZERO), (B256::ZERO, unknown)] {
        let state = forkchoice_state(hashes[3], safe, finalized);
        assert_eq!(client.code("engine_forkchoiceUpdatedV3", json!([state])).await, -38002);
    }
    assert_eq!(client.set_head(unknown).await, syncing());
    assert_eq!(client.set_head(B256::ZERO).await, ("INVALID".to_owned(), None));
    // What lies below the last final block is no head any more.
    let updated = client.forkchoice(hashes[0], B256::ZERO, B256::ZERO).await;
    assert_eq!(updated["payloadStatus"]["status"], "VALID");
    assert_eq!(client.block("latest").await, Some((3, hashes[3])));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_on_after_a_restart() {
    let genesis = genesis();
    let mut world = World::start(&genesis, 1).await;
    let client = world.client(1);
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    let first = client.build(genesis.hash(), attributes(12, FEES)).await;
    assert_eq!(client.set_head(first.hash()).await, valid(first.hash()));
    let second = client.build(first.hash(), attributes(24, FEES)).await;
    let branch = client.build(first.hash(), attributes(25, FEES)).await;
    assert_eq!(client.set_head(second.hash()).await, valid(second.hash()));

    world.stop_node(1).await;
    world.start_node(1).await;
    world.ready(1).await;
    let client = world.client(1);
    assert_eq!(client.head().await, (2, second.hash()));
    // What was not the head is forgotten: the client names it again.
    assert_eq!(client.set_head(branch.hash()).await, syncing());
    assert_eq!(client.new_payload(&branch).await, valid(branch.hash()));
    assert_eq!(client.set_head(branch.hash()).await, valid(branch.hash()));
    assert_eq!(client.head().await, (2, branch.hash()));

    world.stop_node(1).await;
    world.start_node(1).await;
    world.ready(1).await;
    let client = world.client(1);
    assert_eq!(client.head().await, (2, branch.hash()));
    assert_eq!(client.result("eth_getBalance", json!([BOB, "latest"])).await, "0x64");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forks_that_are_in_force_and_that_are_to_come_are_told() {
    let blobs = json!({"target": 10, "max": 15, "baseFeeUpdateFraction": 8_346_193});
    let changes = json!({"bpo1Time": 1000, "blobSchedule": {"bpo1": blobs}});
    let world = World::start(&genesis_with(&changes), 1).await;
    let client = world.client(1);
    let before = client.result("eth_config", json!([])).await;
    assert_eq!(
        (&before["current"]["activationTime"], &before["current"]["chainId"]),
        (&json!(0), &json!("0x7"))
    );
    let later = &before["next"];
    assert_eq!((&later["activationTime"], &later["blobSchedule"]), (&json!(1000), &blobs));
    assert_eq!(&before["last"], later);
    assert_ne!(before["current"]["forkId"], later["forkId"]);
    for (name, contract) in
        [("precompiles", "P256VERIFY"), ("systemContracts", "BEACON_ROOTS_ADDRESS")]
    {
        assert!(before["current"][name][contract].is_string(), "{before}");
    }

    let genesis = client.head().await.1;
    let first = client.build(genesis, attributes(1000, FEES)).await;
    assert_eq!(client.set_head(first.hash()).await, valid(first.hash()));
    let after = client.result("eth_config", json!([])).await;
    assert_eq!(after, json!({"current": later, "next": null, "last": null}));
    world.stop().await;
}
