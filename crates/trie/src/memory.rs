//! A limit on the memory of a trie: what was left alone is dropped when it is exceeded.

use crate::{
    BuiltSubtrie, StateTrie, SubtrieBuilder,
    cold::{Eviction, FlatState},
};
use alloy_primitives::B256;
use rayon::prelude::*;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What one changed key adds to memory, about: itself and what is read back around it, bytes.
const KEY_BYTES: usize = 1024;
/// The memory is measured when changes may have added this part of the limit.
const SLACK: usize = 32;

/// How much memory a trie may hold, and where the rest is read from.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLimit {
    flat: Arc<dyn FlatState>,
    bytes_max: usize,
    /// Keys changed since the memory was last measured.
    pub(crate) keys_since: usize,
}

impl MemoryLimit {
    pub(crate) fn flat(&self) -> &dyn FlatState {
        &*self.flat
    }
}

impl StateTrie {
    /// From now on, [`Self::shrink`] holds the trie at `bytes_max`; `flat` holds the state of the last
    /// block that is on disk. The root and all proofs stay what they are.
    pub fn limit_memory(&mut self, bytes_max: usize, flat: Arc<dyn FlatState>) {
        self.memory = Some(MemoryLimit { flat, bytes_max, keys_since: usize::MAX / KEY_BYTES });
    }

    /// As [`Self::build`], within a memory limit from the first leaf on.
    ///
    /// # Errors
    /// The first that `fill` returns.
    pub fn build_within<E: Send>(
        bytes_max: usize,
        flat: Arc<dyn FlatState>,
        fill: impl Fn(u8, &mut SubtrieBuilder) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let held = AtomicUsize::new(0);
        let built = (0..=u8::MAX).into_par_iter().map(|prefix| {
            let mut builder = SubtrieBuilder::new(prefix);
            fill(prefix, &mut builder)?;
            let mut built = builder.finish();
            let bytes = built.memory_bytes();
            if held.fetch_add(bytes, Ordering::Relaxed) + bytes > bytes_max / 2 {
                built.drop_leaves();
                held.fetch_sub(bytes.saturating_sub(built.memory_bytes()), Ordering::Relaxed);
            }
            Ok(built)
        });
        let mut trie = Self::from_subtries(built.collect::<Result<Vec<_>, E>>()?);
        trie.limit_memory(bytes_max, flat);
        // What was built first may have been kept whole.
        trie.shrink(&BTreeSet::new());
        Ok(trie)
    }

    /// Whether so much has changed that [`Self::shrink`] should be called.
    pub fn may_exceed_limit(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| {
            memory.keys_since.saturating_mul(KEY_BYTES) >= memory.bytes_max / SLACK
        })
    }

    /// Brings the trie under its limit, if it has one and exceeds it: hashes what changed, then drops
    /// what was left alone since the last time, then, if need be, all that can be dropped.
    /// `unpersisted` are the hashed addresses of the accounts that the flat state does not hold yet as
    /// this trie does; they stay. Between two calls the trie grows by what changes and is read back.
    /// Returns the bytes held afterwards.
    pub fn shrink(&mut self, unpersisted: &BTreeSet<B256>) -> usize {
        self.root();
        let mut bytes = self.memory_bytes();
        let Some(memory) = &mut self.memory else { return bytes };
        memory.keys_since = 0;
        let bytes_max = memory.bytes_max;
        for all in [false, true] {
            // Some way below the limit, so that not every block has to shrink.
            let goal = if all { bytes_max - bytes_max / 8 } else { bytes_max };
            if bytes <= goal {
                break;
            }
            let eviction = Eviction { pinned: unpersisted, all };
            self.accounts.for_each_part(|part| part.evict_with_storage(&eviction));
            bytes = self.memory_bytes();
        }
        bytes
    }
}

impl StateTrie {
    /// Drops all that can be dropped. The trie must be hashed, and all of it be in the flat state.
    pub(crate) fn drop_leaves(&mut self) {
        let none = BTreeSet::new();
        let eviction = Eviction { pinned: &none, all: true };
        self.accounts.for_each_part(|part| part.evict_with_storage(&eviction));
    }
}

impl BuiltSubtrie {
    fn memory_bytes(&self) -> usize {
        self.part.memory_bytes() + self.part.side.memory_bytes()
    }

    /// Drops all that can be dropped: everything in it is on disk.
    fn drop_leaves(&mut self) {
        let none = BTreeSet::new();
        self.part.evict_with_storage(&Eviction { pinned: &none, all: true });
    }
}
