//! The public TrieTests (ethereum/tests), those of hashed keys through the arena trie as well.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests may stop a test")]

use alloy_primitives::{B256, Bytes, hex, keccak256};
use blockraft_trie::{RawTrie, plain_root};
use serde_json::Value;
use std::{collections::BTreeMap, io::Read, path::PathBuf};

/// Files under `folder/` of a packed suite; `None`, loudly, where the suites are not.
fn fixture_files(pack: &str, folder: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let directory = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let path = directory.join(pack);
    let Ok(file) = std::fs::File::open(&path) else {
        println!("fixtures not found, skipped: {}", path.display());
        return None;
    };
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name.contains(folder) && name.ends_with(".json") {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.push((name, content));
        }
    }
    Some(files)
}

fn bytes(value: &Value) -> Vec<u8> {
    match value.as_str() {
        None => Vec::new(),
        Some(text) if text.starts_with("0x") => hex::decode(text).unwrap(),
        Some(text) => text.as_bytes().to_vec(),
    }
}

/// The writes of a test in order; an empty value removes.
fn writes(test: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    match &test["in"] {
        Value::Array(pairs) => pairs.iter().map(|p| (bytes(&p[0]), bytes(&p[1]))).collect(),
        Value::Object(pairs) => pairs
            .iter()
            .map(|(key, value)| (bytes(&Value::String(key.clone())), bytes(value)))
            .collect(),
        other => panic!("unknown form of writes: {other}"),
    }
}

/// Applies the writes to an arena trie, taking the root as often as `every` says.
fn arena_root(writes: &[(Vec<u8>, Vec<u8>)], every: usize) -> B256 {
    let mut trie = RawTrie::default();
    for (index, (key, value)) in writes.iter().enumerate() {
        trie.set(B256::from_slice(key), Bytes::copy_from_slice(value));
        if index % every == 0 {
            trie.root();
        }
    }
    trie.root()
}

#[test]
fn public_trie_tests_give_their_roots() {
    let Some(files) = fixture_files("ethereum-tests.tar.zst", "/TrieTests/") else { return };
    assert!(!files.is_empty(), "the pack has TrieTests");
    let (mut by_definition, mut through_arena) = (0, 0);
    for (name, content) in files {
        let tests: BTreeMap<String, Value> = serde_json::from_slice(&content).unwrap();
        for (test_name, test) in tests {
            // trietestnextprev asks for neighbours of keys, which a state trie does not offer.
            let Some(root) = test["root"].as_str() else { continue };
            let root: B256 = root.parse().unwrap();
            let mut writes = writes(&test);
            if name.to_lowercase().contains("secure") {
                for (key, _) in &mut writes {
                    *key = keccak256(&key).to_vec();
                }
            }
            let values: BTreeMap<Vec<u8>, Vec<u8>> = writes.iter().cloned().collect();
            assert_eq!(plain_root(&values), root, "{name} {test_name} by definition");
            by_definition += 1;
            if writes.iter().all(|(key, _)| key.len() == 32) {
                assert_eq!(arena_root(&writes, 1), root, "{name} {test_name}, root each time");
                assert_eq!(arena_root(&writes, usize::MAX), root, "{name} {test_name}");
                through_arena += 1;
            }
        }
    }
    println!("{by_definition} roots by definition, {through_arena} of them through the arena");
    assert!(through_arena >= 14, "secure tests and those of 32-byte keys: {through_arena}");
}
