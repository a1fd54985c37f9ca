//! What can go wrong at the door.

use alloy_primitives::B256;

/// A trie that is not what it should be, or cannot be made from what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrieError {
    /// The state is not the one of the header.
    #[error("state root mismatch: got {got}, expected {expected}")]
    RootMismatch {
        /// Of the trie.
        got: B256,
        /// Of the header.
        expected: B256,
    },
    /// Leaves came out of order, twice, or under another prefix.
    #[error("leaf {key} is out of order in subtrie {prefix:#04x}")]
    LeafOrder {
        /// The subtrie that was being built.
        prefix: u8,
        /// The hashed address or slot.
        key: B256,
    },
}
