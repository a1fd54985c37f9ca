//! A chain with random state changes, and what it must read like at every height.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use alloy_consensus::{
    Eip658Value, Header, Sealable, SignableTransaction, TxEip1559, TxEnvelope,
    transaction::Recovered,
};
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{
    Address, B256, Bytes, KECCAK256_EMPTY, Log, LogData, Signature, TxKind, U256, keccak256,
};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, AdmissionId, Applied, ClusterGenesis, CommittedBlock,
    LogPosition, MemoryState, PoolChange, PoolRecord, Receipt, SealedBlock, SlotChange, StateDiff,
    StateError, StateReader, Transaction,
};
use blockraft_storage::{AccountVisitor, AppliedStep, Identity, Store, StoreOptions, init};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Enough for every test, small enough to open many.
pub const MAP_BYTES: usize = 1 << 30;
pub const IDENTITY: Identity = Identity { cluster_id: B256::repeat_byte(0xc1), node_id: 7 };

pub fn options(history_blocks: u64) -> StoreOptions {
    StoreOptions { history_blocks, map_bytes_max: MAP_BYTES }
}

pub fn addresses() -> Vec<Address> {
    (0..24u8).map(|i| Address::from_word(keccak256([b'a', i]))).collect()
}

pub fn slots() -> Vec<U256> {
    (0..10u64).map(|i| if i < 5 { U256::from(i) } else { U256::MAX - U256::from(i) }).collect()
}

pub fn topics() -> Vec<B256> {
    (0..6u8).map(|i| keccak256([b't', i])).collect()
}

/// A chain with three funded accounts, one of them with code and storage.
pub fn genesis(shards: u8) -> ClusterGenesis {
    let [a, b, c] = addresses()[..3] else { unreachable!() };
    let json = format!(
        r#"{{"config": {{"chainId": 1337, "blockraft": {{"shards": {shards}}}}},
            "difficulty": "0x0", "gasLimit": "0x1c9c380",
            "alloc": {{
                "{a}": {{"balance": "0xffffffff"}},
                "{b}": {{"balance": "0x1", "nonce": "0x2", "code": "0x600035",
                    "storage": {{"0x00": "0x1234", "0x01": "0xff"}}}},
                "{c}": {{"balance": "0x0"}}
            }}}}"#
    );
    ClusterGenesis::from_json(&json).unwrap()
}

/// A chain under construction, and the oracle of its state.
pub struct Chain {
    pub genesis: ClusterGenesis,
    pub rng: SmallRng,
    /// State after each block, from block 0.
    pub states: Vec<MemoryState>,
    /// From block 1.
    pub steps: Vec<AppliedStep>,
    /// From block 0.
    pub blocks: Vec<Arc<SealedBlock>>,
    pub pool: BTreeMap<AdmissionId, PoolRecord>,
    /// The pool after each block, from block 0.
    pub pools: Vec<Vec<PoolRecord>>,
    pub next_admission: u64,
}

impl Chain {
    pub fn new(seed: u64, shards: u8) -> Self {
        let genesis = genesis(shards);
        let mut state = MemoryState::default();
        state.apply(&genesis.state());
        state.block_hashes.insert(0, genesis.hash());
        let block = SealedBlock {
            header: genesis.header.clone(),
            transactions: Vec::new(),
            receipts: Vec::new(),
            ommers: Vec::new(),
            withdrawals: None,
        };
        Self {
            genesis,
            rng: SmallRng::seed_from_u64(seed),
            states: vec![state],
            steps: Vec::new(),
            blocks: vec![Arc::new(block)],
            pool: BTreeMap::new(),
            pools: vec![Vec::new()],
            next_admission: 0,
        }
    }

    pub fn init(&self, datadir: &Path) {
        init(datadir, &self.genesis, &IDENTITY).unwrap();
    }

    pub fn head(&self) -> u64 {
        self.steps.len() as u64
    }

    /// Adds a random block.
    pub fn extend(&mut self) -> AppliedStep {
        let diff = self.random_diff();
        self.extend_with(diff)
    }

    pub fn extend_with(&mut self, diff: StateDiff) -> AppliedStep {
        let number = self.head() + 1;
        let transactions: Vec<Transaction> =
            (0..self.rng.random_range(0..4)).map(|_| self.random_transaction()).collect();
        let receipts: Vec<Receipt> = transactions.iter().map(|_| self.random_receipt()).collect();
        let header = Header {
            number,
            parent_hash: self.blocks[number as usize - 1].hash(),
            extra_data: Bytes::copy_from_slice(&self.rng.random::<[u8; 8]>()),
            ..Default::default()
        };
        let ommer =
            |difficulty: u8| Header { difficulty: U256::from(difficulty), ..Header::default() };
        let ommers: Vec<Header> = (0..self.rng.random_range(0..3)).map(ommer).collect();
        let withdrawal = |index| Withdrawal { index, amount: 7, ..Default::default() };
        let withdrawals = self.rng.random_range(0..3);
        let withdrawals = self
            .rng
            .random_bool(0.5)
            .then(|| (0..withdrawals).map(withdrawal).collect::<Vec<_>>().into());
        let block =
            SealedBlock { header: header.seal_slow(), transactions, receipts, ommers, withdrawals };
        let block = Arc::new(block);
        let mut state = self.states.last().unwrap().clone();
        state.apply(&diff);
        state.block_hashes.insert(number, block.hash());
        let pool = self.random_pool_changes(number);
        let step = AppliedStep {
            applied: Applied {
                position: Some(LogPosition { term: 3, leader: 1, index: 10 * number }),
                membership: vec![1, 2, 3],
                next_admission: AdmissionId(self.next_admission),
            },
            block: Some(CommittedBlock { block: block.clone(), diff: Arc::new(diff) }),
            pool,
        };
        self.states.push(state);
        self.blocks.push(block);
        self.pools.push(self.pool.values().cloned().collect());
        self.steps.push(step.clone());
        step
    }

    fn random_pool_changes(&mut self, number: u64) -> Vec<PoolChange> {
        let mut changes = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let id = AdmissionId(self.next_admission);
            self.next_admission += 1;
            let transaction = self.random_transaction();
            let record =
                PoolRecord { id, admitted_at: 10 * number - 1, replaced_at: None, transaction };
            self.pool.insert(id, record.clone());
            changes.push(PoolChange::Put(record));
        }
        let ids: Vec<AdmissionId> = self.pool.keys().copied().collect();
        for id in ids {
            match self.rng.random_range(0..6) {
                0 => {
                    self.pool.remove(&id);
                    changes.push(PoolChange::Remove(id));
                }
                1 => {
                    let record = self.pool.get_mut(&id).unwrap();
                    record.replaced_at = Some(10 * number);
                    changes.push(PoolChange::Put(record.clone()));
                }
                _ => {}
            }
        }
        changes
    }

    pub fn random_transaction(&mut self) -> Transaction {
        let tx = TxEip1559 {
            chain_id: 1337,
            nonce: self.rng.random(),
            to: TxKind::Call(addresses()[self.rng.random_range(0..24)]),
            value: U256::from(self.rng.random::<u64>()),
            ..Default::default()
        };
        let tx: TxEnvelope = tx.into_signed(Signature::test_signature()).into();
        Arc::new(Recovered::new_unchecked(tx, addresses()[self.rng.random_range(0..24)]))
    }

    fn random_receipt(&mut self) -> Receipt {
        let logs = (0..self.rng.random_range(0..3))
            .map(|_| {
                let count = self.rng.random_range(0..=4);
                let topics = (0..count).map(|_| topics()[self.rng.random_range(0..6)]).collect();
                let data = LogData::new_unchecked(topics, Bytes::from_static(b"data"));
                Log { address: addresses()[self.rng.random_range(0..24)], data }
            })
            .collect();
        Receipt {
            status: Eip658Value::Eip658(self.rng.random()),
            cumulative_gas_used: self.rng.random_range(0..1 << 40),
            logs,
        }
    }

    /// Changes that an EVM could make: storage belongs to accounts that exist.
    pub fn random_diff(&mut self) -> StateDiff {
        let state = self.states.last().unwrap().clone();
        let mut codes = BTreeMap::new();
        let mut accounts = BTreeMap::new();
        for _ in 0..self.rng.random_range(0..8) {
            let address = addresses()[self.rng.random_range(0..24)];
            let exists = state.accounts.contains_key(&address);
            let (change, storage_wiped) = match self.rng.random_range(0..8) {
                0 if exists => (AccountChange::Deleted, self.rng.random()),
                1 if exists => (self.random_account(&mut codes), true),
                2 | 3 if exists => (AccountChange::Unchanged, false),
                4 if exists => (AccountChange::Unchanged, true),
                _ => (self.random_account(&mut codes), false),
            };
            let mut storage = BTreeMap::new();
            if change != AccountChange::Deleted {
                for _ in 0..self.rng.random_range(0..6) {
                    let slot = slots()[self.rng.random_range(0..10)];
                    let value = match self.rng.random_range(0..4) {
                        0 => U256::ZERO,
                        1 => U256::MAX,
                        _ => U256::from(self.rng.random::<u32>()),
                    };
                    storage.insert(slot, SlotChange { slot, value });
                }
            }
            let storage = storage.into_values().collect();
            accounts.insert(address, AccountDiff { address, change, storage_wiped, storage });
        }
        StateDiff {
            accounts: accounts.into_values().collect(),
            codes: codes.into_values().collect(),
        }
    }

    fn random_account(&mut self, codes: &mut BTreeMap<B256, Bytes>) -> AccountChange {
        let code_hash = if self.rng.random_ratio(1, 3) {
            let code = Bytes::copy_from_slice(&self.rng.random::<[u8; 20]>());
            let hash = keccak256(&code);
            codes.insert(hash, code);
            hash
        } else {
            KECCAK256_EMPTY
        };
        let balance = U256::from(self.rng.random_range(0..1u64 << 50));
        AccountChange::Set(Account { nonce: self.rng.random_range(0..9), balance, code_hash })
    }

    /// Everything that `reader` says must be what the state at `number` says.
    pub fn check_state(&self, reader: &impl StateReader, number: u64) {
        self.try_check_state(reader, number).unwrap();
    }

    /// As [`Self::check_state`]; ends with the first error of the reader.
    pub fn try_check_state(
        &self,
        reader: &impl StateReader,
        number: u64,
    ) -> Result<(), StateError> {
        let expected = &self.states[number as usize];
        for address in addresses() {
            let account = reader.account(address)?;
            assert_eq!(account, expected.account(address)?, "block {number} {address}");
            if let Some(account) = account.filter(Account::has_code) {
                let code = reader.code(account.code_hash)?;
                assert_eq!(code, expected.codes[&account.code_hash], "block {number} {address}");
            }
            for slot in slots() {
                assert_eq!(
                    reader.storage(address, slot)?,
                    expected.storage(address, slot)?,
                    "block {number} {address} {slot}"
                );
            }
        }
        for address in addresses() {
            // Where slots became zero one by one, and not yet on disk, they may still count.
            let no_storage = !reader.has_storage(address)?;
            assert!(!no_storage || !expected.has_storage(address)?, "block {number} {address}");
        }
        for block in 0..number + 3 {
            let hash = expected.block_hashes.get(&block).copied().unwrap_or_default();
            assert_eq!(reader.block_hash(block)?, hash, "block {block} seen from {number}");
        }
        Ok(())
    }

    /// A state that a reverse diff led to must be the state at `number`.
    pub fn check_same(&self, state: &MemoryState, number: u64) {
        let expected = &self.states[number as usize];
        let differ: Vec<_> = addresses()
            .into_iter()
            .filter(|a| {
                state.accounts.get(a) != expected.accounts.get(a)
                    || state.storage.get(a) != expected.storage.get(a)
            })
            .collect();
        assert!(differ.is_empty(), "going back to {number}, these differ: {differ:?}");
    }

    /// Everything that the store says must be what the first blocks up to its head come to.
    pub fn check_store(&self, store: &Store, oldest: u64) {
        let head = store.head().number;
        assert_eq!(store.oldest_state(), oldest);
        for number in 0..=head {
            match store.view(number) {
                Ok(view) if number >= oldest => self.check_state(&view, number),
                Err(StateError::Pruned { requested, oldest: told }) if number < oldest => {
                    assert_eq!((requested, told), (number, oldest));
                }
                other => panic!("view at {number}, oldest {oldest}: {other:?}"),
            }
            self.check_block(store, number);
        }
        assert!(matches!(store.view(head + 1), Err(StateError::UnknownBlock(n)) if n == head + 1));
        assert_eq!(store.block(head + 1).unwrap(), None);
        assert_eq!(store.header(head + 1).unwrap(), None);
    }

    pub fn check_block(&self, store: &Store, number: u64) {
        let block = &self.blocks[number as usize];
        assert_eq!(store.block(number).unwrap().as_ref(), Some(block));
        assert_eq!(store.header(number).unwrap().as_ref(), Some(&block.header));
        assert_eq!(store.number_of(&block.hash()).unwrap(), Some(number));
        for (index, tx) in block.transactions.iter().enumerate() {
            let location = store.transaction(tx.tx_hash()).unwrap().unwrap();
            assert_eq!((location.block, location.index), (number, index));
        }
    }

    /// The flat state that a trie is built from must be the state at `number`.
    pub fn check_flat_state(&self, store: &Store, number: u64) {
        self.check_walk(number, |partition, visit| {
            store.for_each_account(partition, visit).unwrap();
        });
        for number in store.oldest_state()..=number {
            let (view, expected) = (store.view(number).unwrap(), &self.states[number as usize]);
            for address in addresses() {
                let has_storage = view.has_storage(address).unwrap();
                assert_eq!(has_storage, expected.has_storage(address).unwrap(), "{address}");
            }
        }
    }

    /// The flat state of a block behind the one on disk.
    pub fn check_past_state(&self, store: &Store, number: u64) {
        self.check_walk(number, |partition, visit| {
            store.for_each_account_at(partition, number, visit).unwrap();
        });
    }

    fn check_walk(&self, number: u64, walk: impl Fn(u8, &mut AccountVisitor<'_>)) {
        let expected = &self.states[number as usize];
        let mut accounts = BTreeMap::new();
        let mut last = B256::ZERO;
        for partition in 0..=255 {
            walk(partition, &mut |hashed, account, slots| {
                assert_eq!(hashed[0], partition);
                assert!(hashed > last, "in order");
                last = hashed;
                accounts.insert(hashed, (account, slots.collect::<BTreeMap<_, _>>()));
            });
        }
        let expected: BTreeMap<_, _> = expected
            .accounts
            .iter()
            .map(|(address, account)| {
                let slots = expected.storage.get(address).into_iter().flatten();
                let slots = slots.map(|(slot, value)| (keccak256(B256::from(*slot)), *value));
                (keccak256(address), (*account, slots.collect::<BTreeMap<_, _>>()))
            })
            .collect();
        assert_eq!(accounts, expected, "block {number}");
    }
}
