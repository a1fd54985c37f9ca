//! Chain files into data directories and out again, as an operator does it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod chains;
mod damage;
mod era;
mod files;
