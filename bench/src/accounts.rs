//! Accounts whose keys everybody may know: they sign workloads, on chains that hold nothing of worth.

use alloy_primitives::keccak256;
use alloy_signer_local::{MnemonicBuilder, PrivateKeySigner, coins_bip39::English};
use rayon::prelude::*;

/// The mnemonic of every development chain (hardhat, anvil, reth).
pub(crate) const DEV_MNEMONIC: &str = "test test test test test test test test test test test junk";
/// Accounts of [`DEV_MNEMONIC`] that genesis files fund.
pub(crate) const DEV_ACCOUNT_COUNT: usize = 20;
/// Accounts that `stress-10k.json` funds beside those of the mnemonic.
pub(crate) const STRESS_ACCOUNT_COUNT: usize = 10_000;

/// The first `count` accounts of the mnemonic, by the path `m/44'/60'/0'/0/i`.
pub(crate) fn dev_accounts(count: usize) -> Vec<PrivateKeySigner> {
    (0..count)
        .into_par_iter()
        .map(|index| {
            let index = u32::try_from(index).expect("account counts are far below 2^32");
            MnemonicBuilder::<English>::default()
                .phrase(DEV_MNEMONIC)
                .index(index)
                .expect("every 32-bit index below 2^31 is a path")
                .build()
                .expect("the mnemonic is valid")
        })
        .collect()
}

/// The first `count` accounts of `stress-10k.json`: private key i is
/// `keccak256("blockraft stress" || i as eight bytes, big-endian)`.
pub(crate) fn stress_accounts(count: usize) -> Vec<PrivateKeySigner> {
    (0..count as u64)
        .into_par_iter()
        .map(|index| {
            let seed = [b"blockraft stress".as_slice(), &index.to_be_bytes()].concat();
            PrivateKeySigner::from_bytes(&keccak256(seed))
                .expect("a hash is a valid key but for one in 2^128")
        })
        .collect()
}

/// `count` senders: the mnemonic's as far as genesis files fund them, then those of the stress rule.
pub(crate) fn senders(count: usize) -> Vec<PrivateKeySigner> {
    let mut senders = dev_accounts(count.min(DEV_ACCOUNT_COUNT));
    senders.extend(stress_accounts(count.saturating_sub(DEV_ACCOUNT_COUNT)));
    senders
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;

    #[test]
    fn mnemonic_accounts_are_the_well_known_ones() {
        let found: Vec<_> = dev_accounts(2).iter().map(PrivateKeySigner::address).collect();
        assert_eq!(
            found,
            [
                address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
                address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            ]
        );
    }

    #[test]
    fn senders_beyond_the_mnemonic_follow_the_stress_rule() {
        let all = senders(DEV_ACCOUNT_COUNT + 2);
        assert_eq!(all[..DEV_ACCOUNT_COUNT], dev_accounts(DEV_ACCOUNT_COUNT));
        assert_eq!(all[DEV_ACCOUNT_COUNT..], stress_accounts(2));
    }
}
