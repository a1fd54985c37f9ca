//! What an outcome tells whoever places work: what it used and where it wrote.

use super::outcome::{Outcome, Verdict};
use alloy_primitives::{Address, U256};
use blockraft_primitives::AccountChange;

impl Outcome {
    /// Gas that the transaction used, if it stands in the block.
    pub fn gas_used(&self) -> Option<u64> {
        match &self.verdict {
            Verdict::Ran(ran) => Some(ran.gas_used),
            Verdict::Refused(_) => None,
        }
    }

    /// Where final values were written: a slot, or without one the account itself. Differences, which never
    /// conflict, are not among them.
    pub fn writes(&self) -> impl Iterator<Item = (Address, Option<U256>)> + '_ {
        self.writes.accounts.iter().flat_map(|account| {
            let itself = (account.change != AccountChange::Unchanged).then_some(None);
            let slots = account.storage.iter().map(|change| Some(change.slot));
            itself.into_iter().chain(slots).map(|slot| (account.address, slot))
        })
    }
}
