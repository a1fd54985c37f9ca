//! Genesis files: what is read, what is refused, and which block 0 they make.

use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, B256, U256, b256};
use blockraft_primitives::{AccountChange, ClusterGenesis, ClusterOptions, GenesisError};
use serde_json::{Value, json};

const DEV: &str = include_str!("../../../genesis/dev.json");
const DEVNET: &str = include_str!("../../../genesis/devnet-3.json");

fn with_config(config: Value) -> Value {
    json!({ "config": config, "gasLimit": "0x1c9c380", "difficulty": "0x0", "alloc": {} })
}

fn read(value: &Value) -> Result<ClusterGenesis, GenesisError> {
    ClusterGenesis::from_json(&value.to_string())
}

#[test]
fn the_built_in_files_are_on_the_newest_fork_from_block_zero() {
    for (text, block_time_ms) in [(DEV, 0), (DEVNET, 250)] {
        let genesis = ClusterGenesis::from_json(text).unwrap();
        assert_eq!(genesis.spec.chain_id, 1337);
        assert_eq!(genesis.options.block_time_ms, block_time_ms);
        assert!(genesis.spec.is_osaka_active_at_timestamp(0));
        assert!(genesis.spec.is_paris_active_at_block(0));
        assert_eq!(genesis.header.base_fee_per_gas, Some(1_000_000_000));
        assert!(genesis.header.requests_hash.is_some());
        assert_eq!(genesis.state().accounts.len(), genesis.genesis.alloc.len());
        genesis.state().assert_sorted();
    }
}

#[test]
fn the_genesis_of_mainnet_without_its_accounts_has_the_fields_of_its_time_only() {
    let genesis = read(&json!({
        "config": { "chainId": 1, "homesteadBlock": 1150000 },
        "nonce": "0x42", "gasLimit": "0x1388", "difficulty": "0x400000000",
        "extraData": "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
        "alloc": {},
    }))
    .unwrap();
    let header = genesis.header.inner();
    assert_eq!(header.state_root, alloy_trie::EMPTY_ROOT_HASH);
    assert_eq!(
        (header.base_fee_per_gas, header.withdrawals_root, header.blob_gas_used),
        (None, None, None)
    );
    // The real block 0 differs by its state root alone.
    let mut real = header.clone();
    real.state_root = b256!("d7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544");
    assert_eq!(
        real.hash_slow(),
        b256!("d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3")
    );
}

#[test]
fn numbers_may_be_decimal_or_hexadecimal_and_unknown_keys_are_kept() {
    let decimal = read(&with_config(json!({ "chainId": 5, "homesteadBlock": 7, "besu": [1] })));
    let hexadecimal = read(&with_config(json!({ "chainId": 5, "homesteadBlock": "0x7" })));
    let (decimal, hexadecimal) = (decimal.unwrap(), hexadecimal.unwrap());
    let homestead = EthereumHardfork::Homestead;
    for genesis in [&decimal, &hexadecimal] {
        let fork = genesis.spec.ethereum_fork_activation(homestead);
        assert_eq!(fork, ForkCondition::Block(7));
    }
    assert_eq!(decimal.genesis.config.extra_fields.get("besu"), Some(&json!([1])));
    assert_eq!(decimal.hash(), hexadecimal.hash());
}

#[test]
fn cluster_options_are_read_and_their_mistakes_refused() {
    let options = json!({ "blockTimeMs": 100, "shards": 8, "gasless": true });
    let genesis = read(&with_config(json!({ "chainId": 5, "londonBlock": 0, "homesteadBlock": 0,
            "eip150Block": 0, "eip155Block": 0, "eip158Block": 0, "byzantiumBlock": 0,
            "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0,
            "blockraft": options })));
    let genesis = genesis.unwrap();
    let expected =
        ClusterOptions { block_time_ms: 100, shards: 8, gasless: true, ..Default::default() };
    assert_eq!(genesis.options, expected);
    assert_eq!(genesis.header.base_fee_per_gas, Some(0));

    let refused = |blockraft: Value| {
        read(&with_config(json!({ "chainId": 5, "blockraft": blockraft }))).unwrap_err().to_string()
    };
    assert_eq!(
        refused(json!({ "shards": 3 })),
        "config.blockraft.shards must be 1, 2, 4, 8 or 16, got 3"
    );
    assert_eq!(
        refused(json!({ "shards": 32 })),
        "config.blockraft.shards must be 1, 2, 4, 8 or 16, got 32"
    );
    assert!(refused(json!({ "blockTime": 1 })).contains("unknown field `blockTime`"));
}

#[test]
fn forks_out_of_order_are_refused() {
    let missing = with_config(json!({ "chainId": 1, "homesteadBlock": 0, "byzantiumBlock": 0 }));
    let backwards = with_config(json!({ "chainId": 1, "homesteadBlock": 5, "eip150Block": 4 }));
    for value in [missing, backwards] {
        assert!(matches!(read(&value).unwrap_err(), GenesisError::ForkOrder { .. }), "{value}");
    }
    assert!(matches!(ClusterGenesis::from_json("{").unwrap_err(), GenesisError::Json(_)));
    let mut numbered = with_config(json!({ "chainId": 1 }));
    numbered["number"] = "0x1".into();
    assert!(matches!(read(&numbered).unwrap_err(), GenesisError::Number { got: 1 }));
}

#[test]
fn an_allocation_becomes_a_diff_with_code_and_storage() {
    let mut value = with_config(json!({ "chainId": 1 }));
    let slot = B256::with_last_byte(1);
    value["alloc"] = json!({ "0x00000000000000000000000000000000000000aa": {
        "balance": "0x5", "nonce": "0x2", "code": "0x6001",
        "storage": { slot.to_string(): B256::with_last_byte(9), B256::ZERO.to_string(): B256::ZERO },
    }});
    let state = read(&value).unwrap().state();
    assert_eq!(state.codes, vec![alloy_primitives::bytes!("6001")]);
    let account = &state.accounts[0];
    assert_eq!(account.address, Address::with_last_byte(0xaa));
    let AccountChange::Set(fields) = account.change else { panic!("set: {account:?}") };
    assert_eq!((fields.nonce, fields.balance), (2, U256::from(5)));
    assert_eq!(fields.code_hash, alloy_primitives::keccak256([0x60, 1]));
    let slots: Vec<_> = account.storage.iter().map(|s| (s.slot, s.value)).collect();
    assert_eq!(slots, vec![(U256::from(1), U256::from(9))], "a zero slot is no slot");
}
