//! A Merkle-Patricia trie over the keys of one prefix, in one arena, hashed when asked.
//!
//! It is kept as a radix tree: a branch says at which nibble its children differ, leaves hold whole
//! keys, and what lies between is an extension only when encoded. Insertion and removal so touch one
//! branch, and the canonical collapsing of extensions needs no code. A node's reference (hash or RLP)
//! is kept by its parent; changed places are marked up to the root and taken again by [`Subtrie::hash_group`].

use crate::{
    arena::{Arena, Kind, Node},
    cold::Source,
    encode::{self, KEY_NIBBLES, NodeRef, common_prefix, nibble},
    error::TrieError,
    hasher::HashBatch,
    leaf::Leaf,
};
use alloy_primitives::{B256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;

/// Whoever needs leaves has read back what was dropped.
pub(crate) const LEAVES_THERE: &str = "what is needed was read before";
/// Nodes that are read ahead together: they must stay in the cache until encoded.
const WARM_NODES: usize = 64;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Subtrie<L: Leaf> {
    pub(crate) arena: Arena<L>,
    pub(crate) root: Node,
    pub(crate) root_dirty: bool,
    /// About how many nodes wait to be hashed.
    marks: u32,
    pub(crate) side: L::Side,
}

/// What is known of the root of a subtrie without its other nodes. Where it starts is left open: it is
/// the child of a branch if there are other subtries beside it, and may be the root of all if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    Empty,
    Leaf {
        key: B256,
        value: Vec<u8>,
    },
    /// A branch at `depth` under the first `depth` nibbles of `key`.
    Branch {
        key: B256,
        depth: usize,
        node: NodeRef,
    },
}

impl Top {
    /// A key below this node, of which the first nibbles count that the node says.
    pub(crate) const fn key(&self) -> Option<&B256> {
        match self {
            Self::Empty => None,
            Self::Leaf { key, .. } | Self::Branch { key, .. } => Some(key),
        }
    }

    /// The reference that a parent holds if this node starts at `start`; `None` for nothing.
    pub(crate) fn node_ref(&self, start: usize, message: &mut Vec<u8>) -> Option<NodeRef> {
        match self {
            Self::Empty => None,
            Self::Leaf { key, value } => {
                encode::leaf(key, start, value, message);
                Some(NodeRef::to(message))
            }
            Self::Branch { depth, node, .. } if *depth == start => Some(*node),
            Self::Branch { key, depth, node } => {
                encode::extension(key, start, *depth, node, message);
                Some(NodeRef::to(message))
            }
        }
    }

    /// The hash of this node as the root of a whole trie.
    pub(crate) fn root_hash(&self) -> B256 {
        let mut message = Vec::new();
        match self {
            // A root is hashed even if its RLP is short.
            Self::Leaf { key, value } => {
                encode::leaf(key, 0, value, &mut message);
                keccak256(&message)
            }
            _ => self.node_ref(0, &mut message).map_or(EMPTY_ROOT_HASH, |node| node.root_hash()),
        }
    }
}

/// Buffers of [`Subtrie::hash_group`], to be used again.
#[derive(Debug)]
pub(crate) struct Scratch {
    batch: HashBatch,
    leaves: Vec<Stale>,
    branches: Vec<Stale>,
    message: Vec<u8>,
    value: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            batch: HashBatch::new(),
            leaves: Vec::new(),
            branches: Vec::new(),
            message: Vec::with_capacity(600),
            value: Vec::with_capacity(128),
        }
    }
}

/// A node of which the reference must be taken again.
#[derive(Clone, Copy, Debug)]
struct Stale {
    /// Which subtrie of the group that is hashed together.
    part: u32,
    node: u32,
    /// The branch that keeps the reference, the nibble under which, and the place in the arena.
    parent: u32,
    nibble: u8,
    start: u8,
    place: u32,
}

/// The branches from the root down to a node, and that node.
pub(crate) struct Walk {
    branches: [u32; KEY_NIBBLES],
    len: usize,
    pub(crate) end: Kind,
}

impl Walk {
    pub(crate) fn path(&self) -> &[u32] {
        &self.branches[..self.len]
    }
}

impl<L: Leaf> Default for Subtrie<L> {
    fn default() -> Self {
        Self {
            arena: Arena::default(),
            root: Node::EMPTY,
            root_dirty: true,
            marks: 0,
            side: L::Side::default(),
        }
    }
}

impl<L: Leaf> Subtrie<L> {
    /// Builds a trie from leaves that are sorted by key. Nothing is hashed yet.
    pub(crate) fn build(leaves: Vec<L>, side: L::Side) -> Self {
        assert!(
            leaves.is_sorted_by(|a, b| a.key() < b.key()),
            "leaves to build from are sorted and unique"
        );
        let mut trie = Self { side, ..Self::default() };
        let (branches, places) = count_nodes(&leaves);
        trie.arena.leaves = leaves;
        trie.arena.reserve_exact(branches, places);
        trie.root = trie.build_range(0, trie.arena.leaves.len());
        trie.marks = trie.arena.leaves.len() as u32;
        trie
    }

    fn build_range(&mut self, from: usize, to: usize) -> Node {
        match to - from {
            0 => return Node::EMPTY,
            1 => return Node::leaf(from as u32),
            _ => {}
        }
        let leaves = &self.arena.leaves;
        let depth = common_prefix(leaves[from].key(), leaves[to - 1].key());
        let (mut mask, mut count, mut ends) = (0, 0, [0; 16]);
        let mut next = from;
        while next < to {
            let digit = nibble(leaves[next].key(), depth);
            next += leaves[next..to].partition_point(|l| nibble(l.key(), depth) == digit);
            mask |= 1 << digit;
            ends[count] = next;
            count += 1;
        }
        let mut children = [Node::EMPTY; 16];
        let mut start = from;
        for (child, end) in children.iter_mut().zip(&ends[..count]) {
            *child = self.build_range(start, *end);
            start = *end;
        }
        self.arena.insert_branch(depth, mask, &children[..count])
    }

    /// Stands for one that is elsewhere: nothing of it will be asked for.
    pub(crate) fn absent() -> Self {
        Self { root_dirty: false, ..Self::default() }
    }

    /// Everything waits to be hashed.
    pub(crate) fn mark_all(&mut self) {
        self.root_dirty = true;
        self.marks = self.arena.leaves.len() as u32;
    }

    /// What waits to be hashed, of a trie whose nodes this one takes over.
    pub(crate) const fn adopt_marks(&mut self, other: &Self) {
        self.root_dirty = other.root_dirty;
        self.marks = other.marks;
    }

    pub(crate) const fn is_empty(&self) -> bool {
        matches!(self.root.kind(), Kind::Empty)
    }

    /// Whether something changed since it was hashed.
    pub(crate) const fn is_dirty(&self) -> bool {
        self.root_dirty
    }

    /// About how much there is to hash.
    pub(crate) const fn marks(&self) -> usize {
        self.marks as usize
    }

    /// Leaves, those below stubs with them.
    pub(crate) fn leaf_count(&self) -> usize {
        let dropped = self.arena.stubs.iter().map(|stub| stub.leaf_count as usize);
        self.arena.leaf_count() + dropped.sum::<usize>()
    }

    pub(crate) fn get(&self, key: &B256) -> Option<&L> {
        let walk = self.walk(key);
        assert!(!matches!(walk.end, Kind::Stub(_)), "{LEAVES_THERE}");
        self.find(&walk, key).map(|index| &self.arena.leaves[index as usize])
    }

    /// Reads what operations on these keys will read, so that the processor fetches it for many keys at
    /// once: one by one, each step down would wait for memory.
    pub(crate) fn warm<'a>(&self, keys: impl Iterator<Item = &'a B256> + Clone) {
        let mut nodes: Vec<Node> = keys.clone().map(|_| self.root).collect();
        loop {
            let mut descended = false;
            for (node, key) in nodes.iter_mut().zip(keys.clone()) {
                if let Kind::Branch(index) = node.kind() {
                    let branch = &self.arena.branches[index as usize];
                    let digit = nibble(key, usize::from(branch.depth));
                    *node = if branch.has(digit) {
                        self.arena.children[branch.place(digit)]
                    } else {
                        Node::EMPTY
                    };
                    descended = true;
                }
            }
            if !descended {
                break;
            }
        }
        let mut seen = 0;
        for node in nodes {
            if let Kind::Leaf(index) = node.kind() {
                seen ^= self.arena.leaves[index as usize].key().0[31];
            }
        }
        std::hint::black_box(seen);
    }

    /// Sets the leaf of `key` to what `change` makes of it, or of a new one if there is none and
    /// `insert` makes one. `change` says whether the encoded value may have become another. What was
    /// dropped is read from `source`.
    pub(crate) fn upsert(
        &mut self,
        key: &B256,
        source: &impl Source<L>,
        insert: impl FnOnce(&mut L::Side) -> Option<L>,
        change: impl FnOnce(&mut L, &mut L::Side) -> Result<bool, TrieError>,
    ) -> Result<(), TrieError> {
        let walk = self.reveal(key, source)?;
        if let Some(index) = self.find(&walk, key) {
            if change(&mut self.arena.leaves[index as usize], &mut self.side)? {
                self.mark(walk.path(), key);
            }
        } else if let Some(leaf) = insert(&mut self.side) {
            let leaf = self.arena.insert_leaf(leaf);
            self.attach(&walk, key, leaf);
        }
        Ok(())
    }

    /// Removes the leaf of `key`, if there is one. What was dropped is read from `source`.
    pub(crate) fn remove(
        &mut self,
        key: &B256,
        source: &impl Source<L>,
    ) -> Result<Option<L>, TrieError> {
        let walk = self.reveal(key, source)?;
        let Some(index) = self.find(&walk, key) else { return Ok(None) };
        self.reveal_sibling(&walk, key, source)?;
        self.detach(walk.path(), key);
        Ok(Some(self.arena.remove_leaf(index)))
    }

    /// All leaves in the order of their keys; none may be below a stub.
    pub(crate) fn leaves(&self) -> Vec<&L> {
        let mut out = Vec::with_capacity(self.leaf_count());
        let mut todo = vec![self.root];
        while let Some(node) = todo.pop() {
            match node.kind() {
                Kind::Empty => {}
                Kind::Leaf(index) => out.push(&self.arena.leaves[index as usize]),
                Kind::Branch(index) => todo.extend(self.children_of(index).iter().rev()),
                Kind::Stub(_) => unreachable!("{LEAVES_THERE}"),
            }
        }
        out
    }

    /// Bytes held, without those of `side`.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.arena.memory_bytes()
    }

    pub(crate) fn children_of(&self, index: u32) -> &[Node] {
        let branch = &self.arena.branches[index as usize];
        &self.arena.children[branch.run as usize..][..branch.child_count()]
    }

    /// Follows `key` down to where it ends: its leaf, another leaf, or a branch without such a child.
    pub(crate) fn walk(&self, key: &B256) -> Walk {
        let mut walk = Walk { branches: [0; KEY_NIBBLES], len: 0, end: self.root.kind() };
        while let Kind::Branch(index) = walk.end {
            walk.branches[walk.len] = index;
            walk.len += 1;
            let branch = &self.arena.branches[index as usize];
            let digit = nibble(key, usize::from(branch.depth));
            if !branch.has(digit) {
                break;
            }
            walk.end = self.arena.children[branch.place(digit)].kind();
        }
        walk
    }

    fn find(&self, walk: &Walk, key: &B256) -> Option<u32> {
        match walk.end {
            Kind::Leaf(index) if self.arena.leaves[index as usize].key() == key => Some(index),
            _ => None,
        }
    }

    /// Some key below a node: its first nibbles are those of every key there.
    pub(crate) fn any_key(&self, mut node: Kind) -> &B256 {
        loop {
            match node {
                Kind::Leaf(index) => return self.arena.leaves[index as usize].key(),
                Kind::Branch(index) => node = self.children_of(index)[0].kind(),
                Kind::Stub(index) => return &self.arena.stubs[index as usize].key,
                Kind::Empty => unreachable!("only a root can be empty"),
            }
        }
    }

    /// Marks the way to `key` down from the root, along these branches.
    fn mark(&mut self, path: &[u32], key: &B256) {
        self.marks = self.marks.saturating_add(1);
        for index in path.iter().rev() {
            let branch = &mut self.arena.branches[*index as usize];
            let bit = 1 << nibble(key, usize::from(branch.depth));
            if branch.dirty & bit != 0 {
                return; // Then so are those above.
            }
            branch.dirty |= bit;
            branch.epoch = self.arena.epoch;
        }
        self.root_dirty = true;
    }

    fn attach(&mut self, walk: &Walk, key: &B256, leaf: Node) {
        if walk.end == Kind::Empty {
            self.root = leaf;
            self.root_dirty = true;
            return;
        }
        let other = *self.any_key(walk.end);
        let depth = common_prefix(key, &other);
        // The first branch at or below the nibble in which `key` differs from all that is there.
        let above = walk
            .path()
            .iter()
            .position(|i| usize::from(self.arena.branches[*i as usize].depth) >= depth)
            .unwrap_or(walk.len);
        let path = &walk.path()[..above];
        let digit = nibble(key, depth);
        match walk.path().get(above) {
            Some(index) if usize::from(self.arena.branches[*index as usize].depth) == depth => {
                self.arena.add_child(*index, digit, leaf);
            }
            _ => {
                let below = self.child(path, key);
                let other_digit = nibble(&other, depth);
                let children = if digit < other_digit { [leaf, below] } else { [below, leaf] };
                let branch =
                    self.arena.insert_branch(depth, 1 << digit | 1 << other_digit, &children);
                self.set_child(path, key, branch);
            }
        }
        self.mark(path, key);
    }

    /// Removes the leaf of `key` under the last branch of `path` (or under the root).
    fn detach(&mut self, path: &[u32], key: &B256) {
        let Some((index, above)) = path.split_last() else {
            self.root = Node::EMPTY;
            self.root_dirty = true;
            return;
        };
        let branch = self.arena.branches[*index as usize];
        let digit = nibble(key, usize::from(branch.depth));
        if branch.child_count() > 2 {
            self.arena.remove_child(*index, digit);
            self.mark(above, key);
            return;
        }
        let other = (branch.mask & !(1 << digit)).trailing_zeros() as usize;
        let remaining = self.arena.children[branch.place(other)];
        self.arena.remove_branch(*index);
        self.set_child(above, key, remaining);
        self.mark(above, key);
    }

    /// The child towards `key` of the last branch of `path`, or the root.
    fn child(&self, path: &[u32], key: &B256) -> Node {
        path.last().map_or(self.root, |index| {
            let branch = &self.arena.branches[*index as usize];
            self.arena.children[branch.place(nibble(key, usize::from(branch.depth)))]
        })
    }

    pub(crate) fn set_child(&mut self, path: &[u32], key: &B256, node: Node) {
        match path.last() {
            None => self.root = node,
            Some(index) => {
                let branch = &self.arena.branches[*index as usize];
                let place = branch.place(nibble(key, usize::from(branch.depth)));
                self.arena.children[place] = node;
            }
        }
    }
}

/// Hashing.
impl<L: Leaf> Subtrie<L> {
    /// Takes every stale reference of these subtries again, from the leaves up, and returns their tops.
    /// They are hashed together because four messages of one length cost little more than two.
    pub(crate) fn hash_group(parts: &mut [&mut Self], scratch: &mut Scratch) -> Vec<Top> {
        let Scratch { batch, leaves, branches, message, value } = scratch;
        let layers = gather(parts, leaves, branches);
        for (tag, stale) in leaves.iter().enumerate() {
            if tag.is_multiple_of(WARM_NODES) {
                warm_leaves(parts, &leaves[tag..leaves.len().min(tag + WARM_NODES)]);
            }
            let part = &mut parts[stale.part as usize];
            let leaf = &part.arena.leaves[stale.node as usize];
            leaf.encode_value(&part.side, value);
            encode::leaf(leaf.key(), usize::from(stale.start), value, message);
            if message.len() < 32 {
                part.store(stale, &NodeRef::inline(message));
            } else {
                batch.push(tag as u32, message, |tag, hash| {
                    let stale = &leaves[tag as usize];
                    parts[stale.part as usize].store(stale, &NodeRef::hash(hash));
                });
            }
        }
        batch.flush(|tag, hash| {
            let stale = &leaves[tag as usize];
            parts[stale.part as usize].store(stale, &NodeRef::hash(hash));
        });
        for layer in layers.windows(2).rev() {
            let layer = &branches[layer[0]..layer[1]];
            let mut store = |parts: &mut [&mut Self], tag: usize, node| {
                let stale: &Stale = &layer[tag];
                parts[stale.part as usize].store_branch(stale, node, value);
            };
            for (tag, stale) in layer.iter().enumerate() {
                if tag.is_multiple_of(WARM_NODES) {
                    warm_refs(parts, &layer[tag..layer.len().min(tag + WARM_NODES)]);
                }
                parts[stale.part as usize].encode_branch(stale.node, message);
                if message.len() < 32 {
                    store(parts, tag, NodeRef::inline(message));
                } else {
                    batch.push(tag as u32, message, |tag, hash| {
                        store(parts, tag as usize, NodeRef::hash(hash));
                    });
                }
            }
            batch.flush(|tag, hash| store(parts, tag as usize, NodeRef::hash(hash)));
        }
        Self::hash_roots(parts, batch, message)
    }

    /// The tops of subtries of which all other references are fresh.
    fn hash_roots(
        parts: &mut [&mut Self],
        batch: &mut HashBatch,
        message: &mut Vec<u8>,
    ) -> Vec<Top> {
        let mut tops = vec![Top::Empty; parts.len()];
        let set_node = |top: &mut Top, hash| {
            if let Top::Branch { node, .. } = top {
                *node = NodeRef::hash(hash);
            }
        };
        for (index, part) in parts.iter_mut().enumerate() {
            part.root_dirty = false;
            part.marks = 0;
            match part.root.kind() {
                Kind::Empty => {}
                Kind::Leaf(leaf) => {
                    let leaf = &part.arena.leaves[leaf as usize];
                    let mut value = Vec::new();
                    leaf.encode_value(&part.side, &mut value);
                    tops[index] = Top::Leaf { key: *leaf.key(), value };
                }
                Kind::Stub(_) => unreachable!("a root is not dropped"),
                Kind::Branch(root) => {
                    part.encode_branch(root, message);
                    let depth = usize::from(part.arena.branches[root as usize].depth);
                    let key = encode::truncated(part.any_key(Kind::Branch(root)), depth);
                    // A placeholder, unless the root is short.
                    let node = NodeRef::inline(&message[..message.len().min(31)]);
                    tops[index] = Top::Branch { key, depth, node };
                    if message.len() >= 32 {
                        batch.push(index as u32, message, |tag, hash| {
                            set_node(&mut tops[tag as usize], hash);
                        });
                    }
                }
            }
        }
        batch.flush(|tag, hash| set_node(&mut tops[tag as usize], hash));
        tops
    }

    fn gather_children(
        &mut self,
        part: u32,
        parent: u32,
        leaves: &mut Vec<Stale>,
        branches: &mut Vec<Stale>,
    ) {
        let branch = &mut self.arena.branches[parent as usize];
        let mut dirty = std::mem::take(&mut branch.dirty);
        while dirty != 0 {
            let digit = dirty.trailing_zeros() as usize;
            dirty &= dirty - 1;
            let place = branch.place(digit);
            let stale = |node| Stale {
                part,
                node,
                parent,
                nibble: digit as u8,
                start: branch.depth + 1,
                place: place as u32,
            };
            match self.arena.children[place].kind() {
                Kind::Leaf(index) => leaves.push(stale(index)),
                Kind::Branch(index) => branches.push(stale(index)),
                Kind::Stub(_) => unreachable!("a stub is not changed and does not move"),
                Kind::Empty => unreachable!("a bit of the mask is a child"),
            }
        }
    }

    fn store(&mut self, stale: &Stale, node: &NodeRef) {
        self.arena.refs[stale.place as usize] = *node.bytes();
        let inline = &mut self.arena.branches[stale.parent as usize].inline;
        if node.is_inline() {
            *inline |= 1 << stale.nibble;
        } else {
            *inline &= !(1 << stale.nibble);
        }
    }

    /// Stores the reference to a branch, or to the extension that leads to it.
    fn store_branch(&mut self, stale: &Stale, node: NodeRef, message: &mut Vec<u8>) {
        let depth = usize::from(self.arena.branches[stale.node as usize].depth);
        let start = usize::from(stale.start);
        if depth == start {
            self.store(stale, &node);
        } else {
            let key = self.any_key(Kind::Branch(stale.node));
            encode::extension(key, start, depth, &node, message);
            self.store(stale, &NodeRef::to(message));
        }
    }

    pub(crate) fn encode_branch(&self, index: u32, message: &mut Vec<u8>) {
        let branch = &self.arena.branches[index as usize];
        let refs = &self.arena.refs[branch.run as usize..][..branch.child_count()];
        if branch.inline == 0 {
            encode::hashed_branch(branch.mask, refs, message);
            return;
        }
        let child = |digit| {
            branch.has(digit).then(|| {
                let bytes = &refs[branch.place(digit) - branch.run as usize];
                NodeRef::stored(bytes, branch.inline & (1 << digit) != 0)
            })
        };
        encode::branch(child, message);
    }
}

/// Lists stale nodes below the roots of `parts` and clears their marks: all leaves, and branches in
/// layers, where the children of one layer are in the next. Returns the borders of the layers.
fn gather<L: Leaf>(
    parts: &mut [&mut Subtrie<L>],
    leaves: &mut Vec<Stale>,
    branches: &mut Vec<Stale>,
) -> Vec<usize> {
    leaves.clear();
    branches.clear();
    for (index, part) in parts.iter_mut().enumerate() {
        if let Kind::Branch(root) = part.root.kind() {
            part.gather_children(index as u32, root, leaves, branches);
        }
    }
    let mut layers = vec![0];
    let mut next = 0;
    while next < branches.len() {
        layers.push(branches.len());
        warm_children(parts, &branches[next..]);
        while next < layers[layers.len() - 1] {
            let stale = branches[next];
            let part = &mut parts[stale.part as usize];
            part.gather_children(stale.part, stale.node, leaves, branches);
            next += 1;
        }
    }
    layers
}

/// See [`Subtrie::warm`].
fn warm_leaves<L: Leaf>(parts: &[&mut Subtrie<L>], leaves: &[Stale]) {
    let touch = |seen, stale: &Stale| {
        let arena = &parts[stale.part as usize].arena;
        seen ^ arena.leaves[stale.node as usize].key().0[31]
    };
    std::hint::black_box(leaves.iter().fold(0, touch));
}

/// See [`Subtrie::warm`].
fn warm_children<L: Leaf>(parts: &[&mut Subtrie<L>], branches: &[Stale]) {
    let touch = |seen, stale: &Stale| {
        let arena = &parts[stale.part as usize].arena;
        let branch = &arena.branches[stale.node as usize];
        let child = arena.children[branch.run as usize + branch.child_count() / 2];
        seen ^ u8::from(child == Node::EMPTY)
    };
    std::hint::black_box(branches.iter().fold(0, touch));
}

/// See [`Subtrie::warm`].
fn warm_refs<L: Leaf>(parts: &[&mut Subtrie<L>], branches: &[Stale]) {
    let mut seen = 0;
    for stale in branches {
        let arena = &parts[stale.part as usize].arena;
        let branch = &arena.branches[stale.node as usize];
        let refs = &arena.refs[branch.run as usize..][..branch.child_count()];
        // Two references are one cache line.
        for pair in refs.chunks(2) {
            seen ^= pair[0][0];
        }
    }
    std::hint::black_box(seen);
}

/// Branches and places in runs that sorted leaves need: what their common prefixes say.
fn count_nodes<L: Leaf>(leaves: &[L]) -> (usize, usize) {
    // Each leaf but the first opens a place in the branch at its common prefix with the one before,
    // and opens that branch itself unless it is on the way already.
    let mut open: Vec<usize> = Vec::with_capacity(KEY_NIBBLES);
    let mut branches = 0;
    for pair in leaves.windows(2) {
        let depth = common_prefix(pair[0].key(), pair[1].key());
        while open.last().is_some_and(|d| *d > depth) {
            open.pop();
        }
        if open.last() != Some(&depth) {
            open.push(depth);
            branches += 1;
        }
    }
    let places = if branches == 0 { 0 } else { leaves.len() + branches - 1 };
    (branches, places)
}
