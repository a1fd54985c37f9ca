//! Which block may be the last one with proof of work.

use crate::error::NodeError;
use alloy_consensus::{Header, Sealed};
use alloy_primitives::U256;
use blockraft_primitives::StateError;
use blockraft_storage::Store;

/// The block of the chain that reached the terminal total difficulty: looked for once, since no block up to it
/// is ever taken back.
#[derive(Debug)]
pub(super) struct Terminal {
    /// `None` where the genesis file names none: then any block will do.
    difficulty: Option<U256>,
    /// Blocks that were looked at, and the sum of their difficulties.
    seen: u64,
    sum: U256,
    block: Option<u64>,
}

impl Terminal {
    pub(super) fn new(difficulty: Option<U256>) -> Self {
        Self { difficulty, seen: 0, sum: U256::ZERO, block: None }
    }

    /// Whether a block of the chain may be the head of a consensus client, and the parent of its payloads: a
    /// block from the merge on may, and the first one whose total difficulty is the terminal one or more.
    pub(super) fn admits(
        &mut self,
        store: &Store,
        header: &Sealed<Header>,
    ) -> Result<bool, NodeError> {
        let Some(terminal) = self.difficulty else { return Ok(true) };
        if header.number > 0 && header.difficulty.is_zero() {
            return Ok(true);
        }
        while self.block.is_none() && self.seen <= header.number {
            let number = self.seen;
            let seen = store.header(number)?.ok_or(StateError::UnknownBlock(number))?;
            self.sum = self.sum.saturating_add(seen.difficulty);
            self.block = (self.sum >= terminal).then_some(number);
            self.seen += 1;
        }
        Ok(self.block == Some(header.number))
    }
}
