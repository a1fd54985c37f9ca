//! The `eth` namespace, one file for each subject.

pub(crate) mod access_list;
pub(crate) mod blocks;
pub(crate) mod call;
pub(crate) mod chain;
pub(crate) mod config;
pub(crate) mod estimate;
pub(crate) mod evm;
pub(crate) mod fees;
pub(crate) mod logs;
pub(crate) mod proof;
pub(crate) mod state;
pub(crate) mod submit;
pub(crate) mod transactions;
