//! Blocks that this node has built and that are not applied yet: what the next one is built on.

use crate::error::NodeError;
use alloy_consensus::{Header, Sealed};
use alloy_primitives::B256;
use blockraft_primitives::{DiffIndex, DiffLayer, StateDiff, Transaction, WithDiffs};
use blockraft_storage::StateView;
use std::sync::{Arc, OnceLock};

/// A block from being built to being applied.
#[derive(Debug)]
pub(crate) struct Unapplied {
    pub(crate) header: Sealed<Header>,
    pub(crate) transactions: Vec<Transaction>,
    /// Transactions that leave the pool with it.
    pub(crate) dropped: Vec<Transaction>,
    pub(super) diff: Arc<StateDiff>,
    /// `diff`, to be read through; made when somebody does.
    index: OnceLock<Arc<DiffIndex>>,
}

impl Unapplied {
    pub(super) fn new(
        header: Sealed<Header>,
        transactions: Vec<Transaction>,
        dropped: Vec<Transaction>,
        diff: Arc<StateDiff>,
    ) -> Self {
        Self { header, transactions, dropped, diff, index: OnceLock::new() }
    }

    /// Whether the block would change nothing but the height.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.dropped.is_empty()
    }

    fn layer(&self) -> DiffLayer {
        let diff = self.index.get_or_init(|| Arc::new(DiffIndex::new(&self.diff))).clone();
        DiffLayer { diff, block: (self.header.number, self.header.hash()) }
    }
}

/// Those of `blocks` that are above the head, which must lead from it to `parent`.
pub(super) fn above_head<'a>(
    blocks: &'a [Arc<Unapplied>],
    head: &Sealed<Header>,
    parent: B256,
) -> Result<&'a [Arc<Unapplied>], NodeError> {
    let applied = blocks.partition_point(|block| block.header.number <= head.number);
    let above = &blocks[applied..];
    let mut tip = head.hash();
    for block in above {
        if block.header.parent_hash != tip {
            return Err(NodeError::HeadMoved { got: head.hash(), expected: parent });
        }
        tip = block.header.hash();
    }
    if tip != parent {
        return Err(NodeError::HeadMoved { got: head.hash(), expected: parent });
    }
    Ok(above)
}

/// The state after `blocks`, the first of which stands on the view's.
pub(super) fn state_after(base: StateView, blocks: &[Arc<Unapplied>]) -> WithDiffs<StateView> {
    WithDiffs { base, layers: blocks.iter().map(|block| block.layer()).collect() }
}
