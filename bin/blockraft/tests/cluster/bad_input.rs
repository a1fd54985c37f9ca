//! What people get wrong, and what a hostile peer may send: a clear error each, and no harm.

use crate::harness::{
    BLOCKRAFT, Devnet, block_number, blockraft, call, eventually, free_ports, transfer,
};
use alloy_primitives::Address;
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    time::Duration,
};

fn fails(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "should fail: {text}{}", String::from_utf8_lossy(&stdout));
    text
}

#[test]
fn a_port_in_use_is_named() {
    let port = free_ports(1);
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let text = fails(&mut blockraft(&["dev", "--port", &port.to_string()]));
    assert!(text.contains(&format!("127.0.0.1:{port} is not free")), "{text}");
}

#[test]
fn a_data_directory_of_another_genesis_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = |chain_id: u64| {
        let path = dir.path().join(format!("{chain_id}.json"));
        let config = json!({ "chainId": chain_id, "homesteadBlock": 0 });
        let body =
            json!({ "config": config, "gasLimit": "0x1c9c380", "difficulty": "0x1", "alloc": {} });
        let mut body = body;
        body["timestamp"] = json!(format!("0x{chain_id:x}"));
        std::fs::write(&path, body.to_string()).unwrap();
        path
    };
    let datadir = dir.path().join("data");
    let init = |chain_id: u64| {
        let mut command = Command::new(BLOCKRAFT);
        command.arg("init").arg("--genesis").arg(genesis(chain_id)).arg("--datadir").arg(&datadir);
        command
    };
    assert!(init(1).status().unwrap().success());
    assert!(init(1).status().unwrap().success(), "the same genesis again changes nothing");
    let text = fails(&mut init(2));
    assert!(text.contains("belongs to the chain with genesis hash"), "{text}");
}

#[test]
fn malformed_files_are_named_with_their_fault() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "{ \"config\": ").unwrap();
    let file = file.to_str().unwrap();
    let datadir = dir.path().join("data");
    let datadir = datadir.to_str().unwrap();
    let text = fails(&mut blockraft(&["init", "--genesis", file, "--datadir", datadir]));
    assert!(text.contains("invalid genesis file"), "{text}");
    let text = fails(&mut blockraft(&["node", "--config", file]));
    assert!(text.contains("config file"), "{text}");
    let text = fails(&mut blockraft(&["status", "--rpc", "http://127.0.0.1:1"]));
    assert!(text.contains("no answer from http://127.0.0.1:1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_refused_with_its_own_error_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let net = Devnet::start(dir.path(), &["--block-time", "0.1"]);
    let client = net.nodes[1].client();

    for node in &net.nodes {
        send_garbage(&node.raft);
    }
    let error = |answer: Result<Value, jsonrpsee::core::ClientError>| match answer {
        Err(jsonrpsee::core::ClientError::Call(error)) => {
            (error.code(), error.message().to_owned())
        }
        other => panic!("should be refused: {other:?}"),
    };
    let raw = |text: &str| call(&client, "eth_sendRawTransaction", vec![json!(text)]);
    let (_, good) = transfer(&net.keys[0], 0, Address::repeat_byte(1));

    let (code, message) = error(raw("0x").await);
    assert_eq!((code, message.as_str()), (-32000, "typed transaction too short"));
    let (code, message) = error(raw("0xf8").await);
    assert!(code == -32000 && message.contains("rlp"), "{code} {message}");
    let (code, _) = error(raw(&good[..good.len() - 2]).await);
    assert_eq!(code, -32000);
    let oversize = format!("0x02{}", "00".repeat(200_000));
    let (code, message) = error(raw(&oversize).await);
    assert!(code == -32000 && message.starts_with("oversized data"), "{code} {message}");
    // A flipped bit of the signature recovers another sender, who has nothing.
    let mut flipped = good.clone();
    let last = flipped.pop().unwrap();
    flipped.push(if last == '0' { '1' } else { '0' });
    let (code, message) = error(raw(&flipped).await);
    assert!(code == -32000 && !message.is_empty(), "{code} {message}");
    let unknown =
        call(&client, "eth_getBlockByNumber", vec![json!("0xffffff"), json!(false)]).await;
    assert_eq!(unknown.unwrap(), Value::Null);
    let (code, message) = error(call(&client, "eth_nonsense", vec![]).await);
    assert_eq!(code, -32601);
    assert_eq!(message, "the method eth_nonsense does not exist/is not available");

    let before = block_number(&client).await.unwrap();
    eventually("the chain goes on", Duration::from_secs(10), async || {
        block_number(&client).await.filter(|n| *n > before)
    })
    .await;
    let answer = raw(&good).await.unwrap();
    assert!(answer.is_string());
}

/// Bytes that are no handshake; the node hangs up.
fn send_garbage(address: &str) {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 1]] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The node may hang up at any of these; it must not wait for more.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}
