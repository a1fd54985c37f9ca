//! Subtries that are behind: changes of applied blocks that went into the subtries of this node's own
//! partitions alone, and go into the others later, many at once (decision 0018).
//!
//! What a subtrie that lags must come to is known: the roots of all 256 came with the last block of which
//! hashing was shared out, and gave its header's root.

use crate::error::NodeError;
use blockraft_primitives::{PartitionSet, StateDiff};
use blockraft_trie::{StateTrie, SubtrieRoot};
use std::sync::Arc;

/// The roots of all subtries, by the first byte of their keys.
pub(super) type SubtrieRoots = Arc<[SubtrieRoot]>;

/// Changes of one block that are in some subtries.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) diff: Arc<StateDiff>,
    /// The subtries that have them.
    pub(super) partitions: PartitionSet,
    /// Of all subtries after the block, where hashing was shared out.
    pub(super) roots: Option<SubtrieRoots>,
}

/// Applied blocks of which some subtries do not have the changes.
#[derive(Debug)]
pub(super) struct Lag {
    /// Oldest first; all of them are in the subtries of `fresh` and in no other.
    missed: Vec<Arc<StateDiff>>,
    /// In `missed`.
    pub(super) keys: usize,
    pub(super) fresh: PartitionSet,
    /// After the last block of `missed`.
    pub(super) roots: Option<SubtrieRoots>,
}

/// What brings all subtries to one block.
#[derive(Debug)]
pub(super) struct CatchUp {
    steps: Vec<(Arc<StateDiff>, PartitionSet)>,
    /// Those that are behind, and what they must come to.
    behind: PartitionSet,
    roots: SubtrieRoots,
    /// Height of that block.
    number: u64,
}

impl Default for Lag {
    fn default() -> Self {
        Self { missed: Vec::new(), keys: 0, fresh: PartitionSet::ALL, roots: None }
    }
}

impl Lag {
    /// A block is applied.
    pub(super) fn add(&mut self, block: Written) {
        let Written { diff, partitions, roots } = block;
        if partitions == PartitionSet::ALL {
            return;
        }
        self.fresh = self.fresh.and(&partitions);
        self.keys += diff.key_count();
        self.missed.push(diff);
        self.roots = roots;
    }

    /// Takes what the subtries miss, of applied blocks and of those on top of them, which all count as whole
    /// from now on. `None` where nothing is missing.
    pub(super) fn catch_up<'a>(
        &mut self,
        ahead: impl Iterator<Item = &'a mut Written>,
        head: u64,
    ) -> Option<CatchUp> {
        let Self { missed, fresh, mut roots, .. } = std::mem::take(self);
        let (mut current, mut number) = (fresh, head);
        let mut steps: Vec<_> = missed.into_iter().map(|diff| (diff, fresh.others())).collect();
        for block in ahead {
            number += 1;
            current = current.and(&block.partitions);
            steps.push((block.diff.clone(), block.partitions.others()));
            block.partitions = PartitionSet::ALL;
            roots = block.roots.take().or(roots);
        }
        let behind = current.others();
        if behind.is_empty() {
            return None;
        }
        let roots = roots.expect("what is behind was shared out, and its roots are known");
        Some(CatchUp { steps, behind, roots, number })
    }
}

impl CatchUp {
    /// Brings the subtries up to date, on the rayon pool of the caller.
    ///
    /// # Errors
    /// They do not come to what they must: this node's state is wrong.
    pub(super) fn write(&self, trie: &mut StateTrie) -> Result<(), NodeError> {
        for (diff, partitions) in &self.steps {
            trie.push_to(diff, partitions)?;
        }
        let got = trie.subtrie_roots(&self.behind);
        metrics::counter!("blockraft_root_catch_ups_total").increment(1);
        match got.iter().find(|got| self.roots[usize::from(got.prefix())] != **got) {
            None => Ok(()),
            Some(got) => {
                Err(NodeError::WrongSubtrie { number: self.number, partition: got.prefix() })
            }
        }
    }
}

/// The roots of all subtries, from the trie for those that are current, else from what is known.
pub(super) fn roots_of(
    trie: &mut StateTrie,
    current: &PartitionSet,
    known: Option<&SubtrieRoots>,
) -> Vec<SubtrieRoot> {
    let mut own = trie.subtrie_roots(current).into_iter();
    (0..=u8::MAX)
        .map(|partition| match current.contains(partition) {
            true => own.next().expect("one root for each that was asked for"),
            false => {
                let known = known.expect("what is behind was shared out, and its roots are known");
                known[usize::from(partition)].clone()
            }
        })
        .collect()
}
