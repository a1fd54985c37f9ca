//! The rows on real blocks: `blockraft replay`, which checks what it measures.

use super::{
    EngineArgs,
    report::{FREE, Report, Spread},
};
use crate::{process::blockraft_binary, state::at_least};
use anyhow::{Context, ensure};
use serde::Deserialize;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

const PACK: &str = "mainnet-blocks.tar.zst";

/// What `blockraft replay -o json` says of all blocks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replayed {
    passed: u64,
    failed: u64,
    total: Total,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    transactions: u64,
    plain_seconds: Vec<f64>,
    serial_seconds: Vec<f64>,
    engine_seconds: Vec<f64>,
    executed_again: u64,
}

pub(super) fn measure(args: &EngineArgs, report: &mut Report) -> anyhow::Result<()> {
    let binary = blockraft_binary(args.bin.as_deref())?;
    let source = match &args.mainnet {
        Some(source) => source.clone(),
        None => {
            let fixtures = std::env::var_os("BLOCKRAFT_FIXTURES").map(PathBuf::from);
            fixtures.context("real blocks: name them with --mainnet")?.join(PACK)
        }
    };
    let (blocks, unpacked) = if source.is_dir() {
        (source, None)
    } else {
        let folder = unpack(&source).with_context(|| source.display().to_string())?;
        (folder.join("pevm/complete"), Some(folder))
    };
    let result = rows(args.repeats, &binary, &blocks, report);
    if let Some(folder) = unpacked {
        fs::remove_dir_all(folder)?;
    }
    result
}

fn unpack(pack: &Path) -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("blockraft-blocks-{}", std::process::id()));
    tar::Archive::new(zstd::Decoder::new(File::open(pack)?)?).unpack(&folder)?;
    Ok(folder)
}

fn rows(repeats: u32, binary: &Path, blocks: &Path, report: &mut Report) -> anyhow::Result<()> {
    for (threads, bounds) in [(2, at_least(1.3, 1.6)), (1, FREE)] {
        let Replayed { passed, failed, total } = replay(repeats, binary, blocks, threads)?;
        ensure!(failed == 0 && passed > 0, "{passed} blocks passed, {failed} failed");
        let millis = |seconds: &[f64]| Spread::of(seconds.iter().copied()).median * 1e3;
        let sides = [
            ("plain loop", &total.plain_seconds, bounds),
            ("serial oracle", &total.serial_seconds, FREE),
        ];
        for (name, seconds, bounds) in sides {
            let turns = seconds.iter().zip(&total.engine_seconds);
            let spread = Spread::of(turns.map(|(other, engine)| other / engine));
            let detail = format!(
                "{:.1} ms to {:.1} ms, {passed} blocks, {} transactions, {} run again",
                millis(seconds),
                millis(&total.engine_seconds),
                total.transactions,
                total.executed_again,
            );
            let what = format!("mainnet blocks, {threads} threads, total wall, {name} over engine");
            report.add(what, (spread, "x"), detail, bounds);
        }
    }
    Ok(())
}

fn replay(repeats: u32, binary: &Path, blocks: &Path, threads: u32) -> anyhow::Result<Replayed> {
    let output = Command::new(binary)
        .args(["replay", "-o", "json", "--executors", "1"])
        .args(["--repeats", &repeats.to_string(), "--threads", &threads.to_string()])
        .arg(blocks)
        .output()
        .with_context(|| binary.display().to_string())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "replay failed: {errors}");
    serde_json::from_slice(&output.stdout).context("what replay printed")
}
