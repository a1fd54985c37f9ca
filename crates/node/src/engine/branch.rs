//! The state at the end of a branch of payloads.

use crate::{chain::Chain, error::NodeError};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, Bytes, U256};
use blockraft_primitives::{Account, StateError, StateReader};
use blockraft_protocol::{Branch, Candidate};
use blockraft_storage::StateView;

/// The committed state at the branch's ancestor, read through the payloads' diffs.
#[derive(Debug)]
pub(super) struct BranchState<'a> {
    base: StateView,
    payloads: &'a [Candidate],
}

impl<'a> BranchState<'a> {
    pub(super) fn new(chain: &Chain, branch: &'a Branch) -> Result<Self, StateError> {
        Ok(Self { base: chain.store.view(branch.ancestor.0)?, payloads: &branch.payloads })
    }

    fn newest<T>(&self, read: impl Fn(&Candidate) -> Option<T>) -> Option<T> {
        self.payloads.iter().rev().find_map(read)
    }
}

impl StateReader for BranchState<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        let known = self.newest(|payload| payload.index.account(&address));
        known.map_or_else(|| self.base.account(address), Ok)
    }

    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        let known = self.newest(|payload| payload.index.storage(&address, &slot));
        known.map_or_else(|| self.base.storage(address, slot), Ok)
    }

    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        let known = self.newest(|payload| payload.index.has_storage(&address));
        known.map_or_else(|| self.base.has_storage(address), Ok)
    }

    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        let known = self.newest(|payload| payload.index.code(&code_hash).cloned());
        known.map_or_else(|| self.base.code(code_hash), Ok)
    }

    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        let at = |payload: &Candidate| payload.header.number == number;
        match self.payloads.iter().find(|payload| at(payload)) {
            Some(payload) => Ok(payload.header.hash()),
            None => self.base.block_hash(number),
        }
    }
}

/// The header at the end of the branch.
pub(super) fn tip_header(chain: &Chain, branch: &Branch) -> Result<Sealed<Header>, NodeError> {
    if let Some(payload) = branch.payloads.last() {
        return Ok(payload.header.clone());
    }
    let (number, expected) = branch.ancestor;
    let moved = || NodeError::HeadMoved { got: chain.store.head().hash(), expected };
    chain.store.header(number)?.filter(|header| header.hash() == expected).ok_or_else(moved)
}
