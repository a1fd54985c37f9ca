//! Prints how long a durable append to the Raft log takes: `cargo run --release -p blockraft-storage
//! --example log_append [DIRECTORY]`. Beside it, what the disk itself takes.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement reads the clock and prints"
)]

use alloy_primitives::B256;
use blockraft_primitives::ClusterGenesis;
use blockraft_storage::{Identity, LogRecord, Store, StoreOptions, init};
use bytes::Bytes;
use std::{
    env,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const ROUNDS: usize = 200;
const ENTRY_BYTES: usize = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let datadir = parent.join(format!("blockraft-log-append-{}", std::process::id()));
    measure(&datadir)?;
    std::fs::remove_dir_all(&datadir)?;
    Ok(())
}

fn measure(datadir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let genesis = ClusterGenesis::from_json(
        r#"{"config": {"chainId": 1}, "difficulty": "0x0", "gasLimit": "0x1", "alloc": {}}"#,
    )?;
    init(datadir, &genesis, &Identity { cluster_id: B256::ZERO, node_id: 1 })?;
    let store = Store::open_with(datadir, StoreOptions::default())?;
    let log = store.raft_log();
    let mut index = 1;
    for count in [1, 10, 100] {
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let bytes = Bytes::from(vec![7; ENTRY_BYTES]);
            let entries: Vec<LogRecord> = (index..index + count)
                .map(|index| LogRecord { index, bytes: bytes.clone() })
                .collect();
            let start = Instant::now();
            log.append(&entries)?;
            times.push(start.elapsed());
            index += count;
        }
        report(&format!("append of {count} entries of {ENTRY_BYTES} bytes"), times);
    }
    let file = preallocated(&datadir.join("plain"))?;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let start = Instant::now();
        file.write_all_at(&[round as u8; 4096], 4096 * round as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    report("fdatasync of 4096 bytes in a preallocated file", times);
    Ok(())
}

fn preallocated(path: &Path) -> std::io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(&vec![0; 4096 * ROUNDS])?;
    file.sync_all()?;
    Ok(file)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms", at(50), at(90), at(99));
}
