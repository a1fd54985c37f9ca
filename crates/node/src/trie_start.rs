//! The state trie from flat state, on all cores.

use crate::error::NodeError;
use blockraft_storage::Store;
use blockraft_trie::StateTrie;

/// Builds the trie of the persisted state: 256 partitions, each a subtrie of its own.
pub(crate) fn build(store: &Store) -> Result<StateTrie, NodeError> {
    StateTrie::build(|prefix, builder| {
        let mut refused = None;
        store.for_each_account(prefix, &mut |hashed_address, account, storage| {
            if refused.is_none() {
                refused = builder.add_account(hashed_address, &account, storage).err();
            }
        })?;
        refused.map_or(Ok(()), |error| Err(error.into()))
    })
}
