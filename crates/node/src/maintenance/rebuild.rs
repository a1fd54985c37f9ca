//! Shards built anew, to name what is wrong with the old ones and to replace them.

use super::{Damage, Maintenance, Progress, ScrubReport, scrub};
use crate::error::NodeError;
use alloy_consensus::Header;
use blockraft_primitives::{LogEntry, StateDiff};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Log records read at once, bytes.
const READ_BYTES: usize = 16 << 20;
/// Changed keys that are written to the rebuilt shards at once.
const WRITE_KEYS: usize = 200_000;

/// What shards were rebuilt from, beside the blocks of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The state at genesis.
    Genesis,
    /// A snapshot file.
    Snapshot(PathBuf),
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repaired {
    /// Shards that were replaced.
    pub shards: Vec<usize>,
    /// From what; `None` if nothing had to be done.
    pub source: Option<Source>,
    /// The last look: of the state as it is now.
    pub report: ScrubReport,
}

/// Names what is wrong where a scrub could only tell that the root is: builds the shards anew beside the
/// old ones and compares. Adds to `report`; the directory stays as it is.
pub fn locate(maintenance: &mut Maintenance, report: &mut ScrubReport) -> Result<(), NodeError> {
    if report.root_matches() {
        return Ok(());
    }
    let all: Vec<usize> = (0..maintenance.shard_count()).collect();
    match rebuild(maintenance, &all, None) {
        Ok(_) => {
            let known: BTreeSet<String> = report.damage.iter().map(place).collect();
            let found = all.iter().flat_map(|shard| maintenance.compare(*shard));
            report.damage.extend(found.filter(|damage| !known.contains(&place(damage))));
        }
        Err(error) => {
            let problem = format!("the state root is wrong; the place cannot be told: {error}");
            report.damage.push(Damage::of_chain(problem));
        }
    }
    if report.damage.is_empty() {
        let problem = "the state root is wrong, and so is what the log gives";
        report.damage.push(Damage::of_chain(problem));
    }
    maintenance.forget_rebuilt()?;
    Ok(())
}

fn place(damage: &Damage) -> String {
    Damage { problem: String::new(), ..damage.clone() }.to_string()
}

/// Replaces the shards that `report` names, or all if it names none and the root is wrong. `from` is a
/// snapshot to begin with; without one the newest of the directory that is whole, or the genesis.
///
/// # Errors
/// The log does not reach back to what there is to begin with, or the result is not the chain's state;
/// the directory is as it was then.
pub fn repair(
    maintenance: &mut Maintenance,
    report: &ScrubReport,
    from: Option<&Path>,
    progress: impl Fn(Progress) + Sync,
) -> Result<Repaired, NodeError> {
    let named: BTreeSet<usize> = report.damage.iter().filter_map(|damage| damage.shard).collect();
    let mut shards: Vec<usize> = named.into_iter().collect();
    if shards.is_empty() && !report.root_matches() {
        shards = (0..maintenance.shard_count()).collect();
    }
    if shards.is_empty() {
        return Ok(Repaired { shards, source: None, report: report.clone() });
    }
    let source = rebuild(maintenance, &shards, from)?;
    // What is wrong with the chain cannot be healed here, and was told.
    let after = scrub(maintenance, &progress)?;
    if let Some(damage) = after.damage.iter().find(|d| d.shard.is_some_and(|s| shards.contains(&s)))
    {
        let problem = format!("what was rebuilt is damaged as well: {damage}");
        maintenance.forget_rebuilt()?;
        return Err(NodeError::NoSource(problem));
    }
    if !after.root_matches() {
        maintenance.forget_rebuilt()?;
        return Err(NodeError::WrongRoot {
            number: after.block,
            got: after.state_root,
            expected: after.expected_state_root,
        });
    }
    maintenance.adopt()?;
    let report = scrub(maintenance, progress)?;
    Ok(Repaired { shards, source: Some(source), report })
}

/// Builds shards and brings them to the chain's head.
fn rebuild(
    maintenance: &mut Maintenance,
    shards: &[usize],
    from: Option<&Path>,
) -> Result<Source, NodeError> {
    let mut sources: Vec<Source> = match from {
        Some(file) => vec![Source::Snapshot(file.to_owned())],
        None => maintenance.snapshots()?.into_iter().map(Source::Snapshot).collect(),
    };
    if from.is_none() {
        sources.push(Source::Genesis);
    }
    let mut problems = Vec::new();
    for source in sources {
        let file = match &source {
            Source::Genesis => None,
            Source::Snapshot(file) => Some(file.as_path()),
        };
        let built = maintenance.rebuild(shards, file).map_err(NodeError::from);
        let built = built.and_then(|position| {
            roll_forward(maintenance, position.position.map_or(0, |position| position.index))
        });
        match built {
            Ok(()) => return Ok(source),
            Err(error) => problems.push(match &source {
                Source::Genesis => format!("from the genesis: {error}"),
                Source::Snapshot(file) => format!("from {}: {error}", file.display()),
            }),
        }
    }
    maintenance.forget_rebuilt()?;
    Err(NodeError::NoSource(problems.join("; ")))
}

/// Applies the blocks of the log after entry `index` up to the chain's head.
fn roll_forward(maintenance: &Maintenance, index: u64) -> Result<(), NodeError> {
    let head = maintenance.head().number;
    let Some(mut reached) = maintenance.rebuilt_to()? else { return Ok(()) };
    let end = maintenance.applied().position.map_or(0, |position| position.index) + 1;
    let (mut next, mut waiting, mut keys) = (index + 1, Vec::new(), 0);
    while reached < head && next < end {
        let records = maintenance.raft_log().read(next..end, READ_BYTES)?;
        let Some(last) = records.last() else { break };
        next = last.index + 1;
        for record in &records {
            let Some((header, diff)) = block_in(record.index, &record.bytes)? else { continue };
            let hash = header.hash_slow();
            // What was left out, or taken back by a consensus client, is in the log and not in the chain.
            if header.number != reached + 1 || maintenance.block_hash(header.number)? != Some(hash)
            {
                continue;
            }
            reached += 1;
            keys += diff.key_count();
            waiting.push((reached, hash, diff));
            if keys >= WRITE_KEYS {
                maintenance.roll_forward(&waiting)?;
                waiting.clear();
                keys = 0;
            }
            if reached == head {
                break;
            }
        }
    }
    maintenance.roll_forward(&waiting)?;
    if reached == head {
        return Ok(());
    }
    let problem = format!(
        "blocks {} to {head} are no longer in the log: give a newer snapshot (--from) or a member to fetch one from (--peer)",
        reached + 1
    );
    Err(NodeError::NoSource(problem))
}

/// The block that a log record brings, if it brings one.
fn block_in(index: u64, record: &bytes::Bytes) -> Result<Option<(Header, StateDiff)>, NodeError> {
    let entry = blockraft_raft::application_entry(record)
        .map_err(|source| NodeError::LogRecord { index, source })?;
    let Some(entry) = entry else { return Ok(None) };
    Ok(match LogEntry::decode(&entry)? {
        LogEntry::Block(entry) => Some((entry.header, std::sync::Arc::unwrap_or_clone(entry.diff))),
        LogEntry::Payload(entry) => Some((entry.header, entry.diff)),
        LogEntry::Admit(_) | LogEntry::Forkchoice(_) => None,
    })
}
