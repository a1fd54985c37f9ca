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

/// A key of the history: key, block.
pub(crate) fn history_key(key: &[u8], block: u64) -> Vec<u8> {
    [key, &block.to_be_bytes()].concat()
}

/// Value of `ACCOUNTS`.
pub(crate) fn encode_account(address: &Address, account: &Account) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(address.as_slice());
    AccountChange::Set(*account).encode(&mut out);
    out
}

/// Reads [`encode_account`] back.
pub(crate) fn decode_account(bytes: &[u8]) -> Result<(Address, Account), StorageError> {
    let (address, account) =
        bytes.split_at_checked(20).ok_or_else(|| bad("accounts", "value is too short"))?;
    let account =
        decode_previous_account(account)?.ok_or_else(|| bad("accounts", "value is empty"))?;
    Ok((Address::from_slice(address), account))
}

/// Value of `ACCOUNT_HISTORY`.
pub(crate) fn encode_previous_account(account: Option<&Account>) -> Vec<u8> {
    account.map_or_else(Vec::new, |account| alloy_rlp::encode(AccountChange::Set(*account)))
}

/// Reads [`encode_previous_account`] back.
pub(crate) fn decode_previous_account(mut bytes: &[u8]) -> Result<Option<Account>, StorageError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match AccountChange::decode(&mut bytes) {
        Ok(AccountChange::Set(account)) if bytes.is_empty() => Ok(Some(account)),
        Ok(_) => Err(bad("accounts", "not an account")),
        Err(error) => Err(bad("accounts", &error.to_string())),
    }
}

/// Value of `STORAGE`.
pub(crate) fn encode_slot(slot: U256, value: U256) -> Vec<u8> {
    let slot = slot.to_be_bytes_trimmed_vec();
    let mut out = Vec::with_capacity(1 + slot.len() + 32);
    out.push(slot.len() as u8);
    out.extend_from_slice(&slot);
    out.extend_from_slice(&value.to_be_bytes_trimmed_vec());
    out
}

/// Reads [`encode_slot`] back: slot and value.
pub(crate) fn decode_slot(bytes: &[u8]) -> Result<(U256, U256), StorageError> {
    let parts = bytes
        .split_first()
        .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
        .and_then(|(slot, value)| Some((number(slot)?, number(value)?)));
    parts.ok_or_else(|| bad("storage", "not a slot"))
}

/// Value of `STORAGE_HISTORY`.
pub(crate) fn encode_previous_slot(value: U256) -> Vec<u8> {
    value.to_be_bytes_trimmed_vec()
}

/// Reads [`encode_previous_slot`] back.
pub(crate) fn decode_previous_slot(bytes: &[u8]) -> Result<U256, StorageError> {
    number(bytes).ok_or_else(|| bad("storage_history", "not a value"))
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

    #[test]
    fn bytes_of_the_state_tables_are_frozen() {
        let account = Account { nonce: 3, balance: U256::from(256), code_hash: KECCAK256_EMPTY };
        let address = Address::repeat_byte(0x11);
        let bytes = encode_account(&address, &account);
        assert_eq!(hex::encode(&bytes), format!("{}c403820100", "11".repeat(20)));
        assert_eq!(decode_account(&bytes).unwrap(), (address, account));

        let code_hash = B256::repeat_byte(0x22);
        let contract = Account { nonce: 1, balance: U256::ZERO, code_hash };
        let bytes = encode_previous_account(Some(&contract));
        assert_eq!(hex::encode(&bytes), format!("e30180a0{}", "22".repeat(32)));
        assert_eq!(decode_previous_account(&bytes).unwrap(), Some(contract));
        assert_eq!(encode_previous_account(None), Vec::<u8>::new());
        assert_eq!(decode_previous_account(&[]).unwrap(), None);

        for (slot, value, expected) in [
            (U256::ZERO, U256::from(1), "0001"),
            (U256::from(0x1234), U256::from(0x5678), "0212345678"),
            (U256::MAX, U256::MAX, &format!("20{}", "ff".repeat(64))),
        ] {
            let bytes = encode_slot(slot, value);
            assert_eq!(hex::encode(&bytes), expected);
            assert_eq!(decode_slot(&bytes).unwrap(), (slot, value));
        }
        assert_eq!(decode_previous_slot(&encode_previous_slot(U256::ZERO)).unwrap(), U256::ZERO);
    }

    #[test]
    fn damaged_values_are_corrupt_not_a_panic() {
        for bytes in [&[][..], &[0x11; 19], &[0x11; 20], &[0x11; 24]] {
            assert!(matches!(decode_account(bytes), Err(StorageError::Corrupt { .. })));
        }
        for bytes in [&[][..], &[33], &[2, 1], &[0xff; 70]] {
            assert!(matches!(decode_slot(bytes), Err(StorageError::Corrupt { .. })));
        }
    }
}
