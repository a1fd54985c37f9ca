//! From a root and a diff to the new root: Ethereum's state trie, in memory and in parallel.
//!
//! **Door**: [`StateTrie`] takes a [`StateDiff`](blockraft_primitives::StateDiff) by
//! [`update`](StateTrie::update), any number of times, and yields the root by [`root`](StateTrie::root);
//! [`prove`](StateTrie::prove) answers `eth_getProof`; [`StateTrie::build`] makes one from flat state.
//!
//! **Invariants**: the root equals what a from-scratch computation over the flat state gives, whatever
//! the order and size of updates and the number of threads; applying a diff twice changes nothing; the
//! inverse of a diff restores the root. Nothing here reads a clock, a file or randomness. The only
//! unsafe code is one call in `keccak_x4.rs`.
//!
//! **Terms**: a *subtrie* holds the keys of one first byte (two nibbles); a *part* is a subtrie of a trie
//! that is split so (`parallel.rs`); the *top* of a part is its root node, not yet tied to where it
//! starts; a node's *reference* is what its parent keeps of it, hash or short RLP; *dirty* references
//! wait to be taken again.

mod arena;
mod builder;
mod checkpoint;
mod cold;
mod encode;
mod error;
mod hasher;
mod keccak_x4;
mod leaf;
mod memory;
mod ownership;
mod parallel;
mod proof;
mod raw;
mod state_trie;
mod storage_trie;
mod subtrie;

pub use builder::{BuiltSubtrie, SubtrieBuilder};
pub use cold::FlatState;
pub use error::TrieError;
pub use hasher::hash_all;
pub use ownership::{ExportedAccount, ExportedSlot, SubtrieExport, SubtrieRoot, assemble_root};
pub use proof::{AccountProof, SlotProof};
pub use raw::{RawTrie, plain_root};
pub use state_trie::StateTrie;
