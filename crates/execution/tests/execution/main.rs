//! The crate from outside: its door, with data in and data out.

mod blockchain_tests;
mod build_tests;
mod chain;
mod engine_tests;
mod fixtures;
mod generator;
mod mainnet_tests;
