//! Files with blocks beside the chain that a directory holds.

use crate::files::{Chain, blocks_of, errors, every_fork, export, exported, last_line};
use alloy_consensus::{Block, TxEnvelope};
use alloy_rlp::Decodable;
use std::{fs, path::Path};

/// The block of this number with other extra data, which nothing in it depends on: valid, and another block.
fn sibling(chain: &Chain, number: usize) -> Vec<u8> {
    let bytes = &blocks_of(&chain.bytes())[number - 1];
    let mut block = Block::<TxEnvelope>::decode(&mut bytes.as_slice()).unwrap();
    block.header.extra_data = b"beside".as_slice().into();
    alloy_rlp::encode(&block)
}

/// Imports some blocks; the answer's last line, and its errors.
fn import(chain: &Chain, blocks: &[u8], datadir: &Path, more: &[&str]) -> (String, String) {
    let file = datadir.with_extension("rlp");
    fs::write(&file, blocks).unwrap();
    let output = chain.import(&file, datadir, more);
    (last_line(&output), errors(&output))
}

#[test]
fn before_the_merge_an_equal_branch_stays_beside_and_after_it_the_last_block_wins() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    assert!(chain.import(&chain.file(), &datadir, &[]).status.success());

    let (line, _) = import(&chain, &sibling(&chain, 20), &datadir, &[]);
    assert!(line.starts_with(&format!("imported 1 blocks head {} ", chain.head)), "{line}");
    assert!(exported(&datadir) == chain.bytes());

    // Block 40 is merged: the chain goes back to block 39 for another one, and all the way again.
    let other = sibling(&chain, 40);
    let (line, text) = import(&chain, &other, &datadir, &[]);
    assert!(line.starts_with("imported 1 blocks head 0x") && !line.contains(chain.head), "{text}");
    let blocks = blocks_of(&chain.bytes());
    assert!(exported(&datadir) == [blocks[..39].concat(), other.clone()].concat());
    let (line, text) = import(&chain, &chain.bytes(), &datadir, &[]);
    assert!(line.starts_with(&format!("imported 15 blocks head {} ", chain.head)), "{line}{text}");
    assert!(exported(&datadir) == chain.bytes());

    // To and fro within one file: what the chain left can be gone on with.
    let both = [blocks[..45].concat(), other, blocks[45..].concat()].concat();
    let (line, text) = import(&chain, &both, &dir.path().join("fresh"), &["--executors", "3"]);
    assert!(line.starts_with(&format!("imported 55 blocks head {} ", chain.head)), "{line}{text}");
    assert!(exported(&dir.path().join("fresh")) == chain.bytes());
}

#[test]
fn a_branch_that_begins_below_the_history_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let datadir = dir.path().join("data");
    let history = ["--history", "5"];
    // History is pruned as blocks are written, so in two goes.
    import(&chain, &blocks_of(&chain.bytes())[..50].concat(), &datadir, &history);
    assert!(chain.import(&chain.file(), &datadir, &history).status.success());
    let (line, text) = import(&chain, &sibling(&chain, 40), &datadir, &history);
    let reason = "the branch begins at block 39, the chain is at 54: it can go back to 49";
    assert!(text.contains("block 40 (0x") && text.contains(reason), "{text}");
    assert!(line.starts_with(&format!("imported 0 blocks head {} ", chain.head)), "{line}");
    let (line, text) = import(&chain, &sibling(&chain, 51), &datadir, &history);
    assert!(line.starts_with("imported 1 blocks"), "{text}");
    assert!(export(&datadir, &["--to", "50"]).stdout == blocks_of(&chain.bytes())[..50].concat());
}
