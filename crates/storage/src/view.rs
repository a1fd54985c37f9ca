//! The state at one block.

use alloy_primitives::{Address, B256, Bytes, U256};
use blockraft_primitives::{Account, StateError, StateReader};

/// The state at one block, whatever is applied, persisted or pruned meanwhile.
#[derive(Clone, Debug)]
pub struct StateView {}

impl StateReader for StateView {
    fn account(&self, _address: Address) -> Result<Option<Account>, StateError> {
        unimplemented!()
    }
    fn storage(&self, _address: Address, _slot: U256) -> Result<U256, StateError> {
        unimplemented!()
    }
    fn code(&self, _code_hash: B256) -> Result<Bytes, StateError> {
        unimplemented!()
    }
    fn block_hash(&self, _number: u64) -> Result<B256, StateError> {
        unimplemented!()
    }
}
