//! States larger than memory: cold nodes are dropped to their hash, and read back from the flat state
//! when a change or a proof needs them.
//!
//! A [`Stub`] stands for a branch with at most [`COLD_LEAVES_MAX`] leaves below it. Its parent keeps the
//! reference that it had, so the root is what it was; what is read back must hash to that reference.
//! Leaves are dropped only when the flat state holds them, and whatever is below a stub is read back
//! before it is changed: so the flat state below a stub is the trie's, however far behind it is elsewhere.

use crate::{
    TrieError,
    arena::{Arena, Kind, Node},
    encode::{self, NodeRef},
    leaf::{AccountLeaf, Extras, Leaf, SlotLeaf, Storage},
    storage_trie::{self, StorageTrie},
    subtrie::{Scratch, Subtrie, Walk},
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::Account;
use std::{collections::BTreeSet, fmt::Debug};

/// Leaves below one stub. More would save memory, and cost time when one of them is needed.
pub(crate) const COLD_LEAVES_MAX: u32 = 64;

/// Where dropped leaves are read back from: the state on disk, sorted by hash.
pub trait FlatState: Debug + Send + Sync {
    /// Calls `visit` for the accounts with hashed addresses from the first to the second, inclusive, in
    /// order.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn accounts(
        &self,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, Account),
    ) -> Result<(), String>;

    /// Calls `visit` for the slots of an account with hashes from `from` to `to`, inclusive, in order.
    ///
    /// # Errors
    /// What went wrong, in words.
    fn slots(
        &self,
        account: B256,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, U256),
    ) -> Result<(), String>;
}

/// What a dropped branch leaves behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stub<L: Leaf> {
    /// One of the keys below: its first nibbles are those of all.
    pub(crate) key: B256,
    pub(crate) leaf_count: u32,
    pub(crate) kept: L::Kept,
}

/// Reads back what a subtrie dropped.
pub(crate) trait Source<L: Leaf>: Sync {
    /// The leaves with keys from `from` to `to`, in order; what stands beside them goes to `side`.
    fn load(
        &self,
        from: B256,
        to: B256,
        kept: &L::Kept,
        side: &mut L::Side,
    ) -> Result<Vec<L>, TrieError>;
}

/// The source of tries that never drop anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole;

impl<L: Leaf> Source<L> for Whole {
    fn load(&self, _: B256, _: B256, _: &L::Kept, _: &mut L::Side) -> Result<Vec<L>, TrieError> {
        unreachable!("nothing of this trie was dropped")
    }
}

/// The source of the account trie; `None` while nothing is ever dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accounts<'a>(pub(crate) Option<&'a dyn FlatState>);

/// The source of an account's storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots<'a> {
    pub(crate) flat: Option<&'a dyn FlatState>,
    pub(crate) account: B256,
}

fn there(flat: Option<&dyn FlatState>) -> &dyn FlatState {
    flat.expect("nothing is dropped without a flat state to read it back from")
}

impl Source<AccountLeaf> for Accounts<'_> {
    fn load(
        &self,
        from: B256,
        to: B256,
        kept: &Vec<(B256, B256)>,
        extras: &mut Extras,
    ) -> Result<Vec<AccountLeaf>, TrieError> {
        let mut leaves: Vec<AccountLeaf> = Vec::new();
        let read = there(self.0).accounts(from, to, &mut |key, account| {
            let mut leaf = AccountLeaf::new(key);
            leaf.set_account(&account, extras);
            if let Ok(at) = kept.binary_search_by_key(&key, |(key, _)| *key) {
                leaf.set_clean_storage(Storage::Cold, kept[at].1, extras);
            }
            leaves.push(leaf);
        });
        read.map_err(TrieError::FlatState)?;
        in_order(leaves)
    }
}

impl Source<SlotLeaf> for Slots<'_> {
    fn load(&self, from: B256, to: B256, (): &(), (): &mut ()) -> Result<Vec<SlotLeaf>, TrieError> {
        let mut leaves: Vec<SlotLeaf> = Vec::new();
        let read = there(self.flat).slots(self.account, from, to, &mut |key, value| {
            leaves.push(SlotLeaf { key, value });
        });
        read.map_err(TrieError::FlatState)?;
        in_order(leaves)
    }
}

fn in_order<L: Leaf>(leaves: Vec<L>) -> Result<Vec<L>, TrieError> {
    match leaves.windows(2).find(|pair| pair[0].key() >= pair[1].key()) {
        Some(pair) => Err(TrieError::FlatState(format!("{} is out of order", pair[1].key()))),
        None => Ok(leaves),
    }
}

impl Slots<'_> {
    /// Reads the whole storage of an account back, whose root is `root`.
    pub(crate) fn load_all(&self, root: B256) -> Result<StorageTrie, TrieError> {
        let leaves = self.load(B256::ZERO, B256::repeat_byte(0xff), &(), &mut ())?;
        let mut storage = StorageTrie::build(leaves);
        let got = storage_trie::hash_storages(&mut [&mut storage])[0];
        if got != root {
            return Err(TrieError::FlatStateDiffers { key: self.account, nibbles: 64 });
        }
        Ok(storage)
    }
}

/// Which nodes go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eviction<'a> {
    /// Keys that the flat state does not hold yet as the trie does.
    pub(crate) pinned: &'a BTreeSet<B256>,
    /// Not only what was left alone since the last time.
    pub(crate) all: bool,
}

impl<L: Leaf> Subtrie<L> {
    /// Follows `key`, reading back the stub that it ends at, if it does.
    pub(crate) fn reveal(
        &mut self,
        key: &B256,
        source: &impl Source<L>,
    ) -> Result<Walk, TrieError> {
        let walk = self.walk(key);
        let Kind::Stub(stub) = walk.end else { return Ok(walk) };
        self.read_back(walk.path(), stub, source)?;
        Ok(self.walk(key))
    }

    /// Reads back the other child of the branch above the leaf of `key`, if it is the only other one: it
    /// moves up when the leaf goes.
    pub(crate) fn reveal_sibling(
        &mut self,
        walk: &Walk,
        key: &B256,
        source: &impl Source<L>,
    ) -> Result<(), TrieError> {
        let Some(parent) = walk.path().last() else { return Ok(()) };
        let branch = self.arena.branches[*parent as usize];
        if branch.child_count() > 2 {
            return Ok(());
        }
        let digit = encode::nibble(key, usize::from(branch.depth));
        let other = (branch.mask & !(1 << digit)).trailing_zeros() as usize;
        match self.arena.children[branch.place(other)].kind() {
            Kind::Stub(stub) => self.read_back(walk.path(), stub, source),
            _ => Ok(()),
        }
    }

    /// Reads back everything.
    pub(crate) fn reveal_all(&mut self, source: &impl Source<L>) -> Result<(), TrieError> {
        let mut todo = vec![self.root];
        let mut keys = Vec::new();
        while let Some(node) = todo.pop() {
            match node.kind() {
                Kind::Stub(stub) => keys.push(self.arena.stubs[stub as usize].key),
                Kind::Branch(index) => todo.extend(self.children_of(index)),
                Kind::Empty | Kind::Leaf(_) => {}
            }
        }
        keys.iter().try_for_each(|key| self.reveal(key, source).map(drop))
    }

    /// Puts what the flat state holds in the place of a stub under the last branch of `path`.
    fn read_back(
        &mut self,
        path: &[u32],
        stub: u32,
        source: &impl Source<L>,
    ) -> Result<(), TrieError> {
        let parent = path.last().expect("a root is not dropped");
        let branch = self.arena.branches[*parent as usize];
        let start = usize::from(branch.depth) + 1;
        let Stub { key, kept, .. } = &self.arena.stubs[stub as usize];
        let key = *key;
        let digit = encode::nibble(&key, usize::from(branch.depth));
        let stored = &self.arena.refs[branch.place(digit)];
        let expected = NodeRef::stored(stored, branch.inline & (1 << digit) != 0);

        let (from, to) = range(&key, start);
        let mut side = L::Side::default();
        let leaves = source.load(from, to, kept, &mut side)?;
        let mut read = Self::build(leaves, side);
        let top = Self::hash_group(&mut [&mut read], &mut Scratch::new()).pop();
        let got = top.and_then(|top| top.node_ref(start, &mut Vec::new()));
        if got != Some(expected) {
            return Err(TrieError::FlatStateDiffers { key: from, nibbles: start });
        }
        self.arena.remove_stub(stub);
        let (node, epoch) = (read.root, self.arena.epoch);
        read.arena.epoch = epoch;
        for branch in &mut read.arena.branches {
            branch.epoch = epoch;
        }
        let node = read.copy(node, &mut self.arena, &mut self.side, None);
        self.set_child(path, &key, node);
        Ok(())
    }

    /// Drops cold nodes. What waits to be hashed stays.
    pub(crate) fn evict(&mut self, eviction: &Eviction<'_>) {
        let mut old = std::mem::take(self);
        self.arena.epoch = old.arena.epoch.wrapping_add(1);
        self.adopt_marks(&old);
        self.root = old.copy(old.root, &mut self.arena, &mut self.side, Some(eviction));
    }

    /// Copies a node with all below it to another arena, but for what `eviction` drops.
    fn copy(
        &mut self,
        node: Node,
        arena: &mut Arena<L>,
        side: &mut L::Side,
        eviction: Option<&Eviction<'_>>,
    ) -> Node {
        let index = match node.kind() {
            Kind::Empty => return Node::EMPTY,
            Kind::Leaf(index) => {
                let leaf = self.arena.leaves[index as usize].carry(&mut self.side, side);
                return arena.insert_leaf(leaf);
            }
            Kind::Stub(index) => return arena.insert_stub(self.arena.remove_stub(index)),
            Kind::Branch(index) => index,
        };
        let branch = self.arena.branches[index as usize];
        let start = usize::from(branch.depth) + 1;
        let (run, count) = (branch.run as usize, branch.child_count());
        let mut children = [Node::EMPTY; 16];
        let mut digits = branch.mask;
        for (place, child) in children.iter_mut().enumerate().take(count) {
            let clean = branch.dirty & digits & digits.wrapping_neg() == 0;
            digits &= digits - 1;
            let old = self.arena.children[run + place];
            let stub = eviction.filter(|_| clean).and_then(|e| self.drop_cold(old, start, e));
            *child = match stub {
                Some(stub) => arena.insert_stub(stub),
                None => self.copy(old, arena, side, eviction),
            };
        }
        let node = arena.insert_branch(usize::from(branch.depth), branch.mask, &children[..count]);
        let Kind::Branch(new) = node.kind() else { unreachable!("a branch was inserted") };
        let new = &mut arena.branches[new as usize];
        (new.dirty, new.inline, new.epoch) = (branch.dirty, branch.inline, branch.epoch);
        let new_run = new.run as usize;
        arena.refs[new_run..new_run + count].copy_from_slice(&self.arena.refs[run..run + count]);
        node
    }

    /// What to leave of a node that can go.
    fn drop_cold(&self, node: Node, start: usize, eviction: &Eviction<'_>) -> Option<Stub<L>> {
        let Kind::Branch(index) = node.kind() else { return None };
        if !eviction.all && self.arena.branches[index as usize].epoch == self.arena.epoch {
            return None;
        }
        let mut kept = L::Kept::default();
        let leaf_count = self.weigh(node, COLD_LEAVES_MAX, &mut kept)?;
        let key = *self.any_key(node.kind());
        let (from, to) = range(&key, start);
        let pinned = eviction.pinned.range(from..=to).next().is_some();
        (!pinned).then_some(Stub { key, leaf_count, kept })
    }

    /// The leaves below a node, if there is room for them and all can be dropped.
    fn weigh(&self, node: Node, room: u32, kept: &mut L::Kept) -> Option<u32> {
        let weight = match node.kind() {
            Kind::Empty => 0,
            Kind::Leaf(index) => {
                let leaf = &self.arena.leaves[index as usize];
                if !leaf.keep(&self.side, kept) {
                    return None;
                }
                1
            }
            Kind::Stub(index) => {
                let stub = &self.arena.stubs[index as usize];
                L::keep_again(&stub.kept, kept);
                stub.leaf_count
            }
            Kind::Branch(index) => {
                if self.arena.branches[index as usize].dirty != 0 {
                    return None;
                }
                let mut sum = 0;
                for child in self.children_of(index) {
                    sum += self.weigh(*child, room - sum, kept)?;
                }
                sum
            }
        };
        (weight <= room).then_some(weight)
    }

    /// Whether the root was left alone since cold nodes were last dropped.
    pub(crate) fn is_cold(&self) -> bool {
        match self.root.kind() {
            Kind::Branch(index) => self.arena.branches[index as usize].epoch != self.arena.epoch,
            _ => true,
        }
    }
}

impl Subtrie<AccountLeaf> {
    /// As [`Self::evict`], with the storage of the accounts.
    pub(crate) fn evict_with_storage(&mut self, eviction: &Eviction<'_>) {
        for leaf in &self.arena.leaves {
            if eviction.pinned.contains(&leaf.key) {
                continue;
            }
            if let Some(extra) = leaf.extra_mut(&mut self.side)
                && !extra.storage_dirty
                && let Storage::Hot(storage) = &mut extra.storage
                && storage.evict(eviction.all)
            {
                extra.storage = Storage::Cold;
            }
        }
        self.evict(eviction);
    }
}

impl StorageTrie {
    /// Drops what is cold. Says whether the whole trie can go.
    fn evict(&mut self, all: bool) -> bool {
        let none = BTreeSet::new();
        let eviction = Eviction { pinned: &none, all };
        match self {
            Self::Small(trie) if trie.is_dirty() => {}
            Self::Small(trie) if trie.leaf_count() <= COLD_LEAVES_MAX as usize => {
                if all || trie.is_cold() {
                    return true;
                }
                trie.arena.epoch = trie.arena.epoch.wrapping_add(1);
            }
            Self::Small(trie) => trie.evict(&eviction),
            Self::Split(forest) => forest.for_each_part(|part| part.evict(&eviction)),
        }
        false
    }
}

/// The keys that begin with the first `nibbles` of `key`.
fn range(key: &B256, nibbles: usize) -> (B256, B256) {
    let from = encode::truncated(key, nibbles);
    let mut to = from;
    to.0[nibbles.div_ceil(2)..].fill(0xff);
    if !nibbles.is_multiple_of(2) {
        to.0[nibbles / 2] |= 0x0f;
    }
    (from, to)
}
