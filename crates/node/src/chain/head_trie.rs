//! The state trie at the store's head, with the blocks of this node on top that are not applied yet,
//! because a root has to be known before its block is proposed.
//!
//! While a root is computed the trie is *out*: taken from its place, so that a block that is ahead can be
//! applied meanwhile. Everyone else waits until it is back. What does not come back committed is taken
//! out of the trie again before anything else happens to it. Where hashing is shared out, subtries of other
//! owners may be behind: see `lag`.

use super::{
    Chain,
    lag::{CatchUp, Lag, SubtrieRoots, Written, roots_of},
    unapplied::{Unapplied, above_head},
};
use crate::{error::NodeError, trie_start};
use alloy_consensus::Header;
use alloy_primitives::{B256, keccak256};
use blockraft_primitives::{
    AccountChange, AccountDiff, DiffIndex, DiffLayer, PartitionSet, SlotChange, StateDiff,
    StateError, StateReader, WithDiffs, limits::TRIE_LAG_KEY_COUNT_MAX,
};
use blockraft_trie::{StateTrie, SubtrieRoot};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{collections::VecDeque, sync::Arc};

/// Where the trie is kept. Its lock is taken before the pool's.
#[derive(Debug)]
pub(super) struct TriePlace {
    place: Mutex<HeadTrie>,
    back: Condvar,
}

/// See the module.
#[derive(Debug)]
pub(super) struct HeadTrie {
    trie: Held,
    /// What is in the trie on top of the head, in order.
    ahead: VecDeque<Ahead>,
    lag: Lag,
    /// Of the block that is being applied: the subtries that have its changes, if not all do, and the roots of
    /// all.
    in_part: Option<(PartitionSet, SubtrieRoots)>,
}

#[derive(Debug)]
enum Held {
    Here(StateTrie),
    Out,
    /// What it contains is unknown after a failure.
    Lost,
}

/// Stands for the hash of a block that has come to nothing, or that is somebody else's and has none yet.
const VOID: B256 = B256::ZERO;

/// Changes on top of the head.
#[derive(Debug)]
struct Ahead {
    /// Of the block, or [`VOID`].
    hash: B256,
    written: Written,
}

impl TriePlace {
    pub(super) fn new(trie: StateTrie) -> Self {
        Self { place: Mutex::new(HeadTrie::new(trie)), back: Condvar::new() }
    }

    /// The trie's place, once the trie is in it. The store's head stays what it is while this is held.
    pub(super) fn lock(&self) -> MutexGuard<'_, HeadTrie> {
        let mut place = self.place.lock();
        self.wait(&mut place);
        place
    }

    fn wait(&self, place: &mut MutexGuard<'_, HeadTrie>) {
        while matches!(place.trie, Held::Out) {
            self.back.wait(place);
        }
    }
}

impl HeadTrie {
    /// A trie that stands at the head.
    pub(super) fn new(trie: StateTrie) -> Self {
        Self { trie: Held::Here(trie), ahead: VecDeque::new(), lag: Lag::default(), in_part: None }
    }

    /// The trie, for who has waited for it.
    pub(super) fn trie(&mut self) -> Result<&mut StateTrie, NodeError> {
        match &mut self.trie {
            Held::Here(trie) => Ok(trie),
            Held::Out => unreachable!("it is waited for before it is used"),
            Held::Lost => Err(NodeError::TrieLost),
        }
    }

    /// Notes what was written into the trie: the changes of a block on the head.
    pub(super) fn note_ahead(&mut self, hash: B256, diff: Arc<StateDiff>) {
        let written = Written { diff, partitions: PartitionSet::ALL, roots: None };
        self.ahead.push_back(Ahead { hash, written });
    }

    /// The store has the block that the trie was moved to.
    pub(super) fn applied(&mut self, diff: Arc<StateDiff>) {
        if let Some((partitions, roots)) = self.in_part.take() {
            self.lag.add(Written { diff, partitions, roots: Some(roots) });
        }
    }

    /// The subtries that have all applied blocks.
    #[cfg(test)]
    pub(super) fn fresh(&self) -> PartitionSet {
        self.lag.fresh
    }

    /// The subtries that have everything.
    fn current(&self) -> PartitionSet {
        let written = self.ahead.iter().map(|ahead| &ahead.written.partitions);
        written.fold(self.lag.fresh, |current, partitions| current.and(partitions))
    }

    /// The roots of all subtries, where not all have everything.
    fn known_roots(&self) -> Option<SubtrieRoots> {
        let ahead = self.ahead.iter().rev().find_map(|ahead| ahead.written.roots.as_ref());
        ahead.or(self.lag.roots.as_ref()).cloned()
    }

    /// What the subtries miss, counted as written from now on. `head` is the last block that they lag by.
    fn what_is_missed(&mut self, head: u64) -> Option<CatchUp> {
        let ahead = self.ahead.iter_mut().map(|ahead| &mut ahead.written);
        self.lag.catch_up(ahead, head)
    }

    /// How many of `blocks` are in the trie, from the first one on.
    fn common(&self, blocks: &[Arc<Unapplied>]) -> usize {
        let same = |(ahead, block): &(&Ahead, &Arc<Unapplied>)| ahead.hash == block.header.hash();
        self.ahead.iter().zip(blocks).take_while(same).count()
    }
}

/// The trie while it is out, with the state after some unapplied blocks.
pub(super) struct TrieOut<'a> {
    chain: &'a Chain,
    trie: StateTrie,
    /// The subtries that have everything, and the roots of the others.
    current: PartitionSet,
    known: Option<SubtrieRoots>,
    /// Since it was taken out.
    written: Option<Ahead>,
    /// What it contains is what those who look next will take it for.
    whole: bool,
}

impl TrieOut<'_> {
    /// Writes changes of one more block, all or some. [`Self::keep`] or [`Self::keep_void`] must follow, or
    /// the trie is lost.
    pub(super) fn push(&mut self, diff: &StateDiff) -> Result<(), NodeError> {
        self.catch_up()?;
        self.push_to(diff, &PartitionSet::ALL)
    }

    /// Writes changes of one more block that are of some partitions. As [`Self::push`].
    pub(super) fn push_to(
        &mut self,
        diff: &StateDiff,
        partitions: &PartitionSet,
    ) -> Result<(), NodeError> {
        if !self.current.contains_all(partitions) {
            self.catch_up()?;
        }
        self.whole = false;
        let Self { chain, trie, .. } = self;
        chain.workers.install(|| trie.push_to(diff, partitions))?;
        Ok(())
    }

    /// The root, once all changes of the block are written.
    pub(super) fn root(&mut self) -> B256 {
        let Self { chain, trie, .. } = self;
        chain.workers.install(|| trie.root())
    }

    /// The roots of all subtries before anything was written.
    pub(super) fn roots(&mut self) -> Vec<SubtrieRoot> {
        let Self { chain, trie, current, known, .. } = self;
        chain.workers.install(|| roots_of(trie, current, known.as_ref()))
    }

    /// The roots of some subtries, with all that was written.
    pub(super) fn roots_of(&mut self, partitions: &PartitionSet) -> Vec<SubtrieRoot> {
        let Self { chain, trie, .. } = self;
        chain.workers.install(|| trie.subtrie_roots(partitions))
    }

    /// Puts the trie back with a block of which changes were written.
    pub(super) fn keep(mut self, hash: B256, written: Written) {
        self.written = Some(Ahead { hash, written });
        self.whole = true;
    }

    /// Puts the trie back with changes of a block that has come to nothing: whoever looks next takes them
    /// back.
    pub(super) fn keep_void(self, diff: StateDiff) {
        let diff = Arc::new(diff);
        self.keep(VOID, Written { diff, partitions: PartitionSet::ALL, roots: None });
    }

    /// Brings the subtries that are behind up to date.
    fn catch_up(&mut self) -> Result<(), NodeError> {
        if self.current == PartitionSet::ALL {
            return Ok(());
        }
        let Self { chain, trie, current, .. } = self;
        let was_whole = std::mem::replace(&mut self.whole, false);
        *current = PartitionSet::ALL;
        let missed = chain.trie.place.lock().what_is_missed(chain.store.head().number);
        if let Some(catch_up) = missed {
            chain.workers.install(|| catch_up.write(trie))?;
        }
        self.whole = was_whole;
        Ok(())
    }
}

/// Whatever happens, the trie comes back.
impl Drop for TrieOut<'_> {
    fn drop(&mut self) {
        let place = &self.chain.trie;
        let mut at_head = place.place.lock();
        at_head.ahead.extend(self.written.take());
        at_head.trie = match self.whole {
            true => Held::Here(std::mem::take(&mut self.trie)),
            false => Held::Lost,
        };
        self.chain.bound_trie_memory(&mut at_head, None);
        place.back.notify_all();
    }
}

/// A block that is applied, as far as the trie is concerned.
pub(super) struct AppliedBlock<'a> {
    pub(super) hash: B256,
    pub(super) header: &'a Header,
    pub(super) diff: &'a StateDiff,
    /// The roots that the block's entry carries, if they give the header's.
    pub(super) roots: Option<SubtrieRoots>,
}

impl Chain {
    /// Brings the trie to the state after a block and holds it against the header's root. The lock is for
    /// the caller to hold until the store has the block too: whoever takes it finds both at one head.
    pub(super) fn move_trie(
        &self,
        block: AppliedBlock<'_>,
    ) -> Result<MutexGuard<'_, HeadTrie>, NodeError> {
        let mut at_head = self.trie.place.lock();
        if let Some(own) = at_head.ahead.pop_front_if(|ahead| ahead.hash == block.hash) {
            at_head.lag.add(own.written);
            self.bound_trie_memory(&mut at_head, Some(block.diff));
            return Ok(at_head);
        }
        self.trie.wait(&mut at_head);
        match &block.roots {
            Some(roots) if self.may_lag() => self.follow_owners(&mut at_head, &block, roots)?,
            _ => self.follow_whole(&mut at_head, &block)?,
        }
        self.bound_trie_memory(&mut at_head, Some(block.diff));
        Ok(at_head)
    }

    fn follow_whole(
        &self,
        at_head: &mut HeadTrie,
        block: &AppliedBlock<'_>,
    ) -> Result<(), NodeError> {
        self.take_back(at_head)?;
        let trie = at_head.trie()?;
        trie.push(block.diff)?;
        let (number, got, expected) = (block.header.number, trie.root(), block.header.state_root);
        match got == expected {
            true => Ok(()),
            false => Err(NodeError::WrongRoot { number, got, expected }),
        }
    }

    /// A block of which others have hashed a part: this node's own subtries are brought up to date and
    /// checked, the others later.
    fn follow_owners(
        &self,
        at_head: &mut HeadTrie,
        block: &AppliedBlock<'_>,
        roots: &SubtrieRoots,
    ) -> Result<(), NodeError> {
        let same = |got: &SubtrieRoot| roots[usize::from(got.prefix())] == *got;
        let own = match self.adopt(at_head, same)? {
            Some(adopted) => adopted,
            None => {
                let kept = at_head.lag.fresh;
                let own = if kept == PartitionSet::ALL { PartitionSet::NONE } else { kept };
                let trie = at_head.trie()?;
                trie.push_to(block.diff, &own)?;
                if let Some(wrong) = trie.subtrie_roots(&own).iter().find(|got| !same(got)) {
                    let (number, partition) = (block.header.number, wrong.prefix());
                    return Err(NodeError::WrongSubtrie { number, partition });
                }
                own
            }
        };
        at_head.in_part = Some((own, roots.clone()));
        Ok(())
    }

    /// Brings subtries up to date that are too far behind; a leader does so before it hashes.
    pub(super) fn bound_lag(&self) -> Result<(), NodeError> {
        let mut at_head = self.trie.place.lock();
        let leads = at_head.ahead.iter().any(|ahead| ahead.hash != VOID);
        if at_head.lag.keys <= TRIE_LAG_KEY_COUNT_MAX || leads || matches!(at_head.trie, Held::Out)
        {
            return Ok(());
        }
        self.take_back(&mut at_head)
    }

    /// Takes what was written for a unit of hashing as written for a block, if the block comes to the same;
    /// else takes it back.
    fn adopt(
        &self,
        at_head: &mut HeadTrie,
        same: impl Fn(&SubtrieRoot) -> bool,
    ) -> Result<Option<PartitionSet>, NodeError> {
        if let [tentative] = at_head.ahead.make_contiguous()
            && tentative.hash == VOID
        {
            let partitions = tentative.written.partitions;
            if at_head.trie()?.subtrie_roots(&partitions).iter().all(same) {
                at_head.ahead.clear();
                return Ok(Some(partitions));
            }
        }
        self.take_back_to(at_head, 0)?;
        Ok(None)
    }

    /// Writes changes that another member's block makes in some subtries on top of the head `parent`, until it
    /// is known what becomes of that block. `None` where the head is another.
    pub(super) fn write_tentatively(
        &self,
        parent: B256,
        diff: StateDiff,
        partitions: &PartitionSet,
    ) -> Result<Option<Vec<SubtrieRoot>>, NodeError> {
        let mut at_head = self.trie.lock();
        if self.store.head().hash() != parent {
            return Ok(None);
        }
        self.take_back_to(&mut at_head, 0)?;
        if !at_head.current().contains_all(partitions) {
            self.catch_up(&mut at_head, self.store.head().number)?;
        }
        let trie = at_head.trie()?;
        let written = self.workers.install(|| {
            trie.push_to(&diff, partitions)?;
            Ok(trie.subtrie_roots(partitions))
        });
        if written.is_err() {
            at_head.trie = Held::Lost;
        }
        let (diff, partitions) = (Arc::new(diff), *partitions);
        let written_there = Written { diff, partitions, roots: None };
        at_head.ahead.push_back(Ahead { hash: VOID, written: written_there });
        written.map(Some)
    }

    /// Whether subtries may be behind: what was dropped under a memory limit is read back from disk, which
    /// must be no newer then.
    pub(super) fn may_lag(&self) -> bool {
        self.trie_options.memory_bytes_max.is_none()
    }

    /// Brings all subtries up to date. `head` is the last block of those that they lag by.
    fn catch_up(&self, at_head: &mut HeadTrie, head: u64) -> Result<(), NodeError> {
        let Some(catch_up) = at_head.what_is_missed(head) else { return Ok(()) };
        let written = catch_up.write(at_head.trie()?);
        if written.is_err() {
            at_head.trie = Held::Lost;
        }
        written
    }

    /// Takes the trie out of its place, with the state after `parent`, which `blocks` lead to.
    pub(super) fn take_trie_out(
        &self,
        blocks: &[Arc<Unapplied>],
        parent: B256,
    ) -> Result<TrieOut<'_>, NodeError> {
        let mut at_head = self.trie.lock();
        let blocks = above_head(blocks, &self.store.head(), parent)?;
        let common = at_head.common(blocks);
        self.take_back_to(&mut at_head, common)?;
        // Nothing is left of it where the trie had to be built anew.
        let missing = &blocks[at_head.ahead.len()..];
        if !missing.is_empty() || at_head.lag.keys > TRIE_LAG_KEY_COUNT_MAX {
            let head = self.store.head().number;
            self.catch_up(&mut at_head, head)?;
        }
        at_head.trie()?;
        let Held::Here(trie) = std::mem::replace(&mut at_head.trie, Held::Out) else {
            unreachable!("it was just there")
        };
        for block in missing {
            at_head.note_ahead(block.header.hash(), block.diff.clone());
        }
        let (current, known) = (at_head.current(), at_head.known_roots());
        drop(at_head);
        let mut out = TrieOut { chain: self, trie, current, known, written: None, whole: true };
        missing.iter().try_for_each(|block| out.push(&block.diff))?;
        out.whole = true;
        Ok(out)
    }

    /// The roots of all subtries of the trie as it stands, and number and hash of the block that this is
    /// after: the head, or a block of this node's that may or may not come back committed.
    pub(crate) fn subtrie_roots(&self) -> Result<(u64, B256, Vec<SubtrieRoot>), NodeError> {
        let mut at_head = self.trie.lock();
        if let Some(void) = at_head.ahead.iter().position(|ahead| ahead.hash == VOID) {
            self.take_back_to(&mut at_head, void)?;
        }
        let head = self.store.head();
        let hash = at_head.ahead.back().map_or_else(|| head.hash(), |ahead| ahead.hash);
        let number = head.number + at_head.ahead.len() as u64;
        let (current, known) = (at_head.current(), at_head.known_roots());
        let roots = roots_of(at_head.trie()?, &current, known.as_ref());
        Ok((number, hash, roots))
    }

    /// Builds the trie of the head anew.
    pub(super) fn rebuild_trie(&self) -> Result<StateTrie, NodeError> {
        trie_start::rebuild(&self.store, self.trie_options.memory_bytes_max)
    }

    /// Holds the trie under its memory limit, if it is in its place. `diff` is of a block that the store
    /// does not have yet and that is not ahead either.
    fn bound_trie_memory(&self, at_head: &mut HeadTrie, diff: Option<&StateDiff>) {
        let HeadTrie { trie: Held::Here(trie), ahead, .. } = at_head else { return };
        if !trie.may_exceed_limit() {
            return;
        }
        let mut unpersisted = self.store.unpersisted_accounts();
        let diffs = ahead.iter().map(|ahead| &*ahead.written.diff).chain(diff);
        let accounts = diffs.flat_map(|diff| &diff.accounts);
        unpersisted.extend(accounts.map(|account| keccak256(account.address)));
        let bytes = trie.shrink(&unpersisted);
        metrics::gauge!("blockraft_trie_memory_bytes").set(bytes as f64);
        if self.trie_options.memory_bytes_max.is_some_and(|limit| bytes > limit) {
            tracing::warn!(bytes, "the state trie is above its memory limit: nothing more can go");
        }
    }

    /// Takes what is not committed out of the trie again, and brings all of it to the head.
    pub(super) fn take_back(&self, at_head: &mut HeadTrie) -> Result<(), NodeError> {
        self.take_back_to(at_head, 0)?;
        self.catch_up(at_head, self.store.head().number)
    }

    /// The same, but for the first `kept` blocks; for all of them where the trie has to be built anew.
    fn take_back_to(&self, at_head: &mut HeadTrie, kept: usize) -> Result<(), NodeError> {
        if at_head.ahead.len() <= kept {
            return Ok(());
        }
        let gone = at_head.ahead.split_off(kept);
        let taken = self.undo(at_head, &gone);
        if taken.is_err() {
            at_head.trie = Held::Lost;
        }
        taken
    }

    /// Undoes changes on top of those that are ahead.
    fn undo(&self, at_head: &mut HeadTrie, gone: &VecDeque<Ahead>) -> Result<(), NodeError> {
        let head = self.store.head().number;
        let layer = |(at, ahead): (usize, &Ahead)| DiffLayer {
            diff: Arc::new(DiffIndex::new(&ahead.written.diff)),
            block: (head + 1 + at as u64, ahead.hash),
        };
        let layers = at_head.ahead.iter().enumerate().map(layer).collect();
        let state = WithDiffs { base: self.store.view(head)?, layers };
        for Written { diff, partitions, .. } in gone.iter().map(|ahead| &ahead.written) {
            if removes_unnamed_storage(&state, diff)? {
                while self.store.backlog().blocks > 0 {
                    self.store.persist()?;
                }
                *at_head = HeadTrie::new(self.rebuild_trie()?);
                return Ok(());
            }
            at_head.trie()?.push_to(&values_at(&state, diff)?, partitions)?;
        }
        Ok(())
    }

    /// Forgets a block that was built and will not be part of the chain, and what stands on it.
    pub(crate) fn abandon(&self, hash: B256) -> Result<(), NodeError> {
        let mut at_head = self.trie.lock();
        match at_head.ahead.iter().position(|ahead| ahead.hash == hash) {
            Some(at) => self.take_back_to(&mut at_head, at),
            None => Ok(()),
        }
    }
}

/// What every key of `diff` reads in `state`: the diff that undoes it, if it names every slot it changes.
pub(crate) fn values_at(
    state: &impl StateReader,
    diff: &StateDiff,
) -> Result<StateDiff, StateError> {
    let accounts = diff.accounts.iter().map(|account| account_at(state, account));
    Ok(StateDiff { accounts: accounts.collect::<Result<_, _>>()?, codes: Vec::new() })
}

fn account_at(state: &impl StateReader, account: &AccountDiff) -> Result<AccountDiff, StateError> {
    let address = account.address;
    let Some(now) = state.account(address)? else {
        let change = AccountChange::Deleted;
        return Ok(AccountDiff { address, change, storage_wiped: true, storage: Vec::new() });
    };
    let storage = account.storage.iter().map(|change| {
        Ok(SlotChange { slot: change.slot, value: state.storage(address, change.slot)? })
    });
    Ok(AccountDiff {
        address,
        change: AccountChange::Set(now),
        storage_wiped: false,
        storage: storage.collect::<Result<_, StateError>>()?,
    })
}

/// Whether `diff` removes storage of `state` without naming its slots: a self-destruct before Cancun.
fn removes_unnamed_storage(state: &impl StateReader, diff: &StateDiff) -> Result<bool, StateError> {
    for account in &diff.accounts {
        let removes = account.storage_wiped || account.change == AccountChange::Deleted;
        if removes && state.account(account.address)?.is_some_and(|before| before.has_code()) {
            return Ok(true);
        }
    }
    Ok(false)
}
