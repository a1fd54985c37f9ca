//! The public difficulty tests, when the fixtures are on this machine.

use crate::fixtures::json_of;
use alloy_consensus::Header;
use alloy_primitives::{B256, U256};
use blockraft_execution::next_difficulty;
use blockraft_primitives::{ChainSpec, network};
use serde_json::{Map, Value};

/// Checks the points of one file; returns how many there were.
fn check(file: &Map<String, Value>) -> usize {
    let tests = file.values().flat_map(|test| test.as_object().unwrap());
    let mut count = 0;
    for (fork, points) in tests.filter(|(name, _)| *name != "_info") {
        let spec = ChainSpec::new(&network(fork, 1).unwrap()).unwrap();
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
