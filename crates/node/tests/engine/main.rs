//! The Engine API over real nodes: what a consensus client sees, and what the chain comes to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![expect(clippy::disallowed_methods, reason = "tokens have an age, and waiting has an end")]

mod chain;
mod client;
mod cluster;
mod invalid;
mod merge;
mod reorg;
mod suites;
mod world;
