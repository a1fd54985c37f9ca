//! Transactions, receipts and blocks as the cluster passes them around.

use crate::StateDiff;
use alloy_consensus::{
    Header, ReceiptEnvelope, ReceiptWithBloom, Sealed, Signed, Transaction as _, TxEip4844Variant,
    TxEnvelope, TxType,
    proofs::{calculate_receipt_root, calculate_transaction_root},
    transaction::Recovered,
};
use alloy_eips::{eip2718::Encodable2718, eip4895::Withdrawals};
use alloy_primitives::{B256, Bloom, BloomInput};
use alloy_rlp::{Encodable, length_of_length};
use std::sync::Arc;

/// A decoded transaction whose sender is known. Recovery happens once, at the gateway.
pub type Transaction = Arc<Recovered<TxEnvelope>>;

/// The transaction as blocks hold it: blobs travel beside it (EIP-4844) and are no part of it. Its hash
/// is the same.
pub fn without_sidecar(tx: &Transaction) -> Transaction {
    match tx.inner() {
        TxEnvelope::Eip4844(signed) if signed.tx().sidecar().is_some() => {
            let bare = TxEip4844Variant::TxEip4844(signed.tx().tx().clone());
            let bare = Signed::new_unchecked(bare, *signed.signature(), *signed.hash());
            Arc::new(Recovered::new_unchecked(TxEnvelope::Eip4844(bare), tx.signer()))
        }
        _ => tx.clone(),
    }
}

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
    /// Headers of blocks that lost; only proof-of-work blocks have any.
    pub ommers: Vec<Header>,
    /// EIP-4895; `None` before Shanghai, which is not the same as an empty list.
    pub withdrawals: Option<Withdrawals>,
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

    /// The block's RLP, as the network and chain files have it: header, transactions without blobs, ommers
    /// and, from Shanghai on, withdrawals.
    pub fn rlp(&self) -> Vec<u8> {
        let transactions = self.transactions_length();
        let payload_length = self.payload_length(transactions);
        let mut out = Vec::with_capacity(payload_length + length_of_length(payload_length));
        list_header(payload_length).encode(&mut out);
        self.header.inner().encode(&mut out);
        list_header(transactions).encode(&mut out);
        for tx in &self.transactions {
            without_sidecar(tx).network_encode(&mut out);
        }
        self.ommers.encode(&mut out);
        if let Some(withdrawals) = &self.withdrawals {
            withdrawals.encode(&mut out);
        }
        out
    }

    /// How long [`Self::rlp`] is, bytes.
    pub fn rlp_length(&self) -> usize {
        let payload_length = self.payload_length(self.transactions_length());
        payload_length + length_of_length(payload_length)
    }

    fn transactions_length(&self) -> usize {
        self.transactions.iter().map(|tx| without_sidecar(tx).network_len()).sum()
    }

    fn payload_length(&self, transactions: usize) -> usize {
        self.header.inner().length()
            + transactions
            + length_of_length(transactions)
            + self.ommers.length()
            + self.withdrawals.as_ref().map_or(0, Encodable::length)
    }

    /// Wei a gas that the transaction at `index` paid (EIP-1559).
    pub fn effective_gas_price(&self, index: usize) -> u128 {
        self.transactions[index].effective_gas_price(self.header.base_fee_per_gas)
    }
}

fn list_header(payload_length: usize) -> alloy_rlp::Header {
    alloy_rlp::Header { list: true, payload_length }
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
