//! The `eth` namespace, one file for each subject.

pub(crate) mod chain;
pub(crate) mod state;
