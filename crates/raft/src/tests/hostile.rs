//! What a port on a network gets to see: nothing of it harms the cluster.

use super::harness::{CLUSTER, TestNode, cluster, config, item, leader};
use crate::{ApplyResponse, PROTOCOL_VERSION};
use blockraft_primitives::limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A hello as [`crate::transport`] describes it.
fn hello(magic: &[u8; 8], version: u16, cluster: [u8; 32], node: u64, plane: u8) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(version.to_be_bytes());
    out.extend(cluster);
    out.extend(node.to_be_bytes());
    out.extend([plane, 0]);
    out
}

/// Sends bytes and returns all that comes back until the node closes the connection.
async fn send(node: &TestNode, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&node.address).await.unwrap();
    // The node may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // A reset is a way to close, too.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

const MAGIC: &[u8; 8] = b"BLKRAFT\n";

#[tokio::test(flavor = "multi_thread")]
async fn garbage_strangers_and_giant_frames_harm_nothing() {
    let nodes = cluster(3, config()).await;
    let leader = leader(&nodes).await;
    let node = &nodes[&leader];

    assert_eq!(send(node, b"GET / HTTP/1.1\r\n\r\n").await, [0u8; 0]);
    assert_eq!(send(node, &[0xff; 4096]).await, [0u8; 0]);

    let verdict = |answer: Vec<u8>| (answer.len(), answer.last().copied());
    let other_version = hello(MAGIC, PROTOCOL_VERSION + 1, CLUSTER.0, 9, 4);
    assert_eq!(verdict(send(node, &other_version).await), (52, Some(2)));
    let other_cluster = hello(MAGIC, PROTOCOL_VERSION, [0; 32], 9, 4);
    assert_eq!(verdict(send(node, &other_cluster).await), (52, Some(3)));
    let own_id = hello(MAGIC, PROTOCOL_VERSION, CLUSTER.0, leader, 4);
    assert_eq!(verdict(send(node, &own_id).await), (52, Some(5)));
    let other_plane = hello(MAGIC, PROTOCOL_VERSION, CLUSTER.0, 9, 200);
    assert_eq!(verdict(send(node, &other_plane).await), (52, Some(6)));

    // A peer that announces a frame beyond the limit, and one that sends half a header.
    for length in [limits::FRAME_BYTES_MAX as u32 + 1, u32::MAX, 3] {
        let mut bytes = hello(MAGIC, PROTOCOL_VERSION, CLUSTER.0, 9, 1);
        bytes.extend(length.to_be_bytes());
        bytes.extend([1, 2, 3]);
        assert_eq!(verdict(send(node, &bytes).await), (52, Some(0)));
    }
    // Frames of every kind with nonsense in them are refused, and the connection goes on.
    for plane in [1, 2, 3] {
        let mut stream = TcpStream::connect(&node.address).await.unwrap();
        stream.write_all(&hello(MAGIC, PROTOCOL_VERSION, CLUSTER.0, 9, plane)).await.unwrap();
        let mut answer = vec![0; 52];
        stream.read_exact(&mut answer).await.unwrap();
        for kind in 0..8u8 {
            let mut frame = 15u32.to_be_bytes().to_vec();
            frame.extend(u64::from(kind).to_be_bytes());
            frame.push(kind);
            frame.extend([0xff; 6]);
            stream.write_all(&frame).await.unwrap();
            let length = stream.read_u32().await.unwrap();
            let mut answer = vec![0; length as usize];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!((answer[7], answer[8]), (kind, 1), "plane {plane}: {answer:?}");
        }
    }

    assert_eq!(node.raft.propose(item(1)).await, Ok(ApplyResponse::Admit(item(1))));
    assert_eq!(node.raft.status().borrow().leader, Some(leader));
}
