//! `blockraft replay`: real blocks pass with any executors and threads; what is wrong with one is named.
//! Loudly skipped where the pack of real blocks is not on this machine.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// Plain transfers, contracts before London, and Cancun.
const BLOCKS: [&str; 3] = ["3356896", "9069000", "19923400"];

/// Files that blocks share.
const ABOVE: [&str; 3] = ["bytecodes.json", "block_hashes.bincode", "block_hashes_older.json"];

fn replay(arguments: &[&str], dirs: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blockraft"))
        .arg("replay")
        .args(arguments)
        .args(dirs)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Unpacks parts of the pack; `None` where it is not on this machine.
fn unpack(parts: &[&str]) -> Option<TempDir> {
    let packs = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let pack = packs.join("mainnet-blocks.tar.zst");
    if !pack.exists() {
        eprintln!("FIXTURES NOT FOUND, NOTHING IS TESTED: {}", pack.display());
        return None;
    }
    let target = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--zstd", "-xf"]).arg(&pack).arg("-C").arg(target.path()).args(parts);
    assert!(tar.status().unwrap().success(), "cannot unpack {}", pack.display());
    Some(target)
}

#[test]
fn real_blocks_pass_with_any_executors_and_threads() {
    let Some(pack) = unpack(&["pevm"]) else { return };
    let complete = pack.path().join("pevm/complete");
    let count = fs::read_dir(&complete).unwrap().count();
    for (executors, threads) in [("1", "1"), ("1", "2"), ("4", "1"), ("4", "2"), ("8", "4")] {
        let set = ["-o", "json", "--repeats", "1", "--executors", executors, "--threads", threads];
        let output = replay(&set, &[&complete]);
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{executors} executors, {threads} threads: {result}");
        assert_eq!((&result["passed"], &result["failed"]), (&json!(count), &json!(0)));
        let shares = result["total"]["sharePerExecutor"].as_array().unwrap();
        assert_eq!(shares.len().to_string(), executors);
        let sum: u64 = shares.iter().map(|share| share.as_u64().unwrap()).sum();
        assert_eq!(result["total"]["transactions"], sum);
    }
    let incomplete = pack.path().join("pevm/incomplete");
    let first = fs::read_dir(&incomplete).unwrap().next().unwrap().unwrap().path();
    let output = replay(&["--repeats", "1"], &[&first]);
    let text = text(&output);
    assert!(text.contains("INCOMPLETE") && text.contains("code 0x"), "{text}");
    assert!(text.ends_with("0 passed, 1 failed\n"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

/// A copy of a block to tamper with, codes and all.
struct Copy {
    folder: PathBuf,
    _root: TempDir,
}

impl Copy {
    fn of(pack: &Path, block: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(block);
        fs::create_dir(&folder).unwrap();
        for file in ["block.json", "pre_state.json"] {
            fs::copy(pack.join("pevm/complete").join(block).join(file), folder.join(file)).unwrap();
        }
        for file in ABOVE {
            fs::copy(pack.join("pevm").join(file), root.path().join(file)).unwrap();
        }
        Self { folder, _root: root }
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.folder.join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// What is said of it, which is that it fails.
    fn complaint(&self) -> String {
        let output = replay(&["--repeats", "1", "--executors", "2"], &[&self.folder]);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.ends_with("0 passed, 1 failed\n"), "{text}");
        text.lines().next().unwrap().to_owned()
    }
}

#[test]
fn differences_are_named() {
    let parts = BLOCKS.map(|block| format!("pevm/complete/{block}"));
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let above = ABOVE.map(|file| format!("pevm/{file}"));
    parts.extend(above.iter().map(String::as_str));
    let Some(pack) = unpack(&parts) else { return };
    let pack = pack.path();
    let zeros = format!("0x{}", "0".repeat(64));
    for (field, value) in [
        ("gasUsed", json!("0x5208")),
        ("receiptsRoot", json!(zeros)),
        ("logsBloom", json!(format!("0x{}", "f".repeat(512)))),
        ("blobGasUsed", json!("0x20000")),
        ("transactionsRoot", json!(zeros)),
    ] {
        let copy = Copy::of(pack, "19923400");
        copy.edit("block.json", |block| block[field] = value);
        let complaint = copy.complaint();
        assert!(complaint.contains(field), "{field}: {complaint}");
    }
    // A sender whose nonce is another: the first of its transactions may not run.
    let copy = Copy::of(pack, "3356896");
    let mut first = String::new();
    copy.edit("block.json", |block| {
        first = block["transactions"][0]["from"].as_str().unwrap().to_owned();
    });
    copy.edit("pre_state.json", |state| state[&first]["nonce"] = json!(9_999_999));
    let complaint = copy.complaint();
    assert!(complaint.starts_with("block 3356896: FAILED: transaction 0 (0x"), "{complaint}");
    // Without the code of a contract that is called.
    let copy = Copy::of(pack, "9069000");
    fs::write(copy.folder.join("../bytecodes.json"), "{}").unwrap();
    let complaint = copy.complaint();
    assert!(complaint.starts_with("block 9069000: INCOMPLETE"), "{complaint}");
    assert!(complaint.contains("code 0x"), "{complaint}");
}

#[test]
fn what_cannot_be_read_is_said() {
    let root = tempfile::tempdir().unwrap();
    let missing = root.path().join("missing");
    for dir in [missing.as_path(), root.path()] {
        let output = replay(&[], &[dir]);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(&dir.display().to_string()), "{error}");
    }
    fs::write(root.path().join("block.json"), "{").unwrap();
    let output = replay(&[], &[root.path()]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(text.contains("block.json does not parse: EOF"), "{text}");
    assert!(text.ends_with("0 passed, 1 failed\n"), "{text}");
    assert_eq!(replay(&["--executors", "0"], &[root.path()]).status.code(), Some(2));
}
