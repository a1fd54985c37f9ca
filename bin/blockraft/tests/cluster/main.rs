//! A cluster of real processes: killed, restarted, fed with rubbish, and checked.
#![expect(clippy::disallowed_methods, reason = "tests of real processes read clocks")]

mod bad_input;
mod damage;
mod distributed;
mod engine_api;
mod failover;
mod harness;
mod lifecycle;
mod recovery;
mod replay;
mod timeline;
