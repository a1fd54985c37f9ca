//! What a block changes in the state: final values, so applying a diff twice changes nothing.

use crate::Account;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_rlp::{BufMut, Decodable, Encodable, Header, RlpDecodable, RlpEncodable};

/// The state changes of one block (or of several, merged). Sorted and free of duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct StateDiff {
    /// Sorted by address.
    pub accounts: Vec<AccountDiff>,
    /// Code that the block brought into the state, sorted by its keccak256.
    pub codes: Vec<Bytes>,
}

/// What happens to one account.
#[derive(Clone, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct AccountDiff {
    /// The account's address.
    pub address: Address,
    /// Its nonce, balance and code hash.
    pub change: AccountChange,
    /// Every slot not named in `storage` becomes zero (self-destruct, or creation over old storage).
    pub storage_wiped: bool,
    /// New values sorted by slot; zero removes the slot.
    pub storage: Vec<SlotChange>,
}

/// A storage slot and the value it ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct SlotChange {
    /// The slot's number, not hashed.
    pub slot: U256,
    /// Zero removes the slot.
    pub value: U256,
}

/// The account's own fields after the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// Only the storage changed.
    Unchanged,
    /// The account is no more; its storage is gone with it.
    Deleted,
    /// The account now reads so.
    Set(Account),
}

impl StateDiff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Accounts and slots named.
    pub fn key_count(&self) -> usize {
        self.accounts.len() + self.accounts.iter().map(|a| a.storage.len()).sum::<usize>()
    }

    /// Asserts the order that every reader relies on.
    pub fn assert_sorted(&self) {
        assert!(
            self.accounts.is_sorted_by(|a, b| a.address < b.address),
            "diff accounts sorted and unique"
        );
        for account in &self.accounts {
            assert!(
                account.storage.is_sorted_by(|a, b| a.slot < b.slot),
                "diff slots of {} sorted and unique",
                account.address
            );
        }
    }
}

/// RLP: `[]` is unchanged, `[0]` is deleted, `[nonce, balance]` and `[nonce, balance, code hash]` set.
impl Encodable for AccountChange {
    fn encode(&self, out: &mut dyn BufMut) {
        let payload_length = self.payload_length();
        Header { list: true, payload_length }.encode(out);
        match self {
            Self::Unchanged => {}
            Self::Deleted => 0u64.encode(out),
            Self::Set(account) => {
                account.nonce.encode(out);
                account.balance.encode(out);
                if account.has_code() {
                    account.code_hash.encode(out);
                }
            }
        }
    }

    fn length(&self) -> usize {
        let payload_length = self.payload_length();
        payload_length + alloy_rlp::length_of_length(payload_length)
    }
}

impl AccountChange {
    fn payload_length(&self) -> usize {
        match self {
            Self::Unchanged => 0,
            Self::Deleted => 1,
            Self::Set(account) => {
                let code = if account.has_code() { account.code_hash.length() } else { 0 };
                account.nonce.length() + account.balance.length() + code
            }
        }
    }
}

impl Decodable for AccountChange {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        let mut fields = Header::decode_bytes(buf, true)?;
        if fields.is_empty() {
            return Ok(Self::Unchanged);
        }
        let nonce = u64::decode(&mut fields)?;
        if fields.is_empty() {
            return if nonce == 0 {
                Ok(Self::Deleted)
            } else {
                Err(alloy_rlp::Error::Custom("an account change of one field is a deletion"))
            };
        }
        let balance = U256::decode(&mut fields)?;
        let code_hash =
            if fields.is_empty() { KECCAK256_EMPTY } else { B256::decode(&mut fields)? };
        if !fields.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength);
        }
        Ok(Self::Set(Account { nonce, balance, code_hash }))
    }
}
