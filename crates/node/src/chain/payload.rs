//! Blocks that a consensus client names: what their entries do to the state machine, and the roots of
//! those that may become blocks.

use super::{AppliedBlock, Chain, HeadTrie, Outcome, read_account, record_block, values_at};
use crate::error::NodeError;
use alloy_consensus::{Header, Sealed};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::B256;
use blockraft_primitives::{
    Applied, CommittedBlock, ForkchoiceEntry, PayloadEntry, SealedBlock, StateDiff, StateError,
    Transaction, limits::ENGINE_PAYLOAD_KEY_COUNT_MAX,
};
use blockraft_protocol::{AdmissionRules, Branch};
use blockraft_rpc::{Finality, HeadChange};
use blockraft_storage::AppliedStep;
use std::sync::Arc;

impl Chain {
    pub(super) fn apply_payload(
        &self,
        applied: Applied,
        index: u64,
        entry: PayloadEntry,
    ) -> Result<Outcome, NodeError> {
        let head = self.store.head();
        if entry.header.parent_hash != head.hash() || entry.header.number != head.number + 1 {
            tracing::debug!(
                number = entry.header.number,
                head = head.number,
                "payload left out: it does not build on the head"
            );
            self.apply_blank(applied);
            return Ok(Outcome::Block { accepted: false });
        }
        let hash = entry.header.hash_slow();
        let (header, diff) = (&entry.header, &entry.diff);
        let at_head = self.move_trie(AppliedBlock { hash, header, diff, roots: None })?;
        // Held until the block is visible: at every moment a transaction is in the pool or the chain.
        let mut pool = self.pool.write();
        let changes = pool.follow(index, &entry.diff);
        let block = Arc::new(SealedBlock {
            header: Sealed::new_unchecked(entry.header, hash),
            transactions: entry.transactions,
            receipts: entry.receipts,
            ommers: Vec::new(),
            withdrawals: entry.withdrawals.map(Withdrawals::new),
        });
        self.store.apply(AppliedStep {
            applied,
            block: Some(CommittedBlock { block: block.clone(), diff: Arc::new(entry.diff) }),
            pool: changes,
        });
        drop(pool);
        drop(at_head);
        record_block(&block);
        // Nobody listening is no failure.
        let _ = self.heads.send(HeadChange::Added(block));
        Ok(Outcome::Block { accepted: true })
    }

    pub(super) fn apply_forkchoice(
        &self,
        applied: Applied,
        index: u64,
        entry: &ForkchoiceEntry,
    ) -> Result<Outcome, NodeError> {
        let head = self.store.head();
        let target = match entry.from == head.hash() && entry.number <= head.number {
            true => self.store.header(entry.number)?.filter(|header| header.hash() == entry.hash),
            false => None,
        };
        let Some(target) = target else {
            tracing::debug!(%entry.from, head = %head.hash(), "forkchoice left out: the head is another");
            self.apply_blank(applied);
            return Ok(Outcome::Block { accepted: false });
        };
        if target.number < head.number {
            self.unwind(applied, index, head.number, &target)?;
        } else {
            self.apply_blank(applied);
        }
        self.finality.send_replace(Finality { safe: entry.safe, finalized: entry.finalized });
        Ok(Outcome::Block { accepted: true })
    }

    /// Takes back the blocks from `last` down to the one above `target`. Their transactions go back into
    /// the pool.
    fn unwind(
        &self,
        mut applied: Applied,
        index: u64,
        last: u64,
        target: &Sealed<Header>,
    ) -> Result<(), NodeError> {
        tracing::info!(from = last, to = target.number, "the consensus client takes blocks back");
        metrics::counter!("blockraft_engine_unwound_blocks_total").increment(last - target.number);
        let mut at_head = self.trie.lock();
        self.take_back(&mut at_head)?;
        let gone = (target.number + 1..=last).map(|number| self.store.block(number));
        let gone: Vec<Option<Arc<SealedBlock>>> = gone.collect::<Result<_, _>>()?;
        let gone: Vec<Arc<SealedBlock>> = gone.into_iter().flatten().collect();
        let transactions: Vec<Transaction> =
            gone.iter().flat_map(|block| block.transactions.iter().cloned()).collect();
        // More keys than that are not taken back one by one: the trie is built anew.
        let back = match self.store.changes_since(target.number, ENGINE_PAYLOAD_KEY_COUNT_MAX) {
            Ok(back) => Some(back),
            Err(StateError::Pruned { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        {
            let view = self.store.view(target.number)?;
            let rules = AdmissionRules::at(&self.spec, target, &self.store.genesis().options);
            let mut failed = None;
            let mut pool = self.pool.write();
            let account_of = |sender| read_account(&view, sender, &mut failed);
            let changes = pool.take_back(index, transactions, account_of, &rules);
            if let Some(error) = failed {
                return Err(error.into());
            }
            applied.next_admission = pool.next_id();
            self.store.unwind(target.number, applied, changes)?;
        }
        for block in gone.into_iter().rev() {
            // Nobody listening is no failure.
            let _ = self.heads.send(HeadChange::Removed(block));
        }
        if let Some(back) = back {
            // An error: what the trie dropped, and the disk does not hold any more.
            let trie = at_head.trie()?;
            if trie.push(&back).is_ok() && trie.root() == target.state_root {
                return Ok(());
            }
        }
        *at_head = HeadTrie::new(self.rebuild_trie()?);
        Ok(())
    }

    /// The state root after `diff` on the end of `branch`. `seal` makes of it the hash of the block whose
    /// diff it is: on the head, the trie stays there, for the block that is likely to come.
    pub(crate) fn root_after(
        &self,
        branch: &Branch,
        diff: &Arc<StateDiff>,
        seal: impl FnOnce(B256) -> B256,
    ) -> Result<B256, NodeError> {
        let mut at_head = self.trie.lock();
        self.take_back(&mut at_head)?;
        let head = self.store.head();
        if branch.payloads.is_empty() && branch.ancestor.1 == head.hash() {
            let trie = at_head.trie()?;
            trie.push(diff)?;
            let root = trie.root();
            at_head.note_ahead(seal(root), diff.clone());
            return Ok(root);
        }
        let (number, hash) = branch.ancestor;
        if self.store.header(number)?.is_none_or(|header| header.hash() != hash) {
            return Err(NodeError::HeadMoved { got: head.hash(), expected: hash });
        }
        let view = self.store.view(head.number)?;
        let back = match number < head.number {
            true => Some(self.store.changes_since(number, ENGINE_PAYLOAD_KEY_COUNT_MAX)?),
            false => None,
        };
        let on_branch = branch.payloads.iter().map(|payload| &payload.entry.diff);
        let forth: Vec<&StateDiff> = back.iter().chain(on_branch).chain([&**diff]).collect();
        let undo =
            forth.iter().map(|diff| values_at(&view, diff)).collect::<Result<Vec<_>, _>>()?;
        let trie = at_head.trie()?;
        forth.into_iter().try_for_each(|diff| trie.push(diff))?;
        let root = trie.root();
        seal(root);
        undo.iter().try_for_each(|diff| trie.push(diff))?;
        // A diff that removes slots without naming them (a self-destruct before Cancun) is not undone so.
        if trie.root() != head.state_root {
            while self.store.backlog().blocks > 0 {
                self.store.persist()?;
            }
            *at_head = HeadTrie::new(self.rebuild_trie()?);
        }
        Ok(root)
    }
}
