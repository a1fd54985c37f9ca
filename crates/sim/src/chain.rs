//! The replicated state machine of a simulated node: what `node/src/chain.rs` does over MDBX, over
//! memory. Steps are applied at once and stored later, so a crash takes the newest ones away again.

use crate::{Mutant, invariants::Fingerprint};
use alloy_consensus::{Header, Sealable, Sealed, Transaction as _};
use alloy_eips::eip4895::Withdrawals;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, Bytes, keccak256};
use blockraft_execution::{BlockAttributes, BuiltBlock, build_block, next_header};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, AdmissionId, AdmitBatch, BlockEntry, ClusterGenesis,
    CommittedBlock, DiffIndex, DiffLayer, DropReason, DroppedTransaction, LogEntry, MemoryState,
    NodeId, PoolChange, PoolRecord, SealedBlock, SlotChange, StateDiff, Transaction, WithDiffs,
    limits::BLOCK_TX_COUNT_MAX,
};
use blockraft_protocol::{AdmissionRules, Head, InFlight, Pool, PoolError, Sifted};
use blockraft_trie::StateTrie;
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

/// Input of a transaction that stands for one which makes the executor panic.
pub(crate) const POISON: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];

/// What a disk holds of the state machine, as of one log entry.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Index and term of the last entry in it.
    pub(crate) position: (u64, u64),
    pub(crate) state: MemoryState,
    pub(crate) blocks: Vec<Arc<SealedBlock>>,
    /// Encoded, as storage keeps them.
    records: BTreeMap<AdmissionId, Vec<u8>>,
    next_admission: AdmissionId,
}

#[derive(Debug)]
struct Step {
    position: (u64, u64),
    block: Option<CommittedBlock>,
    pool: Vec<PoolChange>,
    next_admission: AdmissionId,
}

/// The state machine of a running node.
#[derive(Debug)]
pub(crate) struct Chain {
    genesis: Rc<ClusterGenesis>,
    mutant: Option<Mutant>,
    pub(crate) stored: Stored,
    /// Applied and not stored.
    steps: VecDeque<Step>,
    pub(crate) position: (u64, u64),
    pub(crate) state: MemoryState,
    pub(crate) blocks: Vec<Arc<SealedBlock>>,
    /// Of included transactions.
    hashes: BTreeMap<B256, u64>,
    pub(crate) pool: Pool,
    trie: StateTrie,
    /// Blocks that are in the trie and not applied.
    ahead: VecDeque<Arc<Unapplied>>,
}

/// A block from being built to being applied.
#[derive(Debug)]
pub(crate) struct Unapplied {
    pub(crate) header: Sealed<Header>,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) dropped: Vec<Transaction>,
    diff: Arc<StateDiff>,
}

/// What a leader is to make.
#[derive(Clone, Debug)]
pub(crate) struct BuildOrder {
    pub(crate) parent: B256,
    pub(crate) timestamp: u64,
    pub(crate) term: u64,
    pub(crate) unapplied: Vec<Arc<Unapplied>>,
    pub(crate) in_flight: InFlight,
}

/// A block that was built, ready to be proposed.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) block: Arc<Unapplied>,
    pub(crate) entry: Bytes,
}

impl Unapplied {
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions.is_empty() && self.dropped.is_empty()
    }

    fn layer(&self) -> DiffLayer {
        let diff = Arc::new(DiffIndex::new(&self.diff));
        DiffLayer { diff, block: (self.header.number, self.header.hash()) }
    }
}

/// What applying an entry came to.
#[derive(Debug)]
pub(crate) enum Applied {
    Blank,
    Admitted {
        verdicts: Vec<Result<(), PoolError>>,
        /// Transactions that a newer one took the place of.
        replaced: Vec<B256>,
    },
    Block {
        block: Arc<SealedBlock>,
        dropped: Vec<B256>,
        /// Transactions whose nonce another one has used, or that lost their funds.
        replaced: Vec<B256>,
    },
    /// A block that does not build on the head.
    LeftOut {
        number: u64,
        hash: B256,
        parent: B256,
        built_in_term: u64,
    },
}

impl Stored {
    pub(crate) fn genesis(genesis: &ClusterGenesis) -> Self {
        let mut state = MemoryState::default();
        state.apply(&genesis.state());
        state.block_hashes.insert(0, genesis.hash());
        Self {
            position: (0, 0),
            state,
            blocks: Vec::new(),
            records: BTreeMap::new(),
            next_admission: AdmissionId::default(),
        }
    }

    fn write(&mut self, step: Step) {
        self.position = step.position;
        self.next_admission = step.next_admission;
        for change in step.pool {
            match change {
                PoolChange::Put(record) => {
                    self.records.insert(record.id, record.encode());
                }
                PoolChange::Remove(id) => {
                    self.records.remove(&id);
                }
            }
        }
        if let Some(CommittedBlock { block, diff }) = step.block {
            self.state.apply(&diff);
            self.state.block_hashes.insert(block.number(), block.hash());
            self.blocks.push(block);
        }
    }
}

impl Chain {
    /// Opens the state machine over what the disk holds.
    pub(crate) fn open(
        genesis: Rc<ClusterGenesis>,
        stored: Stored,
        mutant: Option<Mutant>,
    ) -> Result<Self, String> {
        let mut records = Vec::new();
        for bytes in stored.records.values() {
            records.push(PoolRecord::decode(bytes).map_err(|e| e.to_string())?);
        }
        if mutant == Some(Mutant::PoolNotRestored) {
            records.clear();
        }
        let state = stored.state.clone();
        let pool = Pool::restore(records, stored.next_admission, |sender| account(&state, sender));
        let mut trie = trie_of(&state);
        let root = trie.root();
        let head = stored.blocks.last().map_or(&genesis.header, |block| &block.header);
        if root != head.state_root {
            return Err(format!("root {root} of the stored state at block {}", head.number));
        }
        let hashes = stored
            .blocks
            .iter()
            .flat_map(|block| block.transactions.iter().map(|tx| (*tx.tx_hash(), block.number())));
        Ok(Self {
            hashes: hashes.collect(),
            blocks: stored.blocks.clone(),
            position: stored.position,
            steps: VecDeque::new(),
            ahead: VecDeque::new(),
            mutant,
            genesis,
            stored,
            state,
            pool,
            trie,
        })
    }

    pub(crate) fn header(&self) -> &Sealed<Header> {
        self.blocks.last().map_or(&self.genesis.header, |block| &block.header)
    }

    pub(crate) fn head(&self) -> Head {
        let header = self.header();
        Head { number: header.number, hash: header.hash(), timestamp: header.timestamp }
    }

    pub(crate) fn rules(&self) -> AdmissionRules {
        AdmissionRules::at(&self.genesis.spec, self.header(), &self.genesis.options)
    }

    pub(crate) fn is_known(&self, hash: &B256) -> bool {
        self.pool.by_hash(hash).is_some() || self.hashes.contains_key(hash)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.pool)
    }

    /// Writes up to `count` applied steps to the disk.
    pub(crate) fn store(&mut self, count: usize) {
        for step in self.steps.drain(..count.min(self.steps.len())) {
            self.stored.write(step);
        }
    }

    pub(crate) fn backlog(&self) -> usize {
        self.steps.len()
    }

    /// Applies a committed entry.
    pub(crate) fn apply(&mut self, position: (u64, u64), bytes: &[u8]) -> Result<Applied, String> {
        assert_eq!(position.0, self.position.0 + 1, "entries are applied in order");
        self.position = position;
        if bytes.is_empty() {
            self.record(None, Vec::new());
            return Ok(Applied::Blank);
        }
        match LogEntry::decode(bytes).map_err(|error| error.to_string())? {
            LogEntry::Admit(batch) => Ok(self.apply_admit(&batch)),
            LogEntry::Block(entry) => self.apply_block(*entry),
            LogEntry::Payload(_) | LogEntry::Forkchoice(_) => {
                Err("no consensus client drives this cluster".to_owned())
            }
        }
    }

    fn record(&mut self, block: Option<CommittedBlock>, pool: Vec<PoolChange>) {
        let (position, next_admission) = (self.position, self.pool.next_id());
        self.steps.push_back(Step { position, block, pool, next_admission });
    }

    fn apply_admit(&mut self, batch: &AdmitBatch) -> Applied {
        let (rules, state) = (self.rules(), &self.state);
        let account_of = |sender| account(state, sender);
        let admitted = self.pool.admit(self.position.0, batch, account_of, &rules);
        let replaced = retired(&admitted.changes);
        self.record(None, admitted.changes);
        let verdicts = admitted.verdicts.into_iter().map(|v| v.map(|_| ())).collect();
        Applied::Admitted { verdicts, replaced }
    }

    fn apply_block(&mut self, entry: BlockEntry) -> Result<Applied, String> {
        let head = self.head();
        let (number, hash) = (entry.header.number, entry.header.hash_slow());
        if entry.header.parent_hash != head.hash || number != head.number + 1 {
            self.record(None, Vec::new());
            let built_in_term = built_in_term(&entry.header);
            let parent = entry.header.parent_hash;
            return Ok(Applied::LeftOut { number, hash, parent, built_in_term });
        }
        self.move_trie(hash, &entry)?;
        let dropped = entry.dropped.iter().filter_map(|d| self.pool.by_id(d.id));
        let dropped = dropped.map(|tx| *tx.tx_hash()).collect();
        let before: Vec<Transaction> = self.pool.records().map(|r| r.transaction.clone()).collect();
        let included =
            self.pool.include(self.position.0, &entry).map_err(|error| error.to_string())?;
        // A cluster's own blocks have none; the list is there where the fork has one.
        let withdrawals = entry.header.withdrawals_root.map(|_| Withdrawals::default());
        let block = Arc::new(SealedBlock {
            header: Sealed::new_unchecked(entry.header, hash),
            transactions: included.transactions,
            receipts: entry.receipts,
            ommers: Vec::new(),
            withdrawals,
        });
        self.state.apply(&entry.diff);
        self.state.block_hashes.insert(number, hash);
        self.hashes.extend(block.transactions.iter().map(|tx| (*tx.tx_hash(), number)));
        self.blocks.push(block.clone());
        let used = |tx: &Transaction| tx.nonce() < account(&self.state, tx.signer()).nonce;
        let stale = before.iter().filter(|tx| used(tx) && !self.hashes.contains_key(tx.tx_hash()));
        let mut replaced = retired(&included.changes);
        replaced.extend(stale.map(|tx| *tx.tx_hash()));
        let committed = CommittedBlock { block: block.clone(), diff: entry.diff };
        self.record(Some(committed), included.changes);
        Ok(Applied::Block { block, dropped, replaced })
    }

    fn move_trie(&mut self, hash: B256, entry: &BlockEntry) -> Result<(), String> {
        if self.ahead.pop_front_if(|ahead| ahead.header.hash() == hash).is_some() {
            return Ok(());
        }
        self.take_back();
        self.trie.update(&entry.diff);
        let (got, expected) = (self.trie.root(), entry.header.state_root);
        if got != expected {
            return Err(format!(
                "root {got} of block {}, expected {expected}",
                entry.header.number
            ));
        }
        Ok(())
    }

    fn take_back(&mut self) {
        let ahead = std::mem::take(&mut self.ahead);
        let unnamed = |a: &AccountDiff| {
            (a.storage_wiped || a.change == AccountChange::Deleted)
                && self.state.storage.contains_key(&a.address)
        };
        if ahead.iter().flat_map(|block| &block.diff.accounts).any(unnamed) {
            self.trie = trie_of(&self.state);
        } else {
            for block in ahead {
                self.trie.update(&values_at(&self.state, &block.diff));
            }
        }
    }

    /// Forgets a block that was built and will not be proposed.
    pub(crate) fn abandon(&mut self, hash: B256) {
        if self.ahead.iter().any(|ahead| ahead.header.hash() == hash) {
            self.take_back();
        }
    }

    /// Builds a block on the head, or on blocks that are proposed on it.
    pub(crate) fn build(
        &mut self,
        order: &BuildOrder,
        proposer: NodeId,
    ) -> Result<Proposal, String> {
        let head = self.header().clone();
        let above = |block: &&Arc<Unapplied>| block.header.number > head.number;
        let unapplied: Vec<_> = order.unapplied.iter().filter(above).cloned().collect();
        let parent = unapplied.last().map_or(&head, |block| &block.header).clone();
        let first = unapplied.first().map_or(order.parent, |block| block.header.parent_hash);
        if first != head.hash() || parent.hash() != order.parent {
            return Err("the head has moved".to_owned());
        }
        let layers = match self.mutant {
            Some(Mutant::StateOfTheHead) => Vec::new(),
            _ => unapplied.iter().map(|block| block.layer()).collect(),
        };
        let state = WithDiffs { base: &self.state, layers };
        let spec = &self.genesis.spec;
        let attributes = self.attributes(&parent, order.timestamp, order.term, proposer);
        let base_fee =
            next_header(spec, &parent, &attributes).base_fee_per_gas.map_or(0, u128::from);
        let (in_flight, gas_max) = (&order.in_flight, attributes.gas_limit);
        let offered = self.pool.candidates_after(in_flight, base_fee, BLOCK_TX_COUNT_MAX, gas_max);
        let poison = |tx: &Transaction| tx.input().starts_with(&POISON);
        let (poisoned, candidates): (Vec<_>, Vec<_>) =
            offered.into_iter().partition(|(_, tx)| poison(tx));
        let (ids, transactions): (Vec<_>, Vec<_>) = candidates.into_iter().unzip();
        let built = build_block(spec, &state, &parent, &attributes, &transactions)
            .map_err(|error| error.to_string())?;
        let BuiltBlock { mut header, included, dropped, receipts, diff, .. } = built;
        let dropped = dropped.iter().map(|(i, reason)| (ids[*i], &transactions[*i], *reason));
        let poisoned = poisoned.iter().map(|(id, tx)| (*id, tx, DropReason::Poison));
        let dropped: Vec<_> = dropped.chain(poisoned).collect();
        self.take_back();
        unapplied.iter().for_each(|block| self.trie.update(&block.diff));
        let diff = Arc::new(diff);
        self.trie.update(&diff);
        header.state_root = self.trie.root();
        let header = header.seal_slow();
        let block = Arc::new(Unapplied {
            header: header.clone(),
            transactions: included.iter().map(|i| transactions[*i].clone()).collect(),
            dropped: dropped.iter().map(|(_, tx, _)| (*tx).clone()).collect(),
            diff: diff.clone(),
        });
        self.ahead = unapplied.into_iter().chain([block.clone()]).collect();
        let dropped = dropped.iter().map(|(id, _, reason)| (*id, *reason));
        let entry = BlockEntry {
            header: header.into_inner(),
            transactions: included.iter().map(|i| ids[*i]).collect(),
            receipts,
            diff,
            pool_index: self.position.0,
            subtrie_roots: Bytes::new(),
            dropped: dropped.map(|(id, reason)| DroppedTransaction { id, reason }).collect(),
        };
        Ok(Proposal { block, entry: entry.encode_entry() })
    }

    fn attributes(
        &self,
        parent: &Sealed<Header>,
        timestamp: u64,
        term: u64,
        proposer: NodeId,
    ) -> BlockAttributes {
        let number = (parent.number + 1).to_be_bytes();
        let extra = [b"blockraft".as_slice(), &term.to_be_bytes(), &proposer.to_be_bytes()];
        BlockAttributes {
            timestamp,
            fee_recipient: self.genesis.options.fee_recipient,
            gas_limit: self.genesis.block_gas_limit(),
            prev_randao: keccak256([parent.hash().as_slice(), &number].concat()),
            extra_data: extra.concat().into(),
            parent_beacon_block_root: self
                .genesis
                .spec
                .is_cancun_active_at_timestamp(timestamp)
                .then_some(B256::ZERO),
            withdrawals: Vec::new(),
            gasless: self.genesis.options.gasless,
        }
    }

    pub(crate) fn sift(&self, in_flight: &InFlight, transactions: Vec<Transaction>) -> Sifted {
        let account_of = |sender| account(&self.state, sender);
        // The workload's senders have no code.
        let is_contract = |_: &_| false;
        self.pool.sift(in_flight, transactions, account_of, is_contract, &self.rules())
    }

    /// Whether the pool may hold a transaction that a block after `unapplied` could include.
    pub(crate) fn has_executable(&self, unapplied: &[Arc<Unapplied>]) -> bool {
        let parent = unapplied.last().map_or_else(|| self.header(), |block| &block.header);
        let attributes = self.attributes(parent, parent.timestamp, 0, 0);
        let next = next_header(&self.genesis.spec, parent, &attributes);
        let taken: usize = unapplied.iter().map(|block| block.transactions.len()).sum();
        self.pool.status().0 > taken
            && self.pool.has_executable(next.base_fee_per_gas.map_or(0, u128::from))
    }
}

/// The term in a header's extra data.
fn built_in_term(header: &Header) -> u64 {
    let bytes = header.extra_data.get(9..17).and_then(|bytes| bytes.try_into().ok());
    u64::from_be_bytes(bytes.unwrap_or_default())
}

fn retired(changes: &[PoolChange]) -> Vec<B256> {
    let retired = changes.iter().filter_map(|change| match change {
        PoolChange::Put(record) if record.replaced_at.is_some() => Some(&record.transaction),
        PoolChange::Put(_) | PoolChange::Remove(_) => None,
    });
    retired.map(|tx| *tx.tx_hash()).collect()
}

fn account(state: &MemoryState, address: Address) -> Account {
    state.accounts.get(&address).copied().unwrap_or_default()
}

/// The whole state as a diff on the empty one.
fn diff_of(state: &MemoryState) -> StateDiff {
    let accounts: BTreeMap<Address, Account> =
        state.accounts.iter().map(|(address, account)| (*address, *account)).collect();
    let accounts = accounts.into_iter().map(|(address, account)| {
        let slots = state.storage.get(&address).into_iter().flatten();
        let slots: BTreeMap<_, _> = slots.map(|(slot, value)| (*slot, *value)).collect();
        let storage = slots.into_iter().map(|(slot, value)| SlotChange { slot, value });
        let change = AccountChange::Set(account);
        AccountDiff { address, change, storage_wiped: false, storage: storage.collect() }
    });
    StateDiff { accounts: accounts.collect(), codes: Vec::new() }
}

pub(crate) fn trie_of(state: &MemoryState) -> StateTrie {
    let mut trie = StateTrie::new();
    trie.update(&diff_of(state));
    trie
}

/// What every key of `diff` reads in `state`.
fn values_at(state: &MemoryState, diff: &StateDiff) -> StateDiff {
    let accounts = diff.accounts.iter().map(|changed| {
        let slots = state.storage.get(&changed.address);
        let value = |slot| slots.and_then(|slots| slots.get(slot)).copied().unwrap_or_default();
        let storage =
            changed.storage.iter().map(|c| SlotChange { slot: c.slot, value: value(&c.slot) });
        let before = state.accounts.get(&changed.address).copied();
        AccountDiff {
            address: changed.address,
            change: before.map_or(AccountChange::Deleted, AccountChange::Set),
            storage_wiped: false,
            storage: storage.collect(),
        }
    });
    StateDiff { accounts: accounts.collect(), codes: Vec::new() }
}
