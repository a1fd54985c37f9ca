//! The public suites through `blockraft statetest` and `blocktest`, all of each pack but [`SLOW`]. Loudly
//! skipped where the packs are not on this machine. What may fail is in `docs/conformance.md`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Files that each take longer than most packs: loops and rounds that burn billions of gas. They pass, see
/// `docs/conformance.md`.
const SLOW: [&str; 3] = ["*/CALLBlake2f_MaxRounds.json", "*/loopExp.json", "*/loopMul.json"];

/// A folder of a pack, unpacked.
struct Suite {
    name: String,
    folder: TempDir,
}

impl Suite {
    /// `None` where the pack is not on this machine.
    fn unpack(pack: &str, folder: &str) -> Option<Self> {
        let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
            PathBuf::from,
        );
        let file = packs.join(pack);
        if !file.exists() {
            eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", file.display());
            return None;
        }
        let target = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--zstd", "--wildcards"]);
        tar.args(SLOW.map(|name| format!("--exclude={name}")));
        tar.arg("-xf").arg(&file).arg("-C").arg(target.path()).arg(format!("*/{folder}/*.json"));
        assert!(tar.status().unwrap().success(), "cannot unpack {}", file.display());
        Some(Self { name: format!("{folder} of {pack}"), folder: target })
    }

    /// Runs all of it and returns what was printed; every test passes or is excused.
    fn check(&self, command: &str, arguments: &[&str], at_least: usize) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_blockraft"))
            .arg(command)
            .arg(self.folder.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let excused = excused();
        let (mut passed, mut failed) = (0, 0);
        let mut wrong = Vec::new();
        let (lines, sum) = text.trim_end().rsplit_once('\n').expect("tests, then their sum");
        for line in lines.lines() {
            let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
            let name = verdict["name"].as_str().unwrap();
            if verdict["pass"] == true {
                passed += 1;
                continue;
            }
            failed += 1;
            if !excused.iter().any(|excused| name.contains(excused)) {
                wrong.push(line.to_owned());
            }
        }
        println!("{}: {sum}", self.name);
        assert_eq!(sum, format!("{passed} passed, {failed} failed"), "the last line is the sum");
        let some = &wrong[..wrong.len().min(10)];
        assert!(wrong.is_empty(), "{}: {} failed: {some:#?}", self.name, wrong.len());
        assert!(passed >= at_least, "{}: only {passed} tests were run", self.name);
        text
    }
}

/// Parts of the names of tests that other clients excuse too.
fn excused() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let text = fs::read_to_string(root).unwrap();
    // A list item of the document is a name in backticks.
    let names = text.lines().filter_map(|line| line.strip_prefix("- `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// Alone, and the same with four executors.
fn check(command: &str, pack: &str, folder: &str, at_least: usize) {
    let Some(suite) = Suite::unpack(pack, folder) else { return };
    let alone = suite.check(command, &[], at_least);
    let shared = suite.check(command, &["--executors", "4"], at_least);
    assert!(alone == shared, "{}: four executors print something else", suite.name);
}

#[test]
fn state_tests_of_every_fork_pass() {
    check("statetest", "eest-state.tar.zst", "state_tests", 24_209);
}

#[test]
fn older_state_tests_pass() {
    check("statetest", "legacytests-state.tar.zst", "GeneralStateTests", 101_047);
    check("statetest", "ethereum-tests.tar.zst", "GeneralStateTests", 21_423);
}

#[test]
fn block_tests_of_every_fork_pass() {
    check("blocktest", "eest-blockchain.tar.zst", "blockchain_tests", 17_199);
}

#[test]
fn blocks_with_uncles_side_chains_and_faults_pass() {
    check("blocktest", "ethereum-tests.tar.zst", "BlockchainTests", 594);
}

#[test]
fn block_filling_workloads_pass() {
    check("blocktest", "eest-benchmark.tar.zst", "blockchain_tests", 322);
}

#[test]
fn blocks_of_transactions_that_depend_on_each_other_pass_on_any_executors_and_threads() {
    let Some(suite) = Suite::unpack("conflict-blocks.tar.zst", "blockchain_tests") else { return };
    let alone = suite.check("blocktest", &["--threads", "1"], 61);
    for arguments in [["--executors", "2"], ["--executors", "4"], ["--threads", "3"]] {
        assert!(alone == suite.check("blocktest", &arguments, 61), "{arguments:?}");
    }
}
