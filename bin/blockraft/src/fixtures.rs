//! The public suites' files: where they are, how they write numbers and states, what their networks and
//! exceptions are called; and the way in which `blocktest` and `statetest` run them.

mod exceptions;
mod networks;
mod number;
mod runner;
mod transaction;

pub(crate) use exceptions::{is_expected, label};
pub(crate) use networks::network;
pub(crate) use number::Number;
pub(crate) use runner::{Job, Verdict, run};
pub(crate) use transaction::{Indexes, TestTransaction};

use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, Bytes, U256};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The state that a test starts from or ends with.
pub(crate) type Alloc = BTreeMap<Address, TestAccount>;

/// An account as the suites write it.
#[derive(Debug, Deserialize)]
pub(crate) struct TestAccount {
    #[serde(deserialize_with = "number::number")]
    pub(crate) nonce: U256,
    #[serde(deserialize_with = "number::number")]
    pub(crate) balance: U256,
    pub(crate) code: Bytes,
    #[serde(deserialize_with = "number::numbers")]
    pub(crate) storage: BTreeMap<U256, U256>,
}

/// `config` of newer suites.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestConfig {
    chainid: Option<Number>,
    #[serde(default)]
    blob_schedule: BTreeMap<String, BlobSchedule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlobSchedule {
    target: Number,
    max: Number,
    base_fee_update_fraction: Number,
}

impl TestAccount {
    /// As a genesis file has it.
    pub(crate) fn to_genesis(&self) -> GenesisAccount {
        let storage = self.storage.iter().map(|(slot, value)| ((*slot).into(), (*value).into()));
        GenesisAccount {
            nonce: Some(self.nonce.saturating_to()),
            balance: self.balance,
            code: Some(self.code.clone()),
            storage: Some(storage.collect()),
            private_key: None,
        }
    }
}
