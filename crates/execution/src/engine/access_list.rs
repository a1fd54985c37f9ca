//! What a block looked at and changed, transaction by transaction (EIP-7928).
//!
//! Gathered as places become final: the values before and after a place are the memory's, so what came and
//! went counts at the place that moved it, whoever looks at the balance later.

use super::{
    memory::{Memory, Place},
    outcome::{Outcome, Read, Writes},
};
use crate::{DatabaseError, late::Patience};
use alloy_eips::{
    eip2935::HISTORY_STORAGE_ADDRESS,
    eip7928::{
        AccountChanges, BalanceChange, BlockAccessIndex, BlockAccessList, CodeChange, NonceChange,
        SlotChanges, StorageChange,
    },
};
use alloy_primitives::{Address, U256};
use blockraft_primitives::StateReader;
use revm::state::EvmState;
use std::collections::BTreeMap;

/// A list in the making.
#[derive(Debug, Default)]
pub(crate) struct AccessList {
    /// Looked at by every transaction, because it is paid.
    fee_recipient: Address,
    accounts: BTreeMap<Address, Accessed>,
}

/// What is known of an account; what was only looked at has no changes.
#[derive(Debug, Default)]
struct Accessed {
    slots: BTreeMap<U256, Vec<StorageChange>>,
    balances: Vec<BalanceChange>,
    nonces: Vec<NonceChange>,
    codes: Vec<CodeChange>,
}

/// An account, or one of its slots.
pub(crate) type Location = (Address, Option<U256>);

/// Everything that revm loaded for a transaction or call.
pub(crate) fn loaded(state: &EvmState) -> Vec<Location> {
    let of_account = |(address, account): (&Address, &revm::state::Account)| {
        let address = *address;
        let slots = account.storage.keys().map(move |slot| (address, Some(*slot)));
        std::iter::once((address, None)).chain(slots.collect::<Vec<_>>())
    };
    state.iter().flat_map(of_account).collect()
}

impl Read {
    fn location(&self) -> Location {
        match self {
            Self::Account(address, _)
            | Self::Shape(address, ..)
            | Self::Codeless(address)
            | Self::HasStorage(address, _) => (*address, None),
            Self::Slot(address, slot, _) => (*address, Some(*slot)),
        }
    }
}

impl AccessList {
    pub(crate) fn new(fee_recipient: Address) -> Self {
        Self { fee_recipient, ..Self::default() }
    }

    /// Takes the final outcome of the block's transaction `index` (from 0), which is published at `place`.
    pub(crate) fn add_transaction<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
        index: usize,
        outcome: &Outcome,
    ) -> Result<(), DatabaseError> {
        self.accounts.entry(self.fee_recipient).or_default();
        let looked_at = outcome.reads.iter().map(Read::location);
        self.add(memory, place, index as u64 + 1, looked_at, &outcome.writes)
    }

    /// Takes what is final and published at `place`, and all that was looked at for it.
    pub(crate) fn add<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
        index: u64,
        looked_at: impl Iterator<Item = Location>,
        writes: &Writes,
    ) -> Result<(), DatabaseError> {
        let index = BlockAccessIndex::new(index);
        // What storage a change may have touched is among what was looked at.
        let mut slots: BTreeMap<Address, Vec<U256>> = BTreeMap::new();
        for (address, slot) in looked_at {
            let account = self.accounts.entry(address).or_default();
            if let Some(slot) = slot {
                account.slots.entry(slot).or_default();
                slots.entry(address).or_default().push(slot);
            }
        }
        for write in &writes.accounts {
            self.change_account(memory, place, index, write.address)?;
            for slot in slots.remove(&write.address).unwrap_or_default() {
                self.change_slot(memory, place, index, (write.address, slot))?;
            }
        }
        for difference in &writes.differences {
            self.change_account(memory, place, index, difference.address)?;
        }
        Ok(())
    }

    fn change_account<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
        index: BlockAccessIndex,
        address: Address,
    ) -> Result<(), DatabaseError> {
        let before = memory.account(address, place)?.unwrap_or_default();
        let after = memory.account(address, place + 1)?.unwrap_or_default();
        let account = self.accounts.entry(address).or_default();
        // An account that is written and credited in one transaction comes by twice.
        let is_new = |last: Option<BlockAccessIndex>| last != Some(index);
        if before.balance != after.balance
            && is_new(account.balances.last().map(|last| last.block_access_index))
        {
            account.balances.push(BalanceChange::new(index, after.balance));
        }
        if before.nonce != after.nonce
            && is_new(account.nonces.last().map(|last| last.block_access_index))
        {
            account.nonces.push(NonceChange::new(index, after.nonce));
        }
        if before.code_hash != after.code_hash
            && is_new(account.codes.last().map(|last| last.block_access_index))
        {
            let code = if after.has_code() {
                memory.code(after.code_hash)?.original_bytes()
            } else {
                Default::default()
            };
            account.codes.push(CodeChange::new(index, code));
        }
        Ok(())
    }

    fn change_slot<S: StateReader>(
        &mut self,
        memory: &Memory<S>,
        place: Place,
        index: BlockAccessIndex,
        (address, slot): (Address, U256),
    ) -> Result<(), DatabaseError> {
        let before = memory.slot(address, slot, place)?;
        let after = memory.slot(address, slot, place + 1)?;
        let changes = self.accounts.entry(address).or_default().slots.entry(slot).or_default();
        // A slot may have been read more than once.
        let is_new = changes.last().is_none_or(|last| last.block_access_index != index);
        if before != after && is_new {
            changes.push(StorageChange::new(index, after));
        }
        Ok(())
    }

    /// The list in the order that EIP-7928 prescribes. Waits for the parent's hash, which is in it.
    pub(crate) fn finish<S: StateReader>(
        self,
        memory: &Memory<S>,
    ) -> Result<BlockAccessList, DatabaseError> {
        let mut list = Vec::with_capacity(self.accounts.len());
        for (address, account) in self.accounts {
            let mut changes = AccountChanges {
                balance_changes: account.balances,
                nonce_changes: account.nonces,
                code_changes: account.codes,
                ..AccountChanges::new(address)
            };
            for (slot, mut values) in account.slots {
                if values.is_empty() {
                    changes.storage_reads.push(slot);
                    continue;
                }
                if address == HISTORY_STORAGE_ADDRESS {
                    for change in &mut values {
                        let value = change.new_value;
                        change.new_value =
                            memory.parent().resolve(address, value, Patience::Wait)?;
                    }
                }
                changes.storage_changes.push(SlotChanges::new(slot, values));
            }
            list.push(changes);
        }
        Ok(list)
    }
}
