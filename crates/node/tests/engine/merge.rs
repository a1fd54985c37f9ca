//! Where a consensus client takes over a chain of proof of work: at the block that reached the terminal total
//! difficulty, at no other.

use crate::{
    client::{Client, Payload, invalid, valid},
    suites::unpacked,
    world::World,
};
use alloy_consensus::{Block, TxEnvelope};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bloom};
use alloy_rlp::{Decodable, Encodable};
use blockraft_primitives::ClusterGenesis;

/// 54 blocks from Frontier on, with their genesis file.
fn every_fork() -> Option<(ClusterGenesis, Vec<Block<TxEnvelope>>)> {
    let folder = "execution-apis/tests/";
    let wanted = |name: &str| {
        name == format!("{folder}chain.rlp") || name == format!("{folder}genesis.json")
    };
    let (_keep, files) = unpacked("execution-apis.tar.zst", wanted)?;
    let [chain, genesis] = &files[..] else { panic!("{files:?}") };
    let genesis = ClusterGenesis::from_json(&std::fs::read_to_string(genesis).unwrap()).unwrap();
    let bytes = std::fs::read(chain).unwrap();
    let mut rest = &bytes[..];
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        blocks.push(Block::decode(&mut rest).unwrap());
    }
    Some((genesis, blocks))
}

fn encoded(blocks: &[Block<TxEnvelope>]) -> Vec<u8> {
    let mut out = Vec::new();
    blocks.iter().for_each(|block| block.encode(&mut out));
    out
}

fn payload_of(genesis: &ClusterGenesis, block: &Block<TxEnvelope>) -> Payload {
    let time = block.header.timestamp;
    let version = match &genesis.spec {
        spec if spec.is_prague_active_at_timestamp(time) => 4,
        spec if spec.is_cancun_active_at_timestamp(time) => 3,
        spec if spec.is_shanghai_active_at_timestamp(time) => 2,
        _ => 1,
    };
    Payload::of_block(version, block)
}

/// An empty block after the merge on any parent, as far as a header can tell.
fn child_of(parent: &Block<TxEnvelope>, like: &Block<TxEnvelope>) -> Block<TxEnvelope> {
    let mut child = like.clone();
    child.header.parent_hash = parent.header.hash_slow();
    child.header.number = parent.header.number + 1;
    child.header.timestamp = parent.header.timestamp + 10;
    child.header.logs_bloom = Bloom::ZERO;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_taken_over_at_the_block_that_reached_the_terminal_difficulty() {
    let Some((genesis, blocks)) = every_fork() else { return };
    let first = blocks.iter().position(|block| block.header.difficulty.is_zero()).unwrap();
    let (work, stake) = blocks.split_at(first);
    let refused = |client: Client, head: B256| async move {
        assert_eq!(client.set_head(head).await, invalid(B256::ZERO));
    };

    // One block short of it nothing can be taken over.
    let short = &work[..first - 1];
    let world = World::start_over(&genesis, &encoded(short)).await;
    let client = world.client(1);
    let head = short.last().unwrap();
    assert_eq!(client.head().await.1, head.header.hash_slow());
    refused(client, head.header.hash_slow()).await;
    refused(client, genesis.hash()).await;
    for parent in [head, &short[0]] {
        let child = payload_of(&genesis, &child_of(parent, &stake[0]));
        assert_eq!(client.new_payload(&child).await, invalid(B256::ZERO));
    }
    world.stop().await;

    // At it, no block below it can.
    let world = World::start_over(&genesis, &encoded(work)).await;
    let client = world.client(1);
    let terminal = work.last().unwrap().header.hash_slow();
    assert_eq!(client.head().await.1, terminal);
    refused(client, head.header.hash_slow()).await;
    let child = payload_of(&genesis, &child_of(head, &stake[0]));
    assert_eq!(client.new_payload(&child).await, invalid(B256::ZERO));
    assert_eq!(client.set_head(terminal).await, valid(terminal));
    // What is wrong on it has no valid ancestor that the consensus client could name.
    let mut wrong = stake[0].clone();
    wrong.header.state_root = B256::repeat_byte(1);
    assert_eq!(client.new_payload(&payload_of(&genesis, &wrong)).await, invalid(B256::ZERO));
    // From there on every block is a payload, as long as its requests, which are not in it, are none.
    let mut last = (0, terminal);
    for block in stake {
        if block.header.requests_hash.is_some_and(|hash| hash != EMPTY_REQUESTS_HASH) {
            break;
        }
        let payload = payload_of(&genesis, block);
        let hash = payload.hash();
        assert_eq!(client.new_payload(&payload).await, valid(hash), "{}", block.header.number);
        assert_eq!(client.set_head(hash).await, valid(hash));
        last = (block.header.number, hash);
    }
    assert_eq!(last.0, 44, "Paris, Shanghai and Cancun");
    assert_eq!(client.head().await, last);
    // Back among the blocks after the merge, to the last before it, and no further.
    assert_eq!(client.set_head(stake[0].header.hash_slow()).await.0, "VALID");
    assert_eq!(client.set_head(terminal).await, valid(terminal));
    refused(client, head.header.hash_slow()).await;
    world.stop().await;
}
