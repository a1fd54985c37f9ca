//! How a large trie and its root are split over threads: 256 subtries at depth two.
//!
//! Keys are hashes, so the parts are of one size. Updates are dealt to parts by the first byte of the
//! key; each part is changed and hashed by one thread; what joins them are 16 branches at depth one and
//! the root. Fewer than two occupied parts in a row (or rows) have no branch: their only node then
//! starts higher up, which is why a part reports a [`Top`] and not a hash.

use crate::{
    TrieError,
    encode::{self, NodeRef, common_prefix, nibble},
    leaf::Leaf,
    subtrie::{Scratch, Subtrie, Top},
};
use alloy_primitives::{B256, Bytes};
use rayon::prelude::*;

/// Parts of a split trie: one for each first byte of a key.
pub(crate) const PARTS: usize = 256;
/// Parts that share their first nibble.
const ROW: usize = 16;
/// Operations, and parts to hash, from which on other threads are asked to help.
const PARALLEL_OPERATIONS: usize = 128;
const PARALLEL_PARTS: usize = 8;
/// Changes in a group of parts that are hashed together.
const GROUP_MARKS: usize = 320;
/// Operations of which the ways down are read together: what they touch must stay in the cache.
const WARM_OPERATIONS: usize = 128;

/// A trie of 256 subtries.
#[derive(Clone, Debug)]
pub(crate) struct Forest<L: Leaf> {
    parts: Vec<Subtrie<L>>,
    /// Top of each part, of each row of parts and of the whole, as of the last hashing.
    tops: Vec<Top>,
    rows: Vec<Top>,
    whole: Top,
    /// Rows of which a part's top changed since they were joined, a bit each.
    rows_stale: u16,
}

impl<L: Leaf> Default for Forest<L> {
    fn default() -> Self {
        Self::from_parts((0..PARTS).map(|_| Subtrie::default()).collect())
    }
}

impl<L: Leaf> Forest<L> {
    /// Puts 256 subtries together. Nothing is hashed yet.
    pub(crate) fn from_parts(parts: Vec<Subtrie<L>>) -> Self {
        assert_eq!(parts.len(), PARTS, "one subtrie for each first byte");
        Self {
            parts,
            tops: vec![Top::Empty; PARTS],
            rows: vec![Top::Empty; ROW],
            whole: Top::Empty,
            rows_stale: 0,
        }
    }

    /// Builds from leaves that are sorted by key.
    pub(crate) fn build(mut leaves: Vec<L>, side: impl Fn() -> L::Side) -> Self {
        let mut parts = Vec::with_capacity(PARTS);
        for prefix in (0..PARTS).rev() {
            let from = leaves.partition_point(|l| usize::from(l.key().0[0]) < prefix);
            parts.push(Subtrie::build(leaves.split_off(from), side()));
        }
        parts.reverse();
        Self::from_parts(parts)
    }

    pub(crate) fn part(&self, key: &B256) -> &Subtrie<L> {
        &self.parts[usize::from(key.0[0])]
    }

    pub(crate) fn part_at_mut(&mut self, prefix: u8) -> &mut Subtrie<L> {
        &mut self.parts[usize::from(prefix)]
    }

    pub(crate) fn parts(&self) -> &[Subtrie<L>] {
        &self.parts
    }

    pub(crate) fn leaf_count(&self) -> usize {
        self.parts.iter().map(Subtrie::leaf_count).sum()
    }

    /// Changes all parts at the same time.
    pub(crate) fn for_each_part(&mut self, change: impl Fn(&mut Subtrie<L>) + Sync) {
        self.parts.par_iter_mut().for_each(&change);
    }

    /// Calls `change` for each key, in the order of the keys, with its part and its index. Parts are
    /// changed at the same time.
    ///
    /// # Errors
    /// One that `change` returns; other keys may or may not have been changed.
    pub(crate) fn apply(
        &mut self,
        keys: &[B256],
        change: impl Fn(&mut Subtrie<L>, &B256, usize) -> Result<(), TrieError> + Sync,
    ) -> Result<(), TrieError> {
        if keys.len() < PARALLEL_OPERATIONS {
            for (index, key) in keys.iter().enumerate() {
                change(self.part_at_mut(key.0[0]), key, index)?;
            }
            return Ok(());
        }
        let (dealt, ends) = deal(keys);
        let mut hands = Vec::with_capacity(PARTS);
        let (mut rest, mut start) = (dealt.as_slice(), 0);
        for (part, end) in self.parts.iter_mut().zip(ends) {
            let (hand, others) = rest.split_at(end - start);
            (rest, start) = (others, end);
            if !hand.is_empty() {
                hands.push((part, hand));
            }
        }
        hands.into_par_iter().try_for_each(|(part, hand)| {
            for some in hand.chunks(WARM_OPERATIONS) {
                part.warm(some.iter().map(|index| &keys[*index as usize]));
                for index in some {
                    let index = *index as usize;
                    change(part, &keys[index], index)?;
                }
            }
            Ok(())
        })
    }

    /// Hashes what changed; `prepare` sees changed parts first.
    pub(crate) fn hash(&mut self, prepare: impl Fn(&mut [&mut Subtrie<L>]) + Sync) -> B256 {
        self.hash_parts(|_| true, prepare);
        for (index, row) in self.rows.iter_mut().enumerate() {
            if self.rows_stale & (1 << index) != 0 {
                *row = join(&self.tops[ROW * index..ROW * (index + 1)], 1);
            }
        }
        if std::mem::take(&mut self.rows_stale) != 0 {
            self.whole = join(&self.rows, 0);
        }
        self.whole.root_hash()
    }

    /// Hashes what changed in some parts, without joining them.
    pub(crate) fn hash_parts(
        &mut self,
        wanted: impl Fn(u8) -> bool,
        prepare: impl Fn(&mut [&mut Subtrie<L>]) + Sync,
    ) {
        let mut parts = Vec::new();
        let mut tops = Vec::new();
        let mut marks = 0;
        for (index, (part, top)) in self.parts.iter_mut().zip(&mut self.tops).enumerate() {
            if part.is_dirty() && wanted(index as u8) {
                self.rows_stale |= 1 << (index / ROW);
                marks += part.marks();
                parts.push(part);
                tops.push(top);
            }
        }
        let hash = |scratch: &mut Scratch, (parts, tops): Group<'_, '_, L>| {
            prepare(parts);
            for (top, new) in tops.iter_mut().zip(Subtrie::hash_group(parts, scratch)) {
                **top = new;
            }
        };
        if parts.len() < PARALLEL_PARTS {
            hash(&mut Scratch::new(), (&mut parts, &mut tops));
        } else {
            groups(&mut parts, &mut tops, marks).into_par_iter().for_each_init(Scratch::new, hash);
        }
    }

    /// Top of a part as of its last hashing.
    pub(crate) fn top(&self, prefix: u8) -> &Top {
        &self.tops[usize::from(prefix)]
    }

    /// Puts another part in the place of one; it must be hashed, and `top` what came of that.
    pub(crate) fn replace_part(&mut self, prefix: u8, part: Subtrie<L>, top: Top) {
        let index = usize::from(prefix);
        self.parts[index] = part;
        self.tops[index] = top;
        self.rows_stale |= 1 << (index / ROW);
    }

    /// The nodes from the root towards `key`; the forest must be hashed.
    pub(crate) fn prove(&self, key: &B256) -> Vec<Bytes> {
        let mut nodes = Vec::new();
        let mut start = 0;
        let Some(row) = prove_join(&self.rows, 0, key, &mut start, &mut nodes) else {
            return nodes;
        };
        let tops = &self.tops[ROW * row..ROW * (row + 1)];
        if let Some(column) = prove_join(tops, 1, key, &mut start, &mut nodes) {
            self.parts[ROW * row + column].prove(key, start, &mut nodes);
        }
        nodes
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts.iter().map(Subtrie::memory_bytes).sum::<usize>()
            + (PARTS + ROW) * size_of::<Top>()
    }
}

/// Parts that are hashed together, and the places of their tops.
type Group<'g, 'f, L> = (&'g mut [&'f mut Subtrie<L>], &'g mut [&'f mut Top]);

/// Divides parts into groups, each large enough to fill batches, small enough to stay in the cache, and
/// all together enough to keep every thread busy.
fn groups<'g, 'f, L: Leaf>(
    mut parts: &'g mut [&'f mut Subtrie<L>],
    mut tops: &'g mut [&'f mut Top],
    marks: usize,
) -> Vec<Group<'g, 'f, L>> {
    let target = (marks / (4 * rayon::current_num_threads())).clamp(1, GROUP_MARKS);
    let mut groups = Vec::new();
    while !parts.is_empty() {
        let (mut len, mut sum) = (0, 0);
        while len < parts.len() && sum < target {
            sum += parts[len].marks().max(1);
            len += 1;
        }
        let (group, rest) = parts.split_at_mut(len);
        let (group_tops, rest_tops) = tops.split_at_mut(len);
        groups.push((group, group_tops));
        (parts, tops) = (rest, rest_tops);
    }
    groups
}

/// The root of a trie that is split as a [`Forest`] is.
pub(crate) fn assemble(tops: &[Top]) -> B256 {
    let rows: Vec<Top> = tops.chunks(ROW).map(|row| join(row, 1)).collect();
    join(&rows, 0).root_hash()
}

/// The top of what lies below `depth` nibbles, from the tops for each next nibble.
fn join(tops: &[Top], depth: usize) -> Top {
    let mut occupied = tops.iter().filter(|top| **top != Top::Empty);
    let (Some(first), second) = (occupied.next(), occupied.next()) else { return Top::Empty };
    if second.is_none() {
        return first.clone();
    }
    let mut message = Vec::new();
    encode_join(tops, depth, &mut message);
    let key = first.key().map_or(B256::ZERO, |key| encode::truncated(key, depth));
    Top::Branch { key, depth, node: NodeRef::to(&message) }
}

fn encode_join(tops: &[Top], depth: usize, message: &mut Vec<u8>) {
    let mut child = Vec::new();
    let refs: Vec<_> = tops.iter().map(|top| top.node_ref(depth + 1, &mut child)).collect();
    encode::branch(|digit| refs[digit], message);
}

/// Adds what [`join`] made of `tops`, and says which of them to follow.
fn prove_join(
    tops: &[Top],
    depth: usize,
    key: &B256,
    start: &mut usize,
    nodes: &mut Vec<Bytes>,
) -> Option<usize> {
    let mut occupied = (0..tops.len()).filter(|index| tops[*index] != Top::Empty);
    let (first, second) = (occupied.next()?, occupied.next());
    if second.is_none() {
        return Some(first);
    }
    let mut branch = Vec::new();
    encode_join(tops, depth, &mut branch);
    if depth > *start {
        let other = tops[first].key()?;
        let mut extension = Vec::new();
        encode::extension(other, *start, depth, &NodeRef::to(&branch), &mut extension);
        nodes.push(encode::to_bytes(&extension));
        if common_prefix(key, other) < depth {
            return None;
        }
    }
    nodes.push(encode::to_bytes(&branch));
    *start = depth + 1;
    let digit = nibble(key, depth);
    (tops[digit] != Top::Empty).then_some(digit)
}

/// Sorts the indices of keys by the first byte of the key. Returns them and where each byte's end.
fn deal(keys: &[B256]) -> (Vec<u32>, [usize; PARTS]) {
    let mut ends = [0; PARTS];
    for key in keys {
        ends[usize::from(key.0[0])] += 1;
    }
    let mut total = 0;
    let mut next = [0; PARTS];
    for (end, next) in ends.iter_mut().zip(&mut next) {
        *next = total;
        total += *end;
        *end = total;
    }
    let mut dealt = vec![0; keys.len()];
    for (index, key) in keys.iter().enumerate() {
        let place = &mut next[usize::from(key.0[0])];
        dealt[*place] = index as u32;
        *place += 1;
    }
    (dealt, ends)
}
