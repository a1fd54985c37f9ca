//! Bytes to outcomes.

use super::{OUTCOMES_VERSION, encode::SHORT_LEN_MAX, kind};
use crate::{
    database::bytecode,
    engine::outcome::{Difference, Outcome, Ran, Read, Writes},
};
use alloy_primitives::{Address, B256, Bytes, Log, LogData, U256, keccak256};
use alloy_rlp::{Decodable, EMPTY_LIST_CODE, Error, Header};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange};

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

/// The inverse of [`encode_outcomes`](super::encode_outcomes).
pub fn decode_outcomes(bytes: &[u8]) -> Result<Vec<(usize, Outcome)>, OutcomesError> {
    let Some((&OUTCOMES_VERSION, mut rlp)) = bytes.split_first() else {
        return Err(OutcomesError::Version { got: bytes.first().copied() });
    };
    let mut fields = Header::decode_bytes(&mut rlp, true)?;
    let fields = &mut fields;
    let names = Names { addresses: Vec::decode(fields)?, words: Vec::decode(fields)? };
    let outcomes = each(fields, |outcome| names.outcome(outcome))?;
    if !fields.is_empty() || !rlp.is_empty() {
        return Err(Error::UnexpectedLength.into());
    }
    Ok(outcomes)
}

/// What outcomes name by its place.
struct Names {
    addresses: Vec<Address>,
    words: Vec<U256>,
}

impl Names {
    /// The fields of an outcome.
    fn outcome(&self, fields: &mut &[u8]) -> alloy_rlp::Result<(usize, Outcome)> {
        let index = u64::decode(fields)?;
        let (success, gas_used) = (bool::decode(fields)?, u64::decode(fields)?);
        let logs = each(fields, |log| self.log(log))?;
        let (mut inner, mut places) = (Vec::new(), 0_u32..);
        let reads = each(fields, |read| {
            let (read, is_inner) = self.read(read)?;
            inner.extend(places.next().filter(|_| is_inner));
            Ok(read)
        })?;
        let accounts = each(fields, |account| self.change(account))?;
        let differences = each(fields, |difference| self.difference(difference))?;
        let codes: Vec<Bytes> = Vec::decode(fields)?;
        let codes = codes.into_iter().map(|code| (keccak256(&code), bytecode(code))).collect();
        let writes = Writes { accounts, differences, codes };
        let outcome =
            Outcome::from_elsewhere(Ran { success, gas_used, logs }, reads, inner, writes);
        Ok((index as usize, outcome))
    }

    fn log(&self, fields: &mut &[u8]) -> alloy_rlp::Result<Log> {
        let address = self.address(fields)?;
        let mut topics = Vec::new();
        let mut places = Header::decode_bytes(fields, true)?;
        while !places.is_empty() {
            topics.push(self.hash(&mut places)?);
        }
        let data = Bytes::decode(fields)?;
        let data = LogData::new(topics, data).ok_or(Error::Custom("more than four topics"))?;
        Ok(Log { address, data })
    }

    /// A read, and whether it saw what the block itself wrote.
    fn read(&self, fields: &mut &[u8]) -> alloy_rlp::Result<(Read, bool)> {
        let (kind, address) = (u8::decode(fields)?, self.address(fields)?);
        let is_inner = kind & kind::INNER != 0;
        let read = match kind & !kind::INNER {
            kind::ABSENT => Read::Account(address, None),
            kind::ACCOUNT => Read::Account(address, Some(self.account(fields)?)),
            kind::CODELESS => Read::Codeless(address),
            kind::SLOT => Read::Slot(address, self.word(fields)?, self.word(fields)?),
            kind::NO_STORAGE => Read::HasStorage(address, false),
            kind::STORAGE => Read::HasStorage(address, true),
            kind::SHAPE => Read::Shape(address, self.hash(fields)?, U256::decode(fields)?),
            _ => return Err(Error::Custom("unknown kind of read")),
        };
        Ok((read, is_inner))
    }

    fn change(&self, fields: &mut &[u8]) -> alloy_rlp::Result<AccountDiff> {
        let (address, storage_wiped) = (self.address(fields)?, bool::decode(fields)?);
        let change = match u8::decode(fields)? {
            kind::UNCHANGED => AccountChange::Unchanged,
            kind::DELETED => AccountChange::Deleted,
            kind::SET => AccountChange::Set(self.account(fields)?),
            _ => return Err(Error::Custom("unknown kind of change")),
        };
        let mut storage = Vec::new();
        while !fields.is_empty() {
            storage.push(SlotChange { slot: self.word(fields)?, value: self.word(fields)? });
        }
        Ok(AccountDiff { address, change, storage_wiped, storage })
    }

    fn difference(&self, fields: &mut &[u8]) -> alloy_rlp::Result<Difference> {
        let address = self.address(fields)?;
        let (sign, wei) = (u8::decode(fields)?, U256::decode(fields)?);
        match sign {
            kind::ADDED if !wei.bit(255) => Ok(Difference { address, wei }),
            kind::TAKEN => Ok(Difference { address, wei: wei.wrapping_neg() }),
            _ => Err(Error::Custom("a difference is added or taken")),
        }
    }

    fn account(&self, fields: &mut &[u8]) -> alloy_rlp::Result<Account> {
        let (nonce, balance) = (u64::decode(fields)?, U256::decode(fields)?);
        Ok(Account { nonce, balance, code_hash: self.hash(fields)? })
    }

    fn hash(&self, fields: &mut &[u8]) -> alloy_rlp::Result<B256> {
        Ok(self.word(fields)?.into())
    }

    fn word(&self, fields: &mut &[u8]) -> alloy_rlp::Result<U256> {
        if fields.first().is_some_and(|first| *first >= EMPTY_LIST_CODE) {
            let mut short = Header::decode_bytes(fields, true)?;
            let word = U256::decode(&mut short)?;
            let fits = short.is_empty() && word.byte_len() <= SHORT_LEN_MAX;
            return if fits { Ok(word) } else { Err(Error::UnexpectedLength) };
        }
        self.named(&self.words, fields)
    }

    fn address(&self, fields: &mut &[u8]) -> alloy_rlp::Result<Address> {
        self.named(&self.addresses, fields)
    }

    fn named<T: Copy>(&self, list: &[T], fields: &mut &[u8]) -> alloy_rlp::Result<T> {
        let place = u64::decode(fields)?;
        let named = usize::try_from(place).ok().and_then(|place| list.get(place));
        named.copied().ok_or(Error::Custom("a name that is not in the list"))
    }
}

/// The items of a list of lists. Each takes all fields of its list.
fn each<T>(
    fields: &mut &[u8],
    mut item: impl FnMut(&mut &[u8]) -> alloy_rlp::Result<T>,
) -> alloy_rlp::Result<Vec<T>> {
    let mut list = Header::decode_bytes(fields, true)?;
    let mut items = Vec::new();
    while !list.is_empty() {
        let mut inner = Header::decode_bytes(&mut list, true)?;
        items.push(item(&mut inner)?);
        if !inner.is_empty() {
            return Err(Error::UnexpectedLength);
        }
    }
    Ok(items)
}
