//! Tests over whole members: openraft's own suite, clusters over loopback, hostile connections.

mod cluster;
mod harness;
mod hostile;
mod memory;
mod suite;
mod transport;
mod writer;
