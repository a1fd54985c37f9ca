//! The transport by itself: many requests at a time, and what goes wrong.

use super::harness::{CLUSTER, Echo, PATIENCE};
use crate::{
    Handler, Plane, Refused, Rejection, Spawner, Transport, TransportConfig, TransportError,
};
use alloy_primitives::B256;
use blockraft_primitives::NodeId;
use blockraft_storage::Identity;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

fn transport(cluster_id: B256, node_id: NodeId) -> (Transport, Spawner) {
    let spawner = Spawner::default();
    let identity = Identity { cluster_id, node_id };
    (Transport::new(identity, TransportConfig::default(), spawner.clone()), spawner)
}

async fn serve(transport: &Transport, handler: Arc<dyn Handler>) -> String {
    let listener = Transport::bind("127.0.0.1:0").await.unwrap();
    transport.serve(listener, handler).unwrap().to_string()
}

async fn ask(transport: &Transport, peer: NodeId, text: &str) -> Result<Bytes, TransportError> {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    transport.request(peer, Plane::Data, 1, payload, PATIENCE).await
}

/// Answers a request when the test lets it.
struct Gated(Arc<Semaphore>);

impl Handler for Gated {
    fn handle(
        &self,
        _peer: NodeId,
        _plane: Plane,
        _kind: u8,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        let gate = Arc::clone(&self.0);
        async move {
            if payload == "slow" {
                gate.acquire().await.expect("never closed").forget();
            }
            Ok(payload)
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_answers_overtake_slow_ones_on_one_connection() {
    let (server, _spawner) = transport(CLUSTER, 1);
    let gate = Arc::new(Semaphore::new(0));
    let address = serve(&server, Arc::new(Gated(Arc::clone(&gate)))).await;
    let (client, _spawner) = transport(CLUSTER, 2);
    client.set_address(1, &address);
    let slow = tokio_util::task::TaskTracker::new().spawn({
        let client = client.clone();
        async move { ask(&client, 1, "slow").await }
    });
    for n in 0..100 {
        let text = format!("quick {n}");
        assert_eq!(ask(&client, 1, &text).await, Ok(Bytes::from(text)));
    }
    assert!(!slow.is_finished());
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap(), Ok(Bytes::from("slow")));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let (server, _spawner) = transport(CLUSTER, 1);
    let gate = Arc::new(Semaphore::new(0));
    let gated = serve(&server, Arc::new(Gated(gate))).await;
    let echo = serve(&server, Arc::new(Echo)).await;
    let (client, _spawner) = transport(CLUSTER, 2);

    assert_eq!(ask(&client, 1, "x").await, Err(TransportError::UnknownPeer(1)));

    client.set_address(1, "127.0.0.1:1");
    let refused = ask(&client, 1, "x").await;
    assert!(matches!(refused, Err(TransportError::Unreachable { peer: 1, .. })), "{refused:?}");

    client.set_address(1, &gated);
    let after = Duration::from_millis(50);
    let late = client.request(1, Plane::Data, 1, Bytes::from("slow"), after).await;
    assert_eq!(late, Err(TransportError::Timeout { peer: 1, after }));

    client.set_address(1, &echo);
    let refused = client.request(1, Plane::Data, 0, Bytes::new(), PATIENCE).await;
    assert_eq!(refused, Err(TransportError::Refused { peer: 1, message: "no".to_owned() }));

    // Somebody else answers at the address.
    client.set_address(7, &echo);
    let rejection = Rejection::Node { got: 1, expected: 7 };
    assert_eq!(ask(&client, 7, "x").await, Err(TransportError::Rejected { peer: 7, rejection }));

    let (stranger, _spawner) = transport(B256::ZERO, 2);
    stranger.set_address(1, &echo);
    let rejection = Rejection::Cluster { got: CLUSTER, expected: B256::ZERO };
    assert_eq!(ask(&stranger, 1, "x").await, Err(TransportError::Rejected { peer: 1, rejection }));

    let (twin, _spawner) = transport(CLUSTER, 1);
    twin.set_address(1, &echo);
    let rejection = Rejection::SameNode(1);
    assert_eq!(ask(&twin, 1, "x").await, Err(TransportError::Rejected { peer: 1, rejection }));
}

#[tokio::test(flavor = "multi_thread")]
async fn link_connects_again_after_the_peer_was_away() {
    let (server, spawner) = transport(CLUSTER, 1);
    let address = serve(&server, Arc::new(Echo)).await;
    let (client, _spawner) = transport(CLUSTER, 2);
    client.set_address(1, &address);
    assert_eq!(ask(&client, 1, "before").await, Ok(Bytes::from("before")));

    spawner.stop.cancel();
    spawner.tasks.close();
    spawner.tasks.wait().await;
    let away = ask(&client, 1, "away").await;
    assert!(
        matches!(
            away,
            Err(TransportError::Unreachable { .. } | TransportError::Disconnected { .. })
        ),
        "{away:?}"
    );

    let (server, _spawner) = transport(CLUSTER, 1);
    let listener = Transport::bind(&address).await.unwrap();
    server.serve(listener, Arc::new(Echo)).unwrap();
    let back = async {
        while ask(&client, 1, "after").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("connected again");
}
