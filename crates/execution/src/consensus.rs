//! What Ethereum says about a block before anything is executed: header against parent, body against
//! header, ommers against ancestors, difficulty, signatures.
//!
//! Every fork from Frontier to Osaka. Proof-of-work seals are not checked: test chains are made without
//! them, and a chain that matters has been merged for years.

mod body;
mod deposits;
mod difficulty;
mod error;
mod header;
mod ommers;
mod signer;

pub use body::check_body;
pub(crate) use deposits::check_deposit_logs;
pub use difficulty::next_difficulty;
pub use error::ConsensusError;
pub use header::{HeaderRules, check_header};
pub use ommers::{Ancestor, OMMER_DEPTH_MAX, check_ommers};
pub use signer::recover;
