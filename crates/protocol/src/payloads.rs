//! The payloads that a consensus client has named and that may still become the chain: a bounded tree over
//! the committed blocks, and the decision how the chain gets to where the client wants it.
//!
//! A payload enters when it has been executed and found valid, on a committed block or on another payload.
//! It stays when it becomes the head, so that a branch that was left can be taken again.
//!
//! **Invariants**: what is found by [`Payloads::branch`] is connected, from a committed block to the tip;
//! counts and keys never pass the limits.

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, map::B256Map};
use blockraft_primitives::{
    DiffIndex, PayloadEntry,
    limits::{
        ENGINE_INVALID_COUNT_MAX, ENGINE_PAYLOAD_COUNT_MAX, ENGINE_PAYLOAD_KEY_COUNT_MAX,
        ENGINE_REORG_BLOCK_COUNT_MAX,
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A valid payload.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its header and hash.
    pub header: Sealed<Header>,
    /// The log entry that makes it the head.
    pub entry: Arc<PayloadEntry>,
    /// The entry's diff, to read through.
    pub index: Arc<DiffIndex>,
}

/// A payload that is invalid, or whose ancestor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPayload {
    /// The last valid block below it.
    pub latest_valid: B256,
    /// What is wrong.
    pub reason: String,
}

/// A way from a committed block to a payload.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Height and hash of the committed block.
    pub ancestor: (u64, B256),
    /// What comes after it, oldest first.
    pub payloads: Vec<Candidate>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Payloads {
    valid: B256Map<Candidate>,
    /// The same by height, to forget the oldest first.
    by_number: BTreeMap<(u64, B256), usize>,
    /// Changed keys of all of them.
    keys: usize,
    invalid: B256Map<InvalidPayload>,
    /// Hashes in `invalid`, oldest first.
    invalid_order: VecDeque<B256>,
}

/// How the chain gets to where a consensus client wants it.
#[derive(Clone, Debug)]
pub enum HeadPlan {
    /// Nothing here leads there.
    Unknown,
    /// The block wanted lies below what is final: nothing moves, and nothing is built there.
    Behind,
    /// More blocks would have to be taken back than may be.
    TooDeep {
        /// Blocks above the common ancestor.
        depth: u64,
    },
    /// The safe or the final block is not on the way there.
    Inconsistent {
        /// `safe` or `finalized`.
        which: &'static str,
        /// The block.
        hash: B256,
    },
    /// Take back what is above `ancestor`, if anything is, and apply these payloads, oldest first.
    Move(Branch),
}

/// What a consensus client wants, and where the chain is.
#[derive(Clone, Copy, Debug)]
pub struct HeadGoal {
    /// The block that shall be the head.
    pub head: B256,
    /// Zero where none is named.
    pub safe: B256,
    /// Zero where none is named.
    pub finalized: B256,
    /// Height of the head now.
    pub head_now: u64,
    /// Height of the last block known to be final; 0 where none is.
    pub finalized_now: u64,
}

impl Payloads {
    /// Keeps a valid payload. The oldest ones go where there is no room.
    pub fn insert(&mut self, candidate: Candidate) {
        let hash = candidate.header.hash();
        let keys = candidate.entry.diff.key_count();
        if self.by_number.insert((candidate.header.number, hash), keys).is_none() {
            self.keys += keys;
        }
        self.valid.insert(hash, candidate);
        while self.by_number.len() > ENGINE_PAYLOAD_COUNT_MAX
            || (self.keys > ENGINE_PAYLOAD_KEY_COUNT_MAX && self.by_number.len() > 1)
        {
            self.forget_oldest();
        }
    }

    /// Forgets what lies too deep below the head to matter again.
    pub fn prune(&mut self, head: u64) {
        let floor = head.saturating_sub(ENGINE_REORG_BLOCK_COUNT_MAX);
        while self.by_number.keys().next().is_some_and(|(number, _)| *number <= floor) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(((_, hash), keys)) = self.by_number.pop_first() else { return };
        self.keys -= keys;
        self.valid.remove(&hash);
    }

    /// The valid payload with this hash.
    pub fn get(&self, hash: &B256) -> Option<&Candidate> {
        self.valid.get(hash)
    }

    /// Remembers an invalid payload.
    pub fn reject(&mut self, hash: B256, invalid: InvalidPayload) {
        if self.invalid.insert(hash, invalid).is_none() {
            self.invalid_order.push_back(hash);
        }
        if self.invalid_order.len() > ENGINE_INVALID_COUNT_MAX
            && let Some(oldest) = self.invalid_order.pop_front()
        {
            self.invalid.remove(&oldest);
        }
    }

    /// What is wrong with the payload with this hash, if it is known to be invalid.
    pub fn invalid(&self, hash: &B256) -> Option<&InvalidPayload> {
        self.invalid.get(hash)
    }

    /// The way to `tip`; `None` where there is none. `committed` gives the height of a block of the chain.
    pub fn branch<E>(
        &self,
        tip: B256,
        mut committed: impl FnMut(&B256) -> Result<Option<u64>, E>,
    ) -> Result<Option<Branch>, E> {
        let mut payloads = Vec::new();
        let mut at = tip;
        loop {
            if let Some(number) = committed(&at)? {
                payloads.reverse();
                return Ok(Some(Branch { ancestor: (number, at), payloads }));
            }
            let Some(candidate) = self.valid.get(&at) else { return Ok(None) };
            payloads.push(candidate.clone());
            at = candidate.header.parent_hash;
        }
    }
}

/// Decides how to get to `goal`. `committed` gives the height of a block of the chain.
pub fn plan_head<E>(
    payloads: &Payloads,
    goal: &HeadGoal,
    mut committed: impl FnMut(&B256) -> Result<Option<u64>, E>,
) -> Result<HeadPlan, E> {
    let Some(branch) = payloads.branch(goal.head, &mut committed)? else {
        return Ok(HeadPlan::Unknown);
    };
    for (which, hash) in [("finalized", goal.finalized), ("safe", goal.safe)] {
        let on_branch = || branch.payloads.iter().any(|payload| payload.header.hash() == hash);
        let below = committed(&hash)?.is_some_and(|number| number <= branch.ancestor.0);
        if !hash.is_zero() && !below && !on_branch() {
            return Ok(HeadPlan::Inconsistent { which, hash });
        }
    }
    if branch.payloads.is_empty() && branch.ancestor.0 < goal.finalized_now {
        return Ok(HeadPlan::Behind);
    }
    let depth = goal.head_now.saturating_sub(branch.ancestor.0);
    if depth > ENGINE_REORG_BLOCK_COUNT_MAX {
        return Ok(HeadPlan::TooDeep { depth });
    }
    Ok(HeadPlan::Move(branch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockraft_primitives::StateDiff;
    use std::convert::Infallible;

    /// The block at a height of a branch; every branch begins with block 0 of branch 0.
    fn hash(branch: u8, number: u64) -> B256 {
        let mut hash = B256::ZERO;
        hash[0] = 1 + branch;
        hash[24..].copy_from_slice(&number.to_be_bytes());
        hash
    }

    fn candidate(branch: u8, number: u64, parent: B256) -> Candidate {
        let header = Header { number, parent_hash: parent, ..Header::default() };
        let entry = PayloadEntry {
            header: header.clone(),
            transactions: Vec::new(),
            withdrawals: None,
            receipts: Vec::new(),
            diff: StateDiff::default(),
        };
        Candidate {
            header: Sealed::new_unchecked(header, hash(branch, number)),
            index: Arc::new(DiffIndex::new(&entry.diff)),
            entry: Arc::new(entry),
        }
    }

    /// The chain is branch 0 up to `head`.
    fn chain(head: u64) -> impl Fn(&B256) -> Result<Option<u64>, Infallible> {
        move |hash_: &B256| Ok((0..=head).find(|number| hash(0, *number) == *hash_))
    }

    fn goal(head: B256, head_now: u64) -> HeadGoal {
        HeadGoal { head, safe: B256::ZERO, finalized: B256::ZERO, head_now, finalized_now: 0 }
    }

    /// A plan in a few words.
    fn plan(payloads: &Payloads, goal: &HeadGoal) -> String {
        let Ok(plan) = plan_head(payloads, goal, chain(goal.head_now));
        match plan {
            HeadPlan::Unknown => "unknown".to_owned(),
            HeadPlan::Behind => "behind".to_owned(),
            HeadPlan::TooDeep { depth } => format!("too deep: {depth}"),
            HeadPlan::Inconsistent { which, .. } => format!("inconsistent: {which}"),
            HeadPlan::Move(branch) => {
                let numbers: Vec<u64> = branch.payloads.iter().map(|p| p.header.number).collect();
                format!("from {} apply {numbers:?}", branch.ancestor.0)
            }
        }
    }

    /// Branch 1 forks off the chain after block 3 and has blocks 4 to 6.
    fn forked() -> Payloads {
        let mut payloads = Payloads::default();
        payloads.insert(candidate(1, 4, hash(0, 3)));
        payloads.insert(candidate(1, 5, hash(1, 4)));
        payloads.insert(candidate(1, 6, hash(1, 5)));
        payloads
    }

    #[test]
    fn the_way_leads_over_the_common_ancestor() {
        let payloads = forked();
        let rows = [
            (hash(0, 5), "from 5 apply []"),
            (hash(0, 2), "from 2 apply []"),
            (hash(1, 4), "from 3 apply [4]"),
            (hash(1, 6), "from 3 apply [4, 5, 6]"),
            (hash(2, 4), "unknown"),
            (B256::ZERO, "unknown"),
        ];
        for (head, expected) in rows {
            assert_eq!(plan(&payloads, &goal(head, 5)), expected, "{head}");
        }
        assert_eq!(plan(&payloads, &goal(hash(1, 6), 3)), "from 3 apply [4, 5, 6]");
    }

    #[test]
    fn safe_and_final_blocks_lie_on_the_way() {
        let payloads = forked();
        let rows = [
            (hash(1, 6), hash(1, 5), hash(0, 3), "from 3 apply [4, 5, 6]"),
            (hash(1, 6), hash(1, 6), hash(1, 4), "from 3 apply [4, 5, 6]"),
            (hash(1, 6), hash(0, 4), B256::ZERO, "inconsistent: safe"),
            (hash(1, 6), B256::ZERO, hash(0, 4), "inconsistent: finalized"),
            (hash(1, 5), hash(1, 6), B256::ZERO, "inconsistent: safe"),
            (hash(0, 4), hash(2, 9), B256::ZERO, "inconsistent: safe"),
            (hash(0, 4), hash(0, 5), B256::ZERO, "inconsistent: safe"),
            (hash(0, 4), hash(0, 4), hash(0, 4), "from 4 apply []"),
        ];
        for (head, safe, finalized, expected) in rows {
            let goal = HeadGoal { safe, finalized, ..goal(head, 5) };
            assert_eq!(plan(&payloads, &goal), expected, "{goal:?}");
        }
    }

    #[test]
    fn what_is_final_stays() {
        let payloads = forked();
        let goal = |head| HeadGoal { finalized_now: 4, ..goal(head, 5) };
        assert_eq!(plan(&payloads, &goal(hash(0, 3))), "behind");
        assert_eq!(plan(&payloads, &goal(hash(0, 4))), "from 4 apply []");
    }

    #[test]
    fn a_reorganisation_has_a_depth() {
        let payloads = forked();
        let deepest = 3 + ENGINE_REORG_BLOCK_COUNT_MAX;
        assert_eq!(plan(&payloads, &goal(hash(1, 4), deepest)), "from 3 apply [4]");
        assert_eq!(plan(&payloads, &goal(hash(1, 4), deepest + 1)), "too deep: 257");
    }

    #[test]
    fn the_oldest_go_first() {
        let mut payloads = Payloads::default();
        let count = ENGINE_PAYLOAD_COUNT_MAX as u64 + 2;
        for number in 1..=count {
            payloads.insert(candidate(0, number, hash(0, number - 1)));
            payloads.reject(
                hash(9, number),
                InvalidPayload { latest_valid: B256::ZERO, reason: String::new() },
            );
        }
        assert!(payloads.get(&hash(0, 2)).is_none() && payloads.get(&hash(0, 3)).is_some());
        assert!(payloads.invalid(&hash(9, 2)).is_none() && payloads.invalid(&hash(9, 3)).is_some());
        payloads.prune(count);
        let floor = count - ENGINE_REORG_BLOCK_COUNT_MAX;
        assert!(payloads.get(&hash(0, floor)).is_none());
        assert!(payloads.get(&hash(0, floor + 1)).is_some());
        // Kept twice, counted once.
        payloads.insert(candidate(0, count, hash(0, count - 1)));
        assert_eq!(payloads.valid.len(), payloads.by_number.len());
    }
}
