//! The OpenRPC document describes what is served.

use crate::fixture::node;
use serde_json::{Value, json};

#[tokio::test]
async fn what_is_registered_and_what_is_documented_are_the_same() {
    let node = node().await;
    let document = node.client.result("rpc.discover", json!([])).await;
    let text = include_str!("../../../../rpc-spec/openrpc.json");
    assert_eq!(document, serde_json::from_str::<Value>(text).unwrap());
    let methods = document["methods"].as_array().unwrap().iter();
    let documented: Vec<&str> = methods.map(|method| method["name"].as_str().unwrap()).collect();
    let registered: Vec<&str> = node.running.method_names().iter().copied().collect();
    // Both sorted, so a method has one place, and none is there twice.
    assert_eq!(documented, registered);
}
