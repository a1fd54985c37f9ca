//! The state trie at start: from a checkpoint that is checked, or from flat state, on all cores; and the
//! flat state that it reads dropped parts from.

use crate::error::NodeError;
use alloy_primitives::{B256, U256};
use blockraft_primitives::Account;
use blockraft_storage::Store;
use blockraft_trie::{FlatState, StateTrie, SubtrieBuilder};
use std::sync::Arc;

/// What an operator may choose about the trie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrieOptions {
    /// What it may hold in memory, bytes; everything when absent.
    pub(crate) memory_bytes_max: Option<usize>,
    /// Leave a checkpoint when the node stops, and start from it.
    pub(crate) checkpoint: bool,
}

/// The trie of the persisted state, checked against the head's header.
pub(crate) fn start(store: &Store, options: TrieOptions) -> Result<StateTrie, NodeError> {
    if options.checkpoint
        && let Some(bytes) = store.read_trie_checkpoint()?
    {
        let (head, bytes_max) = (store.head(), options.memory_bytes_max.unwrap_or(usize::MAX));
        let (hash, root) = (head.hash(), head.state_root);
        match StateTrie::from_checkpoint(&bytes, hash, root, bytes_max, on_disk(store)) {
            Ok(trie) => {
                tracing::info!(block = head.number, "the state trie starts from its checkpoint");
                return Ok(trie);
            }
            Err(error) => {
                tracing::warn!(%error, "the state trie's checkpoint is not used: it is rebuilt from the flat state");
            }
        }
    }
    rebuild(store, options.memory_bytes_max)
}

/// Leaves a checkpoint of the trie of the head, all of which must be on disk.
pub(crate) fn leave_checkpoint(store: &Store, trie: &mut StateTrie) -> Result<(), NodeError> {
    let head = store.head();
    if store.persisted_head() != head.number {
        tracing::warn!(
            block = head.number,
            "no checkpoint of the state trie: the head is not on disk"
        );
        return Ok(());
    }
    // What is dropped now could still be asked for.
    trie.limit_memory(usize::MAX, on_disk(store));
    store.write_trie_checkpoint(&trie.checkpoint(head.hash()))?;
    tracing::info!(block = head.number, "a checkpoint of the state trie was written");
    Ok(())
}

/// As [`start`], from the flat state in any case.
pub(crate) fn rebuild(
    store: &Store,
    memory_bytes_max: Option<usize>,
) -> Result<StateTrie, NodeError> {
    let head = store.head();
    let mut trie = build(store, memory_bytes_max)?;
    let got = trie.root();
    if got != head.state_root {
        return Err(NodeError::WrongRoot { number: head.number, got, expected: head.state_root });
    }
    Ok(trie)
}

/// Builds the trie of the persisted state: 256 partitions, each a subtrie of its own; within a memory
/// limit if there is one.
fn build(store: &Store, memory_bytes_max: Option<usize>) -> Result<StateTrie, NodeError> {
    let fill = |prefix: u8, builder: &mut SubtrieBuilder| {
        let mut refused = None;
        store.for_each_account(prefix, &mut |hashed_address, account, storage| {
            if refused.is_none() {
                refused = builder.add_account(hashed_address, &account, storage).err();
            }
        })?;
        refused.map_or(Ok(()), |error| Err(NodeError::Trie(error)))
    };
    match memory_bytes_max {
        None => StateTrie::build(fill),
        Some(bytes) => StateTrie::build_within(bytes, on_disk(store), fill),
    }
}

fn on_disk(store: &Store) -> Arc<dyn FlatState> {
    Arc::new(OnDisk(store.clone()))
}

/// The persisted state.
#[derive(Debug)]
struct OnDisk(Store);

impl FlatState for OnDisk {
    fn accounts(
        &self,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, Account),
    ) -> Result<(), String> {
        self.0.accounts_between(from, to, visit).map_err(|error| error.to_string())
    }

    fn slots(
        &self,
        account: B256,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, U256),
    ) -> Result<(), String> {
        self.0.slots_between(account, from, to, visit).map_err(|error| error.to_string())
    }
}
