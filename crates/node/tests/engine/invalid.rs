//! Payloads that are no blocks of the chain.

use crate::{
    client::{Client, Payload, invalid, syncing, valid},
    world::{World, attributes, genesis, transfer},
};
use alloy_consensus::{Block, TxEnvelope, proofs::calculate_transaction_root};
use alloy_primitives::{Address, B256, Bloom, U256, bytes};
use alloy_rpc_types_engine::{
    CancunPayloadFields, ExecutionPayload, ExecutionPayloadSidecar, PraguePayloadFields,
};
use serde_json::json;

const FEES: Address = Address::repeat_byte(0xfe);

/// The block of a payload.
fn block_of(payload: &Payload) -> Block<TxEnvelope> {
    let cancun = CancunPayloadFields {
        parent_beacon_block_root: payload.beacon_root,
        versioned_hashes: payload.versioned_hashes.clone(),
    };
    let prague =
        PraguePayloadFields::new(alloy_eips::eip7685::Requests::new(payload.requests.clone()));
    let sidecar = ExecutionPayloadSidecar::v4(cancun, prague);
    let execution: ExecutionPayload = serde_json::from_value(payload.payload.clone()).unwrap();
    execution.try_into_block_with_sidecar(&sidecar).unwrap()
}

/// The payload with another header, whose hash is right.
fn changed(payload: &Payload, change: impl FnOnce(&mut Block<TxEnvelope>)) -> Payload {
    let mut block = block_of(payload);
    change(&mut block);
    Payload { requests: payload.requests.clone(), ..Payload::of_block(4, &block) }
}

async fn refusal(client: &Client, payload: &Payload) -> (String, String) {
    let status = client.result(payload.method(), payload.params()).await;
    let text = status["validationError"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
    (status["latestValidHash"].as_str().unwrap_or("null").to_owned(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_is_invalid_and_says_which() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let first = client.build(genesis.hash(), attributes(12, FEES)).await;
    assert_eq!(client.set_head(first.hash()).await, valid(first.hash()));
    client.result("eth_sendRawTransaction", json!([transfer(0, 100)])).await;
    let good = client.build(first.hash(), attributes(24, FEES)).await;
    assert_eq!(good.transaction_count(), 1);
    assert_eq!(changed(&good, |_| ()).hash(), good.hash());

    let rows: [(Payload, &str); 12] = [
        (changed(&good, |b| b.header.state_root = B256::repeat_byte(1)), "state root"),
        (changed(&good, |b| b.header.receipts_root = B256::repeat_byte(1)), "receipts root"),
        (changed(&good, |b| b.header.logs_bloom = Bloom::repeat_byte(1)), "bloom"),
        (changed(&good, |b| b.header.gas_used = 21_001), "gas used"),
        (changed(&good, |b| b.header.gas_limit += b.header.gas_limit), "gas limit"),
        (changed(&good, |b| b.header.number = 3), "number"),
        (changed(&good, |b| b.header.timestamp = 12), "timestamp"),
        (changed(&good, |b| b.header.base_fee_per_gas = Some(1)), "base fee"),
        (changed(&good, |b| b.header.blob_gas_used = Some(131_072)), "blob gas used"),
        (changed(&good, |b| b.header.excess_blob_gas = Some(131_072)), "excess blob gas"),
        (changed(&good, |b| b.header.extra_data = vec![0; 33].into()), "extra data"),
        (
            // Twice the same transaction: its nonce is used.
            changed(&good, |b| {
                let again = b.body.transactions[0].clone();
                b.body.transactions.push(again);
                b.header.transactions_root = calculate_transaction_root(&b.body.transactions);
            }),
            "nonce",
        ),
    ];
    for (payload, expected) in rows {
        let (latest_valid, text) = refusal(&client, &payload).await;
        assert_eq!(latest_valid, first.hash().to_string(), "{expected}: {text}");
        assert!(text.to_lowercase().contains(expected), "{expected}: {text}");
        // It stays so, its children are no better, and it is no head.
        assert_eq!(client.new_payload(&payload).await, invalid(first.hash()));
        assert_eq!(client.set_head(payload.hash()).await, invalid(first.hash()));
        let child = changed(&good, |b| {
            b.header.parent_hash = payload.hash();
            b.header.number = 3;
        });
        assert_eq!(client.new_payload(&child).await, invalid(first.hash()));
    }
    assert_eq!(client.head().await, (1, first.hash()));
    // A refused payload leaves no trace: the good one is what it was.
    assert_eq!(client.new_payload(&good).await, valid(good.hash()));
    assert_eq!(client.set_head(good.hash()).await, valid(good.hash()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_beside_a_payload_is_part_of_it() {
    let genesis = genesis();
    let world = World::start(&genesis, 1).await;
    let client = world.client(1);
    let good = client.build(genesis.hash(), attributes(12, FEES)).await;
    let mut rows = Vec::new();
    for (text, change) in [
        ("block hash mismatch", Payload { beacon_root: B256::repeat_byte(5), ..good.clone() }),
        ("block hash mismatch", Payload { requests: vec![bytes!("00ff")], ..good.clone() }),
        (
            "expected blob versioned hashes",
            Payload { versioned_hashes: vec![B256::repeat_byte(1)], ..good.clone() },
        ),
    ] {
        rows.push((text, change));
    }
    let mut other = good.clone();
    other.payload["gasUsed"] = json!("0x1");
    rows.push(("block hash mismatch", other));
    let mut fee = good.clone();
    fee.payload["baseFeePerGas"] = json!(U256::MAX);
    rows.push(("base fee", fee));
    for (expected, payload) in rows {
        let (latest_valid, text) = refusal(&client, &payload).await;
        assert_eq!(latest_valid, "null", "{text}");
        assert!(text.starts_with(expected), "{text}");
    }
    // An orphan is not invalid: its parent may come yet.
    let orphan = changed(&good, |b| b.header.parent_hash = B256::repeat_byte(8));
    assert_eq!(client.new_payload(&orphan).await, syncing());
    assert_eq!(client.new_payload(&good).await, valid(good.hash()));
    world.stop().await;
}
