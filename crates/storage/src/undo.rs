//! The diffs that undo blocks, while the blocks are being written.

use alloy_primitives::{Address, U256};
use blockraft_primitives::{Account, AccountChange, AccountDiff, SlotChange, StateDiff};
use std::collections::BTreeMap;

/// Previous values by block.
#[derive(Debug, Default)]
pub(crate) struct UndoLog {
    blocks: BTreeMap<u64, BTreeMap<Address, AccountDiff>>,
}

impl UndoLog {
    /// Block `number` changed an account that was `previous` before.
    pub(crate) fn account(&mut self, number: u64, address: Address, previous: Option<Account>) {
        self.entry(number, address).change =
            previous.map_or(AccountChange::Deleted, AccountChange::Set);
    }

    /// Block `number` changed a slot that was `previous` before.
    pub(crate) fn slot(&mut self, number: u64, address: Address, slot: U256, previous: U256) {
        self.entry(number, address).storage.push(SlotChange { slot, value: previous });
    }

    /// One diff for each block that changed something.
    pub(crate) fn into_diffs(self) -> impl Iterator<Item = (u64, StateDiff)> {
        self.blocks.into_iter().map(|(number, accounts)| {
            let mut accounts: Vec<AccountDiff> = accounts.into_values().collect();
            for account in &mut accounts {
                account.storage.sort_unstable_by_key(|change| change.slot);
            }
            (number, StateDiff { accounts, codes: Vec::new() })
        })
    }

    fn entry(&mut self, number: u64, address: Address) -> &mut AccountDiff {
        self.blocks.entry(number).or_default().entry(address).or_insert_with(|| AccountDiff {
            address,
            change: AccountChange::Unchanged,
            storage_wiped: false,
            storage: Vec::new(),
        })
    }
}
