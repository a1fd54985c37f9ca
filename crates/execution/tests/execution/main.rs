//! The crate from outside: its door, with data in and data out.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this is tests, helpers included; clippy sees that only of functions marked so"
)]

mod access_list_tests;
mod blockchain_tests;
mod build_tests;
mod chain;
mod contracts;
mod difficulty_tests;
mod engine_tests;
mod fixtures;
mod generator;
mod mainnet_tests;
mod means_tests;
