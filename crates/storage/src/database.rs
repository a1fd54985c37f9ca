//! One generation of chain and state: what is on disk, and what is applied on top of it in memory.

use crate::{
    AppliedStep, Backlog, LogQuery, StorageError, StoreOptions, TransactionLocation,
    chain::{Chain, ChainMeta},
    datadir::{DirLock, Generation},
    log_index,
    overlay::Overlay,
    recent::RecentBlocks,
    shard::{Change, Marker, Shard, hash_address, shard_of},
    unwind::Unwinds,
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use blockraft_primitives::{Account, Applied, ClusterGenesis, SealedBlock, StateDiff, StateError};
use blockraft_trie::hash_all;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// See the module. A snapshot that is installed makes a new one; readers keep the one they have.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) generation: Generation,
    pub(crate) genesis: Arc<ClusterGenesis>,
    pub(crate) options: StoreOptions,
    pub(crate) chain: Chain,
    pub(crate) shards: Vec<Shard>,
    pub(crate) overlay: Overlay,
    pub(crate) live: RwLock<Live>,
    pub(crate) recent: RwLock<RecentBlocks>,
    /// What is on disk.
    pub(crate) durable: RwLock<ChainMeta>,
    /// The oldest block whose state every shard has.
    pub(crate) oldest: AtomicU64,
    /// Held by whoever writes to the environments, or needs them all to stand at one block.
    pub(crate) writer: Mutex<()>,
    /// Where blocks were taken back.
    pub(crate) unwinds: Unwinds,
    /// Keeps other processes away as long as an environment is open.
    _lock: Arc<DirLock>,
}

/// The state machine as it is now.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) head: Sealed<Header>,
    pub(crate) applied: Applied,
    /// Steps that are not on disk, oldest first.
    pub(crate) queue: VecDeque<Arc<AppliedStep>>,
    pub(crate) backlog: Backlog,
}

impl Database {
    /// Writes block 0 and its state into a generation that does not exist.
    pub(crate) fn create(
        generation: &Generation,
        genesis: &ClusterGenesis,
        options: StoreOptions,
    ) -> Result<(), StorageError> {
        let count = usize::from(genesis.options.shards);
        let state = genesis.state();
        let hashed = HashedDiffs::new(vec![(0, &state)]);
        for (index, mut work) in hashed.divide(count).into_iter().enumerate() {
            work.sort();
            let shard = Shard::open(&generation.shard(index), index, count, options.map_bytes_max)?;
            let marker = Marker { number: 0, hash: genesis.hash(), oldest: 0 };
            shard.write(&work.changes, &work.codes, marker)?;
            shard.env().sync()?;
        }
        let block = SealedBlock {
            header: genesis.header.clone(),
            transactions: Vec::new(),
            receipts: Vec::new(),
            ommers: Vec::new(),
            withdrawals: genesis.header.withdrawals_root.map(|_| Default::default()),
        };
        let meta = ChainMeta {
            genesis: genesis.hash(),
            shards: genesis.options.shards,
            head: (0, genesis.hash()),
            applied: Applied::default(),
        };
        Chain::open(&generation.chain(), options.map_bytes_max)?.write(&[&block], &[], &meta)
    }

    /// Opens a generation and takes back what its shards have and its chain does not.
    pub(crate) fn open(
        generation: Generation,
        genesis: Arc<ClusterGenesis>,
        options: StoreOptions,
        lock: Arc<DirLock>,
    ) -> Result<Self, StorageError> {
        let chain = Chain::open(&generation.chain(), options.map_bytes_max)?;
        let place = || generation.chain().display().to_string();
        let meta =
            chain.meta()?.ok_or_else(|| StorageError::corrupt(place(), "the chain is empty"))?;
        if meta.genesis != genesis.hash() {
            return Err(StorageError::AnotherGenesis {
                datadir: generation.root,
                got: meta.genesis,
                expected: genesis.hash(),
            });
        }
        if meta.shards != genesis.options.shards {
            let problem =
                format!("{} state shards, expected {}", meta.shards, genesis.options.shards);
            return Err(StorageError::corrupt(place(), problem));
        }
        let count = usize::from(meta.shards);
        let mut shards = Vec::with_capacity(count);
        let mut oldest = 0;
        for index in 0..count {
            let shard = Shard::open(&generation.shard(index), index, count, options.map_bytes_max)?;
            oldest = oldest.max(recover(&shard, index, meta.head)?);
            shards.push(shard);
        }
        let header = chain.header(meta.head.0)?;
        let head = header.filter(|header| header.hash() == meta.head.1);
        let head =
            head.ok_or_else(|| StorageError::corrupt(place(), "the head block is missing"))?;
        let live = Live {
            head,
            applied: meta.applied.clone(),
            queue: VecDeque::new(),
            backlog: Backlog::default(),
        };
        Ok(Self {
            generation,
            genesis,
            options,
            chain,
            shards,
            overlay: Overlay::default(),
            live: RwLock::new(live),
            recent: RwLock::default(),
            durable: RwLock::new(meta),
            oldest: AtomicU64::new(oldest),
            writer: Mutex::default(),
            unwinds: Unwinds::default(),
            _lock: lock,
        })
    }

    /// See [`crate::Store::apply`].
    pub(crate) fn apply(&self, step: AppliedStep) {
        let step = Arc::new(step);
        if let Some(committed) = &step.block {
            let header = &committed.block.header;
            let head = self.live.read().head.clone();
            assert_eq!(header.number, head.number + 1, "a block joins the chain at its head");
            assert_eq!(header.parent_hash, head.hash(), "a block names the head as its parent");
            committed.diff.assert_sorted();
            // Nobody can see these until the head moves.
            self.overlay.insert(header.number, &committed.diff);
            self.recent.write().insert(committed.block.clone());
        }
        let mut live = self.live.write();
        if let Some(committed) = &step.block {
            live.head = committed.block.header.clone();
            live.backlog.blocks += 1;
            live.backlog.keys += committed.diff.key_count();
        }
        live.applied = step.applied.clone();
        live.queue.push_back(step);
    }

    /// See [`crate::Store::reverse_diff`].
    pub(crate) fn reverse_diff(&self, number: u64) -> Result<StateDiff, StateError> {
        self.check_height(number)?;
        let oldest = self.oldest_state();
        if number <= oldest || number > self.durable.read().head.0 {
            return Err(StateError::Pruned { requested: number, oldest });
        }
        let mut whole = StateDiff::default();
        for shard in &self.shards {
            whole.accounts.extend(shard.reverse_diff(number)?.accounts);
        }
        whole.accounts.sort_unstable_by_key(|account| account.address);
        Ok(whole)
    }

    /// The first block after proof of work; `None` where there is none yet.
    pub(crate) fn merge_block(&self) -> Result<Option<u64>, StorageError> {
        let missing = || StorageError::corrupt("headers", "a block is missing");
        let is_merged = |number| {
            let header = self.chain.header(number)?.ok_or_else(missing)?;
            Ok::<_, StorageError>(header.difficulty.is_zero())
        };
        // Block 0 may say anything. Once the difficulty is zero, it stays so.
        let (mut first, mut end) = (1, self.durable.read().head.0 + 1);
        let head = end - 1;
        while first < end {
            let middle = first + (end - first) / 2;
            match is_merged(middle)? {
                true => end = middle,
                false => first = middle + 1,
            }
        }
        Ok((first <= head).then_some(first))
    }

    pub(crate) fn oldest_state(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    /// Whether a view at this block can be given.
    pub(crate) fn check_height(&self, number: u64) -> Result<(), StateError> {
        if number > self.live.read().head.number {
            return Err(StateError::UnknownBlock(number));
        }
        let oldest = self.oldest_state();
        if number < oldest {
            return Err(StateError::Pruned { requested: number, oldest });
        }
        Ok(())
    }

    pub(crate) fn account(
        &self,
        address: &Address,
        number: u64,
    ) -> Result<Option<Account>, StateError> {
        if let Some(account) = self.overlay.account(address, number) {
            return Ok(account);
        }
        let hashed = hash_address(address);
        self.shard(&hashed).account_at(&hashed, number)
    }

    pub(crate) fn storage(
        &self,
        address: &Address,
        slot: U256,
        number: u64,
    ) -> Result<U256, StateError> {
        if let Some(value) = self.overlay.storage(address, &slot, number) {
            return Ok(value);
        }
        let hashed = hash_address(address);
        self.shard(&hashed).slot_at(&hashed, &crate::shard::hash_slot(slot), number)
    }

    /// See [`blockraft_primitives::StateReader::has_storage`].
    pub(crate) fn has_storage(&self, address: &Address, number: u64) -> Result<bool, StateError> {
        if let Some(answer) = self.overlay.has_storage(address, number) {
            return Ok(answer);
        }
        let hashed = hash_address(address);
        self.shard(&hashed).has_storage_at(&hashed, number)
    }

    pub(crate) fn code(&self, hash: &B256) -> Result<Bytes, StateError> {
        if *hash == KECCAK256_EMPTY || hash.is_zero() {
            return Ok(Bytes::new());
        }
        if let Some(code) = self.overlay.code(hash) {
            return Ok(code);
        }
        let code = self.shard(hash).code(hash)?;
        code.ok_or_else(|| StateError::Corrupt {
            place: format!("code {hash}"),
            problem: "missing".to_owned(),
        })
    }

    pub(crate) fn header(&self, number: u64) -> Result<Option<Sealed<Header>>, StorageError> {
        if let Some(block) = self.recent.read().block(number) {
            return Ok(Some(block.header.clone()));
        }
        self.chain.header(number)
    }

    pub(crate) fn hash(&self, number: u64) -> Result<Option<B256>, StorageError> {
        if let Some(block) = self.recent.read().block(number) {
            return Ok(Some(block.hash()));
        }
        self.chain.hash(number)
    }

    pub(crate) fn number_of(&self, hash: &B256) -> Result<Option<u64>, StorageError> {
        if let Some(number) = self.recent.read().number_of(hash) {
            return Ok(Some(number));
        }
        self.chain.number_of(hash)
    }

    pub(crate) fn block(&self, number: u64) -> Result<Option<Arc<SealedBlock>>, StorageError> {
        if let Some(block) = self.recent.read().block(number) {
            return Ok(Some(block.clone()));
        }
        self.chain.block(number)
    }

    pub(crate) fn transaction(
        &self,
        hash: &B256,
    ) -> Result<Option<TransactionLocation>, StorageError> {
        if let Some(location) = self.recent.read().transaction(hash) {
            return Ok(Some(location));
        }
        self.chain.transaction(hash)
    }

    /// See [`crate::Store::blocks_with_logs`]. Memory first: what leaves it is on disk by then.
    pub(crate) fn blocks_with_logs(&self, query: &LogQuery) -> Result<Vec<u64>, StorageError> {
        let (head, queued) = {
            let live = self.live.read();
            let steps = live.queue.iter().filter(|step| step.block.is_some());
            (live.head.number, steps.cloned().collect::<Vec<_>>())
        };
        let query = LogQuery { to: query.to.min(head), ..query.clone() };
        if query.from > query.to {
            return Ok(Vec::new());
        }
        let mut blocks = self.chain.blocks_with_logs(&query)?;
        for block in queued.iter().filter_map(|step| step.block.as_ref()).map(|block| &block.block)
        {
            let asked_for = (query.from..=query.to).contains(&block.number());
            if asked_for && log_index::matches(&query, block) {
                blocks.push(block.number());
            }
        }
        blocks.sort_unstable();
        blocks.dedup();
        Ok(blocks)
    }

    pub(crate) fn shard(&self, hashed: &B256) -> &Shard {
        &self.shards[shard_of(hashed, self.shards.len())]
    }
}

/// Brings a shard to the chain's head; returns the oldest block that it can show.
pub(crate) fn recover(shard: &Shard, index: usize, head: (u64, B256)) -> Result<u64, StorageError> {
    let place = || format!("state shard {index}");
    let (number, hash) = head;
    let marker = shard.marker()?.ok_or_else(|| StorageError::corrupt(place(), "has no marker"))?;
    if marker.number < number {
        return Err(StorageError::ShardBehind {
            shard: index,
            got: marker.number,
            expected: number,
        });
    }
    if marker.number > number {
        tracing::info!(shard = index, from = marker.number, to = number, "unwinding a state shard");
        shard.unwind(number, hash)?;
    } else if marker.hash != hash {
        let problem = format!("is at block {number} {}, expected {hash}", marker.hash);
        return Err(StorageError::corrupt(place(), problem));
    }
    Ok(marker.oldest)
}

/// The diffs of a run of blocks, with the hashes of all that they name.
#[derive(Debug)]
pub(crate) struct HashedDiffs<'a> {
    blocks: Vec<(u64, &'a StateDiff)>,
    addresses: Vec<B256>,
    slots: Vec<B256>,
}

/// What a run of blocks writes to one shard.
#[derive(Debug, Default)]
pub(crate) struct ShardWork<'a> {
    /// Sorted by hashed address and block.
    pub(crate) changes: Vec<Change<'a>>,
    /// Sorted by hash, no duplicates.
    pub(crate) codes: Vec<(B256, &'a Bytes)>,
}

impl<'a> HashedDiffs<'a> {
    /// Hashes many keys at once: each is needed once, and one by one takes twice as long.
    pub(crate) fn new(blocks: Vec<(u64, &'a StateDiff)>) -> Self {
        let accounts = || blocks.iter().flat_map(|(_, diff)| &diff.accounts);
        let addresses: Vec<Address> = accounts().map(|account| account.address).collect();
        let slots: Vec<U256> =
            accounts().flat_map(|account| &account.storage).map(|change| change.slot).collect();
        let addresses =
            hash_all(&addresses, |address, out| out.extend_from_slice(address.as_slice()));
        let slots = hash_all(&slots, |slot, out| out.extend_from_slice(&slot.to_be_bytes::<32>()));
        Self { blocks, addresses, slots }
    }

    /// Divides them among shards.
    pub(crate) fn divide(&self, shard_count: usize) -> Vec<ShardWork<'_>> {
        let mut work: Vec<ShardWork<'_>> = (0..shard_count).map(|_| ShardWork::default()).collect();
        let (mut addresses, mut slots) = (self.addresses.iter(), &self.slots[..]);
        for &(number, diff) in &self.blocks {
            for account in &diff.accounts {
                let hashed = *addresses.next().expect("one for each account");
                let own;
                (own, slots) = slots.split_at(account.storage.len());
                let change = Change { hashed, number, diff: account, slots: own };
                work[shard_of(&hashed, shard_count)].changes.push(change);
            }
            for code in &diff.codes {
                let hash = alloy_primitives::keccak256(code);
                work[shard_of(&hash, shard_count)].codes.push((hash, code));
            }
        }
        work
    }
}

impl ShardWork<'_> {
    /// Brings it into the order in which it is written.
    pub(crate) fn sort(&mut self) {
        self.changes.sort_unstable_by_key(|change| (change.hashed, change.number));
        self.codes.sort_unstable_by_key(|(hash, _)| *hash);
        self.codes.dedup_by_key(|(hash, _)| *hash);
    }
}
