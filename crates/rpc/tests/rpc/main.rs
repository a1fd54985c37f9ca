//! The server over a real store, by HTTP and WebSocket: what clients see, byte for byte where it matters.

mod blocks;
mod calls;
mod chain;
mod engine;
mod fees_and_logs;
mod fixture;
mod http;
mod spec;
mod state;
mod submit;
mod subscriptions;
mod transport;
