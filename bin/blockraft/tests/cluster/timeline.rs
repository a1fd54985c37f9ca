//! Each node tells what it saw of a transaction's way.

use crate::harness::{Devnet, call, eventually, receipt, transfer};
use alloy_primitives::Address;
use serde_json::Value;
use std::time::Duration;

/// Stages by name, in the order in which a transaction passes them.
const STAGES: [&str; 9] = [
    "received",
    "admitted",
    "begun",
    "inBlock",
    "executed",
    "rooted",
    "proposed",
    "committed",
    "applied",
];

fn seen(timeline: &Value) -> Vec<&'static str> {
    STAGES.into_iter().filter(|stage| !timeline["stages"][*stage].is_null()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_builder_and_the_third_node_each_tell_their_part_of_a_timeline() {
    let dir = tempfile::tempdir().unwrap();
    let net = Devnet::start(dir.path(), &["--block-time", "0"]);
    let gateway = net.nodes.iter().find(|node| node.id != net.leader).unwrap();
    let (hash, raw) = transfer(&net.keys[0], 0, Address::repeat_byte(1));
    call(&gateway.client(), "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
    let mut builders = 0;
    for node in &net.nodes {
        let client = node.client();
        let block = receipt(&client, hash).await["blockHash"].clone();
        let timeline = eventually("a timeline", Duration::from_secs(20), async || {
            let known = call(&client, "blockraft_txTimeline", vec![hash.to_string().into()]).await;
            known.ok().filter(|timeline| !timeline.is_null())
        })
        .await;
        assert_eq!(timeline["blockHash"], block);
        assert_eq!(timeline["nodeId"], node.id);
        let mut expected = vec!["admitted", "committed", "applied"];
        if node.id == gateway.id {
            expected.insert(0, "received");
        }
        if timeline["builderId"] == node.id {
            builders += 1;
            let made = ["begun", "inBlock", "executed", "rooted", "proposed"];
            let at = expected.len() - 2;
            expected.splice(at..at, made);
        }
        assert_eq!(seen(&timeline), expected, "{timeline}");
        // A block may be begun while the transaction is being admitted: those two have no order.
        let at = |stage: &str| timeline["stages"][stage].as_u64();
        let way = |stages: &[&str]| stages.iter().filter_map(|s| at(s)).collect::<Vec<_>>();
        assert!(way(&STAGES[..2]).is_sorted() && way(&STAGES[2..]).is_sorted(), "{timeline}");
    }
    assert_eq!(builders, 1);
}
