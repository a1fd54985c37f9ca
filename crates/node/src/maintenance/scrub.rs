//! Every subtree hashed again from flat state, and held against the header.

use super::{Damage, Maintenance};
use crate::error::NodeError;
use alloy_primitives::B256;
use blockraft_storage::Scanned;
use blockraft_trie::{SubtrieBuilder, SubtrieRoot, assemble_root};
use parking_lot::Mutex;
use rayon::prelude::*;
use serde::Serialize;

/// Partitions of the state.
const PARTITIONS: usize = 256;

/// How far a scrub has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of 256.
    pub partitions: usize,
    /// Accounts hashed.
    pub accounts: usize,
    /// Slots hashed.
    pub slots: usize,
}

/// What a scrub found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScrubReport {
    /// The block whose state was read.
    pub block: u64,
    /// Root of the flat state.
    pub state_root: B256,
    /// What the block's header says.
    pub expected_state_root: B256,
    /// Accounts hashed.
    pub accounts: usize,
    /// Slots hashed.
    pub slots: usize,
    /// Everything that is wrong; empty when the state is the chain's.
    pub damage: Vec<Damage>,
}

impl ScrubReport {
    /// Whether the flat state hashes to the header's root.
    pub fn root_matches(&self) -> bool {
        self.state_root == self.expected_state_root
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.root_matches() && self.damage.is_empty()
    }
}

/// Reads all shards, on the rayon pool of the caller. `progress` is called after each partition.
///
/// # Errors
/// None for what is wrong on disk: that is in the report.
pub fn scrub(
    maintenance: &Maintenance,
    progress: impl Fn(Progress) + Sync,
) -> Result<ScrubReport, NodeError> {
    let done = Mutex::new(Progress::default());
    let scan = |prefix: u8| {
        let scanned = scan_partition(maintenance, prefix);
        let mut done = done.lock();
        done.partitions += 1;
        done.accounts += scanned.counts.accounts;
        done.slots += scanned.counts.slots;
        progress(*done);
        scanned
    };
    let partitions: Vec<Partition> = (0..=u8::MAX).into_par_iter().map(scan).collect();
    assert_eq!(partitions.len(), PARTITIONS, "every first byte is a partition");

    let mut damage = maintenance.check();
    let mut counts = vec![Scanned::default(); maintenance.shard_count()];
    let mut roots = Vec::with_capacity(PARTITIONS);
    for (prefix, partition) in (0..=u8::MAX).zip(partitions) {
        counts[maintenance.shard_of(prefix)] += partition.counts;
        damage.extend(partition.damage);
        roots.push(partition.root);
    }
    let rest = counts.par_iter().enumerate().map(|(shard, sum)| maintenance.scan_rest(shard, *sum));
    damage.extend(rest.collect::<Vec<_>>().into_iter().flatten());
    let head = maintenance.head();
    let report = ScrubReport {
        block: head.number,
        state_root: assemble_root(&roots)?,
        expected_state_root: head.state_root,
        accounts: counts.iter().map(|sum| sum.accounts).sum(),
        slots: counts.iter().map(|sum| sum.slots).sum(),
        damage,
    };
    Ok(report)
}

struct Partition {
    root: SubtrieRoot,
    counts: Scanned,
    damage: Vec<Damage>,
}

fn scan_partition(maintenance: &Maintenance, prefix: u8) -> Partition {
    let mut damage = Vec::new();
    let mut builder = SubtrieBuilder::new(prefix);
    let mut refused = None;
    let counts = maintenance.scan_partition(
        prefix,
        &mut |hashed, account, slots| {
            if refused.is_none() {
                refused = builder.add_account(hashed, &account, slots).err();
            }
        },
        &mut damage,
    );
    if let Some(error) = refused {
        let shard = maintenance.shard_of(prefix);
        damage
            .push(Damage { partition: Some(prefix), ..Damage::of_shard(shard, error.to_string()) });
    }
    Partition { root: builder.finish().root(), counts, damage }
}
