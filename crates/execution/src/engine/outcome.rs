//! What one transaction did, and what it saw: enough to tell later whether it would do the same again.

use crate::runner::Refusal;
use alloy_primitives::{Address, B256, Log, U256};
use blockraft_primitives::Account;
use revm::state::{Account as EvmAccount, Bytecode, EvmState};

/// The result of running one transaction, on whatever state it saw.
///
/// Running is deterministic, so an outcome holds wherever every read would give the same value again.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) reads: Vec<Read>,
    pub(crate) writes: Writes,
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It is in the block, reverted or not.
    Ran { success: bool, gas_used: u64, logs: Vec<Log> },
    /// It cannot stand where it stood.
    Refused(Refusal),
}

/// A location and the value that was seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Balance, nonce and code hash.
    Account(Address, Option<Account>),
    /// Only that the account has no code; whatever its balance may be.
    Codeless(Address),
    /// A storage slot.
    Slot(Address, U256, U256),
}

/// What it leaves behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writes {
    pub(crate) accounts: Vec<(Address, AccountWrite)>,
    /// Wei added to balances that were not read, on top of `accounts`.
    pub(crate) credits: Vec<(Address, U256)>,
    pub(crate) codes: Vec<(B256, Bytecode)>,
}

/// New values of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountWrite {
    /// `Some(None)`: the account is gone. `None`: only slots changed.
    pub(crate) account: Option<Option<Account>>,
    /// All slots that are not below became zero.
    pub(crate) wiped: bool,
    pub(crate) slots: Vec<(U256, U256)>,
}

impl Writes {
    /// From what revm leaves of a transaction (or a system call), where touched and empty means gone
    /// (EIP-161).
    pub(crate) fn from_evm(state: EvmState) -> Self {
        let mut writes = Self::default();
        for (address, account) in state {
            writes.add(address, account);
        }
        writes
    }

    fn add(&mut self, address: Address, mut account: EvmAccount) {
        if !account.is_touched() {
            return;
        }
        let created = account.is_created();
        if account.is_selfdestructed() || (account.is_empty() && !created) {
            let write = AccountWrite { account: Some(None), wiped: true, slots: Vec::new() };
            self.accounts.push((address, write));
            return;
        }
        let changed = created || account.is_changed();
        let slots: Vec<(U256, U256)> = account
            .storage
            .drain()
            .filter(|(_, slot)| slot.is_changed())
            .map(|(key, slot)| (key, slot.present_value))
            .collect();
        if !changed && slots.is_empty() {
            return;
        }
        let info = account.info;
        let now = Account { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash };
        if let Some(code) = info.code.filter(|code| changed && !code.is_empty()) {
            self.codes.push((info.code_hash, code));
        }
        let write = AccountWrite { account: changed.then_some(Some(now)), wiped: created, slots };
        self.accounts.push((address, write));
    }
}
