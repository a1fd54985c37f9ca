//! Watches blocks appear while the load runs, and afterwards reads what they hold.

use crate::{
    http::Endpoint,
    rpc::Client,
    send::lane::{Load, Sent},
};
use alloy_primitives::{B256, U64, map::B256Map};
use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Heights asked for in one request.
const HEIGHTS_PER_REQUEST: usize = 200;
/// Transactions whose receipts are asked for in one request, more or less: some five megabytes.
const RECEIPTS_PER_REQUEST: u64 = 5_000;

/// Receipts asked for in one request when only some are read.
const SAMPLES_PER_REQUEST: usize = 20;

/// A block as it became visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenBlock {
    /// Its number.
    pub(crate) number: u64,
    /// Transactions in it.
    pub(crate) tx_count: u64,
    /// When it was seen, microseconds since the load's start.
    pub(crate) seen_us: u64,
}

/// Calls one of several nodes: the next one when one does not answer.
#[derive(Debug)]
pub(crate) struct AnyNode {
    clients: Vec<Client>,
    current: usize,
}

impl AnyNode {
    /// Callers of these nodes.
    pub(crate) fn new(endpoints: &[Endpoint]) -> Self {
        Self { clients: endpoints.iter().cloned().map(Client::new).collect(), current: 0 }
    }

    /// The caller in use.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.clients[self.current]
    }

    /// Uses the next node from now on.
    pub(crate) fn rotate(&mut self) {
        self.current = (self.current + 1) % self.clients.len();
    }

    /// Height of the last block.
    pub(crate) async fn head(&mut self) -> anyhow::Result<u64> {
        Ok(self.client().call::<U64>("eth_blockNumber", json!([])).await?.to())
    }

    async fn tx_counts(&mut self, heights: &[u64]) -> anyhow::Result<Vec<u64>> {
        let params = heights.iter().map(|height| json!([U64::from(*height)])).collect();
        let method = "eth_getBlockTransactionCountByNumber";
        let counts: Vec<U64> = self.client().batch(method, params).await?;
        Ok(counts.into_iter().map(|count| count.to()).collect())
    }
}

/// Records blocks above `after` until they hold as many transactions as `expected` says (`None`
/// while that is not known yet), or until the load's deadline.
pub(crate) async fn watch_blocks(
    load: Arc<Load>,
    after: u64,
    poll: Duration,
    expected: watch::Receiver<Option<u64>>,
) -> Vec<SeenBlock> {
    let mut node = AnyNode::new(&load.endpoints);
    let mut seen = Vec::new();
    let mut total = 0;
    let mut head = after;
    while Instant::now() < load.deadline {
        match new_blocks(&mut node, head).await {
            Ok(counts) => {
                let seen_us = load.now_us();
                for tx_count in counts {
                    head += 1;
                    total += tx_count;
                    seen.push(SeenBlock { number: head, tx_count, seen_us });
                }
            }
            Err(_) => node.rotate(),
        }
        if expected.borrow().is_some_and(|expected| total >= expected) {
            break;
        }
        tokio::time::sleep(poll).await;
    }
    seen
}

async fn new_blocks(node: &mut AnyNode, head: u64) -> anyhow::Result<Vec<u64>> {
    let new_head = node.head().await?;
    let heights: Vec<u64> = (head + 1..=new_head).take(HEIGHTS_PER_REQUEST).collect();
    node.tx_counts(&heights).await
}

/// What a receipt says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    transaction_hash: B256,
    /// Height of its block.
    pub(crate) block_number: U64,
    /// 1 for success.
    pub(crate) status: U64,
    /// Gas that the transaction took.
    pub(crate) gas_used: U64,
}

/// What a block says of its transactions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    number: U64,
    gas_used: U64,
    transactions: Vec<B256>,
}

/// Receipts of every transaction in some blocks.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// By transaction hash; of a hash that has several, the first.
    pub(crate) by_hash: B256Map<Receipt>,
    /// Hashes that have more than one.
    pub(crate) duplicates: Vec<B256>,
}

impl Receipts {
    /// Reads the receipts of blocks `from..=to`.
    pub(crate) async fn read(node: &mut AnyNode, from: u64, to: u64) -> anyhow::Result<Self> {
        let mut receipts = Self::default();
        let heights: Vec<u64> = (from..=to).collect();
        for heights in heights.chunks(HEIGHTS_PER_REQUEST) {
            let counts = node.tx_counts(heights).await?;
            let mut group = Vec::new();
            let mut group_tx_count = 0;
            for (height, tx_count) in heights.iter().zip(counts) {
                if group_tx_count + tx_count > RECEIPTS_PER_REQUEST {
                    receipts.read_group(node, std::mem::take(&mut group)).await?;
                    group_tx_count = 0;
                }
                if tx_count > 0 {
                    group.push(json!([U64::from(*height)]));
                    group_tx_count += tx_count;
                }
            }
            receipts.read_group(node, group).await?;
        }
        Ok(receipts)
    }

    /// Which block names each transaction of blocks `from..=to`, and receipts of `sample` of them, evenly
    /// spread. The others count as what the sample is: one that failed fails the reading.
    ///
    /// anvil needs time in the square of a block's transactions for its receipts.
    pub(crate) async fn read_some(
        node: &mut AnyNode,
        from: u64,
        to: u64,
        sample: usize,
    ) -> anyhow::Result<Self> {
        let mut receipts = Self::default();
        let mut hashes = Vec::new();
        for height in from..=to {
            let params = json!([U64::from(height), false]);
            let block: Contents = node.client().call("eth_getBlockByNumber", params).await?;
            let count = U64::from(block.transactions.len().max(1));
            for transaction_hash in block.transactions {
                hashes.push(transaction_hash);
                let receipt = Receipt {
                    transaction_hash,
                    block_number: block.number,
                    status: U64::ONE,
                    gas_used: block.gas_used / count,
                };
                if receipts.by_hash.insert(transaction_hash, receipt).is_some() {
                    receipts.duplicates.push(transaction_hash);
                }
            }
        }
        let step = hashes.len().div_ceil(sample.max(1)).max(1);
        let sampled: Vec<_> = hashes.iter().step_by(step).map(|hash| json!([hash])).collect();
        for group in sampled.chunks(SAMPLES_PER_REQUEST) {
            let read: Vec<Receipt> =
                node.client().batch("eth_getTransactionReceipt", group.to_vec()).await?;
            for receipt in read {
                receipts.by_hash.insert(receipt.transaction_hash, receipt);
            }
        }
        Ok(receipts)
    }

    async fn read_group(
        &mut self,
        node: &mut AnyNode,
        params: Vec<serde_json::Value>,
    ) -> anyhow::Result<()> {
        let blocks: Vec<Vec<Receipt>> =
            node.client().batch("eth_getBlockReceipts", params).await.context("receipts")?;
        for receipt in blocks.into_iter().flatten() {
            if self.by_hash.insert(receipt.transaction_hash, receipt).is_some() {
                self.duplicates.push(receipt.transaction_hash);
            }
        }
        Ok(())
    }

    /// Of these transactions: how many succeeded, which failed, which have no receipt.
    pub(crate) fn check<'a>(&self, hashes: impl IntoIterator<Item = &'a B256>) -> Confirmed {
        let mut confirmed = Confirmed::default();
        for hash in hashes {
            match self.by_hash.get(hash) {
                None => confirmed.lost.push(*hash),
                Some(receipt) if receipt.status == U64::ONE => confirmed.succeeded += 1,
                Some(_) => confirmed.failed.push(*hash),
            }
        }
        confirmed
    }
}

/// What receipts say of the transactions sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// Receipts with status 1.
    pub(crate) succeeded: u64,
    /// Receipts with status 0.
    pub(crate) failed: Vec<B256>,
    /// No receipt.
    pub(crate) lost: Vec<B256>,
}

/// Microseconds from sending to seeing the block, for each transaction that has a receipt.
pub(crate) fn inclusion_latencies(
    load: &Load,
    sent: &[Sent],
    receipts: &Receipts,
    seen: &[SeenBlock],
) -> Vec<u64> {
    let seen_us = |number: u64| {
        let place = seen.binary_search_by_key(&number, |block| block.number).ok()?;
        Some(seen[place].seen_us)
    };
    let latency = |sent: &Sent| {
        let receipt = receipts.by_hash.get(&load.txs[sent.index].hash)?;
        Some(seen_us(receipt.block_number.to())?.saturating_sub(sent.from_us))
    };
    sent.iter().filter_map(latency).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_is_confirmed_failed_or_lost() {
        let hash = B256::with_last_byte;
        let receipt = |last_byte, status: u64| Receipt {
            transaction_hash: hash(last_byte),
            block_number: U64::from(1),
            status: U64::from(status),
            gas_used: U64::from(21_000),
        };
        let by_hash = [(hash(1), receipt(1, 1)), (hash(2), receipt(2, 0))].into_iter().collect();
        let receipts = Receipts { by_hash, duplicates: Vec::new() };
        let expected = Confirmed { succeeded: 1, failed: vec![hash(2)], lost: vec![hash(3)] };
        assert_eq!(receipts.check(&[hash(1), hash(2), hash(3)]), expected);
    }
}
