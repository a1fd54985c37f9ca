//! The state root of a block whose hashing is shared out, and the part that this node takes in other
//! members' blocks (decision 0018).

use super::{
    Chain,
    head_trie::TrieOut,
    lag::{SubtrieRoots, Written},
};
use crate::{
    clock::Stopwatch,
    error::NodeError,
    root_sharing::{OpenGathering, RootSharing},
};
use alloy_primitives::{B256, Bytes};
use alloy_rlp::Decodable;
use blockraft_primitives::{PartitionSet, StateDiff, decode_diff, encode_diff};
use blockraft_protocol::{PARTITION_COUNT, RootUnit, RootWork, UnitRefusal};
use blockraft_trie::{SubtrieRoot, assemble_root, hash_all};
use std::sync::Arc;

/// Where a block stands that is to be hashed.
#[derive(Clone, Copy, Debug)]
pub(super) struct RootPlace {
    pub(super) term: u64,
    pub(super) height: u64,
    pub(super) parent: B256,
}

/// A block's root, and what came with it.
pub(super) struct Rooted {
    pub(super) root: B256,
    /// The subtries that have the changes here.
    pub(super) partitions: PartitionSet,
    /// Of all subtries, where hashing was shared out.
    pub(super) roots: Option<SubtrieRoots>,
}

/// A block's changes with the partition of each.
pub(super) struct Dealt<'d> {
    diff: &'d StateDiff,
    /// One an account.
    partitions: Vec<u8>,
}

impl<'d> Dealt<'d> {
    pub(super) fn new(diff: &'d StateDiff) -> Self {
        let hashes = hash_all(&diff.accounts, |account, out| {
            out.extend_from_slice(account.address.as_slice());
        });
        Self { diff, partitions: hashes.iter().map(|hash| hash[0]).collect() }
    }

    /// Changed keys by partition.
    fn keys(&self) -> Vec<u32> {
        let mut keys = vec![0; PARTITION_COUNT];
        for (account, partition) in self.diff.accounts.iter().zip(&self.partitions) {
            keys[usize::from(*partition)] += 1 + account.storage.len() as u32;
        }
        keys
    }

    /// Changed keys in some partitions.
    fn count(&self, wanted: &PartitionSet) -> u64 {
        let keys = self.keys();
        wanted.iter().map(|partition| u64::from(keys[usize::from(partition)])).sum()
    }

    /// What changes in some partitions, without code: the trie has only its hash.
    pub(super) fn within(&self, wanted: &PartitionSet) -> StateDiff {
        let dealt = self.diff.accounts.iter().zip(&self.partitions);
        let within = dealt.filter(|(_, partition)| wanted.contains(**partition));
        let accounts = within.map(|(account, _)| account.clone()).collect();
        StateDiff { accounts, codes: Vec::new() }
    }
}

impl Chain {
    /// Has other members hash subtries of the blocks that this node builds from now on.
    pub(crate) fn set_root_sharing(&self, sharing: RootSharing) {
        // Only ever called once, by the node that has just made it.
        let _ = self.root_sharing.set(sharing);
    }

    /// Where hashing might be shared out: not under a memory limit, see `may_lag`.
    pub(super) fn root_sharing(&self) -> Option<&RootSharing> {
        self.root_sharing.get().filter(|sharing| self.may_lag() && sharing.may_share())
    }

    /// Writes a block's changes and takes the root.
    pub(super) fn take_root(
        &self,
        trie: &mut TrieOut<'_>,
        place: RootPlace,
        diff: &StateDiff,
    ) -> Result<Rooted, NodeError> {
        if let Some(sharing) = self.root_sharing() {
            let dealt = self.workers.install(|| Dealt::new(diff));
            let RootPlace { term, height, parent } = place;
            let work = RootWork { term, height, parent, keys: dealt.keys() };
            let encode = |wanted: &PartitionSet| encode_diff(&dealt.within(wanted));
            if let Some(open) = sharing.begin(work, encode) {
                return self.take_root_shared(trie, sharing, &open, &dealt);
            }
        }
        let hashing = Stopwatch::start();
        trie.push(diff)?;
        let root = trie.root();
        if let Some(sharing) = self.root_sharing() {
            sharing.hashed(diff.key_count() as u64, hashing.elapsed_ns());
        }
        Ok(Rooted { root, partitions: PartitionSet::ALL, roots: None })
    }

    fn take_root_shared(
        &self,
        trie: &mut TrieOut<'_>,
        sharing: &RootSharing,
        open: &OpenGathering,
        dealt: &Dealt<'_>,
    ) -> Result<Rooted, NodeError> {
        self.take_parts(trie, dealt, &open.own, |own_keys, own_ns| {
            sharing.hashed(own_keys, own_ns);
            let waiting = Stopwatch::start();
            let gathered = sharing.gather(open, own_ns);
            waiting.record_stage("root_gather");
            gathered
        })
    }

    /// Writes and hashes `own` partitions, takes the roots of others from `gather`, and does itself what
    /// nobody has done. `gather` is told how many keys were this node's and how long they took, nanoseconds.
    pub(super) fn take_parts(
        &self,
        trie: &mut TrieOut<'_>,
        dealt: &Dealt<'_>,
        own: &PartitionSet,
        gather: impl FnOnce(u64, u64) -> Vec<(PartitionSet, Bytes)>,
    ) -> Result<Rooted, NodeError> {
        let changed: PartitionSet = dealt.partitions.iter().copied().collect();
        let own = own.and(&changed);
        let mut roots = trie.roots();
        let hashing = Stopwatch::start();
        trie.push_to(dealt.diff, &own)?;
        replace(&mut roots, trie.roots_of(&own));
        let mut answered = PartitionSet::NONE;
        for (partitions, bytes) in gather(dealt.count(&own), hashing.elapsed_ns()) {
            match decode_roots(&bytes, &partitions) {
                Some(new) => {
                    replace(&mut roots, new);
                    answered = answered.or(&partitions);
                }
                None => tracing::warn!("roots that cannot be read: the leader hashes"),
            }
        }
        let missing = changed.and(&own.or(&answered).others());
        if !missing.is_empty() {
            trie.push_to(dealt.diff, &missing)?;
            replace(&mut roots, trie.roots_of(&missing));
        }
        let partitions = own.or(&missing).or(&changed.others());
        let root = assemble_root(&roots)?;
        Ok(Rooted { root, partitions, roots: Some(roots.into()) })
    }

    /// Hashes subtries for another member's block, on the head. The roots, encoded, in the order of the
    /// partitions.
    pub(crate) fn hash_unit(&self, unit: &RootUnit) -> Result<Bytes, UnitRefusal> {
        let failed = |error: &dyn std::fmt::Display| {
            let height = unit.id.fence.height;
            tracing::error!(%error, height, "a unit of hashing could not be done");
            UnitRefusal::Failed
        };
        let diff = decode_diff(&unit.changes).map_err(|e| failed(&e))?;
        let written = self
            .write_tentatively(unit.id.fence.parent, diff, &unit.partitions)
            .inspect_err(|error| self.look_into(error, None));
        match written.map_err(|e| failed(&e))? {
            Some(roots) => Ok(alloy_rlp::encode(roots).into()),
            None => Err(UnitRefusal::Parent { got: self.store.head().hash() }),
        }
    }
}

impl Rooted {
    /// As the block's entry carries the roots: nothing where the leader hashed alone.
    pub(super) fn encoded_roots(&self) -> Bytes {
        self.roots
            .as_ref()
            .map_or_else(Bytes::new, |roots| alloy_rlp::encode(roots.to_vec()).into())
    }

    /// What the trie is to remember of the block.
    pub(super) fn written(self, diff: Arc<StateDiff>) -> Written {
        Written { diff, partitions: self.partitions, roots: self.roots }
    }
}

/// The roots that a block's entry carries; `None` where it carries none, or they are not of the block.
pub(super) fn roots_in_entry(bytes: &[u8], state_root: B256) -> Option<SubtrieRoots> {
    let roots = decode_roots(bytes, &PartitionSet::ALL)?;
    (assemble_root(&roots).ok()? == state_root).then(|| roots.into())
}

/// Roots of these partitions, in their order.
fn decode_roots(mut bytes: &[u8], partitions: &PartitionSet) -> Option<Vec<SubtrieRoot>> {
    let roots = Vec::<SubtrieRoot>::decode(&mut bytes).ok()?;
    let fits = bytes.is_empty() && roots.iter().map(SubtrieRoot::prefix).eq(partitions.iter());
    fits.then_some(roots)
}

fn replace(roots: &mut [SubtrieRoot], new: Vec<SubtrieRoot>) {
    for root in new {
        let place = usize::from(root.prefix());
        roots[place] = root;
    }
}
