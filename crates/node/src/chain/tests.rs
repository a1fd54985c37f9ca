//! The replicated state machine against a from-scratch root, over random blocks.

use super::{
    BlockOptions, BuildOrder, Chain, Outcome, Proposal, TrieOptions, Unapplied, streamed::Streamed,
};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_genesis::Genesis;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, hex, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use alloy_trie::{TrieAccount, root::state_root_unhashed, root::storage_root_unhashed};
use blockraft_primitives::{
    AdmitBatch, Applied, ClusterGenesis, LogPosition, MemoryState, StateDiff, Transaction, network,
};
use blockraft_protocol::InFlight;
use blockraft_storage::{Identity, LogRecord, Store};
use blockraft_trie::AccountProof;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, path::Path, sync::Arc};

mod shared_roots;

const BLOCK_COUNT: u64 = 200;
/// The deterministic CREATE2 deployer: call data is `salt, init code`.
const DEPLOYER: Address = address!("0x4e59b44847b379578588920cA78FbF26c0B4956C");
const DEPLOYER_CODE: [u8; 69] = hex!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
);
/// Word 0 of the call data zero: stores word 2 in slot word 1; else self-destructs to word 1.
const RUNTIME: [u8; 19] = hex!("5f3515600a57602035ff5b6040356020355500");
/// Returns [`RUNTIME`].
const INIT: [u8; 9] = hex!("60138060095f395ff3");

/// A chain of its own with what drives it: keys, nonces, and an oracle that only knows diffs.
pub(crate) struct World {
    pub(crate) chain: Chain,
    pub(crate) keys: Vec<PrivateKeySigner>,
    nonces: Vec<u64>,
    pub(crate) oracle: MemoryState,
    index: u64,
    rng: SmallRng,
    /// Whether entries are written to the log as well.
    pub(crate) logged: bool,
    /// Accounts of the genesis that only get payments.
    crowd: u64,
}

fn genesis(forks: &[(&str, u64)], keys: &[PrivateKeySigner], crowd: u64) -> ClusterGenesis {
    let mut config = serde_json::to_value(network("Paris", 7).unwrap()).unwrap();
    for (fork, time) in forks {
        config[format!("{fork}Time")] = (*time).into();
    }
    config["blockraft"] = serde_json::json!({ "shards": 4 });
    let mut alloc = serde_json::Map::new();
    for key in keys {
        alloc.insert(
            key.address().to_string(),
            serde_json::json!({ "balance": "0xffffffffffffffffffff" }),
        );
    }
    for n in 0..crowd {
        alloc.insert(bystander(n).to_string(), serde_json::json!({ "balance": "0x1" }));
    }
    let code = hex::encode_prefixed(DEPLOYER_CODE);
    alloc.insert(
        DEPLOYER.to_string(),
        serde_json::json!({ "balance": "0x0", "nonce": "0x1", "code": code }),
    );
    for (address, code) in system_contracts() {
        alloc.insert(
            address.to_string(),
            serde_json::json!({ "balance": "0x0", "nonce": "0x1", "code": code.to_string() }),
        );
    }
    let body = serde_json::json!({
        "config": config, "gasLimit": "0x3938700", "difficulty": "0x0", "alloc": alloc,
    });
    let genesis: Genesis = serde_json::from_value(body).unwrap();
    ClusterGenesis::new(genesis).unwrap()
}

fn system_contracts() -> [(Address, Bytes); 4] {
    use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
    [
        (eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone()),
        (eip4788::BEACON_ROOTS_ADDRESS, eip4788::BEACON_ROOTS_CODE.clone()),
        (
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone(),
        ),
        (
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE.clone(),
        ),
    ]
}

/// One of many accounts that only get payments.
fn bystander(n: u64) -> Address {
    Address::left_padding_from(&(0x1_0000_0000 + n).to_be_bytes())
}

pub(crate) fn open(path: &Path) -> Chain {
    open_within(path, None)
}

fn open_within(path: &Path, memory_bytes_max: Option<usize>) -> Chain {
    let store = Store::open(path).unwrap();
    let options = BlockOptions {
        fee_recipient: Address::repeat_byte(0xfe),
        gas_limit: store.genesis().block_gas_limit(),
        gasless: false,
        threads: Some(2),
    };
    Chain::open(store, options, TrieOptions { memory_bytes_max, checkpoint: true }).unwrap()
}

impl World {
    pub(crate) fn new(path: &Path, forks: &[(&str, u64)], seed: u64) -> Self {
        Self::with_crowd(path, forks, seed, 0, None)
    }

    fn with_crowd(
        path: &Path,
        forks: &[(&str, u64)],
        seed: u64,
        crowd: u64,
        trie_memory_bytes: Option<usize>,
    ) -> Self {
        let keys: Vec<_> = (1..=6u8)
            .map(|i| PrivateKeySigner::from_bytes(&B256::repeat_byte(i)).unwrap())
            .collect();
        let genesis = genesis(forks, &keys, crowd);
        let identity = Identity { cluster_id: B256::ZERO, node_id: 1 };
        blockraft_storage::init(path, &genesis, &identity).unwrap();
        let mut oracle = MemoryState::default();
        oracle.apply(&genesis.state());
        Self {
            chain: open_within(path, trie_memory_bytes),
            nonces: vec![0; keys.len()],
            keys,
            oracle,
            index: 0,
            rng: SmallRng::seed_from_u64(seed),
            logged: false,
            crowd,
        }
    }

    /// Closes the directory and opens it again.
    fn reopen(&mut self, path: &Path) {
        let aside = tempfile::tempdir().unwrap();
        let other = Self::new(&aside.path().join("data"), &[("shanghai", 0)], 0);
        drop(std::mem::replace(&mut self.chain, other.chain));
        self.chain = open(path);
    }

    fn log(&self, entry: &[u8]) {
        if self.logged {
            // A record as Raft writes it: version, kind, term.
            let record = [&[1, 2, 0, 0, 0, 0, 0, 0, 0, 1], entry].concat();
            let record = LogRecord { index: self.index, bytes: record.into() };
            self.chain.store.raft_log().append(&[record]).unwrap();
        }
    }

    fn applied(&mut self) -> Applied {
        self.index += 1;
        let position = LogPosition { term: 1, leader: 1, index: self.index };
        Applied { position: Some(position), ..self.chain.store.applied() }
    }

    fn sign(&mut self, to: Address, value: u64, input: Vec<u8>) -> Transaction {
        let from = self.rng.random_range(0..self.keys.len());
        let tx = TxEip1559 {
            chain_id: 7,
            nonce: self.nonces[from],
            gas_limit: 300_000,
            max_fee_per_gas: 10_000_000_000,
            max_priority_fee_per_gas: self.rng.random_range(0..3),
            to: TxKind::Call(to),
            value: U256::from(value),
            input: input.into(),
            ..Default::default()
        };
        self.nonces[from] += 1;
        let signature = self.keys[from].sign_hash_sync(&tx.signature_hash()).unwrap();
        let sender = self.keys[from].address();
        Arc::new(Recovered::new_unchecked(TxEnvelope::from(tx.into_signed(signature)), sender))
    }

    /// Deploys, writes, clears, self-destructs, re-creates, pays, touches the empty.
    fn random_transaction(&mut self) -> Transaction {
        let salt = B256::with_last_byte(self.rng.random_range(0..6));
        let contract = DEPLOYER.create2(salt, keccak256([&INIT[..], &RUNTIME].concat()));
        let word = |value: u64| B256::from(U256::from(value)).to_vec();
        match self.rng.random_range(0..10) {
            0..=2 => self.sign(DEPLOYER, 0, [&salt[..], &INIT, &RUNTIME].concat()),
            3..=6 => {
                let (slot, value) = (self.rng.random_range(0..20), self.rng.random_range(0..3));
                self.sign(contract, 0, [word(0), word(slot), word(value)].concat())
            }
            7 => {
                let to = B256::left_padding_from(Address::with_last_byte(0x77).as_slice()).to_vec();
                let value = self.rng.random_range(0..2);
                self.sign(contract, value, [word(1), to].concat())
            }
            8 if self.crowd > 0 => {
                let to = bystander(self.rng.random_range(0..self.crowd));
                self.sign(to, 1, Vec::new())
            }
            8 => {
                let to = Address::with_last_byte(self.rng.random_range(0x80..0xff));
                self.sign(to, 1, Vec::new())
            }
            _ => {
                let to = Address::with_last_byte(self.rng.random_range(0x20..0x60));
                self.sign(to, 0, Vec::new())
            }
        }
    }

    /// Returns the entry.
    pub(crate) fn admit_some(&mut self) -> Bytes {
        let count = self.rng.random_range(0..12);
        let transactions = (0..count).map(|_| self.random_transaction()).collect();
        let entry = AdmitBatch { transactions }.encode_entry();
        let applied = self.applied();
        self.log(&entry);
        match self.chain.apply(applied, &entry).unwrap() {
            Outcome::Admitted(verdicts) => {
                assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}")
            }
            Outcome::Block { .. } => unreachable!("an Admit entry"),
        }
        entry
    }

    pub(crate) fn build(&self) -> Proposal {
        self.build_on(&[], 1)
    }

    /// The block after some that are not applied.
    fn build_on(&self, unapplied: &[Arc<Unapplied>], seconds: u64) -> Proposal {
        self.chain.build(&order_on(&self.chain, unapplied, seconds)).unwrap()
    }

    pub(crate) fn apply_block(&mut self, entry: &[u8]) {
        let applied = self.applied();
        self.log(entry);
        match self.chain.apply(applied, entry).unwrap() {
            Outcome::Block { accepted } => assert!(accepted),
            Outcome::Admitted(_) => unreachable!("a Block entry"),
        }
        let blockraft_primitives::LogEntry::Block(block) =
            blockraft_primitives::LogEntry::decode(entry).unwrap()
        else {
            unreachable!("a Block entry")
        };
        self.oracle.apply(&block.diff);
        assert_eq!(
            root_from_scratch(&self.oracle),
            block.header.state_root,
            "block {}",
            block.header.number
        );
    }
}

fn order_on(chain: &Chain, unapplied: &[Arc<Unapplied>], seconds: u64) -> BuildOrder {
    let head = chain.store.head();
    let parent = unapplied.last().map_or(&head, |block| &block.header);
    let mut in_flight = InFlight::new();
    for block in unapplied {
        in_flight.add(&block.transactions);
        in_flight.add_dropped(&block.dropped);
    }
    BuildOrder {
        parent: parent.hash(),
        timestamp: parent.timestamp + seconds,
        term: seconds,
        proposer: seconds,
        unapplied: unapplied.to_vec(),
        in_flight: Arc::new(in_flight),
    }
}

fn root_from_scratch(state: &MemoryState) -> B256 {
    let accounts: BTreeMap<_, _> = state.accounts.iter().collect();
    state_root_unhashed(accounts.into_iter().map(|(address, account)| {
        let slots = state.storage.get(address).into_iter().flatten();
        let slots: Vec<_> = slots.map(|(slot, value)| (B256::from(*slot), *value)).collect();
        let trie_account = TrieAccount {
            nonce: account.nonce,
            balance: account.balance,
            storage_root: storage_root_unhashed(slots),
            code_hash: account.code_hash,
        };
        (*address, trie_account)
    }))
}

/// Builds blocks, sometimes throws one away, sometimes persists, sometimes lets another node's view of
/// the same block (no trie ahead) apply it; at the end opens the directory again.
fn check_random_blocks(forks: &[(&str, u64)], seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let oracle = run_random_blocks(World::new(&path, forks, seed), BLOCK_COUNT, &path);
    assert!(oracle.storage.len() > 2, "the workload leaves storage behind");
}

fn run_random_blocks(mut world: World, blocks: u64, path: &Path) -> MemoryState {
    for _ in 0..blocks {
        world.admit_some();
        let proposal = world.build();
        match world.rng.random_range(0..4) {
            0 => world.chain.abandon(proposal.block.header.hash()).unwrap(),
            1 => {
                // Another block at the same height, as after a lost lead: the first is taken back.
                let other = world.build_on(&[], 2);
                assert_ne!(other.block.header, proposal.block.header);
            }
            _ => {}
        }
        world.apply_block(&proposal.entry);
        if world.rng.random_range(0..8) == 0 {
            world.chain.store.persist().unwrap();
        }
    }
    let (head, oracle) = (world.chain.store.head(), world.oracle.clone());
    assert_eq!(head.number, blocks);
    world.chain.store.persist().unwrap();
    drop(world);
    // Opening rebuilds the trie from flat state and holds it against the head's root.
    assert_eq!(open(path).store.head(), head);
    oracle
}

#[test]
fn random_blocks_with_self_destructs_and_wipes_have_the_root_of_a_from_scratch_trie() {
    check_random_blocks(&[("shanghai", 0)], 1);
}

#[test]
fn random_blocks_of_today_have_the_root_of_a_from_scratch_trie() {
    check_random_blocks(&[("shanghai", 0), ("cancun", 0), ("prague", 0), ("osaka", 0)], 2);
}

/// Deploys a contract and admits calls that each write slots of it: changes enough for many chunks.
fn admit_many(world: &mut World, count: u64) {
    let salt = B256::ZERO;
    let contract = DEPLOYER.create2(salt, keccak256([&INIT[..], &RUNTIME].concat()));
    let word = |value: u64| B256::from(U256::from(value)).to_vec();
    let mut transactions = vec![world.sign(DEPLOYER, 0, [&salt[..], &INIT, &RUNTIME].concat())];
    for n in 0..count {
        let (slot, value) = (world.rng.random_range(0..2_000), world.rng.random_range(0..9));
        transactions.push(world.sign(contract, 0, [word(0), word(slot), word(value)].concat()));
        transactions.push(world.sign(Address::left_padding_from(&[7, n as u8]), 1, Vec::new()));
    }
    let entry = AdmitBatch { transactions }.encode_entry();
    let applied = world.applied();
    world.chain.apply(applied, &entry).unwrap();
}

#[test]
fn a_block_that_reaches_the_trie_in_chunks_has_the_root_of_a_from_scratch_trie() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&dir.path().join("data"), &[("shanghai", 0)], 8);
    for _ in 0..4 {
        admit_many(&mut world, 250);
        let proposal = world.build();
        let count = proposal.block.transactions.len();
        assert!(
            count > 180,
            "{count} transactions, of three changes each, are more than one chunk"
        );
        world.apply_block(&proposal.entry);
    }
}

#[test]
fn what_a_block_wrote_before_it_failed_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&dir.path().join("data"), &[("shanghai", 0)], 9);
    admit_many(&mut world, 20);
    let expected = world.build();
    world.chain.abandon(expected.block.header.hash()).unwrap();
    let order = order_on(&world.chain, &[], 1);
    let streamed = Streamed::new(&world.chain, &order);
    for account in &expected.block.diff.accounts {
        streamed.add(StateDiff { accounts: vec![account.clone()], codes: Vec::new() });
    }
    streamed.write();
    streamed.abandon();
    let (number, _, roots) = world.chain.subtrie_roots().unwrap();
    assert_eq!(number, 0);
    let head = world.chain.store.head();
    assert_eq!(blockraft_trie::assemble_root(&roots).unwrap(), head.state_root);
    assert_eq!(world.build().block.header, expected.block.header);
    world.apply_block(&expected.entry);
}

#[test]
fn a_trie_without_memory_to_spare_follows_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    // One byte: all that can be dropped is, after every block.
    let world = World::with_crowd(&path, &[("shanghai", 0)], 4, 8_000, Some(1));
    run_random_blocks(world, 60, &path);
}

#[test]
fn a_chain_starts_from_its_checkpoint_and_rebuilds_where_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut world = World::with_crowd(&path, &[("shanghai", 0)], 5, 3_000, None);
    let checkpoint = path.join("trie.checkpoint");
    // As it is, with a bit flipped, cut, of an older block: the chain goes on with the right roots.
    for round in 0..4 {
        for _ in 0..5 {
            world.admit_some();
            let entry = world.build().entry;
            world.apply_block(&entry);
        }
        world.chain.store.persist().unwrap();
        let older = std::fs::read(&checkpoint).ok();
        world.chain.leave_trie_checkpoint().unwrap();
        let mut bytes = std::fs::read(&checkpoint).unwrap();
        match round {
            1 => bytes[1_000] ^= 1,
            2 => bytes.truncate(5_000),
            3 => bytes = older.unwrap(),
            _ => {}
        }
        std::fs::write(&checkpoint, bytes).unwrap();
        let head = world.chain.store.head();
        world.reopen(&path);
        assert_eq!(world.chain.store.head(), head);
        let proof = world.chain.prove(head.number, DEPLOYER, &[]).unwrap();
        assert_eq!(keccak256(&proof.nodes[0]), head.state_root);
    }
}

/// A proof holds against a state root.
fn verify(proof: &AccountProof, address: Address, root: B256) {
    let value = proof.account.map(|account| {
        alloy_rlp::encode(TrieAccount {
            nonce: account.nonce,
            balance: account.balance,
            storage_root: proof.storage_root,
            code_hash: account.code_hash,
        })
    });
    let key = alloy_trie::Nibbles::unpack(keccak256(address));
    alloy_trie::proof::verify_proof(root, key, value, &proof.nodes).unwrap();
}

#[test]
fn a_proof_that_is_asked_for_while_blocks_are_applied_is_of_the_block_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&dir.path().join("data"), &[("shanghai", 0)], 6);
    let leader = World::new(&dir.path().join("other"), &[("shanghai", 0)], 6);
    let entries: Vec<[Bytes; 2]> = entries_of(leader, 200);
    let (address, last) = (world.keys[0].address(), entries.len() as u64);
    std::thread::scope(|scope| {
        let chain = &world.chain;
        scope.spawn(move || {
            loop {
                let head = chain.store.head();
                let proof = chain.prove(head.number, address, &[]).unwrap();
                verify(&proof, address, head.state_root);
                if head.number == last {
                    return;
                }
            }
        });
        for entry in entries.iter().flatten() {
            world.index += 1;
            let position = LogPosition { term: 1, leader: 1, index: world.index };
            let applied = Applied { position: Some(position), ..chain.store.applied() };
            chain.apply(applied, entry).unwrap();
        }
    });
}

/// The log of a chain of so many blocks: transactions, then the block.
fn entries_of(mut world: World, blocks: usize) -> Vec<[Bytes; 2]> {
    let entries = (0..blocks).map(|_| {
        let transactions = (0..4).map(|_| world.random_transaction()).collect();
        let admit = AdmitBatch { transactions }.encode_entry();
        let applied = world.applied();
        world.chain.apply(applied, &admit).unwrap();
        let block = world.build().entry;
        let applied = world.applied();
        world.chain.apply(applied, &block).unwrap();
        [admit, block]
    });
    entries.collect()
}

#[test]
fn proofs_verify_at_the_head_and_behind_it_and_leave_the_trie_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&dir.path().join("data"), &[("shanghai", 0)], 3);
    for _ in 0..20 {
        world.admit_some();
        let entry = world.build().entry;
        world.apply_block(&entry);
    }
    for number in [20, 19, 10, 1] {
        let root = world.chain.store.header(number).unwrap().unwrap().state_root;
        for address in [world.keys[0].address(), DEPLOYER, Address::repeat_byte(0x99)] {
            let slots = [U256::from(3)];
            let proof = world.chain.prove(number, address, &slots).unwrap();
            // Built beside the head's trie, as for blocks far behind.
            assert_eq!(world.chain.prove_past(number, address, &slots).unwrap(), proof);
            verify(&proof, address, root);
        }
    }
    world.admit_some();
    let entry = world.build().entry;
    world.apply_block(&entry);
}

/// Blocks are built on up to two that are not applied; some are thrown away with all that stands on them,
/// proofs are made in between, and other leaders' blocks come instead.
fn check_pipelined_blocks(forks: &[(&str, u64)], seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut world = World::new(&path, forks, seed);
    let mut proposals: Vec<Proposal> = Vec::new();
    let (mut deep, mut transactions) = (0, 0);
    for _ in 0..BLOCK_COUNT {
        world.admit_some();
        let blocks: Vec<_> = proposals.iter().map(|proposal| proposal.block.clone()).collect();
        deep += usize::from(blocks.len() == 2);
        proposals.push(world.build_on(&blocks, 1));
        match world.rng.random_range(0..8) {
            0 => {
                let at = world.rng.random_range(0..proposals.len());
                world.chain.abandon(proposals[at].block.header.hash()).unwrap();
                proposals.truncate(at);
            }
            1 => {
                let (head, address) = (world.chain.store.head(), world.keys[0].address());
                let proof = world.chain.prove(head.number, address, &[]).unwrap();
                verify(&proof, address, head.state_root);
            }
            2 => {
                proposals = vec![world.build_on(&[], 2)];
                // As on a node that did not build it.
                world.chain.abandon(proposals[0].block.header.hash()).unwrap();
            }
            3 => {
                world.chain.store.persist().unwrap();
            }
            _ => {}
        }
        let kept = world.rng.random_range(0..3).min(proposals.len());
        for proposal in proposals.drain(..proposals.len() - kept) {
            transactions += proposal.block.transactions.len();
            world.apply_block(&proposal.entry);
        }
    }
    assert!(deep > 10 && transactions > 500, "{deep} {transactions}");
    world.chain.store.persist().unwrap();
    let head = world.chain.store.head();
    drop(world);
    assert_eq!(open(&path).store.head(), head);
}

#[test]
fn blocks_on_unapplied_ones_with_wipes_have_the_root_of_a_from_scratch_trie() {
    check_pipelined_blocks(&[("shanghai", 0)], 11);
}

#[test]
fn blocks_of_today_on_unapplied_ones_have_the_root_of_a_from_scratch_trie() {
    check_pipelined_blocks(&[("shanghai", 0), ("cancun", 0), ("prague", 0), ("osaka", 0)], 12);
}

#[test]
fn a_block_is_built_while_its_parent_is_applied_and_proofs_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(&dir.path().join("data"), &[("shanghai", 0)], 13);
    let address = world.keys[0].address();
    world.admit_some();
    let mut proposal = world.build();
    for _ in 0..BLOCK_COUNT {
        world.admit_some();
        let order = order_on(&world.chain, &[proposal.block.clone()], 1);
        world.index += 1;
        let position = LogPosition { term: 1, leader: 1, index: world.index };
        let chain = &world.chain;
        let applied = Applied { position: Some(position), ..chain.store.applied() };
        proposal = std::thread::scope(|scope| {
            let built = scope.spawn(|| chain.build(&order).unwrap());
            let proved = scope.spawn(|| {
                let head = chain.store.head();
                let proof = chain.prove(head.number, address, &[]).unwrap();
                verify(&proof, address, head.state_root);
            });
            chain.apply(applied, &proposal.entry).unwrap();
            proved.join().unwrap();
            built.join().unwrap()
        });
    }
    assert_eq!(world.chain.store.head().number, BLOCK_COUNT);
}
