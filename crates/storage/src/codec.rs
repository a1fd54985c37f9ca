//! Bytes of the state tables.

use crate::StorageError;
use alloy_primitives::{Address, B256, U256};
use alloy_rlp::{Decodable, Encodable};
use blockraft_primitives::{Account, AccountChange};

/// Key of a slot: hashed address, hashed slot.
pub(crate) fn slot_key(address: &B256, slot: &B256) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(address.as_slice());
    key[32..].copy_from_slice(slot.as_slice());
    key
}

/// A record of `ACCOUNTS`, or of `STORAGE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flat<'a, Name, Value> {
    /// What the key is the hash of.
    pub(crate) name: Name,
    /// What it holds; nothing, or zero, in a tombstone.
    pub(crate) value: Value,
    /// At which blocks it changed: see `trail.rs`.
    pub(crate) trail: &'a [u8],
}

/// A record of `ACCOUNTS`.
pub(crate) type FlatAccount<'a> = Flat<'a, Address, Option<Account>>;
/// A record of `STORAGE`.
pub(crate) type FlatSlot<'a> = Flat<'a, U256, U256>;

/// Adds a value of `ACCOUNTS`, but for the trail, which follows it.
pub(crate) fn encode_account(address: &Address, account: Option<&Account>, out: &mut Vec<u8>) {
    out.extend_from_slice(address.as_slice());
    account.map_or(AccountChange::Deleted, |account| AccountChange::Set(*account)).encode(out);
}

/// Reads a value of `ACCOUNTS`.
pub(crate) fn decode_account(bytes: &[u8]) -> Result<FlatAccount<'_>, StorageError> {
    let (address, mut rest) =
        bytes.split_at_checked(20).ok_or_else(|| bad("accounts", "value is too short"))?;
    let value = match AccountChange::decode(&mut rest) {
        Ok(AccountChange::Set(account)) => Some(account),
        Ok(AccountChange::Deleted) => None,
        Ok(AccountChange::Unchanged) => return Err(bad("accounts", "not an account")),
        Err(error) => return Err(bad("accounts", &error.to_string())),
    };
    Ok(Flat { name: Address::from_slice(address), value, trail: rest })
}

/// Adds an account as a reverse diff has it.
pub(crate) fn encode_previous_account(account: Option<&Account>, out: &mut Vec<u8>) {
    if let Some(account) = account {
        AccountChange::Set(*account).encode(out);
    }
}

/// Reads [`encode_previous_account`] back.
pub(crate) fn decode_previous_account(mut bytes: &[u8]) -> Result<Option<Account>, StorageError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match AccountChange::decode(&mut bytes) {
        Ok(AccountChange::Set(account)) if bytes.is_empty() => Ok(Some(account)),
        Ok(_) => Err(bad("reverse_diffs", "not an account")),
        Err(error) => Err(bad("reverse_diffs", &error.to_string())),
    }
}

/// Adds a value of `STORAGE`, but for the trail, which follows it.
pub(crate) fn encode_slot(slot: U256, value: U256, out: &mut Vec<u8>) {
    for number in [slot, value] {
        out.push(number.byte_len() as u8);
        put_trimmed(number, out);
    }
}

/// Reads a value of `STORAGE`.
pub(crate) fn decode_slot(bytes: &[u8]) -> Result<FlatSlot<'_>, StorageError> {
    let take = |bytes: &mut &[u8]| {
        let (length, rest) = bytes.split_first()?;
        let (taken, rest) = rest.split_at_checked(usize::from(*length))?;
        *bytes = rest;
        number(taken)
    };
    let mut rest = bytes;
    let parts = take(&mut rest).and_then(|slot| Some((slot, take(&mut rest)?)));
    let (name, value) = parts.ok_or_else(|| bad("storage", "not a slot"))?;
    Ok(Flat { name, value, trail: rest })
}

/// Adds a slot's value as a reverse diff has it.
pub(crate) fn put_trimmed(value: U256, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_be_bytes::<32>()[32 - value.byte_len()..]);
}

/// Reads [`put_trimmed`] back.
pub(crate) fn decode_previous_slot(bytes: &[u8]) -> Result<U256, StorageError> {
    number(bytes).ok_or_else(|| bad("reverse_diffs", "not a value"))
}

/// A big-endian `u64` of exactly eight bytes.
pub(crate) fn decode_u64(place: &str, bytes: &[u8]) -> Result<u64, StorageError> {
    let bytes = bytes.try_into().map_err(|_| bad(place, "not a number of eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn number(bytes: &[u8]) -> Option<U256> {
    U256::try_from_be_slice(bytes)
}

fn bad(place: &str, problem: &str) -> StorageError {
    StorageError::corrupt(place, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{KECCAK256_EMPTY, hex};

    fn added(add: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        add(&mut out);
        out
    }

    #[test]
    fn bytes_of_the_state_tables_are_frozen() {
        let account = Account { nonce: 3, balance: U256::from(256), code_hash: KECCAK256_EMPTY };
        let address = Address::repeat_byte(0x11);
        for (value, expected) in [(Some(account), "c403820100"), (None, "c180")] {
            let mut bytes = added(|out| encode_account(&address, value.as_ref(), out));
            assert_eq!(hex::encode(&bytes), format!("{}{expected}", "11".repeat(20)));
            bytes.extend_from_slice(&[1, 9]);
            let expected = Flat { name: address, value, trail: &[1, 9][..] };
            assert_eq!(decode_account(&bytes).unwrap(), expected);
        }

        let code_hash = B256::repeat_byte(0x22);
        let contract = Account { nonce: 1, balance: U256::ZERO, code_hash };
        let bytes = added(|out| encode_previous_account(Some(&contract), out));
        assert_eq!(hex::encode(&bytes), format!("e30180a0{}", "22".repeat(32)));
        assert_eq!(decode_previous_account(&bytes).unwrap(), Some(contract));
        assert_eq!(added(|out| encode_previous_account(None, out)), Vec::<u8>::new());
        assert_eq!(decode_previous_account(&[]).unwrap(), None);

        for (name, value, expected) in [
            (U256::ZERO, U256::from(1), "000101"),
            (U256::from(0x1234), U256::from(0x5678), "021234025678"),
            (U256::from(7), U256::ZERO, "010700"),
            (U256::MAX, U256::MAX, &format!("20{0}20{0}", "ff".repeat(32))),
        ] {
            let mut bytes = added(|out| encode_slot(name, value, out));
            assert_eq!(hex::encode(&bytes), expected);
            bytes.push(7);
            assert_eq!(decode_slot(&bytes).unwrap(), Flat { name, value, trail: &[7][..] });
            let bytes = added(|out| put_trimmed(value, out));
            assert_eq!(decode_previous_slot(&bytes).unwrap(), value);
        }
    }

    #[test]
    fn damaged_values_are_corrupt_not_a_panic() {
        for bytes in [&[][..], &[0x11; 19], &[0x11; 20], &[0x11; 24]] {
            assert!(matches!(decode_account(bytes), Err(StorageError::Corrupt { .. })));
        }
        for bytes in [&[][..], &[33], &[2, 1], &[1, 1], &[1, 1, 2, 1], &[0xff; 70]] {
            assert!(matches!(decode_slot(bytes), Err(StorageError::Corrupt { .. })));
        }
    }
}
