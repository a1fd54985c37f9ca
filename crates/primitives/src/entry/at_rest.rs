//! The bytes of transactions and receipts at rest, written without copies of what they are made of.

use crate::{Receipt, Transaction};
use alloy_consensus::Eip658Value;
use alloy_eips::eip2718::Encodable2718;
use alloy_rlp::{BufMut, Encodable, Header};

/// A list whose one item is the list of transactions.
pub(super) fn transactions(transactions: &[Transaction]) -> Vec<u8> {
    let transactions: Vec<_> = transactions.iter().map(TransactionAtRest::new).collect();
    let header = Header { list: true, payload_length: transactions.length() };
    let mut out = Vec::with_capacity(header.length() + header.payload_length);
    header.encode(&mut out);
    transactions.encode(&mut out);
    out
}

/// A list of receipts.
pub(super) fn receipts(receipts: &[Receipt]) -> Vec<u8> {
    alloy_rlp::encode(receipts.iter().map(ReceiptAtRest::new).collect::<Vec<_>>())
}

/// The bytes of a [`WireTransaction`](super::WireTransaction), without a copy of it.
struct TransactionAtRest<'a> {
    transaction: &'a Transaction,
    raw_length: usize,
}

impl<'a> TransactionAtRest<'a> {
    fn new(transaction: &'a Transaction) -> Self {
        Self { transaction, raw_length: transaction.encode_2718_len() }
    }

    fn raw_header(&self) -> Header {
        Header { list: false, payload_length: self.raw_length }
    }

    fn header(&self) -> Header {
        let raw_length = self.raw_header().length() + self.raw_length;
        let payload_length = self.transaction.signer_ref().length() + raw_length;
        Header { list: true, payload_length }
    }
}

impl Encodable for TransactionAtRest<'_> {
    fn encode(&self, out: &mut dyn BufMut) {
        self.header().encode(out);
        self.transaction.signer_ref().encode(out);
        self.raw_header().encode(out);
        self.transaction.encode_2718(out);
    }

    fn length(&self) -> usize {
        let header = self.header();
        header.length() + header.payload_length
    }
}

/// The bytes of a [`WireReceipt`](super::WireReceipt), without a copy of its logs.
struct ReceiptAtRest<'a> {
    receipt: &'a Receipt,
    payload_length: usize,
}

impl<'a> ReceiptAtRest<'a> {
    fn new(receipt: &'a Receipt) -> Self {
        let status = match receipt.status {
            Eip658Value::Eip658(_) => 1,
            Eip658Value::PostState(root) => root.length(),
        };
        let payload_length = status + receipt.cumulative_gas_used.length() + receipt.logs.length();
        Self { receipt, payload_length }
    }

    fn header(&self) -> Header {
        Header { list: true, payload_length: self.payload_length }
    }
}

impl Encodable for ReceiptAtRest<'_> {
    fn encode(&self, out: &mut dyn BufMut) {
        self.header().encode(out);
        match &self.receipt.status {
            // A byte below 0x80 stands for itself.
            Eip658Value::Eip658(succeeded) => out.put_u8(u8::from(*succeeded)),
            Eip658Value::PostState(root) => root.encode(out),
        }
        self.receipt.cumulative_gas_used.encode(out);
        self.receipt.logs.encode(out);
    }

    fn length(&self) -> usize {
        self.header().length() + self.payload_length
    }
}

#[cfg(test)]
mod tests {
    use crate::entry::{WireReceipt, WireTransaction, WireTransactions};
    use crate::{Receipt, Transaction, decode_receipts, decode_transactions};
    use crate::{encode_receipts, encode_transactions};
    use alloy_consensus::{Eip658Value, Signed, TxEnvelope, TxLegacy, transaction::Recovered};
    use alloy_primitives::{Address, B256, Bytes, Log, LogData, Signature};
    use std::sync::Arc;

    fn transaction(input: usize) -> Transaction {
        let tx = TxLegacy { input: vec![7; input].into(), ..TxLegacy::default() };
        let signed = Signed::new_unhashed(tx, Signature::test_signature());
        Arc::new(Recovered::new_unchecked(TxEnvelope::Legacy(signed), Address::repeat_byte(3)))
    }

    fn receipt(status: Eip658Value, cumulative_gas_used: u64, logs: usize) -> Receipt {
        let data = LogData::new_unchecked(vec![B256::repeat_byte(1)], Bytes::from(vec![9; logs]));
        let log = Log { address: Address::repeat_byte(2), data };
        Receipt { status, cumulative_gas_used, logs: vec![log; logs] }
    }

    #[test]
    fn bytes_are_those_of_the_values_that_are_read_back() {
        for count in [0, 1, 3, 300] {
            let transactions: Vec<_> = (0..count).map(|at| transaction(at % 70)).collect();
            let wire = transactions.iter().map(WireTransaction::from).collect();
            let bytes = encode_transactions(&transactions);
            assert_eq!(bytes, alloy_rlp::encode(WireTransactions { transactions: wire }));
            assert_eq!(decode_transactions(&mut &*bytes).unwrap(), transactions);
        }
        let receipts = [
            receipt(Eip658Value::Eip658(false), 0, 0),
            receipt(Eip658Value::Eip658(true), 21_000, 1),
            receipt(Eip658Value::PostState(B256::repeat_byte(4)), u64::MAX, 60),
        ];
        let wire: Vec<_> = receipts.iter().map(WireReceipt::from).collect();
        let bytes = encode_receipts(&receipts);
        assert_eq!(bytes, alloy_rlp::encode(wire));
        assert_eq!(decode_receipts(&bytes).unwrap(), receipts);
    }
}
