//! Outcomes as bytes, for the way from an executor to the leader.
//!
//! A version byte, then an RLP list of outcomes: the same outcomes give the same bytes. Refused transactions are left out: the leader runs what
//! it has no outcome of.

use super::outcome::{Credit, Outcome, Ran, Read, Verdict, Writes};
use crate::database::bytecode;
use alloy_primitives::{Address, Bytes, U256, keccak256};
use alloy_rlp::{BufMut, Decodable, Encodable, Header, RlpDecodable, RlpEncodable};
use blockraft_primitives::{AccountChange, AccountDiff};

/// Version of the encoding; another one is refused.
pub const OUTCOMES_VERSION: u8 = 2;

/// Bytes that are no outcomes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutcomesError {
    /// Written by another version, or nothing there.
    #[error("outcomes version {got:?} is not supported, expected {OUTCOMES_VERSION}")]
    Version {
        /// Version found.
        got: Option<u8>,
    },
    /// Not the RLP that this version writes.
    #[error("outcomes do not decode: {0}")]
    Rlp(#[from] alloy_rlp::Error),
}

#[derive(RlpEncodable, RlpDecodable)]
struct WireOutcome {
    index: u64,
    ran: Ran,
    reads: Vec<Read>,
    accounts: Vec<AccountDiff>,
    credits: Vec<Credit>,
    codes: Vec<Bytes>,
}

/// Encodes outcomes with the indices of their transactions.
pub fn encode_outcomes(outcomes: &[(usize, Outcome)]) -> Vec<u8> {
    let outcomes: Vec<WireOutcome> = outcomes
        .iter()
        .filter_map(|(index, outcome)| {
            let Verdict::Ran(ran) = &outcome.verdict else { return None };
            let mut codes = outcome.writes.codes.clone();
            codes.sort_unstable_by_key(|(hash, _)| *hash);
            Some(WireOutcome {
                index: *index as u64,
                ran: ran.clone(),
                reads: outcome.reads.clone(),
                accounts: sorted(&outcome.writes.accounts),
                credits: outcome.writes.credits.clone(),
                codes: codes.into_iter().map(|(_, code)| code.original_bytes()).collect(),
            })
        })
        .collect();
    let mut bytes = vec![OUTCOMES_VERSION];
    outcomes.encode(&mut bytes);
    bytes
}

/// In the order of addresses and slots: revm's maps have none.
fn sorted(accounts: &[AccountDiff]) -> Vec<AccountDiff> {
    let mut accounts = accounts.to_vec();
    accounts.sort_unstable_by_key(|account| account.address);
    for account in &mut accounts {
        account.storage.sort_unstable_by_key(|change| change.slot);
    }
    accounts
}

/// The inverse of [`encode_outcomes`].
pub fn decode_outcomes(bytes: &[u8]) -> Result<Vec<(usize, Outcome)>, OutcomesError> {
    let Some((&OUTCOMES_VERSION, mut rlp)) = bytes.split_first() else {
        return Err(OutcomesError::Version { got: bytes.first().copied() });
    };
    let outcomes = Vec::<WireOutcome>::decode(&mut rlp)?;
    if !rlp.is_empty() {
        return Err(alloy_rlp::Error::UnexpectedLength.into());
    }
    Ok(outcomes.into_iter().map(WireOutcome::into_outcome).collect())
}

impl WireOutcome {
    fn into_outcome(self) -> (usize, Outcome) {
        let codes = self.codes.into_iter().map(|code| (keccak256(&code), bytecode(code)));
        let writes =
            Writes { accounts: self.accounts, credits: self.credits, codes: codes.collect() };
        let outcome = Outcome { verdict: Verdict::Ran(self.ran), reads: self.reads, writes };
        (self.index as usize, outcome)
    }
}

/// RLP: `[address, account]` with the account as [`AccountChange`] writes it, `[address]` of one without
/// code, `[address, slot, value]`, and `[address, 0 or 1]` of whether it has storage.
impl Encodable for Read {
    fn encode(&self, out: &mut dyn BufMut) {
        Header { list: true, payload_length: self.payload_length() }.encode(out);
        match self {
            Self::Account(address, account) => {
                address.encode(out);
                change_of(account).encode(out);
            }
            Self::Codeless(address) => address.encode(out),
            Self::Slot(address, slot, value) => {
                address.encode(out);
                slot.encode(out);
                value.encode(out);
            }
            Self::HasStorage(address, has_storage) => {
                address.encode(out);
                has_storage.encode(out);
            }
        }
    }

    fn length(&self) -> usize {
        let payload_length = self.payload_length();
        payload_length + alloy_rlp::length_of_length(payload_length)
    }
}

impl Decodable for Read {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut fields = Header::decode_bytes(buf, true)?;
        let address = Address::decode(&mut fields)?;
        let Some(first) = fields.first() else { return Ok(Self::Codeless(address)) };
        let read = if *first >= alloy_rlp::EMPTY_LIST_CODE {
            match AccountChange::decode(&mut fields)? {
                AccountChange::Set(account) => Self::Account(address, Some(account)),
                AccountChange::Deleted => Self::Account(address, None),
                AccountChange::Unchanged => {
                    return Err(alloy_rlp::Error::Custom("a read account is there or not"));
                }
            }
        } else {
            let slot = U256::decode(&mut fields)?;
            match (fields.is_empty(), slot) {
                (true, U256::ZERO) => Self::HasStorage(address, false),
                (true, U256::ONE) => Self::HasStorage(address, true),
                (true, _) => {
                    return Err(alloy_rlp::Error::Custom("an account has storage or not"));
                }
                (false, slot) => Self::Slot(address, slot, U256::decode(&mut fields)?),
            }
        };
        if !fields.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        Ok(read)
    }
}

impl Read {
    fn payload_length(&self) -> usize {
        match self {
            Self::Account(address, account) => address.length() + change_of(account).length(),
            Self::Codeless(address) => address.length(),
            Self::Slot(address, slot, value) => address.length() + slot.length() + value.length(),
            Self::HasStorage(address, has_storage) => address.length() + has_storage.length(),
        }
    }
}

fn change_of(account: &Option<blockraft_primitives::Account>) -> AccountChange {
    account.map_or(AccountChange::Deleted, AccountChange::Set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{Log, LogData, bytes};
    use blockraft_primitives::{Account, SlotChange};

    fn outcomes() -> Vec<(usize, Outcome)> {
        let address = Address::repeat_byte;
        let account = Account { nonce: 3, balance: U256::from(1_000), ..Default::default() };
        let code = bytes!("6001");
        let log = Log {
            address: address(0xc0),
            data: LogData::new_unchecked(vec![keccak256("topic")], bytes!("0102")),
        };
        let call = Outcome {
            verdict: Verdict::Ran(Ran { success: true, gas_used: 30_000, logs: vec![log] }),
            reads: vec![
                Read::Account(address(1), Some(account)),
                Read::Account(address(2), None),
                Read::Codeless(address(3)),
                Read::Slot(address(4), U256::from(5), U256::from(6)),
                Read::HasStorage(address(5), true),
                Read::HasStorage(address(6), false),
            ],
            writes: Writes {
                accounts: vec![AccountDiff {
                    address: address(1),
                    change: AccountChange::Set(Account { code_hash: keccak256(&code), ..account }),
                    storage_wiped: true,
                    storage: vec![SlotChange { slot: U256::from(5), value: U256::from(7) }],
                }],
                credits: vec![Credit { address: address(9), wei: U256::from(21_000) }],
                codes: vec![(keccak256(&code), bytecode(code))],
            },
        };
        let revert = Outcome {
            verdict: Verdict::Ran(Ran { success: false, gas_used: 21_000, logs: vec![] }),
            reads: vec![],
            writes: Writes::default(),
        };
        vec![(4, call), (700, revert)]
    }

    #[test]
    fn bytes_are_those_of_version_2() {
        let bytes = alloy_primitives::hex::encode(encode_outcomes(&outcomes()));
        assert_eq!(bytes, include_str!("../../testdata/outcomes-v2.hex").trim());
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        let bytes = encode_outcomes(&outcomes());
        let decoded = decode_outcomes(&bytes).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{:?}", outcomes()));
        assert_eq!(encode_outcomes(&decoded), bytes);
    }

    #[test]
    fn the_order_of_writes_does_not_show() {
        let shuffled = |reversed: bool| {
            let mut outcomes = outcomes();
            let writes = &mut outcomes[0].1.writes;
            let other = AccountDiff { address: Address::ZERO, ..writes.accounts[0].clone() };
            writes.accounts.push(other);
            for account in &mut writes.accounts {
                account.storage.push(SlotChange { slot: U256::from(1), value: U256::from(2) });
                account.storage.reverse();
            }
            writes.codes.push((keccak256([1]), bytecode(bytes!("01"))));
            if reversed {
                writes.accounts.reverse();
                writes.codes.reverse();
                writes.accounts.iter_mut().for_each(|account| account.storage.reverse());
            }
            encode_outcomes(&outcomes)
        };
        assert_eq!(shuffled(false), shuffled(true));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let version = |got| OutcomesError::Version { got };
        assert_eq!(decode_outcomes(&[]).unwrap_err(), version(None));
        assert_eq!(decode_outcomes(&[1, 0xc0]).unwrap_err(), version(Some(1)));
        let bytes = encode_outcomes(&outcomes());
        for end in 1..bytes.len() {
            assert!(decode_outcomes(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut long = bytes;
        long.push(0);
        assert!(decode_outcomes(&long).is_err());
    }
}
