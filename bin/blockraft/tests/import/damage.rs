//! What is not a chain, not this chain, or not all of it.

use crate::files::{
    blocks_of, errors, every_fork, export, exported, import_command, last_line, merged,
};
use std::{fs, io::Write, process::Stdio, time::Duration};

#[test]
fn a_bad_block_is_named_with_its_rule_and_what_came_before_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let blocks = blocks_of(&chain.bytes());
    let file = dir.path().join("bad.rlp");
    let mut flipped = blocks[29].clone();
    // Within the state root: after the list headers, the parent's hash, the ommers' hash, and the miner.
    flipped[3 + 3 + 33 + 33 + 21 + 5] ^= 1;
    let flipped = [blocks[..29].concat(), flipped, blocks[30..].concat()].concat();
    let cut = [blocks[..29].concat(), blocks[29][..100].to_vec()].concat();
    let garbage = [blocks[..29].concat(), b"garbage".to_vec()].concat();
    let skipped = [blocks[..29].concat(), blocks[30..].concat()].concat();
    let rows = [
        (flipped, "block 30 (0x", "state root 0x"),
        (cut, "after block 29: ", "the file ends within the record that begins at byte "),
        (garbage, "after block 29: ", "this is not the RLP of a block"),
        (skipped, "block 31 (0x", "parent 0x"),
    ];
    for (index, (bytes, place, rule)) in rows.into_iter().enumerate() {
        let datadir = dir.path().join(index.to_string());
        fs::write(&file, bytes).unwrap();
        let output = chain.import(&file, &datadir, &[]);
        assert_eq!(output.status.code(), Some(1));
        let text = errors(&output);
        assert!(text.contains(place) && text.contains(rule), "{text}");
        assert!(last_line(&output).starts_with("imported 29 blocks head 0x"), "{output:?}");
        assert!(exported(&datadir) == blocks[..29].concat(), "the good ones are kept");
        // The right file brings the rest.
        let output = chain.import(&chain.file(), &datadir, &[]);
        assert!(last_line(&output).starts_with("imported 25 blocks"), "{}", errors(&output));
        assert!(last_line(&output).contains(chain.head));
    }
}

#[test]
fn a_file_that_is_none_leaves_an_empty_chain_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let file = dir.path().join("file");
    let rows: [(&[u8], &str); 4] = [
        (b"{\"blocks\": []}", "byte 0: this is not the RLP of a block"),
        (&[0x1f, 0x8b, 8, 0], "the file is compressed with gzip: unpack it first"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "the file is compressed with zstd: unpack it first"),
        (&[0xc1, 0xc0], "block does not decode"),
    ];
    for (bytes, problem) in rows {
        fs::write(&file, bytes).unwrap();
        let output = chain.import(&file, &dir.path().join("data"), &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(errors(&output).contains(problem), "{}", errors(&output));
        assert!(last_line(&output).starts_with("imported 0 blocks head 0x"), "{output:?}");
    }
    let output = chain.import(&dir.path().join("nowhere"), &dir.path().join("data"), &[]);
    assert!(errors(&output).contains("cannot read chain file"), "{}", errors(&output));
}

#[test]
fn a_directory_of_another_chain_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let Some(other) = merged(dir.path()) else { return };
    let datadir = dir.path().join("data");
    assert!(chain.import(&chain.file(), &datadir, &[]).status.success());

    let output = other.import(&other.file(), &datadir, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("belongs to the chain with genesis hash"));

    // The same block 0, and a fork elsewhere.
    let genesis = fs::read_to_string(chain.genesis()).unwrap();
    let later = dir.path().join("later.json");
    fs::write(&later, genesis.replace("\"osakaTime\": 480", "\"osakaTime\": 490")).unwrap();
    let output = import_command(&later, &chain.file(), &datadir).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("other rules"), "{}", errors(&output));

    // Another chain's blocks, and another chain's block 0.
    let output = chain.import(&other.file(), &datadir, &[]);
    assert!(errors(&output).contains("block 1 (0x") && errors(&output).contains("is unknown"));
    let file = dir.path().join("other.rlp");
    assert!(other.import(&other.file(), &dir.path().join("o"), &[]).status.success());
    fs::write(&file, export(&dir.path().join("o"), &["--from", "0", "--to", "1"]).stdout).unwrap();
    let output = chain.import(&file, &datadir, &[]);
    assert!(errors(&output).contains("this is block 0 of another chain"), "{}", errors(&output));
    assert!(last_line(&output).contains(chain.head), "the chain is as it was");
}

#[test]
fn an_import_that_was_killed_goes_on_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = merged(dir.path()) else { return };
    let datadir = dir.path().join("data");
    // Blocks come through a pipe that stays open, so that the import dies within the file, whenever it does.
    let blocks = blocks_of(&chain.bytes());
    for (count, after_ms) in [(150, 0), (151, 40), (300, 80), (400, 160), (401, 2500)] {
        let mut command = import_command(&chain.genesis(), "-".as_ref(), &datadir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&blocks[..count].concat()).unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = chain.import(&chain.file(), &datadir, &[]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(last_line(&output).contains(chain.head));
    assert!(exported(&datadir) == chain.bytes());
}
