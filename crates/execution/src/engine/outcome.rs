//! What one transaction did, and what it saw: enough to tell later whether it would do the same again.

use super::memory::Seen;
use crate::{collision, runner::Refusal};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, Log, U256};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange};
use revm::state::{Account as EvmAccount, Bytecode, EvmState};
use std::ops::{Deref, DerefMut};

/// The result of running one transaction, on whatever state it saw.
///
/// Running is deterministic, so an outcome holds wherever every read would give the same value again.
#[derive(Clone, Debug)]
pub struct Outcome(Box<Content>);

/// What an outcome consists of; behind a pointer, because outcomes change hands more often than they are
/// looked at.
#[derive(Clone, Debug)]
pub struct Content {
    pub(crate) verdict: Verdict,
    pub(crate) reads: Vec<Read>,
    /// Of a share's transaction: which of the reads saw something that the block itself wrote before it,
    /// ascending. All others saw the parent state.
    pub(crate) inner: Vec<u32>,
    /// The memory's counters before each of the reads; none of an outcome from elsewhere.
    pub(crate) seen: Vec<Seen>,
    /// How often storage had been wiped before the first of them.
    pub(crate) wipe_count: u32,
    /// Nothing before it could change any more when it ran, and no reads were noted.
    pub(crate) is_final: bool,
    pub(crate) writes: Writes,
}

impl Outcome {
    /// One that was computed with another memory.
    pub(crate) fn from_elsewhere(
        ran: Ran,
        reads: Vec<Read>,
        inner: Vec<u32>,
        writes: Writes,
    ) -> Self {
        let verdict = Verdict::Ran(ran);
        let seen = Vec::new();
        Content { verdict, reads, inner, seen, wipe_count: 0, is_final: false, writes }.into()
    }

    /// How it ended; leaves the logs out of what stays.
    #[inline]
    pub(crate) fn take_verdict(&mut self) -> Verdict {
        match &mut self.verdict {
            Verdict::Ran(ran) => Verdict::Ran(Ran { logs: std::mem::take(&mut ran.logs), ..*ran }),
            Verdict::Refused(refusal) => Verdict::Refused(refusal.clone()),
        }
    }
}

impl From<Content> for Outcome {
    fn from(content: Content) -> Self {
        Self(Box::new(content))
    }
}

impl Deref for Outcome {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.0
    }
}

impl DerefMut for Outcome {
    fn deref_mut(&mut self) -> &mut Content {
        &mut self.0
    }
}

/// How it ended.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It is in the block, reverted or not.
    Ran(Ran),
    /// It cannot stand where it stood.
    Refused(Refusal),
}

/// What a receipt is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) success: bool,
    pub(crate) gas_used: u64,
    pub(crate) logs: Vec<Log>,
}

/// A location and the value that was seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Balance, nonce and code hash.
    Account(Address, Option<Account>),
    /// That the account is there with this code hash and at least this balance: nothing else was looked
    /// at, neither by the transaction nor to see whether it may pay.
    Shape(Address, B256, U256),
    /// Only that the account has no code; whatever its balance may be.
    Codeless(Address),
    /// A storage slot.
    Slot(Address, U256, U256),
    /// Whether an account without nonce and code has storage (EIP-7610).
    HasStorage(Address, bool),
}

impl Read {
    /// Whether what comes to and goes from a balance does not change it.
    #[inline]
    pub(crate) fn ignores_balance(&self) -> bool {
        match self {
            Self::Codeless(_) | Self::HasStorage(..) => true,
            // An account without code may be there for nothing but what was credited to it.
            Self::Shape(_, code_hash, at_least) => {
                at_least.is_zero() && *code_hash != KECCAK256_EMPTY
            }
            Self::Account(..) | Self::Slot(..) => false,
        }
    }
}

/// What it leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writes {
    /// Final values; in no order, each account once.
    pub(crate) accounts: Vec<AccountDiff>,
    /// What was added to and taken from balances that were not looked at, on top of `accounts`.
    pub(crate) differences: Vec<Difference>,
    pub(crate) codes: Vec<(B256, Bytecode)>,
}

/// So few slots are given room without a look at how many of them were changed.
const SLOTS_NOT_COUNTED: usize = 4;

/// Wei for an account, whatever it has; modulo 2^256 where it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) address: Address,
    pub(crate) wei: U256,
}

impl Writes {
    /// From what revm leaves of a transaction (or a system call), where touched and empty means gone
    /// (EIP-161). Takes codes out of it.
    pub(crate) fn from_evm(state: &mut EvmState) -> Self {
        let mut writes = Self::default();
        writes
            .accounts
            .reserve_exact(state.values().filter(|account| account.is_touched()).count());
        for (address, account) in state {
            writes.add(*address, account);
        }
        writes
    }

    fn add(&mut self, address: Address, account: &mut EvmAccount) {
        if !account.is_touched() {
            return;
        }
        let created = account.is_created();
        if account.is_selfdestructed() || (account.is_empty() && !created) {
            let change = AccountChange::Deleted;
            let gone = AccountDiff { address, change, storage_wiped: true, storage: Vec::new() };
            return self.accounts.push(gone);
        }
        let changed = created || account.is_changed();
        let slots = || account.storage.iter().filter(|(_, slot)| slot.is_changed());
        let mut storage = Vec::with_capacity(match account.storage.len() {
            few @ 0..=SLOTS_NOT_COUNTED => few,
            _ => slots().count(),
        });
        storage.extend(
            slots().map(|(slot, value)| SlotChange { slot: *slot, value: value.present_value }),
        );
        if !changed && storage.is_empty() {
            return;
        }
        let info = &mut account.info;
        let code_hash = collision::code_hash(info);
        let now = Account { nonce: info.nonce, balance: info.balance, code_hash };
        if changed && let Some(code) = info.code.take_if(|code| !code.is_empty()) {
            self.codes.push((code_hash, code));
        }
        let change = if changed { AccountChange::Set(now) } else { AccountChange::Unchanged };
        self.accounts.push(AccountDiff { address, change, storage_wiped: created, storage });
    }
}
