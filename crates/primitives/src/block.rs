//! Transactions, receipts and blocks as the cluster passes them around.

use crate::StateDiff;
use alloy_consensus::{
    Header, ReceiptEnvelope, ReceiptWithBloom, Sealed, Transaction as _, TxEnvelope, TxType,
    proofs::{calculate_receipt_root, calculate_transaction_root},
    transaction::Recovered,
};
use alloy_primitives::{B256, Bloom, BloomInput};
use std::sync::Arc;

/// A decoded transaction whose sender is known. Recovery happens once, at the gateway.
pub type Transaction = Arc<Recovered<TxEnvelope>>;

/// A receipt without its bloom, which is derived from the logs.
pub type Receipt = alloy_consensus::Receipt;

/// A block with its header, its transactions and what they did: all that a client can ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedBlock {
    /// The header and its hash.
    pub header: Sealed<Header>,
    /// In block order.
    pub transactions: Vec<Transaction>,
    /// One a transaction, in block order.
    pub receipts: Vec<Receipt>,
}

/// A sealed block and what it changed in the state: what one `Block` entry of the log comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct CommittedBlock {
    /// The block.
    pub block: Arc<SealedBlock>,
    /// Its state changes.
    pub diff: Arc<StateDiff>,
}

impl SealedBlock {
    /// Block height.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// Block hash.
    pub fn hash(&self) -> B256 {
        self.header.hash()
    }

    /// Gas used by the transaction at `index` alone.
    pub fn gas_used_by(&self, index: usize) -> u64 {
        let before = index.checked_sub(1).map_or(0, |i| self.receipts[i].cumulative_gas_used);
        self.receipts[index].cumulative_gas_used - before
    }

    /// How many logs the block's earlier transactions emitted: the log index of the first log of `index`.
    pub fn first_log_index(&self, index: usize) -> usize {
        self.receipts[..index].iter().map(|r| r.logs.len()).sum()
    }

    /// Wei a gas that the transaction at `index` paid (EIP-1559).
    pub fn effective_gas_price(&self, index: usize) -> u128 {
        self.transactions[index].effective_gas_price(self.header.base_fee_per_gas)
    }
}

/// The bloom filter of a block's logs.
pub fn bloom_of(receipts: &[Receipt]) -> Bloom {
    let mut bloom = Bloom::ZERO;
    for log in receipts.iter().flat_map(|r| &r.logs) {
        bloom.accrue(BloomInput::Raw(log.address.as_slice()));
        for topic in log.topics() {
            bloom.accrue(BloomInput::Raw(topic.as_slice()));
        }
    }
    bloom
}

/// Root of the transaction trie.
pub fn transactions_root(transactions: &[Transaction]) -> B256 {
    let envelopes: Vec<&TxEnvelope> = transactions.iter().map(|tx| tx.inner()).collect();
    calculate_transaction_root(&envelopes)
}

/// Root of the receipt trie.
pub fn receipts_root(transactions: &[Transaction], receipts: &[Receipt]) -> B256 {
    let envelopes: Vec<ReceiptEnvelope> = transactions
        .iter()
        .zip(receipts)
        .map(|(tx, receipt)| envelope(tx.tx_type(), receipt.clone().with_bloom()))
        .collect();
    calculate_receipt_root(&envelopes)
}

fn envelope(tx_type: TxType, receipt: ReceiptWithBloom<Receipt>) -> ReceiptEnvelope {
    match tx_type {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    }
}
