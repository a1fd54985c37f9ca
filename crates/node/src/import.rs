//! Blocks that come from elsewhere: files of exported chains, and the public suites.
//!
//! Each block is checked against every rule of its fork and executed, and its state root taken from the
//! state trie, before it counts. [`import_chain`] brings a chain file into a data directory, over a [`StoredChain`], and
//! [`export_chain`] writes one; [`MemoryChain`] keeps a tree of blocks in memory and follows the best branch;
//! [`execute_alone`] runs single transactions.

mod alone;
mod branches;
mod durable;
mod era;
mod error;
mod export;
mod memory;
mod prepare;
mod rules;
mod run;
mod shares;
mod source;
mod verify;
mod write_behind;

pub use alone::execute_alone;
pub use durable::StoredChain;
pub use error::{FailedBlock, ImportError, ImportFailure};
pub use export::{ExportError, export_chain, export_range};
pub use memory::MemoryChain;
pub use run::{ImportProgress, Imported, import_chain};
pub use shares::Workers;
pub use source::{ChainSource, RawBlock, SourceError, count_blocks};
