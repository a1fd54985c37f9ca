//! era1 files, written here as other clients write them.

use crate::files::{blocks_of, errors, every_fork, exported, last_line};
use alloy_consensus::Header;
use alloy_primitives::{B256, U256};
use alloy_rlp::Decodable;
use sha2::{Digest, Sha256};
use std::{fs, io::Write};

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

fn packed(data: &[u8]) -> Vec<u8> {
    let mut encoder = snap::write::FrameEncoder::new(Vec::new());
    encoder.write_all(data).unwrap();
    encoder.into_inner().unwrap()
}

/// The fields of a list, each with its RLP header.
fn fields(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let header = alloy_rlp::Header::decode(&mut bytes).unwrap();
    blocks_of(&bytes[..header.payload_length])
}

/// All 8192 leaves, hashed level by level.
fn accumulator(records: &[[u8; 64]]) -> B256 {
    let hash =
        |a: &[u8], b: &[u8]| Sha256::new().chain_update(a).chain_update(b).finalize().to_vec();
    let mut level: Vec<Vec<u8>> = records.iter().map(|r| hash(&r[..32], &r[32..])).collect();
    level.resize(8192, vec![0; 32]);
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| hash(&pair[0], &pair[1])).collect();
    }
    let mut length = [0; 32];
    length[..8].copy_from_slice(&(records.len() as u64).to_le_bytes());
    B256::from_slice(&hash(&level[0], &length))
}

/// An era1 of consecutive blocks, and where its accumulator is.
fn era1(blocks: &[Vec<u8>], total_before: U256) -> (Vec<u8>, usize) {
    let mut file = record(0x3265, &[]);
    let mut total = total_before;
    let (mut records, mut offsets) = (Vec::new(), Vec::new());
    for block in blocks {
        let fields = fields(block);
        let header = Header::decode(&mut fields[0].as_slice()).unwrap();
        total += header.difficulty;
        let mut leaf = [0; 64];
        leaf[..32].copy_from_slice(header.hash_slow().as_slice());
        leaf[32..].copy_from_slice(&total.to_le_bytes::<32>());
        records.push(leaf);
        offsets.push(file.len() as i64);
        let body = fields[1..].concat();
        let mut body_rlp = Vec::new();
        alloy_rlp::Header { list: true, payload_length: body.len() }.encode(&mut body_rlp);
        body_rlp.extend(body);
        file.extend(record(0x03, &packed(&fields[0])));
        file.extend(record(0x04, &packed(&body_rlp)));
        file.extend(record(0x05, &packed(&[0xc0])));
        file.extend(record(0x06, &total.to_le_bytes::<32>()));
    }
    let first = Header::decode(&mut fields(&blocks[0])[0].as_slice()).unwrap().number;
    let at = file.len();
    file.extend(record(0x07, accumulator(&records).as_slice()));
    let index = file.len() as i64;
    let mut data = first.to_le_bytes().to_vec();
    offsets.iter().for_each(|offset| data.extend((offset - index).to_le_bytes()));
    data.extend((offsets.len() as i64).to_le_bytes());
    file.extend(record(0x3266, &data));
    (file, at)
}

#[test]
fn era1_files_are_imported_and_held_against_what_they_say_of_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chain) = every_fork(dir.path()) else { return };
    let genesis: serde_json::Value =
        serde_json::from_slice(&fs::read(chain.genesis()).unwrap()).unwrap();
    let difficulty: U256 = genesis["difficulty"].as_str().unwrap().parse().unwrap();
    let all = blocks_of(&chain.bytes());
    let (file, accumulator) = era1(&all, difficulty);
    let path = dir.path().join("chain.era1");
    let import = |name: &str, bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let datadir = dir.path().join(name);
        (chain.import(&path, &datadir, &[]), datadir)
    };
    let (output, datadir) = import("whole", &file);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(last_line(&output).starts_with(&format!("imported 54 blocks head {} ", chain.head)));
    assert!(exported(&datadir) == chain.bytes());

    let mut wrong_accumulator = file.clone();
    wrong_accumulator[accumulator + 8] ^= 1;
    let (wrong_total, _) = era1(&all, difficulty + U256::from(1));
    let mut flipped = file.clone();
    flipped[200] ^= 1;
    let wrong_index = {
        let mut bytes = file.clone();
        let last = bytes.len() - 8;
        bytes[last] ^= 1;
        bytes
    };
    let rows = [
        ("accumulator", wrong_accumulator, 54, "era1: the accumulator is 0x"),
        ("total", wrong_total, 0, "block 1 (0x"),
        ("flip", flipped, 0, "era1: snappy: "),
        ("index", wrong_index, 54, "era1: the block index does not fit the blocks"),
        ("cut", file[..accumulator].to_vec(), 54, "the file ends within the record"),
        ("half", file[..accumulator / 2].to_vec(), 0, "the file ends within the record"),
    ];
    for (name, bytes, at_least, problem) in rows {
        let (output, _) = import(name, &bytes);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(errors(&output).contains(problem), "{name}: {}", errors(&output));
        let line = last_line(&output);
        let count: u64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(count >= at_least, "{name}: {line}");
    }
}
