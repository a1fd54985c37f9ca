//! The public difficulty tests, when the fixtures are on this machine.

use crate::fixtures::json_of;
use alloy_consensus::Header;
use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{B256, U256};
use blockraft_execution::next_difficulty;
use blockraft_primitives::ChainSpec;
use serde_json::{Map, Value};

/// The rules under the name that a test gives them, active from the genesis on.
fn rules(name: &str) -> ChainSpec {
    let names = [
        "Frontier",
        "Homestead",
        "EIP150",
        "EIP158",
        "Byzantium",
        "Constantinople",
        "ConstantinopleFix",
        "Istanbul",
        "EIP2384",
        "Berlin",
        "London",
        "ArrowGlacier",
        "GrayGlacier",
    ];
    let level = names.iter().position(|known| *known == name).expect("a fork of the suite");
    let at = |rank: usize| (rank <= level).then_some(0);
    let config = ChainConfig {
        homestead_block: at(1),
        eip150_block: at(2),
        eip158_block: at(3),
        byzantium_block: at(4),
        constantinople_block: at(5),
        petersburg_block: at(6),
        istanbul_block: at(7),
        muir_glacier_block: at(8),
        berlin_block: at(9),
        london_block: at(10),
        arrow_glacier_block: at(11),
        gray_glacier_block: at(12),
        ..Genesis::default().config
    };
    ChainSpec::new(&config).unwrap()
}

/// Checks the points of one file; returns how many there were.
fn check(file: &Map<String, Value>) -> usize {
    let tests = file.values().flat_map(|test| test.as_object().unwrap());
    let mut count = 0;
    for (fork, points) in tests.filter(|(name, _)| *name != "_info") {
        let spec = rules(fork);
        for (name, point) in points.as_object().unwrap() {
            let number = |field: &str| -> U256 { point[field].as_str().unwrap().parse().unwrap() };
            let ommers = point.get("parentUncles").and_then(Value::as_str).unwrap_or("0x00");
            let empty = Header::default().ommers_hash;
            let has_ommers =
                !matches!(ommers, "0x00" | "0x0") && ommers.parse::<B256>().ok() != Some(empty);
            let parent = Header {
                number: number("currentBlockNumber").to::<u64>() - 1,
                timestamp: number("parentTimestamp").to(),
                difficulty: number("parentDifficulty"),
                ommers_hash: if has_ommers { B256::ZERO } else { empty },
                ..Default::default()
            };
            let got = next_difficulty(&spec, &parent, number("currentTimestamp").to());
            assert_eq!(got, number("currentDifficulty"), "{fork} {name}");
            count += 1;
        }
    }
    count
}

#[test]
fn every_point_of_the_public_difficulty_tests_holds() {
    let files = json_of::<Map<String, Value>>("ethereum-tests.tar.zst", "*/DifficultyTests/*.json");
    let Some(files) = files else { return };
    let count: usize = files.map(|file| check(&file)).sum();
    assert!(count > 15_000, "only {count} points were checked");
}
