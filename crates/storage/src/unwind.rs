//! Taking blocks back from the end of the chain.
//!
//! Order: everything queued goes to disk; then the chain goes back, durably and with the new position;
//! then the shards, which are ahead of the chain until then. A crash in between is what opening heals:
//! it takes shards back that are ahead.

use crate::{
    AppliedStep, StorageError, chain::ChainMeta, database::Database, persist::net_pool_effects,
};
use alloy_primitives::B256;
use blockraft_primitives::{Applied, PoolChange, StateError};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The heights that the chain went back to, oldest first: a view of a block that is no more says so.
#[derive(Debug, Default)]
pub(crate) struct Unwinds {
    count: AtomicUsize,
    heights: parking_lot::RwLock<Vec<u64>>,
}

impl Unwinds {
    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn push(&self, to: u64) {
        let mut heights = self.heights.write();
        heights.push(to);
        self.count.store(heights.len(), Ordering::Release);
    }

    /// Whether block `number`, which was there after the first `since` unwinds, is there still.
    pub(crate) fn check(&self, since: usize, number: u64) -> Result<(), StateError> {
        if self.count() == since || self.heights.read()[since..].iter().all(|to| *to >= number) {
            return Ok(());
        }
        Err(StateError::UnknownBlock(number))
    }
}

impl Database {
    /// See [`crate::Store::unwind`].
    pub(crate) fn unwind(
        &self,
        to: u64,
        applied: Applied,
        pool: Vec<PoolChange>,
    ) -> Result<(), StorageError> {
        let _writer = self.writer.lock();
        while !self.live.read().queue.is_empty() {
            self.persist_locked()?;
        }
        let durable = self.durable.read().clone();
        let oldest = self.oldest_state();
        if to < oldest || to > durable.head.0 {
            let head = durable.head.0;
            return Err(StorageError::Unwind { to, oldest, head });
        }
        let header = self.chain.header(to)?;
        let header =
            header.ok_or_else(|| StorageError::corrupt("headers", "a block is missing"))?;
        let hash = header.hash();
        let step = AppliedStep { applied: applied.clone(), block: None, pool };
        let steps = [std::sync::Arc::new(step)];
        let effects = net_pool_effects(&steps, durable.applied.next_admission);
        let last = durable.head.0;
        let meta = ChainMeta { head: (to, hash), applied: applied.clone(), ..durable };

        self.unwinds.push(to);
        {
            let mut live = self.live.write();
            live.head = header;
            live.applied = applied;
        }
        self.recent.write().truncate(to);
        self.chain.truncate(last, &effects, &meta)?;
        fail::fail_point!("unwind-chain-written", |_| Err(StorageError::Injected {
            point: "unwind-chain-written"
        }));
        self.unwind_shards(to, hash)?;
        *self.durable.write() = meta;
        Ok(())
    }

    fn unwind_shards(&self, to: u64, hash: B256) -> Result<(), StorageError> {
        for shard in &self.shards {
            shard.unwind(to, hash)?;
            fail::fail_point!("unwind-shard-written", |_| Err(StorageError::Injected {
                point: "unwind-shard-written"
            }));
        }
        self.shards.iter().try_for_each(|shard| shard.env().sync())
    }
}
