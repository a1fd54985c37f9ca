//! The state trie at the store's head, with the blocks of this node on top that are not applied yet,
//! because a root has to be known before its block is proposed.
//!
//! While a root is computed the trie is *out*: taken from its place, so that a block that is ahead can be
//! applied meanwhile. Everyone else waits until it is back. What does not come back committed is taken
//! out of the trie again before anything else happens to it.

use super::{
    Chain,
    unapplied::{Unapplied, above_head},
};
use crate::{error::NodeError, trie_start};
use alloy_consensus::Header;
use alloy_primitives::{B256, keccak256};
use blockraft_primitives::{
    AccountChange, AccountDiff, DiffIndex, DiffLayer, SlotChange, StateDiff, StateError,
    StateReader, WithDiffs,
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
}

#[derive(Debug)]
enum Held {
    Here(StateTrie),
    Out,
    /// What it contains is unknown after a failure.
    Lost,
}

/// Stands for the hash of a block that has come to nothing.
const VOID: B256 = B256::ZERO;

/// Changes on top of the head.
#[derive(Debug)]
struct Ahead {
    /// Of the block.
    hash: B256,
    diff: Arc<StateDiff>,
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
        Self { trie: Held::Here(trie), ahead: VecDeque::new() }
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
        self.ahead.push_back(Ahead { hash, diff });
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
    /// Since it was taken out.
    written: Option<Ahead>,
    /// What it contains is what those who look next will take it for.
    whole: bool,
}

impl TrieOut<'_> {
    /// Writes changes of one more block, all or some. [`Self::keep`] or [`Self::keep_void`] must follow, or
    /// the trie is lost.
    pub(super) fn push(&mut self, diff: &StateDiff) -> Result<(), NodeError> {
        self.whole = false;
        let Self { chain, trie, .. } = self;
        chain.workers.install(|| trie.push(diff))?;
        Ok(())
    }

    /// The root, once all changes of the block are written.
    pub(super) fn root(&mut self) -> B256 {
        let Self { chain, trie, .. } = self;
        chain.workers.install(|| trie.root())
    }

    /// Puts the trie back with a block of which all changes were written.
    pub(super) fn keep(mut self, hash: B256, diff: Arc<StateDiff>) {
        self.written = Some(Ahead { hash, diff });
        self.whole = true;
    }

    /// Puts the trie back with changes of a block that has come to nothing: whoever looks next takes them
    /// back.
    pub(super) fn keep_void(self, written: StateDiff) {
        self.keep(VOID, Arc::new(written));
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

impl Chain {
    /// Brings the trie to the state after a block and holds it against the header's root. The lock is for
    /// the caller to hold until the store has the block too: whoever takes it finds both at one head.
    pub(super) fn move_trie(
        &self,
        hash: B256,
        header: &Header,
        diff: &StateDiff,
    ) -> Result<MutexGuard<'_, HeadTrie>, NodeError> {
        let mut at_head = self.trie.place.lock();
        if at_head.ahead.front().is_some_and(|ahead| ahead.hash == hash) {
            at_head.ahead.pop_front();
            self.bound_trie_memory(&mut at_head, Some(diff));
            return Ok(at_head);
        }
        self.trie.wait(&mut at_head);
        self.take_back(&mut at_head)?;
        let trie = at_head.trie()?;
        trie.push(diff)?;
        let got = trie.root();
        if got != header.state_root {
            return Err(NodeError::WrongRoot {
                number: header.number,
                got,
                expected: header.state_root,
            });
        }
        self.bound_trie_memory(&mut at_head, Some(diff));
        Ok(at_head)
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
        at_head.trie()?;
        let Held::Here(trie) = std::mem::replace(&mut at_head.trie, Held::Out) else {
            unreachable!("it was just there")
        };
        for block in missing {
            at_head.note_ahead(block.header.hash(), block.diff.clone());
        }
        drop(at_head);
        let mut out = TrieOut { chain: self, trie, written: None, whole: true };
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
        let trie = at_head.trie()?;
        Ok((number, hash, (0..=u8::MAX).map(|prefix| trie.subtrie_root(prefix)).collect()))
    }

    /// Builds the trie of the head anew.
    pub(super) fn rebuild_trie(&self) -> Result<StateTrie, NodeError> {
        trie_start::rebuild(&self.store, self.trie_options.memory_bytes_max)
    }

    /// Holds the trie under its memory limit, if it is in its place. `diff` is of a block that the store
    /// does not have yet and that is not ahead either.
    fn bound_trie_memory(&self, at_head: &mut HeadTrie, diff: Option<&StateDiff>) {
        let HeadTrie { trie: Held::Here(trie), ahead } = at_head else { return };
        if !trie.may_exceed_limit() {
            return;
        }
        let mut unpersisted = self.store.unpersisted_accounts();
        let diffs = ahead.iter().map(|ahead| &*ahead.diff).chain(diff);
        let accounts = diffs.flat_map(|diff| &diff.accounts);
        unpersisted.extend(accounts.map(|account| keccak256(account.address)));
        let bytes = trie.shrink(&unpersisted);
        metrics::gauge!("blockraft_trie_memory_bytes").set(bytes as f64);
        if self.trie_options.memory_bytes_max.is_some_and(|limit| bytes > limit) {
            tracing::warn!(bytes, "the state trie is above its memory limit: nothing more can go");
        }
    }

    /// Takes what is not committed out of the trie again.
    pub(super) fn take_back(&self, at_head: &mut HeadTrie) -> Result<(), NodeError> {
        self.take_back_to(at_head, 0)
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
            diff: Arc::new(DiffIndex::new(&ahead.diff)),
            block: (head + 1 + at as u64, ahead.hash),
        };
        let layers = at_head.ahead.iter().enumerate().map(layer).collect();
        let state = WithDiffs { base: self.store.view(head)?, layers };
        for ahead in gone {
            if removes_unnamed_storage(&state, &ahead.diff)? {
                while self.store.backlog().blocks > 0 {
                    self.store.persist()?;
                }
                *at_head = HeadTrie::new(self.rebuild_trie()?);
                return Ok(());
            }
            at_head.trie()?.push(&values_at(&state, &ahead.diff)?)?;
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
