//! From blocks, transactions and receipts to the JSON that geth answers.

use alloy_consensus::{
    Header, ReceiptEnvelope, ReceiptWithBloom, Sealable, Sealed, Transaction as _, TxType,
};
use alloy_primitives::{B256, U256};
use alloy_rpc_types_eth::{
    Block, BlockTransactions, Header as RpcHeader, Log, Transaction as RpcTransaction,
    TransactionReceipt,
};
use blockraft_primitives::{ChainSpec, Receipt, SealedBlock, Transaction, without_sidecar};

/// A block with its transactions whole or as hashes.
pub(crate) fn block(block: &SealedBlock, full: bool) -> Block {
    let transactions = if full {
        let indices = 0..block.transactions.len();
        BlockTransactions::Full(indices.map(|index| transaction(block, index)).collect())
    } else {
        BlockTransactions::Hashes(hashes(block))
    };
    Block {
        header: RpcHeader { size: Some(U256::from(block.rlp_length())), ..header(&block.header) },
        uncles: block.ommers.iter().map(Sealable::hash_slow).collect(),
        transactions,
        withdrawals: block.withdrawals.clone(),
    }
}

/// A header alone. Fields that the block's fork does not have are absent.
pub(crate) fn header(header: &Sealed<Header>) -> RpcHeader {
    RpcHeader {
        hash: header.hash(),
        inner: header.inner().clone(),
        total_difficulty: None,
        size: None,
    }
}

/// An ommer: its header, and a body of which nobody keeps anything.
pub(crate) fn ommer(ommer: &Header) -> Block<RpcTransaction> {
    let block = SealedBlock {
        header: ommer.clone().seal_slow(),
        transactions: Vec::new(),
        receipts: Vec::new(),
        ommers: Vec::new(),
        withdrawals: None,
    };
    Block { transactions: BlockTransactions::Uncle, ..self::block(&block, false) }
}

/// The hashes of a block's transactions.
pub(crate) fn hashes(block: &SealedBlock) -> Vec<B256> {
    block.transactions.iter().map(|tx| *tx.tx_hash()).collect()
}

/// A transaction in a block.
pub(crate) fn transaction(block: &SealedBlock, index: usize) -> RpcTransaction {
    RpcTransaction {
        inner: without_sidecar(&block.transactions[index]).as_ref().clone(),
        block_hash: Some(block.hash()),
        block_number: Some(block.number()),
        transaction_index: Some(index as u64),
        effective_gas_price: Some(block.effective_gas_price(index)),
        block_timestamp: Some(block.header.timestamp),
    }
}

/// A transaction of the pool; its price is what it would pay in a block with this base fee.
pub(crate) fn pending_transaction(tx: &Transaction, base_fee: Option<u64>) -> RpcTransaction {
    RpcTransaction {
        inner: without_sidecar(tx).as_ref().clone(),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: Some(tx.effective_gas_price(base_fee)),
        block_timestamp: None,
    }
}

/// The receipt of one transaction. `first_log` is the index in the block of its first log.
pub(crate) fn receipt(
    spec: &ChainSpec,
    block: &SealedBlock,
    index: usize,
    first_log: usize,
) -> TransactionReceipt {
    let tx = &block.transactions[index];
    let blob_gas_price = tx.blob_gas_used().and_then(|_| {
        spec.blob_params(block.header.timestamp).and_then(|params| block.header.blob_fee(params))
    });
    TransactionReceipt {
        inner: envelope(tx.tx_type(), rpc_receipt(block, index, first_log)),
        transaction_hash: *tx.tx_hash(),
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash()),
        block_number: Some(block.number()),
        gas_used: block.gas_used_by(index),
        effective_gas_price: block.effective_gas_price(index),
        blob_gas_used: tx.blob_gas_used(),
        blob_gas_price,
        from: tx.signer(),
        to: tx.to(),
        contract_address: tx.is_create().then(|| tx.signer().create(tx.nonce())),
    }
}

/// All receipts of a block.
pub(crate) fn receipts(spec: &ChainSpec, block: &SealedBlock) -> Vec<TransactionReceipt> {
    let mut first_log = 0;
    let mut receipts = Vec::with_capacity(block.receipts.len());
    for (index, stored) in block.receipts.iter().enumerate() {
        receipts.push(receipt(spec, block, index, first_log));
        first_log += stored.logs.len();
    }
    receipts
}

/// The logs of a block with their places, in order.
pub(crate) fn logs(block: &SealedBlock) -> impl Iterator<Item = Log> {
    let of_transaction = |(index, receipt): (usize, &Receipt)| {
        receipt.logs.clone().into_iter().map(move |log| (index, log)).collect::<Vec<_>>()
    };
    let placed = block.receipts.iter().enumerate().flat_map(of_transaction).enumerate();
    placed.map(|(log_index, (index, log))| place(block, index, log_index, log))
}

fn place(block: &SealedBlock, index: usize, log_index: usize, inner: alloy_primitives::Log) -> Log {
    Log {
        inner,
        block_hash: Some(block.hash()),
        block_number: Some(block.number()),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: Some(*block.transactions[index].tx_hash()),
        transaction_index: Some(index as u64),
        log_index: Some(log_index as u64),
        removed: false,
    }
}

fn rpc_receipt(
    block: &SealedBlock,
    index: usize,
    first_log: usize,
) -> ReceiptWithBloom<alloy_consensus::Receipt<Log>> {
    let stored = &block.receipts[index];
    let logs_bloom = stored.bloom_slow();
    let place = |(offset, log): (usize, &alloy_primitives::Log)| {
        place(block, index, first_log + offset, log.clone())
    };
    let receipt = alloy_consensus::Receipt {
        status: stored.status,
        cumulative_gas_used: stored.cumulative_gas_used,
        logs: stored.logs.iter().enumerate().map(place).collect(),
    };
    ReceiptWithBloom { receipt, logs_bloom }
}

/// A receipt as a receipt trie holds it.
pub(crate) fn consensus_receipt(block: &SealedBlock, index: usize) -> ReceiptEnvelope {
    envelope(block.transactions[index].tx_type(), block.receipts[index].clone().with_bloom())
}

fn envelope<L>(
    tx_type: TxType,
    receipt: ReceiptWithBloom<alloy_consensus::Receipt<L>>,
) -> ReceiptEnvelope<L> {
    match tx_type {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::{
        TxEnvelope,
        transaction::{Recovered, SignerRecoverable},
    };
    use alloy_eips::eip2718::Decodable2718;
    use alloy_primitives::{Bytes, U64};
    use serde_json::Value;
    use std::sync::Arc;

    /// Transactions of every type as geth answers them, with their bytes: from the cases of
    /// ethereum/execution-apis (CC0).
    const OF_GETH: &str = include_str!("../testdata/transactions.json");

    fn number(value: &Value) -> u64 {
        serde_json::from_value::<U64>(value.clone()).expect("a quantity").to()
    }

    #[test]
    fn transactions_read_as_geth_writes_them() {
        for case in serde_json::from_str::<Vec<Value>>(OF_GETH).expect("JSON") {
            let expected = &case["json"];
            let raw: Bytes = serde_json::from_value(case["raw"].clone()).expect("bytes");
            let tx = TxEnvelope::decode_2718(&mut raw.as_ref()).expect("a transaction");
            let sender = tx.recover_signer_unchecked().expect("a signature");
            let tx: Transaction = Arc::new(Recovered::new_unchecked(tx, sender));
            let tip = tx.max_priority_fee_per_gas().map_or(0, |tip| tip as u64);
            let header = Header {
                number: number(&expected["blockNumber"]),
                timestamp: number(&expected["blockTimestamp"]),
                base_fee_per_gas: Some(number(&expected["gasPrice"]) - tip),
                ..Default::default()
            };
            let hash = serde_json::from_value(expected["blockHash"].clone()).expect("a hash");
            let index = number(&expected["transactionIndex"]) as usize;
            let block = SealedBlock {
                header: Sealed::new_unchecked(header, hash),
                transactions: vec![tx; index + 1],
                receipts: Vec::new(),
                ommers: Vec::new(),
                withdrawals: None,
            };
            let got = serde_json::to_value(transaction(&block, index)).expect("JSON");
            assert_eq!(&got, expected);
        }
    }

    #[test]
    fn the_size_is_that_of_the_rlp() {
        let header = Header {
            base_fee_per_gas: Some(7),
            withdrawals_root: Some(B256::ZERO),
            ..Default::default()
        };
        let tx: Bytes = serde_json::from_str::<Vec<Value>>(OF_GETH)
            .and_then(|cases| serde_json::from_value(cases[0]["raw"].clone()))
            .expect("bytes");
        let tx = TxEnvelope::decode_2718(&mut tx.as_ref()).expect("a transaction");
        let tx: Transaction = Arc::new(Recovered::new_unchecked(tx, Default::default()));
        for count in [0, 1, 2, 700] {
            let block = SealedBlock {
                header: Sealed::new_unchecked(header.clone(), B256::ZERO),
                transactions: vec![tx.clone(); count],
                receipts: Vec::new(),
                ommers: vec![Header::default(); count % 3],
                withdrawals: Some(vec![Default::default(); count % 40].into()),
            };
            let bytes = block.rlp();
            assert_eq!(bytes.len(), block.rlp_length());
            let decoded = <alloy_consensus::Block<TxEnvelope> as alloy_rlp::Decodable>::decode(
                &mut bytes.as_slice(),
            )
            .expect("a block");
            assert_eq!(decoded.body.transactions.len(), count);
            assert_eq!(decoded.body.withdrawals, block.withdrawals);
            assert_eq!(decoded.body.ommers, block.ommers);
        }
    }
}
