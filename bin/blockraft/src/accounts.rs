//! The accounts that development chains fund.

use alloy_genesis::{Genesis, GenesisAccount};
use alloy_primitives::{Address, B256, U256, utils::parse_ether};
use alloy_signer_local::{MnemonicBuilder, coins_bip39::English};
use anyhow::Context;
use serde::Serialize;

/// The phrase that every Ethereum development tool knows.
pub(crate) const DEV_MNEMONIC: &str = "test test test test test test test test test test test junk";

/// An address and its key. Development only: the keys are printed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DevAccount {
    pub(crate) address: Address,
    pub(crate) private_key: B256,
}

/// Derives `count` accounts at m/44'/60'/0'/0/i.
pub(crate) fn derive(mnemonic: &str, count: u32) -> anyhow::Result<Vec<DevAccount>> {
    (0..count)
        .map(|index| {
            let signer = MnemonicBuilder::<English>::default()
                .phrase(mnemonic)
                .index(index)
                .and_then(|builder| builder.build())
                .context("the mnemonic is not a valid BIP-39 phrase")?;
            Ok(DevAccount { address: signer.address(), private_key: signer.to_bytes() })
        })
        .collect()
}

/// Gives each account 10,000 ETH, unless the genesis gives it something already.
pub(crate) fn fund(genesis: &mut Genesis, accounts: &[DevAccount]) {
    let balance: U256 = parse_ether("10000").expect("a constant that parses");
    for account in accounts {
        genesis
            .alloc
            .entry(account.address)
            .or_insert_with(|| GenesisAccount { balance, ..Default::default() });
    }
}
