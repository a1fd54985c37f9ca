//! Roots and blooms of a block's body: each log is hashed into a bloom once.

use alloy_consensus::{
    EMPTY_ROOT_HASH, RlpEncodableReceipt, Typed2718, proofs::ordered_trie_root_with_encoder,
};
use alloy_primitives::{B256, Bloom, BloomInput, bytes::BufMut};
use blockraft_primitives::{Receipt, Transaction};

/// Receipts root and block bloom.
pub fn receipts_root_and_bloom(
    transactions: &[Transaction],
    receipts: &[Receipt],
) -> (B256, Bloom) {
    let blooms: Vec<Bloom> = receipts.iter().map(bloom).collect();
    let block_bloom = blooms.iter().fold(Bloom::ZERO, |all, bloom| all | *bloom);
    if receipts.is_empty() {
        return (EMPTY_ROOT_HASH, block_bloom);
    }
    let items: Vec<(u8, &Receipt, &Bloom)> = transactions
        .iter()
        .zip(receipts.iter().zip(&blooms))
        .map(|(tx, (receipt, bloom))| (tx.ty(), receipt, bloom))
        .collect();
    let root = ordered_trie_root_with_encoder(&items, |(tx_type, receipt, bloom), out| {
        if *tx_type != 0 {
            out.put_u8(*tx_type);
        }
        receipt.rlp_encode_with_bloom(bloom, out);
    });
    (root, block_bloom)
}

/// Root of the transaction trie.
pub(crate) fn transactions_root(transactions: &[Transaction]) -> B256 {
    blockraft_primitives::transactions_root(transactions)
}

fn bloom(receipt: &Receipt) -> Bloom {
    let mut bloom = Bloom::ZERO;
    for log in &receipt.logs {
        bloom.accrue(BloomInput::Raw(log.address.as_slice()));
        for topic in log.topics() {
            bloom.accrue(BloomInput::Raw(topic.as_slice()));
        }
    }
    bloom
}
