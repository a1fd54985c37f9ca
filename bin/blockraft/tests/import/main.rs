//! Chain files into data directories and out again, as an operator does it.
#![expect(clippy::disallowed_methods, reason = "tokens of the Engine API have an age")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod branches;
mod chains;
mod damage;
mod era;
mod files;
mod rpc_cases;
mod serve;
mod server;
