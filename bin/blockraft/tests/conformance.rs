//! The public suites through `blockraft statetest` and `blocktest`: a sample of each, the same each time.
//! Loudly skipped where the packs are not on this machine. What may fail is in `docs/conformance.md`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which files of a pack are in the sample: every so many, from this one on.
const SEED: usize = 3;

/// Parts of the names of tests that other clients excuse too.
fn excused() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let text = fs::read_to_string(root).unwrap();
    // A list item of the document is a name in backticks.
    let names = text.lines().filter_map(|line| line.strip_prefix("- `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// Unpacks every `step`th file of a pack that lies in `folder`, and returns where.
fn sample(pack: &str, folder: &str, step: usize, target: &Path) -> Option<PathBuf> {
    let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let pack = packs.join(pack);
    if !pack.exists() {
        eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", pack.display());
        return None;
    }
    let list = Command::new("tar").args(["--zstd", "-tf"]).arg(&pack).output().unwrap();
    assert!(list.status.success(), "cannot read {}", pack.display());
    let list = String::from_utf8(list.stdout).unwrap();
    let mut names: Vec<&str> = list
        .lines()
        .filter(|name| name.contains(folder) && name.ends_with(".json"))
        // Each of these takes longer than all others together.
        .filter(|name| !name.contains("stTimeConsuming") && !name.contains("vmPerformance"))
        .collect();
    names.sort_unstable();
    let names: Vec<&str> = names.into_iter().skip(SEED % step).step_by(step).collect();
    let tar = Command::new("tar")
        .args(["--zstd", "-xf"])
        .arg(&pack)
        .arg("-C")
        .arg(target)
        .args(names)
        .status();
    assert!(tar.unwrap().success(), "cannot unpack {}", pack.display());
    Some(target.to_owned())
}

/// Runs a sample; every test of it passes or is excused.
fn check(
    command: &str,
    pack: &str,
    folder: &str,
    step: usize,
    arguments: &[&str],
    at_least: usize,
) {
    let target = tempfile::tempdir().unwrap();
    let Some(files) = sample(pack, folder, step, target.path()) else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_blockraft"))
        .arg(command)
        .arg(files)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let excused = excused();
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = verdict["name"].as_str().unwrap();
        count += 1;
        if verdict["pass"] != true && !excused.iter().any(|excused| name.contains(excused)) {
            wrong.push(line.to_owned());
        }
    }
    assert!(
        wrong.is_empty(),
        "{pack}: {} failed: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    assert!(count >= at_least, "{pack}: only {count} tests were run");
    assert!(text.trim_end().ends_with("failed"), "the last line is the sum");
}

#[test]
fn state_tests_of_every_fork_pass() {
    check("statetest", "eest-state.tar.zst", "state_tests", 4, &[], 4_000);
}

#[test]
fn older_state_tests_pass() {
    check("statetest", "legacytests-state.tar.zst", "GeneralStateTests", 25, &[], 1_500);
    check("statetest", "ethereum-tests.tar.zst", "GeneralStateTests", 10, &[], 1_000);
}

#[test]
fn block_tests_of_every_fork_pass() {
    check("blocktest", "eest-blockchain.tar.zst", "blockchain_tests", 4, &[], 3_000);
}

#[test]
fn blocks_with_uncles_side_chains_and_faults_pass() {
    check("blocktest", "ethereum-tests.tar.zst", "BlockchainTests", 1, &[], 500);
}

#[test]
fn blocks_of_transactions_that_depend_on_each_other_pass_on_many_executors() {
    check("blocktest", "conflict-blocks.tar.zst", "blockchain_tests", 1, &[], 61);
    check("blocktest", "conflict-blocks.tar.zst", "blockchain_tests", 1, &["--executors", "4"], 61);
}
