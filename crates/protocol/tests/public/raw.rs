//! The raw transactions of the specification's `eth_sendRawTransaction` cases, one with blobs among them.

use crate::{files_in, transactions::rules_on};
use alloy_primitives::{B256, hex};
use blockraft_protocol::{decode, hash_of};
use serde_json::Value;

const CHAIN_ID: u64 = 3_503_995_874_084_926;

#[test]
fn what_the_specification_sends_is_taken_under_its_hash() {
    let cases = files_in("execution-apis.tar.zst", "/tests/eth_sendRawTransaction/", ".io");
    let Some(cases) = cases else { return };
    let mut blobs = 0;
    for (name, text) in &cases {
        let line = |mark: &str| -> Value {
            let line = text.lines().find_map(|line| line.strip_prefix(mark)).unwrap();
            serde_json::from_str(line).unwrap()
        };
        let raw = hex::decode(line(">>")["params"][0].as_str().unwrap()).unwrap();
        let hash: B256 = line("<<")["result"].as_str().unwrap().parse().unwrap();
        let tx =
            decode(&raw, &rules_on(CHAIN_ID, "Osaka")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((*tx.tx_hash(), hash_of(&raw)), (hash, hash), "{name}");
        blobs += usize::from(tx.is_eip4844());
    }
    assert!(cases.len() >= 5 && blobs == 1, "{} cases, {blobs} with blobs", cases.len());
}
