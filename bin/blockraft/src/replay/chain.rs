//! The rules of mainnet.

use alloy_eips::eip7840::BlobParams;
use alloy_genesis::{ChainConfig, Genesis};
use alloy_hardforks::ethereum::mainnet::{
    MAINNET_ARROW_GLACIER_BLOCK, MAINNET_BERLIN_BLOCK, MAINNET_BPO1_TIMESTAMP,
    MAINNET_BPO2_TIMESTAMP, MAINNET_BYZANTIUM_BLOCK, MAINNET_CANCUN_TIMESTAMP,
    MAINNET_CONSTANTINOPLE_BLOCK, MAINNET_DAO_BLOCK, MAINNET_GRAY_GLACIER_BLOCK,
    MAINNET_HOMESTEAD_BLOCK, MAINNET_ISTANBUL_BLOCK, MAINNET_LONDON_BLOCK,
    MAINNET_MUIR_GLACIER_BLOCK, MAINNET_OSAKA_TIMESTAMP, MAINNET_PARIS_BLOCK, MAINNET_PARIS_TTD,
    MAINNET_PETERSBURG_BLOCK, MAINNET_PRAGUE_TIMESTAMP, MAINNET_SHANGHAI_TIMESTAMP,
    MAINNET_SPURIOUS_DRAGON_BLOCK, MAINNET_TANGERINE_BLOCK,
};
use alloy_primitives::{Address, address};
use blockraft_primitives::{ChainSpec, GenesisError};
use std::collections::BTreeMap;

/// The deposit contract (EIP-6110).
const DEPOSIT_CONTRACT: Address = address!("00000000219ab540356cBB839Cbe05303d7705Fa");

/// Every fork of mainnet, by number and by time.
pub(super) fn mainnet() -> Result<ChainSpec, GenesisError> {
    ChainSpec::new(&ChainConfig {
        chain_id: 1,
        homestead_block: Some(MAINNET_HOMESTEAD_BLOCK),
        dao_fork_block: Some(MAINNET_DAO_BLOCK),
        dao_fork_support: true,
        eip150_block: Some(MAINNET_TANGERINE_BLOCK),
        eip155_block: Some(MAINNET_SPURIOUS_DRAGON_BLOCK),
        eip158_block: Some(MAINNET_SPURIOUS_DRAGON_BLOCK),
        byzantium_block: Some(MAINNET_BYZANTIUM_BLOCK),
        constantinople_block: Some(MAINNET_CONSTANTINOPLE_BLOCK),
        petersburg_block: Some(MAINNET_PETERSBURG_BLOCK),
        istanbul_block: Some(MAINNET_ISTANBUL_BLOCK),
        muir_glacier_block: Some(MAINNET_MUIR_GLACIER_BLOCK),
        berlin_block: Some(MAINNET_BERLIN_BLOCK),
        london_block: Some(MAINNET_LONDON_BLOCK),
        arrow_glacier_block: Some(MAINNET_ARROW_GLACIER_BLOCK),
        gray_glacier_block: Some(MAINNET_GRAY_GLACIER_BLOCK),
        terminal_total_difficulty: Some(MAINNET_PARIS_TTD),
        merge_netsplit_block: Some(MAINNET_PARIS_BLOCK),
        shanghai_time: Some(MAINNET_SHANGHAI_TIMESTAMP),
        cancun_time: Some(MAINNET_CANCUN_TIMESTAMP),
        prague_time: Some(MAINNET_PRAGUE_TIMESTAMP),
        osaka_time: Some(MAINNET_OSAKA_TIMESTAMP),
        bpo1_time: Some(MAINNET_BPO1_TIMESTAMP),
        bpo2_time: Some(MAINNET_BPO2_TIMESTAMP),
        blob_schedule: BTreeMap::from([
            ("cancun".to_owned(), BlobParams::cancun()),
            ("prague".to_owned(), BlobParams::prague()),
            ("osaka".to_owned(), BlobParams::osaka()),
            ("bpo1".to_owned(), BlobParams::bpo1()),
            ("bpo2".to_owned(), BlobParams::bpo2()),
        ]),
        deposit_contract_address: Some(DEPOSIT_CONTRACT),
        ..Genesis::default().config
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_hardforks::{EthereumChainHardforks, EthereumHardfork, EthereumHardforks};

    #[test]
    fn forks_are_where_the_fields_own_list_has_them() {
        let (ours, theirs) = (mainnet().unwrap(), EthereumChainHardforks::mainnet());
        for fork in EthereumHardfork::VARIANTS {
            let conditions =
                [ours.ethereum_fork_activation(*fork), theirs.ethereum_fork_activation(*fork)];
            let [got, expected] = conditions.map(|condition| {
                (condition.block_number(), condition.as_timestamp(), condition.is_ttd())
            });
            assert_eq!(got, expected, "{fork}");
        }
    }

    #[test]
    fn blobs_follow_the_forks_by_parameters() {
        let spec = mainnet().unwrap();
        let max = |time| spec.blob_params(time).map(|params| params.max_blob_count);
        assert_eq!(max(MAINNET_CANCUN_TIMESTAMP - 1), None);
        let times = [
            MAINNET_CANCUN_TIMESTAMP,
            MAINNET_PRAGUE_TIMESTAMP,
            MAINNET_OSAKA_TIMESTAMP,
            MAINNET_BPO1_TIMESTAMP,
            MAINNET_BPO2_TIMESTAMP,
        ];
        assert_eq!(times.map(max), [6, 9, 9, 15, 21].map(Some));
    }
}
