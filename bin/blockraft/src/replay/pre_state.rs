//! The state on which one block runs, as far as that block looks at it.

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use anyhow::ensure;
use blockraft_primitives::{Account, MemoryState, StateError, StateReader};
use serde::Deserialize;
use std::collections::BTreeMap;

/// An account as `pre_state.json` writes it.
#[derive(Debug, Deserialize)]
pub(super) struct PreAccount {
    #[serde(default)]
    balance: U256,
    #[serde(default)]
    nonce: U256,
    #[serde(default, alias = "codeHash")]
    code_hash: Option<B256>,
    #[serde(default)]
    code: Option<Bytes>,
    #[serde(default)]
    storage: BTreeMap<U256, U256>,
}

/// A state with holes that are known: what it lacks is an error to read, not nothing.
#[derive(Debug)]
pub(super) struct PreState {
    state: MemoryState,
    /// Codes that accounts have and no file holds.
    missing: BTreeMap<B256, Address>,
}

impl PreState {
    /// `code_of` looks a code up. Where accounts that are empty do not exist (since EIP-161), one that is
    /// listed as empty was looked for and not there.
    pub(super) fn new(
        accounts: BTreeMap<Address, PreAccount>,
        block_hashes: BTreeMap<u64, B256>,
        empty_accounts_exist: bool,
        code_of: impl Fn(&B256) -> Option<Bytes>,
    ) -> anyhow::Result<Self> {
        let (mut state, mut missing) = (MemoryState::default(), BTreeMap::new());
        state.block_hashes.extend(block_hashes);
        for (address, pre) in accounts {
            let inline = pre.code.filter(|code| !code.is_empty());
            let hash = pre.code_hash.filter(|hash| !hash.is_zero());
            let code_hash =
                hash.or_else(|| inline.as_ref().map(keccak256)).unwrap_or(KECCAK256_EMPTY);
            if code_hash != KECCAK256_EMPTY {
                match inline.or_else(|| code_of(&code_hash)) {
                    Some(code) => {
                        let got = keccak256(&code);
                        ensure!(
                            got == code_hash,
                            "the code of {address} hashes to {got}, not {code_hash}"
                        );
                        state.codes.insert(code_hash, code);
                    }
                    None => {
                        missing.insert(code_hash, address);
                    }
                }
            }
            let nonce = pre.nonce.saturating_to();
            let account = Account { nonce, balance: pre.balance, code_hash };
            if !account.is_empty() || empty_accounts_exist {
                state.accounts.insert(address, account);
            }
            let slots = pre.storage.into_iter().filter(|(_, value)| !value.is_zero());
            let slots: Vec<_> = slots.collect();
            if !slots.is_empty() {
                state.storage.insert(address, slots.into_iter().collect());
            }
        }
        Ok(Self { state, missing })
    }

    /// All but the codes that are missing.
    pub(super) fn known(&self) -> &MemoryState {
        &self.state
    }

    /// Whether the account has code.
    pub(super) fn has_code(&self, address: &Address) -> bool {
        self.state.accounts.get(address).is_some_and(Account::has_code)
    }

    /// How many codes of its accounts are missing.
    pub(super) fn missing_codes(&self) -> usize {
        self.missing.len()
    }
}

impl StateReader for PreState {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        self.state.account(address)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.state.storage(address, slot)
    }

    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.state.has_storage(address)
    }

    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        match self.missing.get(&code_hash) {
            Some(address) => Err(StateError::Database(format!(
                "code {code_hash} of {address} is in no bytecodes.json here or above"
            ))),
            None => self.state.code(code_hash),
        }
    }

    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        let hash = self.state.block_hashes.get(&number).copied();
        let missing =
            || format!("the hash of block {number} is in no file of block hashes here or above");
        hash.ok_or_else(|| StateError::Database(missing()))
    }
}
