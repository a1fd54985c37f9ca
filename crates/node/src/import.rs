//! Blocks that come from elsewhere: files of exported chains, and the public suites.
//!
//! Each block is checked against every rule of its fork and executed, and its state root taken from the
//! state trie, before it counts. [`MemoryChain`] keeps a
//! tree of blocks in memory and follows the best branch; [`execute_alone`] runs single transactions.

mod alone;
mod block_bytes;
mod error;
mod memory;
mod rules;
mod verify;

pub use alone::execute_alone;
pub use error::ImportError;
pub use memory::MemoryChain;
