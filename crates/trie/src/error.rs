//! What can go wrong at the door.

use crate::SubtrieRoot;
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
    /// A subtrie that came from elsewhere is not the one expected.
    #[error("subtrie {prefix:#04x} is not the one expected: got {got:?}, expected {expected:?}")]
    SubtrieMismatch {
        /// First byte of its hashed addresses.
        prefix: u8,
        /// What was built.
        got: Box<SubtrieRoot>,
        /// What should have been.
        expected: Box<SubtrieRoot>,
    },
    /// What was dropped cannot be read back. The trie is of no use any more.
    #[error("flat state: {0}")]
    FlatState(String),
    /// What was read back is not what was dropped. The trie is of no use any more.
    #[error("flat state below the first {nibbles} nibbles of {key} is not the trie's")]
    FlatStateDiffers {
        /// A hashed address or slot.
        key: B256,
        /// How much of it counts.
        nibbles: usize,
    },
    /// A checkpoint is damaged or of another state.
    #[error("checkpoint refused: {0}")]
    Checkpoint(&'static str),
    /// A state root needs the roots of all subtries.
    #[error("state root from {got} different subtries ({given} given), expected 256")]
    IncompleteRoots {
        /// Different prefixes.
        got: usize,
        /// Roots given.
        given: usize,
    },
}
