//! From memory to disk: many blocks at once, coalesced and sorted.
//!
//! Order of writing: every shard, synced, all beside one another on the caller's rayon pool; then the
//! chain with its position, durably. So a shard on disk is never behind the chain, and one that is ahead after a crash is
//! taken back to it when the directory is opened. Only then memory is let go.

use crate::{
    AppliedStep, Persisted, StorageError,
    chain::ChainMeta,
    database::{Database, HashedDiffs, ShardWork},
    shard::{Marker, Shard},
    types::PoolEffect,
};
use blockraft_primitives::{AdmissionId, PoolChange, SealedBlock, StateDiff};
use rayon::prelude::*;
use std::sync::{Arc, atomic::Ordering};

/// Changed keys that one call writes at most (one step more than fits): bounds the memory that an
/// MDBX write transaction needs.
const PERSIST_KEYS_MAX: usize = 500_000;
/// Steps that one call writes at most.
const PERSIST_STEPS_MAX: usize = 10_000;
/// Blocks beyond those written whose history one call prunes: a smaller window is reached bit by bit.
const PRUNE_BLOCKS_EXTRA: u64 = 256;

impl Database {
    /// See [`crate::Store::persist`].
    pub(crate) fn persist(&self) -> Result<Persisted, StorageError> {
        let _writer = self.writer.lock();
        self.persist_locked()
    }

    /// See [`crate::Store::persist_blocks`].
    pub(crate) fn persist_blocks(&self) -> Result<Persisted, StorageError> {
        let _writer = self.writer.lock();
        let mut steps = self.next_steps();
        // More than that may not gather.
        if steps.len() < PERSIST_STEPS_MAX {
            let last = steps.iter().rposition(|step| step.block.is_some());
            steps.truncate(last.map_or(0, |last| last + 1));
        }
        self.write_steps(&steps)
    }

    /// As [`Self::persist`]; the caller holds `writer`.
    pub(crate) fn persist_locked(&self) -> Result<Persisted, StorageError> {
        self.write_steps(&self.next_steps())
    }

    fn write_steps(&self, steps: &[Arc<AppliedStep>]) -> Result<Persisted, StorageError> {
        let durable = self.durable.read().clone();
        let Some(last) = steps.last() else {
            return Ok(Persisted { applied: durable.applied, blocks: 0, keys: 0 });
        };
        let committed = || steps.iter().filter_map(|step| step.block.as_ref());
        let blocks: Vec<&SealedBlock> = committed().map(|block| &*block.block).collect();
        let diffs: Vec<(u64, &StateDiff)> =
            committed().map(|block| (block.block.number(), &*block.diff)).collect();
        let keys = diffs.iter().map(|(_, diff)| diff.key_count()).sum();
        let head = blocks.last().map_or(durable.head, |block| (block.number(), block.hash()));
        let pool = net_pool_effects(steps, durable.applied.next_admission);
        let meta = ChainMeta { head, applied: last.applied.clone(), ..durable };

        let oldest = self.write_shards(&diffs, head, durable.head.0)?;
        fail::fail_point!("persist-shards-synced", |_| Err(StorageError::Injected {
            point: "persist-shards-synced"
        }));
        self.chain.write(&blocks, &pool, &meta)?;
        fail::fail_point!("persist-chain-written", |_| Err(StorageError::Injected {
            point: "persist-chain-written"
        }));
        let persisted = Persisted { applied: meta.applied.clone(), blocks: blocks.len(), keys };
        self.let_go(steps, meta, oldest);
        Ok(persisted)
    }

    /// The oldest queued steps, as many as one call may write.
    fn next_steps(&self) -> Vec<Arc<AppliedStep>> {
        let live = self.live.read();
        let mut keys = 0;
        let within = |step: &&Arc<AppliedStep>| {
            let fits = keys < PERSIST_KEYS_MAX;
            keys += step.block.as_ref().map_or(0, |block| block.diff.key_count());
            fits
        };
        live.queue.iter().take(PERSIST_STEPS_MAX).take_while(within).cloned().collect()
    }

    /// Brings all shards to `head` and onto the disk. Returns the oldest block that they then show.
    fn write_shards(
        &self,
        diffs: &[(u64, &StateDiff)],
        head: (u64, alloy_primitives::B256),
        durable_head: u64,
    ) -> Result<u64, StorageError> {
        let mut oldest = self.oldest_state();
        if diffs.is_empty() {
            return Ok(oldest);
        }
        let (number, hash) = head;
        // What is needed to get back to the chain on disk must stay.
        let window = number.saturating_sub(self.options.history_blocks).min(durable_head);
        let pace = oldest + diffs.len() as u64 + PRUNE_BLOCKS_EXTRA;
        oldest = oldest.max(window.min(pace));
        let hashed = HashedDiffs::new(diffs.to_vec());
        let work = hashed.divide(self.shards.len());
        let target = Marker { number, hash, oldest };
        let written =
            self.shards.par_iter().zip(work).map(|(shard, work)| write_shard(shard, work, target));
        // All of them come to an end, whatever one of them fails with.
        written.collect::<Vec<_>>().into_iter().collect::<Result<(), _>>()?;
        Ok(oldest)
    }

    /// Drops from memory what is on disk now.
    fn let_go(&self, steps: &[Arc<AppliedStep>], meta: ChainMeta, oldest: u64) {
        self.oldest.fetch_max(oldest, Ordering::AcqRel);
        let mut live = self.live.write();
        live.queue.drain(..steps.len());
        for block in steps.iter().filter_map(|step| step.block.as_ref()) {
            live.backlog.blocks -= 1;
            live.backlog.keys -= block.diff.key_count();
        }
        drop(live);
        // All that is not above the head on disk goes with the first of these that names it.
        for block in steps.iter().filter_map(|step| step.block.as_ref()) {
            self.overlay.remove(meta.head.0, &block.diff);
        }
        self.recent.write().shrink(meta.head.0);
        *self.durable.write() = meta;
    }
}

/// Brings one shard to the target and onto the disk, unless an earlier call did and failed later.
fn write_shard(shard: &Shard, mut work: ShardWork<'_>, target: Marker) -> Result<(), StorageError> {
    let at = shard.marker()?;
    if at.is_none_or(|at| at.number < target.number) {
        let oldest = at.map_or(target.oldest, |at| at.oldest.max(target.oldest));
        work.sort();
        shard.write(&work.changes, &work.codes, Marker { oldest, ..target })?;
        fail::fail_point!("persist-shard-written", |_| Err(StorageError::Injected {
            point: "persist-shard-written"
        }));
    }
    shard.env().sync()
}

/// What steps do to the stored pool in the end. The pool on disk knows no id from `unknown_from` on: most
/// transactions come and go between two calls, and so never touch the disk.
pub(crate) fn net_pool_effects(
    steps: &[Arc<AppliedStep>],
    unknown_from: AdmissionId,
) -> Vec<PoolEffect<'_>> {
    let effect = |change| match change {
        &PoolChange::Remove(id) => (id, None),
        PoolChange::Put(record) => (record.id, Some(record)),
    };
    let mut effects: Vec<PoolEffect<'_>> =
        steps.iter().flat_map(|step| &step.pool).map(effect).collect();
    // Stable: of the changes of one record the last one stays the last.
    effects.sort_by_key(|(id, _)| *id);
    let last = effects.chunk_by(|a, b| a.0 == b.0).filter_map(|changes| changes.last().copied());
    last.filter(|(id, record)| record.is_some() || *id < unknown_from).collect()
}
