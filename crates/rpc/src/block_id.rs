//! From the block that a client names to a block of the chain.
//!
//! One rule for every method: a committed block is final, so `latest`, `safe` and `finalized` are the
//! last visible block. Only where a consensus client drives the chain, it says what is safe and final. `pending` is the pool on top of it: the same state, later nonces.

use crate::{
    api::Api,
    config::Finality,
    errors::{RpcError, RpcResult},
};
use alloy_consensus::{Header, Sealed};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;
use blockraft_primitives::{SealedBlock, StateError};
use blockraft_storage::StateView;
use std::sync::Arc;

/// The state at a block, and the block's header.
pub(crate) struct StateAt {
    pub(crate) header: Sealed<Header>,
    pub(crate) view: StateView,
}

impl Api {
    /// The number that a tag stands for now.
    pub(crate) fn number(&self, tag: BlockNumberOrTag) -> u64 {
        match tag {
            BlockNumberOrTag::Number(number) => number,
            BlockNumberOrTag::Earliest => 0,
            BlockNumberOrTag::Latest | BlockNumberOrTag::Pending => self.store.head().number,
            BlockNumberOrTag::Safe => self.settled(|finality| finality.safe),
            BlockNumberOrTag::Finalized => self.settled(|finality| finality.finalized),
        }
    }

    /// The number of a block that a consensus client named; one that no block has before it named any.
    fn settled(&self, hash: impl FnOnce(&Finality) -> B256) -> u64 {
        let Some(finality) = &self.finality else { return self.store.head().number };
        let hash = hash(&finality.borrow());
        self.store.number_of(&hash).ok().flatten().unwrap_or(u64::MAX)
    }

    /// The block's number; `None` where there is no such block.
    pub(crate) fn known_number(&self, id: BlockId) -> RpcResult<Option<u64>> {
        match id {
            // Every block there is is canonical, so `requireCanonical` changes nothing.
            BlockId::Hash(hash) => Ok(self.store.number_of(&hash.block_hash)?),
            BlockId::Number(tag) => {
                let number = self.number(tag);
                Ok((number <= self.store.head().number).then_some(number))
            }
        }
    }

    /// The block; `None` where there is no such block.
    pub(crate) fn block(&self, id: BlockId) -> RpcResult<Option<Arc<SealedBlock>>> {
        match self.known_number(id)? {
            Some(number) => Ok(self.store.block(number)?),
            None => Ok(None),
        }
    }

    /// The header; `None` where there is no such block.
    pub(crate) fn header(&self, id: BlockId) -> RpcResult<Option<Sealed<Header>>> {
        match self.known_number(id)? {
            Some(number) => Ok(self.store.header(number)?),
            None => Ok(None),
        }
    }

    /// The state that a call names; geth's texts where there is none.
    pub(crate) fn state(&self, id: BlockId) -> RpcResult<StateAt> {
        let Some(header) = self.header(id)? else {
            return Err(match id {
                BlockId::Hash(_) => RpcError::server("header for hash not found"),
                BlockId::Number(_) => RpcError::header_not_found(),
            });
        };
        let view = self.store.view(header.number).map_err(|error| match error {
            StateError::Pruned { .. } => RpcError::pruned_state(&header.state_root),
            error => error.into(),
        })?;
        Ok(StateAt { header, view })
    }
}
