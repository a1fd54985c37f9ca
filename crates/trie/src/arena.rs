//! Where the nodes of one subtrie live: four vectors and indices into them.
//!
//! A branch is a header and a *run* of exactly as many places as it has children, in two parallel
//! vectors: child nodes (4 bytes each: walking touches little memory) and child references (32 bytes
//! each: hashing a branch reads one contiguous piece instead of sixteen nodes). Freed runs are kept in
//! a list for each length.

use crate::{cold::Stub, leaf::Leaf};

/// A node of an arena: nothing, a leaf, a branch or a stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(u32);

/// A [`Node`] taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Empty,
    Leaf(u32),
    Branch(u32),
    /// A branch that was dropped with all below it.
    Stub(u32),
}

impl Node {
    pub(crate) const EMPTY: Self = Self(u32::MAX);
    const LEAF_BIT: u32 = 1 << 31;
    /// Of what is no leaf.
    const STUB_BIT: u32 = 1 << 30;

    pub(crate) const fn leaf(index: u32) -> Self {
        Self(index | Self::LEAF_BIT)
    }

    pub(crate) const fn branch(index: u32) -> Self {
        Self(index)
    }

    pub(crate) const fn stub(index: u32) -> Self {
        Self(index | Self::STUB_BIT)
    }

    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        if self.0 == Self::EMPTY.0 {
            Kind::Empty
        } else if self.0 & Self::LEAF_BIT != 0 {
            Kind::Leaf(self.0 & !Self::LEAF_BIT)
        } else if self.0 & Self::STUB_BIT != 0 {
            Kind::Stub(self.0 & !Self::STUB_BIT)
        } else {
            Kind::Branch(self.0)
        }
    }
}

/// A branch. Masks have a bit for each nibble.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Branch {
    /// Start of its run. In a freed header: the next freed one.
    pub(crate) run: u32,
    /// Children that exist: two at least.
    pub(crate) mask: u16,
    /// Children whose reference must be taken again. If a bit is set here, the bits that lead here are
    /// set in all ancestors.
    pub(crate) dirty: u16,
    /// Children whose reference is their RLP.
    pub(crate) inline: u16,
    /// The nibble of the key that this branch tells apart.
    pub(crate) depth: u8,
    /// The arena's epoch when something below was last changed.
    pub(crate) epoch: u8,
}

impl Branch {
    #[inline]
    pub(crate) const fn has(&self, nibble: usize) -> bool {
        self.mask & (1 << nibble) != 0
    }

    pub(crate) const fn child_count(&self) -> usize {
        self.mask.count_ones() as usize
    }

    /// Where the child of `nibble` is, or would be, in the run.
    #[inline]
    pub(crate) const fn place(&self, nibble: usize) -> usize {
        self.run as usize + (self.mask & ((1 << nibble) - 1)).count_ones() as usize
    }
}

const END_OF_LIST: u32 = u32::MAX;

/// The nodes of one subtrie.
#[derive(Clone, Debug)]
pub(crate) struct Arena<L: Leaf> {
    pub(crate) branches: Vec<Branch>,
    pub(crate) children: Vec<Node>,
    pub(crate) refs: Vec<[u8; 32]>,
    pub(crate) leaves: Vec<L>,
    pub(crate) stubs: Vec<Stub<L>>,
    /// Counts the times that cold nodes were dropped; wraps.
    pub(crate) epoch: u8,
    free_stubs: Vec<u32>,
    free_leaves: Vec<u32>,
    free_branch: u32,
    /// First freed run of each length from 2; the first child of a freed run names the next.
    free_runs: [u32; 15],
}

impl<L: Leaf> Default for Arena<L> {
    fn default() -> Self {
        Self {
            branches: Vec::new(),
            children: Vec::new(),
            refs: Vec::new(),
            leaves: Vec::new(),
            stubs: Vec::new(),
            epoch: 0,
            free_stubs: Vec::new(),
            free_leaves: Vec::new(),
            free_branch: END_OF_LIST,
            free_runs: [END_OF_LIST; 15],
        }
    }
}

impl<L: Leaf> Arena<L> {
    pub(crate) const fn leaf_count(&self) -> usize {
        self.leaves.len() - self.free_leaves.len()
    }

    pub(crate) fn insert_stub(&mut self, stub: Stub<L>) -> Node {
        if let Some(index) = self.free_stubs.pop() {
            self.stubs[index as usize] = stub;
            return Node::stub(index);
        }
        reserve(&mut self.stubs, 1);
        self.stubs.push(stub);
        Node::stub(self.stubs.len() as u32 - 1)
    }

    pub(crate) fn remove_stub(&mut self, index: u32) -> Stub<L> {
        self.free_stubs.push(index);
        std::mem::take(&mut self.stubs[index as usize])
    }

    pub(crate) fn insert_leaf(&mut self, leaf: L) -> Node {
        if let Some(index) = self.free_leaves.pop() {
            self.leaves[index as usize] = leaf;
            return Node::leaf(index);
        }
        reserve(&mut self.leaves, 1);
        self.leaves.push(leaf);
        assert!(
            self.leaves.len() < Node::LEAF_BIT as usize,
            "a subtrie has fewer than 2^31 leaves"
        );
        Node::leaf(self.leaves.len() as u32 - 1)
    }

    pub(crate) fn remove_leaf(&mut self, index: u32) -> L {
        self.free_leaves.push(index);
        std::mem::take(&mut self.leaves[index as usize])
    }

    /// A branch at `depth` whose children, in the order of their nibbles, are all dirty.
    pub(crate) fn insert_branch(&mut self, depth: usize, mask: u16, children: &[Node]) -> Node {
        let run = self.insert_run(children.len());
        self.children[run..run + children.len()].copy_from_slice(children);
        let (run, depth, epoch) = (run as u32, depth as u8, self.epoch);
        let branch = Branch { run, mask, dirty: mask, inline: 0, depth, epoch };
        let index = self.free_branch;
        if index == END_OF_LIST {
            reserve(&mut self.branches, 1);
            self.branches.push(branch);
            return Node::branch(self.branches.len() as u32 - 1);
        }
        self.free_branch = self.branches[index as usize].run;
        self.branches[index as usize] = branch;
        Node::branch(index)
    }

    /// Gives the branch one more child, a dirty one.
    pub(crate) fn add_child(&mut self, index: u32, nibble: usize, child: Node) {
        let branch = self.branches[index as usize];
        let (old, count) = (branch.run as usize, branch.child_count());
        let before = branch.place(nibble) - old;
        let run = self.insert_run(count + 1);
        self.move_places(old, run, before);
        self.children[run + before] = child;
        self.move_places(old + before, run + before + 1, count - before);
        self.remove_run(old, count);
        let branch = &mut self.branches[index as usize];
        branch.run = run as u32;
        branch.mask |= 1 << nibble;
        branch.dirty |= 1 << nibble;
    }

    /// Takes a child from a branch that has three or more.
    pub(crate) fn remove_child(&mut self, index: u32, nibble: usize) {
        let branch = self.branches[index as usize];
        let (old, count) = (branch.run as usize, branch.child_count());
        let before = branch.place(nibble) - old;
        let run = self.insert_run(count - 1);
        self.move_places(old, run, before);
        self.move_places(old + before + 1, run + before, count - before - 1);
        self.remove_run(old, count);
        let branch = &mut self.branches[index as usize];
        branch.run = run as u32;
        branch.mask &= !(1 << nibble);
        branch.dirty &= branch.mask;
        branch.inline &= branch.mask;
    }

    /// Drops the header and the run, not the children.
    pub(crate) fn remove_branch(&mut self, index: u32) {
        let branch = self.branches[index as usize];
        self.remove_run(branch.run as usize, branch.child_count());
        self.branches[index as usize] = Branch { run: self.free_branch, ..Default::default() };
        self.free_branch = index;
    }

    /// Makes room for exactly so many more nodes.
    pub(crate) fn reserve_exact(&mut self, branches: usize, places: usize) {
        self.branches.reserve_exact(branches);
        self.children.reserve_exact(places);
        self.refs.reserve_exact(places);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.branches.capacity() * size_of::<Branch>()
            + self.children.capacity() * size_of::<Node>()
            + self.refs.capacity() * size_of::<[u8; 32]>()
            + self.leaves.capacity() * size_of::<L>()
            + self.stubs.capacity() * size_of::<Stub<L>>()
            + self.stubs.iter().map(|stub| L::kept_bytes(&stub.kept)).sum::<usize>()
            + self.free_stubs.capacity() * size_of::<u32>()
            + self.free_leaves.capacity() * size_of::<u32>()
    }

    fn insert_run(&mut self, len: usize) -> usize {
        let head = self.free_runs[len - 2];
        if head != END_OF_LIST {
            self.free_runs[len - 2] = self.children[head as usize].0;
            return head as usize;
        }
        let run = self.children.len();
        reserve(&mut self.children, len);
        reserve(&mut self.refs, len);
        self.children.resize(run + len, Node::EMPTY);
        self.refs.resize(run + len, [0; 32]);
        run
    }

    fn remove_run(&mut self, run: usize, len: usize) {
        self.children[run] = Node(self.free_runs[len - 2]);
        self.free_runs[len - 2] = run as u32;
    }

    fn move_places(&mut self, from: usize, to: usize, count: usize) {
        self.children.copy_within(from..from + count, to);
        self.refs.copy_within(from..from + count, to);
    }
}

/// Makes room for `more`, growing by an eighth: a vector that doubles would waste a third of a trie.
pub(crate) fn reserve<T>(items: &mut Vec<T>, more: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.max(items.len() / 8));
    }
}
