//! RLPTests: what the encoding is of, and what is no encoding.

use crate::tests_in;
use alloy_primitives::{U256, hex};
use alloy_rlp::{BytesMut, Encodable, Header, PayloadView};
use serde_json::Value;

/// Encodes what a test says in JSON: texts, numbers (`#` before large ones), lists.
fn encode(value: &Value, out: &mut dyn alloy_rlp::BufMut) {
    match value {
        Value::String(text) => match text.strip_prefix('#') {
            Some(digits) => encode_decimal(digits, out),
            None => text.as_bytes().encode(out),
        },
        Value::Number(number) => number.as_u64().unwrap().encode(out),
        Value::Array(items) => {
            let mut payload = BytesMut::new();
            items.iter().for_each(|item| encode(item, &mut payload));
            Header { list: true, payload_length: payload.len() }.encode(out);
            out.put_slice(&payload);
        }
        other => panic!("no RLP of {other}"),
    }
}

/// One of the numbers has more than 256 bits.
fn encode_decimal(digits: &str, out: &mut dyn alloy_rlp::BufMut) {
    let number = alloy_primitives::U512::from_str_radix(digits, 10).unwrap();
    if number.bit_len() <= 256 {
        return number.to::<U256>().encode(out);
    }
    number.to_be_bytes_trimmed_vec().as_slice().encode(out);
}

/// Whether `bytes` are exactly one item, to the bottom.
fn is_item(mut bytes: &[u8]) -> bool {
    parts_are_items(&mut bytes) && bytes.is_empty()
}

fn parts_are_items(bytes: &mut &[u8]) -> bool {
    match Header::decode_raw(bytes) {
        Ok(PayloadView::String(_)) => true,
        Ok(PayloadView::List(items)) => items.into_iter().all(is_item),
        Err(_) => false,
    }
}

#[test]
fn the_public_rlp_tests_pass() {
    let Some(tests) = tests_in("/RLPTests/") else { return };
    let (mut valid, mut invalid) = (0, 0);
    for (name, test) in &tests {
        let bytes = hex::decode(test["out"].as_str().unwrap()).unwrap();
        if test["in"] == "INVALID" {
            assert!(!is_item(&bytes), "{name} is taken");
            invalid += 1;
            continue;
        }
        assert!(is_item(&bytes), "{name} is refused");
        if test["in"] != "VALID" {
            let mut encoded = Vec::new();
            encode(&test["in"], &mut encoded);
            assert_eq!(hex::encode(&encoded), hex::encode(&bytes), "{name}");
        }
        valid += 1;
    }
    println!("RLPTests: {valid} valid, {invalid} invalid");
    assert!(valid >= 29 && invalid >= 26, "only {valid} and {invalid} were checked");
}
