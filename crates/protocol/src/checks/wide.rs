//! Transactions with fees of more than 128 bits. A signature can be on such a thing, and it breaks no rule of
//! its fork, but a single unit of its gas costs more than all ether there is: the types that hold
//! transactions have no room for it, and no block takes it. It is judged here, from its bytes.

use super::{
    AdmissionRules, check_chain_id, check_fee_cap, check_gas, check_limits, check_type,
    check_unprotected, decode_envelope,
};
use crate::PoolError;
use alloy_consensus::{Transaction as _, TxEnvelope, TxType, crypto::secp256k1};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Header;

/// Fields of a signature, at the end of every transaction.
const SIGNATURE_FIELD_COUNT: usize = 3;

/// A transaction that is valid, and that nobody can pay for.
#[derive(Clone, Debug, PartialEq)]
pub struct Unpayable {
    /// Its hash.
    pub hash: B256,
    /// Whose it is.
    pub sender: Address,
    /// Gas limit times fee cap plus value, wei.
    pub cost: U256,
    /// The transaction with the highest fees that there is room for. Its signature is not on that.
    pub narrowed: TxEnvelope,
}

/// Judges a raw transaction, if it has a fee of more than 128 bits and would decode with a lesser one.
pub fn unpayable(raw: &[u8], rules: &AdmissionRules) -> Option<Result<Unpayable, PoolError>> {
    let wide = Wide::read(raw)?;
    Some(wide.check(rules).map(|(sender, cost)| Unpayable {
        hash: keccak256(raw),
        sender,
        cost,
        narrowed: wide.narrowed,
    }))
}

/// What a gateway answers to such a transaction.
pub(super) fn refusal(raw: &[u8], rules: &AdmissionRules) -> Option<PoolError> {
    let judged = unpayable(raw, rules)?;
    Some(match judged {
        Ok(Unpayable { cost, .. }) => PoolError::Unpayable { cost },
        Err(error) => error,
    })
}

struct Wide {
    narrowed: TxEnvelope,
    /// `None`: more than 256 bits.
    fee_cap: Option<U256>,
    tip: Option<U256>,
    /// What was signed.
    signed: B256,
}

impl Wide {
    fn read(raw: &[u8]) -> Option<Self> {
        let (tx_type, list) = match raw.first()? {
            tx_type @ 0..=0x7f => (TxType::try_from(*tx_type).ok()?, &raw[1..]),
            _ => (TxType::Legacy, raw),
        };
        let (tip_at, fee_cap_at) = match tx_type {
            TxType::Legacy => (1, 1),
            TxType::Eip2930 => (2, 2),
            TxType::Eip1559 | TxType::Eip7702 => (2, 3),
            // Its fees have a width of their own in every client's decoder.
            TxType::Eip4844 => return None,
        };
        let prefix = &raw[..raw.len() - list.len()];
        let mut fields = fields(list)?;
        let signed_count = fields.len().checked_sub(SIGNATURE_FIELD_COUNT)?;
        let original = fields[..signed_count].to_vec();
        let (tip, fee_cap) = (fee(fields.get(tip_at)?)?, fee(fields.get(fee_cap_at)?)?);
        let is_wide = |fee: Option<U256>| fee.is_none_or(|fee| fee > U256::from(u128::MAX));
        if !is_wide(tip) && !is_wide(fee_cap) {
            return None;
        }
        let highest = alloy_rlp::encode(u128::MAX);
        for (at, fee) in [(tip_at, tip), (fee_cap_at, fee_cap)] {
            if is_wide(fee) {
                fields[at] = &highest;
            }
        }
        let narrowed = decode_envelope(&[prefix, &list_of(&fields)].concat()).ok()?;
        let signed = match (tx_type, narrowed.chain_id()) {
            (TxType::Legacy, Some(chain_id)) => {
                let tail = [alloy_rlp::encode(chain_id), vec![0x80], vec![0x80]];
                let tail = tail.iter().map(Vec::as_slice);
                let all: Vec<&[u8]> = original.iter().copied().chain(tail).collect();
                keccak256(list_of(&all))
            }
            _ => keccak256([prefix, &list_of(&original)].concat()),
        };
        Some(Self { narrowed, fee_cap, tip, signed })
    }

    /// Everything that is asked of other transactions, in the same order. The sender, and the cost.
    fn check(&self, rules: &AdmissionRules) -> Result<(Address, U256), PoolError> {
        let Self { narrowed: tx, fee_cap, tip, .. } = self;
        let gas = U256::from(tx.gas_limit());
        let fee = fee_cap.unwrap_or(U256::MAX).saturating_mul(gas);
        check_fee_cap(fee, rules.submission)?;
        check_unprotected(tx, rules.submission)?;
        check_type(tx, rules)?;
        check_chain_id(tx, rules)?;
        let fee_cap = fee_cap.ok_or(PoolError::FeeVeryHigh)?;
        let tip = tip.ok_or(PoolError::TipVeryHigh)?;
        if tip > fee_cap {
            return Err(PoolError::TipAboveFeeCap);
        }
        check_limits(tx, rules)?;
        check_gas(tx, rules)?;
        let recover = match rules.forks.homestead {
            true => secp256k1::recover_signer,
            false => secp256k1::recover_signer_unchecked,
        };
        let sender = recover(tx.signature(), self.signed).map_err(|_| PoolError::Signature)?;
        let cost = fee_cap.checked_mul(gas).and_then(|fee| fee.checked_add(tx.value()));
        // What does not fit 256 bits is no cost at all.
        let cost = cost.ok_or(PoolError::Unpayable { cost: U256::MAX })?;
        Ok((sender, cost))
    }
}

/// A fee; inside, `None` for more than 256 bits. `None` for what is not the encoding of a number.
fn fee(mut field: &[u8]) -> Option<Option<U256>> {
    let header = Header::decode(&mut field).ok().filter(|header| !header.list)?;
    if header.payload_length != field.len() || field.first() == Some(&0) {
        return None;
    }
    Some(U256::try_from_be_slice(field))
}

/// The encoded fields of a list that fills its bytes.
fn fields(mut list: &[u8]) -> Option<Vec<&[u8]>> {
    let header = Header::decode(&mut list).ok().filter(|header| header.list)?;
    if header.payload_length != list.len() {
        return None;
    }
    let mut fields = Vec::new();
    while !list.is_empty() {
        let mut rest = list;
        let header = Header::decode(&mut rest).ok()?;
        rest = rest.get(header.payload_length..)?;
        fields.push(&list[..list.len() - rest.len()]);
        list = rest;
    }
    Some(fields)
}

fn list_of(fields: &[&[u8]]) -> Vec<u8> {
    let payload_length = fields.iter().map(|field| field.len()).sum();
    let mut out = Vec::with_capacity(payload_length + 9);
    Header { list: true, payload_length }.encode(&mut out);
    fields.iter().for_each(|field| out.extend_from_slice(field));
    out
}
