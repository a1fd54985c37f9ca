//! A bit flips on the leader's disk while it runs: it finds out, says where, and leads no more.

use crate::harness::{Devnet, call, eventually, receipt, transfer};
use alloy_primitives::{Address, keccak256};
use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    time::Duration,
};

/// Flips a bit in the balance of an account's flat record, under the feet of whoever has it open.
fn flip(datadir: &std::path::Path, address: Address) -> (usize, u8) {
    let hashed = keccak256(address);
    let shard = usize::from(hashed[0]) * 4 / 256;
    let path = datadir.join(format!("state-{shard:02}/mdbx.dat"));
    let bytes = fs::read(&path).unwrap();
    let record = [hashed.as_slice(), address.as_slice()].concat();
    let places: Vec<usize> = bytes
        .windows(record.len())
        .enumerate()
        .filter(|(_, window)| *window == record)
        .map(|(place, _)| place + record.len() + 6)
        .collect();
    assert!(!places.is_empty(), "the account is on disk");
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    for place in places {
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.write_all(&[bytes[place] ^ 0x10]).unwrap();
    }
    (shard, hashed[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_state_is_damaged_says_where_and_steps_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Devnet::start(dir.path(), &[]);
    let leader = net.leader;
    let damaged = net.node(leader).client();
    let url = net.node(leader).url.clone();
    let datadir = net.node(leader).datadir.clone();
    // The last account of the genesis, which nobody touches: it is read from disk alone.
    let victim = net.keys.last().unwrap().address();
    let (shard, partition) = flip(&datadir, victim);

    eventually("the damage is found and another one leads", Duration::from_secs(60), async || {
        let status = call(&damaged, "blockraft_status", vec![]).await.ok()?;
        let fault = status["fault"].as_str()?.to_owned();
        assert!(fault.contains(&format!("shard {shard}, partition {partition:#04x}")), "{fault}");
        status["leader"].as_u64().filter(|now| *now != leader)
    })
    .await;
    let ready = readiness(&url).await;
    assert!(ready.0 == 503 && ready.1.contains("the state on disk is damaged"), "{ready:?}");
    let log = fs::read_to_string(datadir.join("node.log")).unwrap();
    assert!(log.contains("THE STATE ON DISK IS DAMAGED"), "the alarm is in the log");

    let other = net.nodes.iter().find(|node| node.id != leader).unwrap().client();
    let (hash, raw) = transfer(&net.keys[0], 0, Address::repeat_byte(7));
    call(&other, "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
    receipt(&other, hash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_starts_on_a_damaged_state_is_healed_before_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Devnet::start(dir.path(), &[]);
    let victim = net.keys.last().unwrap().address();
    let id = net.nodes.iter().map(|node| node.id).find(|id| *id != net.leader).unwrap();
    let leader = net.node(net.leader).client();
    let (hash, raw) = transfer(&net.keys[0], 0, Address::repeat_byte(7));
    call(&leader, "eth_sendRawTransaction", vec![raw.into()]).await.unwrap();
    receipt(&leader, hash).await;

    net.node(id).kill();
    let datadir = net.node(id).datadir.clone();
    flip(&datadir, victim);
    net.node(id).restart();
    let healed = net.node(id).client();
    let balance = || vec![victim.to_string().into(), "latest".into()];
    let expected = call(&leader, "eth_getBalance", balance()).await.unwrap();
    eventually("it serves the chain's state", Duration::from_secs(60), async || {
        let balance = call(&healed, "eth_getBalance", balance()).await.ok()?;
        assert_eq!(balance, expected, "nothing wrong is ever served");
        call(&healed, "eth_getTransactionReceipt", vec![hash.to_string().into()])
            .await
            .ok()
            .filter(|receipt| !receipt.is_null())
    })
    .await;
    let log = fs::read_to_string(datadir.join("node.log")).unwrap();
    assert!(log.contains("the state is looked through and healed"), "{log}");
}

/// Status and body of `GET /readyz`.
async fn readiness(url: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    (status, answer)
}
