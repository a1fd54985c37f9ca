//! Whole chains: the expected head and state, the same bytes out again, whoever executes.

use crate::files::{errors, every_fork, export, exported, import_command, last_line, merged};
use serde_json::Value;
use std::{fs, path::Path};

/// The state that a data directory ends with, as the node that serves it would read it.
fn check_state(datadir: &Path, dump: &Value) {
    use alloy_primitives::{Address, B256, U256};
    use blockraft_primitives::StateReader;
    let store = blockraft_storage::Store::open(datadir).unwrap();
    let view = store.view(store.head().number).unwrap();
    for (address, expected) in dump["accounts"].as_object().unwrap() {
        let address: Address = address.parse().unwrap();
        let account = view.account(address).unwrap().unwrap();
        assert_eq!(account.nonce, expected["nonce"].as_u64().unwrap(), "{address}");
        assert_eq!(account.balance.to_string(), expected["balance"].as_str().unwrap(), "{address}");
        assert_eq!(account.code_hash.to_string(), expected["codeHash"].as_str().unwrap());
        for (slot, value) in expected["storage"].as_object().into_iter().flatten() {
            let slot: B256 = slot.parse().unwrap();
            let value = U256::from_str_radix(value.as_str().unwrap(), 16).unwrap();
            assert_eq!(view.storage(address, slot.into()).unwrap(), value, "{address} {slot}");
        }
    }
    let root = dump["root"].as_str().unwrap();
    assert_eq!(
        alloy_primitives::hex::encode(store.head().state_root),
        root.trim_start_matches("0x")
    );
}

#[test]
fn a_chain_through_every_fork_is_imported_and_exported_byte_for_byte_by_any_number_of_executors() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let mut printed = Vec::new();
    for executors in ["1", "2", "4"] {
        let datadir = dir.path().join(executors);
        let output = chain.import(&chain.file(), &datadir, &["--executors", executors]);
        assert!(output.status.success(), "{}", errors(&output));
        let line = last_line(&output);
        let expected = format!("imported {} blocks head {} root 0x", chain.blocks, chain.head);
        assert!(line.starts_with(&expected), "{line}");
        printed.push(line);
        assert!(exported(&datadir) == chain.bytes(), "the bytes that came in");
    }
    printed.dedup();
    assert_eq!(printed.len(), 1);
}

#[test]
fn a_merged_chain_ends_in_the_state_that_was_published_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = merged(dir.path()) else { return };
    for threads in ["1", "2"] {
        let datadir = dir.path().join(threads);
        let more = ["--threads", threads, "-o", "json"];
        let output = chain.import(&chain.file(), &datadir, &more);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&json["imported"], &json["head"]), (&chain.blocks.into(), &chain.head.into()));
        assert_eq!((&json["number"], &json["error"]), (&600.into(), &Value::Null));
        let dump = fs::read(chain.folder.join("headstate.json")).unwrap();
        check_state(&datadir, &serde_json::from_slice(&dump).unwrap());
        assert!(exported(&datadir) == chain.bytes(), "the bytes that came in");
    }
}

#[test]
fn an_import_goes_on_where_the_last_one_ended_and_the_same_again_is_success() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    let blocks = crate::files::blocks_of(&chain.bytes());
    let part = dir.path().join("part.rlp");
    fs::write(&part, blocks[..30].concat()).unwrap();
    let output = chain.import(&part, &datadir, &[]);
    assert!(last_line(&output).starts_with("imported 30 blocks head 0x"), "{}", errors(&output));
    for expected in ["imported 24 blocks", "imported 0 blocks"] {
        let output = chain.import(&chain.file(), &datadir, &[]);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(last_line(&output).starts_with(&format!("{expected} head {} ", chain.head)));
    }
    // Block 0 may be in the file, as other clients export it.
    let whole = export(&datadir, &["--from", "0", "--to", "7"]).stdout;
    fs::write(&part, &whole).unwrap();
    let output = chain.import(&part, &dir.path().join("other"), &[]);
    assert!(last_line(&output).starts_with("imported 7 blocks"), "{}", errors(&output));
}

#[test]
fn a_range_is_exported_and_one_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    assert!(chain.import(&chain.file(), &datadir, &[]).status.success());
    let blocks = crate::files::blocks_of(&chain.bytes());
    let output = export(&datadir, &["--from", "7", "--to", "9"]);
    assert!(output.stdout == blocks[6..9].concat());
    let told = format!("exported 3 blocks from 7 to 9 {} bytes", output.stdout.len());
    assert_eq!(errors(&output).lines().last(), Some(told.as_str()));
    let file = dir.path().join("out.rlp");
    fs::write(&file, "mine").unwrap();
    for (range, problem) in [
        (["--from", "7", "--to", "55"], "blocks 7 to 55 were asked for, the chain has 0 to 54"),
        (["--from", "9", "--to", "8"], "blocks 9 to 8 were asked for, the chain has 0 to 54"),
    ] {
        let mut command = crate::files::blockraft();
        command.arg("export").arg("--datadir").arg(&datadir).args(range).arg("--out").arg(&file);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains(problem), "{}", errors(&output));
        assert_eq!(fs::read(&file).unwrap(), b"mine", "nothing is overwritten");
    }
}

#[test]
fn standard_input_is_a_chain_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    let mut command = import_command(&chain.genesis(), Path::new("-"), &datadir);
    let output = command.stdin(fs::File::open(chain.file()).unwrap()).output().unwrap();
    assert!(last_line(&output).contains(chain.head), "{}", errors(&output));
}
