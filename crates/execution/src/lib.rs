//! Running blocks over revm: building them, and executing given ones serially.
//!
//! **Door**: [`build_block`] turns ordered candidates into a block, and [`execute_block`] runs a given one,
//! both serially; [`build()`] and [`execute`] do the same on many threads and with outcomes that other
//! machines computed ([`execute_share`]), and [`Means`] gathers what a block looked at (EIP-7928) on the way;
//! [`evm_env`] and [`StateDatabase`] serve calls that change nothing (`eth_call`).
//!
//! **Invariants**: pure: no clock, no randomness, no file, no await; same parent state, attributes and
//! candidates give the same block, bit for bit, on any number of threads; [`execute_block`] takes no short
//! cut and is the oracle ([`PlainState`] is less: what speed is measured against). A reverting transaction
//! is a receipt, never an error; only a state that cannot be read, or a block that breaks a rule, is an `Err`.
//!
//! **Terms**: *attributes* are what the proposer chooses of a block; *candidates* are transactions it may
//! take; a candidate is *included*, *skipped* (stays in the pool) or *dropped* (leaves it); a *diff* is the
//! net change of a block.

mod block_state;
mod build;
mod codes;
mod collision;
mod consensus;
mod constantinople;
mod database;
mod engine;
mod env;
mod error;
mod instructions;
mod late;
mod plain;
mod roots;
mod runner;
mod serial;
mod system;
mod transfer;
mod validate;
mod watchdog;

pub use build::{BuiltBlock, build_block};
pub use codes::CodeCache;
pub use consensus::{
    Ancestor, ConsensusError, HeaderRules, OMMER_DEPTH_MAX, check_body, check_header, check_ommers,
    next_difficulty, recover,
};
pub use database::{DatabaseError, StateDatabase};
pub use engine::{
    Basis, BlockInput, BlockResult, BuildInput, BuildResult, Means, OUTCOMES_VERSION, Outcome,
    OutcomesError, build, build_with, decode_outcomes, encode_outcomes, execute, execute_share,
    execute_share_with, execute_transaction_shared, execute_with, is_light,
};
pub use env::{BlockAttributes, evm_env, next_evm_env, next_header};
pub use error::{ExecutionError, HeaderMismatch};
pub use late::{LateParent, LatePromise, LateValues};
pub use plain::{PlainBlock, PlainState};
pub use roots::receipts_root_and_bloom;
pub use serial::{ExecutedBlock, execute_block, execute_block_with_roots, execute_transaction};
pub use watchdog::Watchdog;
