//! The replicated state machine of this node: what applying a log entry does, and how a leader makes
//! the next block out of it.
//!
//! State, trie and pool move together, entry by entry, in log order. The trie of a leader may be some
//! blocks ahead: see `head_trie`.

use crate::{
    clock::Stopwatch,
    distributor::Distributor,
    error::NodeError,
    own_entries::OwnEntries,
    past_trie::PastTries,
    root_sharing::RootSharing,
    timeline::{Found, Timelines},
    trie_start::{self, TrieOptions},
};
use alloy_consensus::{Sealed, Transaction as _};
use alloy_eips::{eip4895::Withdrawals, eip7702::constants::EIP7702_DELEGATION_DESIGNATOR};
use alloy_primitives::{Address, B256, U256, map::AddressMap};
use blockraft_execution::{CodeCache, Watchdog};
use blockraft_primitives::{
    Account, AdmitBatch, Applied, BlockEntry, ChainSpec, CommittedBlock, LogEntry, NodeId,
    SealedBlock, StateError, StateReader, Transaction,
    limits::{RPC_PROOF_REWIND_KEY_COUNT_MAX, TX_RUN_SECONDS_MAX},
};
use blockraft_protocol::{AdmissionRules, InFlight, Pool, PoolError, Sifted};
use blockraft_rpc::{Finality, HeadChange, TxTimeline};
use blockraft_storage::{AppliedStep, StateView, StorageError, Store};
use blockraft_trie::AccountProof;
use parking_lot::RwLock;
use rayon::ThreadPool;
use std::sync::{Arc, OnceLock};
use tokio::sync::{broadcast, watch};

/// How this node builds blocks: what the cluster agreed on, and what it does it with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockOptions {
    pub(crate) fee_recipient: Address,
    pub(crate) gas_limit: u64,
    pub(crate) gasless: bool,
    /// Threads that make a block; as many as there are cores when absent.
    pub(crate) threads: Option<usize>,
}

pub(crate) use build::{BuildOrder, EXTRA_DATA_PREFIX, Proposal};
pub(crate) use share::Parent;
pub(crate) use unapplied::Unapplied;

use divergence::Cause;
use gas_asked::GasAsked;
pub(crate) use head_trie::values_at;
use head_trie::{AppliedBlock, HeadTrie, TriePlace};
use shared_root::roots_in_entry;

/// The replicated state machine.
pub(crate) struct Chain {
    pub(crate) store: Store,
    pub(crate) pool: Arc<RwLock<Pool>>,
    pub(crate) spec: Arc<ChainSpec>,
    /// The rules of the blocks that a consensus client names.
    pub(crate) given_spec: Arc<ChainSpec>,
    /// A message for each block that became visible or was taken back.
    pub(crate) heads: broadcast::Sender<HeadChange>,
    /// The transactions that entered the pool, a message for each `Admit` entry.
    pub(crate) pending: broadcast::Sender<Arc<[Transaction]>>,
    /// What a consensus client last said is safe and final.
    pub(crate) finality: watch::Sender<Finality>,
    /// When what happened to the last blocks.
    pub(crate) timelines: Timelines,
    /// What this node proposed as leader and has not applied yet.
    pub(crate) own_entries: OwnEntries,
    options: BlockOptions,
    gas_asked: GasAsked,
    /// What blocks are made with: beside the threads that recover senders, so that neither waits for
    /// the other's queue.
    workers: ThreadPool,
    /// Codes that blocks ran.
    codes: CodeCache,
    /// Ends transactions that run for too long while a block is built; the node ticks it every second.
    pub(crate) watchdog: Watchdog,
    /// Where there are others to help: set once the node can reach them.
    distributor: OnceLock<Distributor>,
    root_sharing: OnceLock<RootSharing>,
    trie: TriePlace,
    /// What this node found to be wrong with its own state.
    diverged: watch::Sender<Option<String>>,
    past: PastTries,
    trie_options: TrieOptions,
}

/// What applying an `Admit` or `Block` entry came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    Admitted(Vec<Result<(), PoolError>>),
    /// `false` for a block that does not build on the head: a leftover of a deposed leader.
    Block {
        accepted: bool,
    },
}

impl Chain {
    /// Opens the state machine over what the store holds: rebuilds the trie, checks it against the
    /// head, and loads the pool.
    pub(crate) fn open(
        store: Store,
        options: BlockOptions,
        trie_options: TrieOptions,
    ) -> Result<Self, NodeError> {
        let spec = Arc::new(store.genesis().spec.clone());
        let given_spec = Arc::new(share::given_spec(store.genesis())?);
        let trie = trie_start::start(&store, trie_options)?;
        let pool = restore_pool(&store)?;
        Ok(Self {
            store,
            pool: Arc::new(RwLock::new(pool)),
            spec,
            given_spec,
            heads: broadcast::channel(1024).0,
            pending: broadcast::channel(16 * 1024).0,
            finality: watch::Sender::new(Finality::default()),
            timelines: Timelines::new(),
            own_entries: OwnEntries::default(),
            workers: build::workers(options.threads)?,
            codes: CodeCache::default(),
            watchdog: Watchdog::new(TX_RUN_SECONDS_MAX),
            distributor: OnceLock::new(),
            root_sharing: OnceLock::new(),
            options,
            gas_asked: GasAsked::default(),
            trie: TriePlace::new(trie),
            diverged: watch::Sender::new(None),
            past: PastTries::default(),
            trie_options,
        })
    }

    /// The rules that transactions must keep to enter the next block.
    pub(crate) fn rules(&self) -> AdmissionRules {
        AdmissionRules::at(&self.spec, &self.store.head(), &self.store.genesis().options)
    }

    /// Applies an entry without content: a leader's first, or a membership change.
    pub(crate) fn apply_blank(&self, applied: Applied) {
        self.store.apply(AppliedStep { applied, block: None, pool: Vec::new() });
    }

    /// Applies an application entry. An error is fatal: the entry is committed, so a node that cannot
    /// apply it must not go on.
    pub(crate) fn apply(&self, applied: Applied, bytes: &[u8]) -> Result<Outcome, NodeError> {
        let index = applied.position.map_or(0, |p| p.index);
        let stopwatch = Stopwatch::start();
        let entry = match self.own_entries.take(bytes) {
            Some(entry) => entry,
            None => LogEntry::decode(bytes)?,
        };
        let outcome = match entry {
            LogEntry::Admit(batch) => self.apply_admit(applied, index, &batch),
            LogEntry::Block(entry) => self.apply_block(applied, index, *entry),
            LogEntry::Payload(entry) => self.apply_payload(applied, index, *entry),
            LogEntry::Forkchoice(entry) => self.apply_forkchoice(applied, index, &entry),
        };
        stopwatch.record_stage("apply");
        self.record_pool();
        outcome.inspect_err(|error| self.look_into(error, Some(Cause { index, bytes })))
    }

    fn apply_admit(
        &self,
        mut applied: Applied,
        index: u64,
        batch: &AdmitBatch,
    ) -> Result<Outcome, NodeError> {
        let view = self.store.view(self.store.head().number)?;
        let rules = self.rules();
        let mut failed = None;
        let account_of = |sender| read_account(&view, sender, &mut failed);
        let (admitted, next_admission) = {
            let mut pool = self.pool.write();
            let admitted = pool.admit(index, batch, account_of, &rules);
            (admitted, pool.next_id())
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        applied.next_admission = next_admission;
        let step = AppliedStep { applied, block: None, pool: admitted.changes };
        self.store.apply(step);
        let pairs = batch.transactions.iter().zip(&admitted.verdicts);
        let entered = pairs.filter(|(_, verdict)| verdict.is_ok()).map(|(tx, _)| tx);
        self.timelines.admitted(entered.clone());
        if self.pending.receiver_count() > 0 {
            // Nobody listening any more is no failure.
            let _ = self.pending.send(entered.cloned().collect());
        }
        let verdicts = admitted.verdicts.into_iter().map(|v| v.map(|_| ())).collect();
        Ok(Outcome::Admitted(verdicts))
    }

    fn apply_block(
        &self,
        applied: Applied,
        index: u64,
        entry: BlockEntry,
    ) -> Result<Outcome, NodeError> {
        let head = self.store.head();
        if entry.header.parent_hash != head.hash() || entry.header.number != head.number + 1 {
            tracing::warn!(
                number = entry.header.number,
                head = head.number,
                "block left out: it does not build on the head"
            );
            self.apply_blank(applied);
            return Ok(Outcome::Block { accepted: false });
        }
        let committed = self.timelines.now();
        let hash = entry.header.hash_slow();
        let roots = roots_in_entry(&entry.subtrie_roots, entry.header.state_root);
        let (header, diff) = (&entry.header, &entry.diff);
        let mut at_head = self.move_trie(AppliedBlock { hash, header, diff, roots })?;
        // Held until the block is visible: at every moment a transaction is in the pool or the chain.
        let mut pool = self.pool.write();
        let included = pool.include(index, &entry)?;
        // A cluster's own blocks have none; the list is there where the fork has one.
        let withdrawals = entry.header.withdrawals_root.map(|_| Withdrawals::default());
        let diff = entry.diff;
        let block = Arc::new(SealedBlock {
            header: Sealed::new_unchecked(entry.header, hash),
            transactions: included.transactions,
            receipts: entry.receipts,
            ommers: Vec::new(),
            withdrawals,
        });
        self.store.apply(AppliedStep {
            applied,
            block: Some(CommittedBlock { block: block.clone(), diff: diff.clone() }),
            pool: included.changes,
        });
        drop(pool);
        at_head.applied(diff);
        drop(at_head);
        self.timelines.applied(&block, committed);
        record_block(&block);
        // Nobody listening is no failure.
        let _ = self.heads.send(HeadChange::Added(block));
        self.bound_lag()?;
        Ok(Outcome::Block { accepted: true })
    }

    /// What this node saw of a transaction that is in one of the last blocks.
    pub(crate) fn timeline(
        &self,
        transaction: B256,
        node_id: NodeId,
    ) -> Result<Option<TxTimeline>, StorageError> {
        let Some(place) = self.store.transaction(&transaction)? else { return Ok(None) };
        let Some(header) = self.store.header(place.block)? else { return Ok(None) };
        let found = self.timelines.find(&header.hash(), place.index);
        Ok(found.map(|Found { start_unix_micros, stages }| TxTimeline {
            transaction_hash: transaction,
            block_number: place.block,
            block_hash: header.hash(),
            transaction_index: place.index as u64,
            node_id,
            builder_id: build::proposer_of(&header),
            start_unix_micros,
            stages,
        }))
    }

    fn record_pool(&self) {
        let (pending, queued) = self.pool.read().status();
        metrics::gauge!("blockraft_txpool_pending_transactions").set(pending as f64);
        metrics::gauge!("blockraft_txpool_queued_transactions").set(queued as f64);
    }

    /// Checks a batch against pool and state before it is proposed.
    pub(crate) fn sift(
        &self,
        in_flight: &InFlight,
        transactions: Vec<Transaction>,
    ) -> Result<Sifted, StateError> {
        let view = self.store.view(self.store.head().number)?;
        let mut failed = None;
        let account_of = |sender| read_account(&view, sender, &mut failed);
        // What cannot be read here is refused when it runs.
        let is_contract = |account: &Account| {
            view.code(account.code_hash).is_ok_and(|code| !is_delegation(&code))
        };
        let rules = self.rules();
        let sifted =
            self.pool.read().sift(in_flight, transactions, account_of, is_contract, &rules);
        failed.map_or(Ok(sifted), Err)
    }

    /// Whether each of these is in the pool or in a block.
    pub(crate) fn are_known(&self, transactions: &[Transaction]) -> Vec<bool> {
        let mut known: Vec<bool> = {
            let pool = self.pool.read();
            transactions.iter().map(|tx| pool.by_hash(tx.tx_hash()).is_some()).collect()
        };
        // Taken after the pool was asked: what has left it since is in a block of this view.
        let Ok(view) = self.store.view(self.store.head().number) else { return known };
        let mut nonces = AddressMap::<u64>::default();
        for (tx, known) in transactions.iter().zip(&mut known).filter(|(_, known)| !**known) {
            let nonce =
                nonces.entry(tx.signer()).or_insert_with(|| match view.account(tx.signer()) {
                    Ok(account) => account.map_or(0, |account| account.nonce),
                    Err(_) => u64::MAX,
                });
            // Only a transaction whose nonce is used can be in a block: a sender's nonce never falls.
            *known = tx.nonce() < *nonce && self.is_in_block(tx.tx_hash());
        }
        known
    }

    /// Whether the transaction is in the pool or in a block.
    pub(crate) fn is_known(&self, hash: &B256) -> bool {
        self.pool.read().by_hash(hash).is_some() || self.is_in_block(hash)
    }

    fn is_in_block(&self, hash: &B256) -> bool {
        matches!(self.store.transaction(hash), Ok(Some(_)))
    }

    /// Whether the pool may hold a transaction that a block after `unapplied` could include.
    pub(crate) fn has_executable(&self, unapplied: &[Arc<Unapplied>]) -> bool {
        let head = self.store.head();
        let base_fee = self.next_base_fee(unapplied.last().map_or(&head, |block| &block.header));
        let taken: usize = unapplied.iter().map(|block| block.transactions.len()).sum();
        let pool = self.pool.read();
        pool.status().0 > taken && pool.has_executable(base_fee)
    }

    /// A Merkle proof of an account and some of its slots at a block (EIP-1186). The trie of a block
    /// little behind is the head's with the later changes taken back, for as long as the proof takes;
    /// those of older blocks are built beside it.
    pub(crate) fn prove(
        &self,
        number: u64,
        address: Address,
        slots: &[U256],
    ) -> Result<AccountProof, NodeError> {
        let proof = self.prove_at(number, address, slots);
        proof.inspect_err(|error| self.look_into(error, None))
    }

    fn prove_at(
        &self,
        number: u64,
        address: Address,
        slots: &[U256],
    ) -> Result<AccountProof, NodeError> {
        let mut at_head = self.trie.lock();
        let head = self.store.head().number;
        // A block that was built ahead is dropped from the trie; should it be committed, it is
        // computed once more like any other node's.
        self.take_back(&mut at_head)?;
        if number == head {
            return Ok(at_head.trie()?.prove(address, slots)?);
        }
        let back = match self.store.changes_since(number, RPC_PROOF_REWIND_KEY_COUNT_MAX) {
            Err(StateError::Pruned { .. }) if number >= self.store.oldest_state() => {
                drop(at_head);
                return self.prove_past(number, address, slots);
            }
            changes => changes?,
        };
        let forth = values_at(&self.store.view(head)?, &back)?;
        let trie = at_head.trie()?;
        trie.push(&back)?;
        let proof = trie.prove(address, slots);
        trie.push(&forth)?;
        Ok(proof?)
    }

    fn prove_past(
        &self,
        number: u64,
        address: Address,
        slots: &[U256],
    ) -> Result<AccountProof, NodeError> {
        while self.store.persisted_head() < number {
            self.store.persist()?;
        }
        let block = self.store.header(number)?.ok_or(StateError::UnknownBlock(number))?;
        self.past.prove(&self.store, &block, address, slots)
    }

    /// The last thing that a stopping node does, when everything is on disk.
    pub(crate) fn leave_trie_checkpoint(&self) -> Result<(), NodeError> {
        if !self.trie_options.checkpoint {
            return Ok(());
        }
        let mut at_head = self.trie.lock();
        self.take_back(&mut at_head)?;
        trie_start::leave_checkpoint(&self.store, at_head.trie()?)
    }

    /// Replaces everything by a snapshot's content.
    pub(crate) fn install(&self, file: &std::path::Path) -> Result<Applied, NodeError> {
        let mut at_head = self.trie.lock();
        let mut pool = self.pool.write();
        let applied = self.store.install_snapshot(file)?;
        let trie = self.rebuild_trie()?;
        *at_head = HeadTrie::new(trie);
        *pool = restore_pool(&self.store)?;
        tracing::info!(block = self.store.head().number, "snapshot installed");
        Ok(applied)
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("head", &self.store.head().number).finish_non_exhaustive()
    }
}

fn record_block(block: &SealedBlock) {
    metrics::gauge!("blockraft_block_height").set(block.number() as f64);
    metrics::gauge!("blockraft_block_gas_used").set(block.header.gas_used as f64);
    metrics::counter!("blockraft_block_txs_total").increment(block.transactions.len() as u64);
    metrics::counter!("blockraft_block_gas_used_total").increment(block.header.gas_used);
}

/// The pool as it was when the store's `applied` was written.
fn restore_pool(store: &Store) -> Result<Pool, NodeError> {
    let view = store.view(store.head().number)?;
    let mut failed = None;
    let account_of = |sender| read_account(&view, sender, &mut failed);
    let pool = Pool::restore(store.pool_records()?, store.applied().next_admission, account_of);
    failed.map_or(Ok(pool), |error| Err(error.into()))
}

/// Code that stands for another account's (EIP-7702): its account still sends transactions.
fn is_delegation(code: &[u8]) -> bool {
    code.len() == 23 && code.starts_with(&EIP7702_DELEGATION_DESIGNATOR)
}

/// The pool asks for accounts through a closure that cannot fail; the first failure is told afterwards.
fn read_account(view: &StateView, sender: Address, failed: &mut Option<StateError>) -> Account {
    view.account(sender).map(Option::unwrap_or_default).unwrap_or_else(|error| {
        failed.get_or_insert(error);
        Account::default()
    })
}

mod build;
mod divergence;
mod gas_asked;
mod head_trie;
mod lag;
mod payload;
mod share;
mod shared_root;
mod streamed;
#[cfg(test)]
pub(crate) mod tests;
mod unapplied;
