//! Calls that change nothing.

use crate::fixture::{BOB, ECHO, LOOP, NOBODY, STORE, alice, node};
use serde_json::{Value, json};

/// `Error("user error")`, behind the zero byte that makes the echo revert with it.
const USER_ERROR: &str = "08c379a00000000000000000000000000000000000000000000000000000000000000020000000000000000000000000000000000000000000000000000000000000000a75736572206572726f7200000000000000000000000000000000000000000000";

#[tokio::test]
async fn a_call_returns_what_the_code_returns() {
    let node = node().await;
    let echo = node.deploy(0, ECHO);
    let client = node.client;
    let request = json!({"to": echo, "input": "0x010203"});
    for params in [json!([request]), json!([request, "latest"]), json!([request, "pending"])] {
        assert_eq!(client.result("eth_call", params).await, "0x010203");
    }
    // `data` is the old name.
    let old = json!([{"to": echo, "data": "0x01"}]);
    assert_eq!(client.result("eth_call", old).await, "0x01");
    // Before it was deployed there was nothing to run.
    assert_eq!(client.result("eth_call", json!([request, "0x0"])).await, "0x");
    let refusal = client.refusal("eth_call", json!([request, "0x99"])).await;
    assert_eq!(refusal, (-32000, "header not found".to_owned()));
}

#[tokio::test]
async fn a_revert_is_code_3_with_its_data() {
    let node = node().await;
    let echo = node.deploy(0, ECHO);
    let client = node.client;
    // The echo reverts with its whole input when that begins with a zero byte.
    let plain = json!([{"to": echo, "input": "0x00aa"}]);
    let expected = json!({"code": 3, "message": "execution reverted", "data": "0x00aa"});
    for method in ["eth_call", "eth_estimateGas"] {
        assert_eq!(client.error(method, plain.clone()).await, expected, "{method}");
    }
    // revert(0, 100) of a constant: code that copies itself and reverts with an `Error(string)`.
    let code = format!("0x6064600a5f3960645ffd{USER_ERROR}");
    let overrides = json!({NOBODY.to_string(): {"code": code}});
    let call = json!([{"to": NOBODY}, "latest", overrides]);
    let error = client.error("eth_call", call).await;
    assert_eq!(error["code"], 3);
    assert_eq!(error["message"], "execution reverted: user error");
    assert_eq!(error["data"], format!("0x{USER_ERROR}"));
}

#[tokio::test]
async fn halts_have_geths_names() {
    let node = node().await;
    let rows = [
        ("0xfe", "invalid opcode: INVALID"),
        ("0x600056", "invalid jump destination"),
        ("0x50", "stack underflow"),
        ("0x5b5f56", "out of gas"),
    ];
    for (code, text) in rows {
        let overrides = json!({NOBODY.to_string(): {"code": code}});
        let call = json!([{"to": NOBODY, "gas": "0x186a0"}, "latest", overrides]);
        let refusal = node.client.refusal("eth_call", call).await;
        assert!(refusal.0 == -32000 && refusal.1.starts_with(text), "{text}: {refusal:?}");
    }
}

#[tokio::test]
async fn overrides_change_state_and_block() {
    let node = node().await;
    let client = node.client;
    let word = |n: u64| json!(format!("{n:#066x}"));
    // sload(0); number; balance(self): each returned as a word.
    let rows: [(&str, Value, Value, Value); 4] = [
        (
            "0x5f545f5260205ff3",
            json!({"state": {word(0).as_str().unwrap(): word(9)}}),
            json!({}),
            word(9),
        ),
        (
            "0x5f545f5260205ff3",
            json!({"stateDiff": {word(0).as_str().unwrap(): word(8)}}),
            json!({}),
            word(8),
        ),
        ("0x435f5260205ff3", json!({}), json!({"number": "0x4d2"}), word(1234)),
        ("0x475f5260205ff3", json!({"balance": "0x7"}), json!({}), word(7)),
    ];
    for (code, mut account, block, expected) in rows {
        account["code"] = json!(code);
        let params = json!([{"to": NOBODY}, "latest", {NOBODY.to_string(): account}, block]);
        assert_eq!(client.result("eth_call", params).await, expected, "{code}");
    }
    // Without a price the base fee reads zero; with one it is the block's.
    let base_fee = json!({NOBODY.to_string(): {"code": "0x485f5260205ff3"}});
    let free = json!([{"to": NOBODY}, "latest", base_fee]);
    assert_eq!(client.result("eth_call", free).await, word(0));
    let priced = json!([
        {"from": alice().address(), "to": NOBODY, "gas": "0x186a0", "maxFeePerGas": "0x77359400"},
        "latest", base_fee,
    ]);
    let head = node.store.head().base_fee_per_gas.unwrap();
    assert_eq!(client.result("eth_call", priced).await, word(head));
}

#[tokio::test]
async fn a_call_nobody_can_pay_is_refused_before_it_runs() {
    let node = node().await;
    let request = json!([{"from": NOBODY, "to": BOB, "value": "0x1", "gas": "0x5208"}]);
    let text = format!(
        "err: insufficient funds for gas * price + value: address {NOBODY} have 0 want 1 (supplied gas 21000)"
    );
    assert_eq!(node.client.refusal("eth_call", request).await, (-32000, text));
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_gas_cap() {
    let node = node().await;
    let contract = node.deploy(0, LOOP);
    let call = json!([{"to": contract, "gas": "0xffffffffffff"}]);
    let refusal = node.client.refusal("eth_call", call).await;
    assert_eq!(refusal, (-32000, "out of gas".to_owned()));
    let estimate = node.client.refusal("eth_estimateGas", json!([{"to": contract}])).await;
    assert_eq!(estimate, (-32000, "gas required exceeds allowance (16777216)".to_owned()));
}

#[tokio::test]
async fn estimates_are_enough_and_not_much_more() {
    let node = node().await;
    let store = node.deploy(0, STORE);
    let client = node.client;
    let from = alice().address();
    let transfer = json!([{"from": from, "to": BOB, "value": "0x1"}]);
    assert_eq!(client.result("eth_estimateGas", transfer).await, "0x5208");

    let input = format!("0x{}", "11".repeat(32));
    let call = json!({"from": from, "to": store, "input": input});
    let estimate = client.result("eth_estimateGas", json!([call])).await;
    let estimate = u64::from_str_radix(&estimate.as_str().unwrap()[2..], 16).unwrap();
    let block = node.append(&[crate::fixture::call(1, store, &[0x11; 32])]);
    let used = block.receipts[0].cumulative_gas_used;
    assert!(estimate >= used && estimate <= used + used / 50, "{estimate} for {used}");

    let poor = json!([{"from": NOBODY, "to": BOB, "value": "0x1", "gasPrice": "0x77359400"}]);
    let refusal = client.refusal("eth_estimateGas", poor).await;
    assert_eq!(refusal, (-32000, "insufficient funds for transfer".to_owned()));
}

#[tokio::test]
async fn an_access_list_names_what_was_touched() {
    let node = node().await;
    let store = node.deploy(0, STORE);
    let call = json!([{"from": alice().address(), "to": store, "input": "0x01"}]);
    let list = node.client.result("eth_createAccessList", call).await;
    let zero = "0x0000000000000000000000000000000000000000000000000000000000000000";
    let expected = json!([{"address": format!("{store:#x}"), "storageKeys": [zero]}]);
    assert_eq!(list["accessList"], expected);
    assert!(list["gasUsed"].is_string() && list.get("error").is_none(), "{list}");

    let failing = json!([{"to": NOBODY}, "latest", {NOBODY.to_string(): {"code": "0x5f5f545ffd"}}]);
    let list = node.client.result("eth_createAccessList", failing).await;
    assert_eq!(list["error"], "execution reverted");
}
