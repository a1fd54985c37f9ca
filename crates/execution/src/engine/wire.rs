//! Outcomes as bytes, for the way from an executor to the leader.
//!
//! A version byte, then an RLP list: the addresses and the long words (slots, topics, values, code hashes) that
//! the outcomes name, each once, and the outcomes, which name them by their place in those lists. Most of an
//! outcome is names that it shares with itself (a slot is read, written and derived from a topic) and with
//! its neighbours (a token, its code, its event). Values are exact: an outcome may stay only where every
//! read would give the same again, and a shortened value could say so wrongly.
//!
//! The same outcomes give the same bytes. Refused transactions are left out: the leader runs what it has no
//! outcome of.

mod decode;
mod encode;

pub use decode::{OutcomesError, decode_outcomes};
pub use encode::encode_outcomes;

/// Version of the encoding; another one is refused.
pub const OUTCOMES_VERSION: u8 = 4;

/// Kinds of reads, of changes of an account, and signs of differences, as they are written.
mod kind {
    pub(super) const ABSENT: u8 = 0;
    pub(super) const ACCOUNT: u8 = 1;
    pub(super) const CODELESS: u8 = 2;
    pub(super) const SLOT: u8 = 3;
    pub(super) const NO_STORAGE: u8 = 4;
    pub(super) const STORAGE: u8 = 5;
    pub(super) const SHAPE: u8 = 6;
    /// Added to a read's kind: it saw what the block itself wrote, not the parent state.
    pub(super) const INNER: u8 = 0x10;

    pub(super) const UNCHANGED: u8 = 0;
    pub(super) const DELETED: u8 = 1;
    pub(super) const SET: u8 = 2;

    pub(super) const ADDED: u8 = 0;
    pub(super) const TAKEN: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        database::bytecode,
        engine::outcome::{Difference, Outcome, Ran, Read, Writes},
    };
    use alloy_primitives::{Address, Log, LogData, U256, bytes, keccak256};
    use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange};

    fn outcomes() -> Vec<(usize, Outcome)> {
        let address = Address::repeat_byte;
        let account = Account { nonce: 3, balance: U256::from(1_000), ..Default::default() };
        let code = bytes!("6001");
        let log = Log {
            address: address(0xc0),
            data: LogData::new_unchecked(vec![keccak256("topic")], bytes!("0102")),
        };
        let call = Outcome::from_elsewhere(
            Ran { success: true, gas_used: 30_000, logs: vec![log] },
            vec![
                Read::Account(address(1), Some(account)),
                Read::Account(address(2), None),
                Read::Codeless(address(3)),
                Read::Slot(address(4), U256::from(5), U256::from(6)),
                Read::HasStorage(address(5), true),
                Read::HasStorage(address(6), false),
                Read::Shape(address(7), keccak256(&code), U256::from(8)),
            ],
            vec![0, 3, 4],
            Writes {
                accounts: vec![AccountDiff {
                    address: address(1),
                    change: AccountChange::Set(Account { code_hash: keccak256(&code), ..account }),
                    storage_wiped: true,
                    storage: vec![SlotChange { slot: U256::from(5), value: U256::from(7) }],
                }],
                differences: vec![Difference { address: address(9), wei: U256::from(21_000) }],
                codes: vec![(keccak256(&code), bytecode(code))],
            },
        );
        let reverted = Ran { success: false, gas_used: 21_000, logs: vec![] };
        let revert = Outcome::from_elsewhere(reverted, vec![], vec![], Writes::default());
        vec![(4, call), (700, revert)]
    }

    #[test]
    fn bytes_are_those_of_version_4() {
        let bytes = alloy_primitives::hex::encode(encode_outcomes(&outcomes()));
        assert_eq!(bytes, include_str!("../../testdata/outcomes-v4.hex").trim());
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
