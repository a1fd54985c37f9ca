//! How code below storage reads the state, and the in-memory forms of it.

use crate::{Account, AccountChange, StateDiff};
use alloy_primitives::{
    Address, B256, Bytes, U256, keccak256,
    map::{AddressMap, B256Map, HashMap, U256Map},
};
use std::sync::Arc;

/// The store below could not answer. Never an EVM outcome.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The history before this block was pruned.
    #[error("historical state of block {requested} is not available, the oldest is {oldest}")]
    Pruned {
        /// The block asked for.
        requested: u64,
        /// The oldest block that can be read.
        oldest: u64,
    },
    /// A block that is not there yet.
    #[error("header not found")]
    UnknownBlock(u64),
    /// The database failed; the node stops over this.
    #[error("state database: {0}")]
    Database(String),
    /// What was read cannot be what was written.
    #[error("state database is corrupt at {place}: {problem}")]
    Corrupt {
        /// Table and key.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

/// The state at one block, or on top of one. Implemented by the stored view, by layers over it, and
/// by the in-memory state of tests.
pub trait StateReader: Send + Sync {
    /// The account, or `None` where there is none.
    fn account(&self, address: Address) -> Result<Option<Account>, StateError>;
    /// A storage slot; zero where there is none.
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError>;
    /// Whether an account without nonce and code has storage all the same: nothing can be created at its
    /// address (EIP-7610). Not for other accounts: of these, slots that became zero may still count.
    fn has_storage(&self, address: Address) -> Result<bool, StateError>;
    /// Code by its keccak256.
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError>;
    /// The hash of an ancestor block (BLOCKHASH); zero where there is none.
    fn block_hash(&self, number: u64) -> Result<B256, StateError>;
}

impl<T: StateReader + ?Sized> StateReader for Arc<T> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        (**self).account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        (**self).storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        (**self).has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        (**self).code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        (**self).block_hash(number)
    }
}

impl<T: StateReader + ?Sized> StateReader for &T {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        (**self).account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        (**self).storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        (**self).has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        (**self).code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        (**self).block_hash(number)
    }
}

/// A diff turned into maps, to read through.
#[derive(Debug, Default)]
pub struct DiffIndex {
    accounts: AddressMap<AccountLayer>,
    codes: B256Map<Bytes>,
}

#[derive(Debug)]
struct AccountLayer {
    change: AccountChange,
    wiped: bool,
    storage: U256Map<U256>,
}

impl DiffIndex {
    /// Indexes a diff.
    pub fn new(diff: &StateDiff) -> Self {
        let accounts = diff
            .accounts
            .iter()
            .map(|a| {
                let layer = AccountLayer {
                    change: a.change,
                    wiped: a.storage_wiped || a.change == AccountChange::Deleted,
                    storage: a.storage.iter().map(|s| (s.slot, s.value)).collect(),
                };
                (a.address, layer)
            })
            .collect();
        let codes = diff.codes.iter().map(|code| (keccak256(code), code.clone())).collect();
        Self { accounts, codes }
    }

    /// The account as this diff leaves it; outer `None` where the diff does not say.
    pub fn account(&self, address: &Address) -> Option<Option<Account>> {
        match self.accounts.get(address)?.change {
            AccountChange::Unchanged => None,
            AccountChange::Deleted => Some(None),
            AccountChange::Set(account) => Some(Some(account)),
        }
    }

    /// The slot as this diff leaves it; `None` where the diff does not say.
    pub fn storage(&self, address: &Address, slot: &U256) -> Option<U256> {
        let layer = self.accounts.get(address)?;
        match layer.storage.get(slot) {
            Some(value) => Some(*value),
            None if layer.wiped => Some(U256::ZERO),
            None => None,
        }
    }

    /// Whether the account has storage; `None` where the diff does not say. See
    /// [`StateReader::has_storage`].
    pub fn has_storage(&self, address: &Address) -> Option<bool> {
        let layer = self.accounts.get(address)?;
        let holds = layer.storage.values().any(|value| !value.is_zero());
        (holds || layer.wiped).then_some(holds)
    }

    /// Code that this diff brought.
    pub fn code(&self, code_hash: &B256) -> Option<&Bytes> {
        self.codes.get(code_hash)
    }
}

/// What a block changes, to be read through.
#[derive(Clone, Debug)]
pub struct DiffLayer {
    /// The changes.
    pub diff: Arc<DiffIndex>,
    /// Number and hash of the block.
    pub block: (u64, B256),
}

/// A state with more blocks on top: what block b+1 executes on while b is being replicated.
#[derive(Clone, Debug)]
pub struct WithDiffs<S> {
    /// The state below.
    pub base: S,
    /// In block order.
    pub layers: Vec<DiffLayer>,
}

impl<S> WithDiffs<S> {
    fn newest<T>(&self, read: impl Fn(&DiffIndex) -> Option<T>) -> Option<T> {
        self.layers.iter().rev().find_map(|layer| read(&layer.diff))
    }
}

impl<S: StateReader> StateReader for WithDiffs<S> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        let known = self.newest(|diff| diff.account(&address));
        known.map_or_else(|| self.base.account(address), Ok)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        let known = self.newest(|diff| diff.storage(&address, &slot));
        known.map_or_else(|| self.base.storage(address, slot), Ok)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        let known = self.newest(|diff| diff.has_storage(&address));
        known.map_or_else(|| self.base.has_storage(address), Ok)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        let known = self.newest(|diff| diff.code(&code_hash).cloned());
        known.map_or_else(|| self.base.code(code_hash), Ok)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        let known = self.layers.iter().find(|layer| layer.block.0 == number);
        known.map_or_else(|| self.base.block_hash(number), |layer| Ok(layer.block.1))
    }
}

/// A whole state in memory: what oracles and tests run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    /// Accounts that exist.
    pub accounts: AddressMap<Account>,
    /// Slots that are not zero.
    pub storage: AddressMap<U256Map<U256>>,
    /// Code by hash.
    pub codes: B256Map<Bytes>,
    /// Hashes of known blocks.
    pub block_hashes: HashMap<u64, B256>,
}

impl MemoryState {
    /// Applies a diff.
    pub fn apply(&mut self, diff: &StateDiff) {
        for code in &diff.codes {
            self.codes.insert(keccak256(code), code.clone());
        }
        for account in &diff.accounts {
            match account.change {
                AccountChange::Unchanged => {}
                AccountChange::Deleted => {
                    self.accounts.remove(&account.address);
                }
                AccountChange::Set(value) => {
                    self.accounts.insert(account.address, value);
                }
            }
            if account.storage_wiped || account.change == AccountChange::Deleted {
                self.storage.remove(&account.address);
            }
            if account.storage.is_empty() {
                continue;
            }
            let slots = self.storage.entry(account.address).or_default();
            for change in &account.storage {
                if change.value.is_zero() {
                    slots.remove(&change.slot);
                } else {
                    slots.insert(change.slot, change.value);
                }
            }
            if slots.is_empty() {
                self.storage.remove(&account.address);
            }
        }
    }
}

impl StateReader for MemoryState {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        Ok(self.accounts.get(&address).copied())
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        Ok(self.storage.get(&address).and_then(|s| s.get(&slot)).copied().unwrap_or_default())
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        Ok(self.storage.get(&address).is_some_and(|slots| !slots.is_empty()))
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        Ok(self.codes.get(&code_hash).cloned().unwrap_or_default())
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        Ok(self.block_hashes.get(&number).copied().unwrap_or_default())
    }
}
