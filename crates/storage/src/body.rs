//! Bytes of a block's body: three RLP items, the third only where the block has withdrawals.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawals;
use alloy_rlp::{Decodable, Encodable};
use blockraft_primitives::{
    EntryError, SealedBlock, Transaction, decode_transactions, encode_transactions,
};

/// What [`decode_body`] reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Body {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) ommers: Vec<Header>,
    /// An absent list is not an empty one.
    pub(crate) withdrawals: Option<Withdrawals>,
}

/// Value of `BODIES`.
pub(crate) fn encode_body(block: &SealedBlock) -> Vec<u8> {
    let mut out = encode_transactions(&block.transactions);
    block.ommers.encode(&mut out);
    if let Some(withdrawals) = &block.withdrawals {
        withdrawals.encode(&mut out);
    }
    out
}

/// Reads [`encode_body`] back.
pub(crate) fn decode_body(bytes: &[u8]) -> Result<Body, EntryError> {
    let mut rest = bytes;
    let transactions = decode_transactions(&mut rest)?;
    let ommers = Vec::<Header>::decode(&mut rest)?;
    let withdrawals = if rest.is_empty() { None } else { Some(Withdrawals::decode(&mut rest)?) };
    if !rest.is_empty() {
        return Err(alloy_rlp::Error::UnexpectedLength.into());
    }
    Ok(Body { transactions, ommers, withdrawals })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::Sealable;
    use alloy_eips::eip4895::Withdrawal;
    use alloy_primitives::{Address, hex};

    fn block(ommers: Vec<Header>, withdrawals: Option<Withdrawals>) -> SealedBlock {
        let header = Header::default().seal_slow();
        let (transactions, receipts) = (Vec::new(), Vec::new());
        SealedBlock { header, transactions, receipts, ommers, withdrawals }
    }

    fn check(block: &SealedBlock, expected: &str) {
        let bytes = encode_body(block);
        assert_eq!(hex::encode(&bytes), expected);
        let SealedBlock { ommers, withdrawals, .. } = block.clone();
        let expected = Body { transactions: Vec::new(), ommers, withdrawals };
        assert_eq!(decode_body(&bytes).unwrap(), expected);
    }

    #[test]
    fn bytes_of_a_body_are_frozen() {
        let withdrawal = Withdrawal {
            index: 1,
            validator_index: 2,
            address: Address::repeat_byte(0x33),
            amount: 4,
        };
        let ommer = Header { number: 5, ..Header::default() };
        let listed = hex::encode(alloy_rlp::encode(vec![ommer.clone()]));
        check(&block(vec![], None), "c1c0c0");
        check(&block(vec![], Some(Withdrawals::default())), "c1c0c0c0");
        check(
            &block(vec![], Some(Withdrawals::new(vec![withdrawal]))),
            &format!("c1c0c0d9d8010294{}04", "33".repeat(20)),
        );
        check(&block(vec![ommer], None), &format!("c1c0{listed}"));
    }

    #[test]
    fn other_bytes_are_no_body() {
        for bytes in ["", "c1c0", "c0c0", "c1c0c0c0c0", "c1c0c001"] {
            assert!(decode_body(&hex::decode(bytes).unwrap()).is_err(), "{bytes}");
        }
    }
}
