//! The public suites about single transactions and their encoding, when they are on this machine.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, helpers included; clippy sees that only of functions marked so"
)]

mod raw;
mod rlp;
mod transactions;

use serde_json::{Map, Value};
use std::{fs::File, io::Read, path::PathBuf};

/// The tests by name in those files of `ethereum-tests` whose path contains `folder`; `None`, loudly, where
/// the fixtures are not on this machine.
fn tests_in(folder: &str) -> Option<Map<String, Value>> {
    let files = files_in("ethereum-tests.tar.zst", folder, ".json")?;
    let named = files.into_iter().flat_map(|(path, text)| {
        let file: Map<String, Value> = serde_json::from_str(&text).unwrap();
        file.into_iter().map(move |(name, test)| (format!("{path}: {name}"), test))
    });
    Some(named.collect())
}

/// Paths and texts of those files of a pack whose path contains `folder` and ends so.
fn files_in(pack: &str, folder: &str, ending: &str) -> Option<Vec<(String, String)>> {
    let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let pack = packs.join(pack);
    if !pack.exists() {
        eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", pack.display());
        return None;
    }
    let stream = zstd::Decoder::new(File::open(&pack).unwrap()).unwrap();
    let mut files = Vec::new();
    for entry in tar::Archive::new(stream).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        if path.contains(folder) && path.ends_with(ending) {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.push((path, text));
        }
    }
    Some(files)
}
