//! `blockraft db` as an operator runs it: exit codes, JSON, a bit flipped on disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use alloy_primitives::{Address, address, keccak256};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const RICH: Address = address!("0x00000000000000000000000000000000000000aa");
const GENESIS: &str = r#"{"config": {"chainId": 7, "homesteadBlock": 0, "eip150Block": 0,
    "eip155Block": 0, "eip158Block": 0, "byzantiumBlock": 0, "constantinopleBlock": 0,
    "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0, "londonBlock": 0,
    "terminalTotalDifficulty": 0, "shanghaiTime": 0, "cancunTime": 0, "blockraft": {"shards": 2}},
    "difficulty": "0x0", "gasLimit": "0x1c9c380",
    "alloc": {"0x00000000000000000000000000000000000000aa": {"balance": "0x123456789abcdef0"},
              "0x00000000000000000000000000000000000000bb": {"balance": "0x1",
                  "code": "0x6000", "storage": {"0x01": "0x02"}}}}"#;

fn blockraft(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blockraft")).args(args).output().unwrap()
}

fn db(command: &str, datadir: &Path) -> (Option<i32>, serde_json::Value, String) {
    let output = blockraft(&["db", command, "--datadir", datadir.to_str().unwrap(), "-o", "json"]);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), json, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_flipped_bit_is_told_with_its_place_and_healed_and_exit_codes_say_which() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = dir.path().join("genesis.json");
    fs::write(&genesis, GENESIS).unwrap();
    let datadir = dir.path().join("data");
    let (genesis, data) = (genesis.to_str().unwrap(), datadir.to_str().unwrap());
    assert!(blockraft(&["init", "--genesis", genesis, "--datadir", data]).status.success());

    let (code, stats, _) = db("stats", &datadir);
    assert_eq!(code, Some(0));
    let names: Vec<_> = stats["environments"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|size| size["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["log", "chain", "state-00", "state-01"]);
    for command in ["check", "scrub"] {
        let (code, json, _) = db(command, &datadir);
        assert_eq!((code, json["clean"].as_bool()), (Some(0), Some(true)), "{command}");
    }

    let hashed = keccak256(RICH);
    let shard = usize::from(hashed[0] >= 0x80);
    let file = datadir.join(format!("state-{shard:02}/mdbx.dat"));
    let mut bytes = fs::read(&file).unwrap();
    let record = [hashed.as_slice(), RICH.as_slice()].concat();
    let place = bytes.windows(record.len()).position(|window| window == record).unwrap();
    // Within the balance, whose bytes follow the address.
    bytes[place + record.len() + 6] ^= 0x10;
    fs::write(&file, bytes).unwrap();

    let (code, report, _) = db("scrub", &datadir);
    assert_eq!(code, Some(1));
    assert_eq!(report["clean"], false);
    assert_ne!(report["stateRoot"], report["expectedStateRoot"]);
    let damage = &report["damage"][0];
    assert_eq!(damage["shard"], shard);
    assert_eq!(damage["partition"], hashed[0]);
    assert_eq!(damage["table"], "accounts");
    assert_eq!(damage["key"], serde_json::to_value(hashed).unwrap());

    let (code, repaired, _) = db("repair", &datadir);
    assert_eq!(code, Some(0), "{repaired}");
    assert_eq!(repaired["repaired"]["shards"], serde_json::json!([shard]));
    assert_eq!(db("scrub", &datadir).0, Some(0));
}

#[test]
fn a_directory_that_cannot_be_looked_at_is_not_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, error) = db("scrub", &dir.path().join("nothing"));
    assert_eq!(code, Some(2));
    assert!(error.contains("is not a data directory"), "{error}");

    let genesis = dir.path().join("genesis.json");
    fs::write(&genesis, GENESIS).unwrap();
    let datadir = dir.path().join("data");
    let (genesis, data) = (genesis.to_str().unwrap(), datadir.to_str().unwrap());
    assert!(blockraft(&["init", "--genesis", genesis, "--datadir", data]).status.success());
    let _running = blockraft_storage::Store::open(&datadir).unwrap();
    let (code, _, error) = db("check", &datadir);
    assert_eq!(code, Some(2));
    assert!(error.contains("stop the node"), "{error}");
    assert!(error.contains("in use by another process"), "{error}");
}
