//! Whether all nodes hold the same chain.

use crate::{http::Endpoint, rpc::Client};
use alloy_primitives::{B256, U64};
use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::json;

/// Headers asked for in one request.
const HEIGHTS_PER_REQUEST: u64 = 200;

/// What two nodes must agree on at a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockId {
    hash: B256,
    state_root: B256,
}

/// Compares hash and state root of every block from 0 to `head` on all nodes. Errors name the first
/// height that differs.
pub(crate) async fn ensure_same_chain(endpoints: &[Endpoint], head: u64) -> anyhow::Result<()> {
    let mut clients: Vec<_> = endpoints.iter().cloned().map(Client::new).collect();
    let mut from = 0;
    while from <= head {
        let to = head.min(from + HEIGHTS_PER_REQUEST - 1);
        let mut chains = Vec::new();
        for client in &mut clients {
            chains.push((client.endpoint().clone(), blocks(client, from, to).await?));
        }
        let (first_endpoint, first) = &chains[0];
        for (endpoint, chain) in &chains[1..] {
            for (offset, (one, other)) in first.iter().zip(chain).enumerate() {
                let height = from + offset as u64;
                ensure!(
                    one == other,
                    "block {height} differs: {one:?} at {first_endpoint}, {other:?} at {endpoint}"
                );
            }
        }
        from = to + 1;
    }
    Ok(())
}

async fn blocks(client: &mut Client, from: u64, to: u64) -> anyhow::Result<Vec<BlockId>> {
    let params = (from..=to).map(|height| json!([U64::from(height), false])).collect();
    let blocks: Vec<Option<BlockId>> = client.batch("eth_getBlockByNumber", params).await?;
    let endpoint = client.endpoint();
    let missing = |index| format!("{endpoint} has no block {}", from + index as u64);
    blocks.into_iter().enumerate().map(|(i, block)| block.with_context(|| missing(i))).collect()
}
