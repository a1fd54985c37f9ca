//! Outcomes to bytes.

use super::{OUTCOMES_VERSION, kind};
use crate::engine::outcome::{Difference, Outcome, Ran, Read, Verdict, Writes};
use alloy_primitives::{
    Address, B256, U256,
    map::{AddressMap, Entry, U256Map},
};
use alloy_rlp::{Encodable, Header};
use blockraft_primitives::{Account, AccountChange, AccountDiff};

/// Words that are written where they stand are no longer than this, bytes.
pub(super) const SHORT_LEN_MAX: usize = 4;

/// Encodes outcomes with the indices of their transactions.
pub fn encode_outcomes(outcomes: &[(usize, Outcome)]) -> Vec<u8> {
    let mut writer = Writer::default();
    for (index, outcome) in outcomes {
        if let Verdict::Ran(ran) = &outcome.verdict {
            writer.list(|writer| writer.outcome(*index, ran, outcome));
        }
    }
    writer.finish()
}

/// Outcomes so far, and the names in them.
#[derive(Default)]
struct Writer {
    body: Vec<u8>,
    addresses: Vec<Address>,
    address_places: AddressMap<u64>,
    words: Vec<U256>,
    word_places: U256Map<u64>,
}

impl Writer {
    fn finish(self) -> Vec<u8> {
        let body = Header { list: true, payload_length: self.body.len() };
        let payload_length =
            self.addresses.length() + self.words.length() + body.length_with_payload();
        let mut bytes = Vec::with_capacity(payload_length + 10);
        bytes.push(OUTCOMES_VERSION);
        Header { list: true, payload_length }.encode(&mut bytes);
        self.addresses.encode(&mut bytes);
        self.words.encode(&mut bytes);
        body.encode(&mut bytes);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn outcome(&mut self, index: usize, ran: &Ran, outcome: &Outcome) {
        self.put(&(index as u64));
        self.put(&ran.success);
        self.put(&ran.gas_used);
        self.list(|writer| {
            for log in &ran.logs {
                writer.list(|writer| {
                    writer.address(log.address);
                    let topics = log.topics();
                    writer.list(|writer| topics.iter().for_each(|topic| writer.hash(*topic)));
                    writer.put(&log.data.data);
                });
            }
        });
        self.list(|writer| {
            let mut inner = outcome.inner.iter().copied().peekable();
            for (index, read) in (0_u32..).zip(&outcome.reads) {
                let flag = inner.next_if_eq(&index).map_or(0, |_| kind::INNER);
                writer.list(|writer| writer.read(read, flag));
            }
        });
        self.writes(&outcome.writes);
    }

    fn read(&mut self, read: &Read, flag: u8) {
        let (kind, address) = match read {
            Read::Account(address, None) => (kind::ABSENT, address),
            Read::Account(address, Some(_)) => (kind::ACCOUNT, address),
            Read::Codeless(address) => (kind::CODELESS, address),
            Read::Slot(address, ..) => (kind::SLOT, address),
            Read::HasStorage(address, false) => (kind::NO_STORAGE, address),
            Read::HasStorage(address, true) => (kind::STORAGE, address),
            Read::Shape(address, ..) => (kind::SHAPE, address),
        };
        self.put(&(kind | flag));
        self.address(*address);
        match read {
            Read::Account(_, Some(account)) => self.account(account),
            Read::Slot(_, slot, value) => {
                self.word(*slot);
                self.word(*value);
            }
            Read::Shape(_, code_hash, at_least) => {
                self.hash(*code_hash);
                self.put(at_least);
            }
            Read::Account(_, None) | Read::Codeless(_) | Read::HasStorage(..) => {}
        }
    }

    /// Accounts, slots and codes are sorted: revm's maps have no order.
    fn writes(&mut self, Writes { accounts, differences, codes }: &Writes) {
        let mut accounts: Vec<&AccountDiff> = accounts.iter().collect();
        accounts.sort_unstable_by_key(|account| account.address);
        self.list(|writer| {
            for account in accounts {
                writer.list(|writer| writer.change(account));
            }
        });
        self.list(|writer| {
            for difference in differences {
                writer.list(|writer| writer.difference(difference));
            }
        });
        let mut codes: Vec<_> = codes.iter().collect();
        codes.sort_unstable_by_key(|(hash, _)| *hash);
        self.list(|writer| codes.iter().for_each(|(_, code)| writer.put(&code.original_bytes())));
    }

    fn change(&mut self, AccountDiff { address, change, storage_wiped, storage }: &AccountDiff) {
        self.address(*address);
        self.put(storage_wiped);
        match change {
            AccountChange::Unchanged => self.put(&kind::UNCHANGED),
            AccountChange::Deleted => self.put(&kind::DELETED),
            AccountChange::Set(account) => {
                self.put(&kind::SET);
                self.account(account);
            }
        }
        let mut storage = storage.clone();
        storage.sort_unstable_by_key(|change| change.slot);
        for change in storage {
            self.word(change.slot);
            self.word(change.value);
        }
    }

    /// What is taken is nearly 2^256 as it is added.
    fn difference(&mut self, Difference { address, wei }: &Difference) {
        self.address(*address);
        let (sign, wei) =
            if wei.bit(255) { (kind::TAKEN, wei.wrapping_neg()) } else { (kind::ADDED, *wei) };
        self.put(&sign);
        self.put(&wei);
    }

    fn account(&mut self, Account { nonce, balance, code_hash }: &Account) {
        self.put(nonce);
        self.put(balance);
        self.hash(*code_hash);
    }

    fn hash(&mut self, hash: B256) {
        self.word(hash.into());
    }

    /// A place in the list of words; a short word stands in a list of its own.
    fn word(&mut self, word: U256) {
        if word.byte_len() <= SHORT_LEN_MAX {
            return self.list(|writer| writer.put(&word));
        }
        let place = match self.word_places.entry(word) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                self.words.push(word);
                *entry.insert(self.words.len() as u64 - 1)
            }
        };
        self.put(&place);
    }

    fn address(&mut self, address: Address) {
        let place = match self.address_places.entry(address) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                self.addresses.push(address);
                *entry.insert(self.addresses.len() as u64 - 1)
            }
        };
        self.put(&place);
    }

    fn put(&mut self, value: &impl Encodable) {
        value.encode(&mut self.body);
    }

    /// What `write` puts is a list: its header, whose length is known afterwards, moves before it.
    fn list(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        write(self);
        let payload_length = self.body.len() - start;
        let header = Header { list: true, payload_length };
        header.encode(&mut self.body);
        self.body[start..].rotate_right(header.length());
    }
}
