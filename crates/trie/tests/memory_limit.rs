//! A trie under a memory limit has the roots and the proofs of one without, over a flat state that lags
//! behind as the one on disk does.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

mod common;

use alloy_primitives::{Address, B256, U256, keccak256};
use blockraft_primitives::{Account, MemoryState, StateDiff};
use blockraft_trie::{FlatState, StateTrie, TrieError};
use common::{Mix, address, expected_root, random_diff, rng};
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

type Slots = BTreeMap<B256, U256>;

/// What is "on disk": sorted by hash.
#[derive(Debug, Default)]
struct Disk {
    accounts: Mutex<BTreeMap<B256, (Account, Slots)>>,
    reads: Mutex<usize>,
}

impl Disk {
    fn persist(&self, state: &MemoryState) {
        let accounts = state.accounts.iter().map(|(address, account)| {
            let slots = state.storage.get(address).into_iter().flatten();
            let slots = slots
                .filter(|(_, value)| !value.is_zero())
                .map(|(slot, value)| (keccak256(B256::from(*slot)), *value));
            (keccak256(address), (*account, slots.collect()))
        });
        *self.accounts.lock().unwrap() = accounts.collect();
    }
}

impl FlatState for Disk {
    fn accounts(
        &self,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, Account),
    ) -> Result<(), String> {
        *self.reads.lock().unwrap() += 1;
        let accounts = self.accounts.lock().unwrap();
        accounts.range(from..=to).for_each(|(key, (account, _))| visit(*key, *account));
        Ok(())
    }

    fn slots(
        &self,
        account: B256,
        from: B256,
        to: B256,
        visit: &mut dyn FnMut(B256, U256),
    ) -> Result<(), String> {
        let accounts = self.accounts.lock().unwrap();
        let Some((_, slots)) = accounts.get(&account) else { return Ok(()) };
        slots.range(from..=to).for_each(|(key, value)| visit(*key, *value));
        Ok(())
    }
}

/// A limited trie beside a whole one, and what is on disk.
struct Pair {
    state: MemoryState,
    whole: StateTrie,
    limited: StateTrie,
    disk: Arc<Disk>,
    unpersisted: BTreeSet<B256>,
    bytes_max: usize,
}

impl Pair {
    fn new(bytes_max: usize) -> Self {
        let disk = Arc::new(Disk::default());
        let mut limited = StateTrie::new();
        limited.limit_memory(bytes_max, disk.clone());
        let (state, whole) = (MemoryState::default(), StateTrie::new());
        Self { state, whole, limited, disk, unpersisted: BTreeSet::new(), bytes_max }
    }

    fn apply(&mut self, diff: &StateDiff) {
        self.state.apply(diff);
        self.whole.update(diff);
        self.limited.push(diff).unwrap();
        assert_eq!(self.limited.root(), self.whole.root());
        self.unpersisted.extend(diff.accounts.iter().map(|a| keccak256(a.address)));
    }

    fn persist(&mut self) {
        self.disk.persist(&self.state);
        self.unpersisted.clear();
    }

    fn check_proof(&mut self, address: Address, slots: &[U256]) {
        let proof = self.limited.prove(address, slots).unwrap();
        assert_eq!(proof, self.whole.prove(address, slots).unwrap(), "{address}");
    }
}

fn run(seed: u64, mix: Mix, size: usize, steps: usize, bytes_max: usize) -> Pair {
    let mut rng = rng(seed);
    let mut pair = Pair::new(bytes_max);
    for step in 0..steps {
        let count = rng.random_range(1..=size);
        let diff = random_diff(&mut rng, &pair.state, &mix, count);
        pair.apply(&diff);
        if rng.random_range(0..3) == 0 {
            pair.persist();
        }
        let bytes = pair.limited.shrink(&pair.unpersisted);
        if pair.unpersisted.is_empty() && bytes_max > 0 {
            assert!(bytes <= bytes_max, "step {step}: {bytes} bytes, the limit is {bytes_max}");
        }
        for _ in 0..3 {
            let slots = [U256::from(rng.random_range(0..mix.slots)), U256::MAX];
            pair.check_proof(address(rng.random_range(0..mix.accounts + 5)), &slots);
        }
    }
    assert_eq!(pair.limited.root(), expected_root(&pair.state));
    pair
}

#[test]
fn accounts_that_were_dropped_come_back_when_they_change() {
    // A limit of nothing drops all that can be dropped after every step.
    for seed in 0..8 {
        let pair = run(seed, Mix { accounts: 800, ..Mix::default() }, 120, 60, 0);
        assert!(*pair.disk.reads.lock().unwrap() > 50, "much was read back");
    }
}

#[test]
fn few_accounts_with_deletions_collapse_over_dropped_neighbours() {
    for seed in 10..40 {
        let mix = Mix { accounts: 40, slots: 12, deletions: 40, wipes: 10, ..Mix::default() };
        run(seed, mix, 8, 60, 0);
    }
}

#[test]
fn storage_of_every_size_is_dropped_and_comes_back() {
    for (seed, slots, at_once) in [(50, 40, 20), (51, 900, 300), (52, 30_000, 9_000)] {
        let mix =
            Mix { accounts: 4, slots, slots_at_once: at_once, deletions: 3, wipes: 3, zeros: 40 };
        run(seed, mix, 3, 25, 0);
    }
}

#[test]
fn a_state_larger_than_the_limit_is_held_under_it() {
    let mix = Mix { accounts: 60_000, slots_at_once: 2, deletions: 5, ..Mix::default() };
    let mut rng = rng(70);
    let mut pair = Pair::new(usize::MAX);
    let filling = random_diff(&mut rng, &pair.state, &mix, 50_000);
    pair.apply(&filling);
    pair.persist();
    pair.bytes_max = pair.whole.memory_bytes() / 3;
    pair.limited.limit_memory(pair.bytes_max, pair.disk.clone());
    for _ in 0..12 {
        let bytes = pair.limited.shrink(&pair.unpersisted);
        assert!(bytes <= pair.bytes_max, "{bytes}");
        let diff = random_diff(&mut rng, &pair.state, &mix, 500);
        pair.apply(&diff);
        pair.persist();
        pair.check_proof(address(rng.random_range(0..60_000)), &[U256::ZERO]);
    }
    assert_eq!(pair.limited.root(), expected_root(&pair.state));
    assert_eq!(pair.limited.account_count(), pair.state.accounts.len());
}

#[test]
fn a_trie_is_built_within_its_limit() {
    let mix = Mix { accounts: 30_000, slots_at_once: 2, ..Mix::default() };
    let mut pair = Pair::new(usize::MAX);
    let filling = random_diff(&mut rng(71), &pair.state, &mix, 20_000);
    pair.apply(&filling);
    pair.persist();
    let bytes_max = pair.whole.memory_bytes() / 3;
    let disk = pair.disk.clone();
    let accounts = disk.accounts.lock().unwrap().clone();
    let mut built = StateTrie::build_within::<TrieError>(bytes_max, disk, |prefix, builder| {
        let mut low = B256::ZERO;
        low.0[0] = prefix;
        let within = accounts.range(low..).take_while(|(key, _)| key.0[0] == prefix);
        for (key, (account, slots)) in within {
            builder.add_account(*key, account, slots.iter().map(|(k, v)| (*k, *v)))?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(built.root(), pair.whole.root());
    assert!(built.memory_bytes() <= bytes_max, "{} of {bytes_max}", built.memory_bytes());
    let proof = built.prove(address(17), &[U256::ZERO]).unwrap();
    assert_eq!(proof, pair.whole.prove(address(17), &[U256::ZERO]).unwrap());
}

#[test]
fn a_trie_starts_from_its_checkpoint_and_from_no_other() {
    let mix = Mix { accounts: 9_000, slots_at_once: 90, slots: 500, ..Mix::default() };
    let mut rng = rng(73);
    let mut pair = Pair::new(usize::MAX);
    for _ in 0..4 {
        let filling = random_diff(&mut rng, &pair.state, &mix, 3_000);
        pair.apply(&filling);
    }
    pair.persist();
    let block = B256::repeat_byte(0xb1);
    let root = pair.whole.root();
    let bytes = pair.limited.checkpoint(block);
    let start = |bytes: &[u8], block, root| {
        StateTrie::from_checkpoint(bytes, block, root, usize::MAX, pair.disk.clone())
    };

    assert!(start(&bytes, B256::ZERO, root).unwrap_err().to_string().contains("another block"));
    let other_root = start(&bytes, block, B256::ZERO).unwrap_err();
    assert_eq!(other_root, TrieError::RootMismatch { got: root, expected: B256::ZERO });
    for len in [0, 1, 31, 32, 100, bytes.len() / 2, bytes.len() - 1] {
        assert!(
            matches!(start(&bytes[..len], block, root), Err(TrieError::Checkpoint(_))),
            "{len}"
        );
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 200) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(matches!(start(&flipped, block, root), Err(TrieError::Checkpoint(_))), "{at}");
        // One that hides the damage from the hash of the file: the root tells, or nothing is wrong but
        // what is held against the flat state when it is read.
        let content = flipped.len() - 32;
        let hash = keccak256(&flipped[..content]);
        flipped[content..].copy_from_slice(hash.as_slice());
        if let Ok(mut trie) = start(&flipped, block, root) {
            assert_eq!(trie.root(), root);
        }
    }

    let mut started = start(&bytes, block, root).unwrap();
    assert!(bytes.len() * 4 < pair.whole.memory_bytes(), "{} bytes", bytes.len());
    for n in 0..300 {
        let slots = [U256::from(n)];
        let proof = started.prove(address(n), &slots).unwrap();
        assert_eq!(proof, pair.whole.prove(address(n), &slots).unwrap());
    }
    for _ in 0..5 {
        let diff = random_diff(&mut rng, &pair.state, &mix, 1_000);
        pair.state.apply(&diff);
        pair.whole.update(&diff);
        started.push(&diff).unwrap();
        assert_eq!(started.root(), pair.whole.root());
    }
}

#[test]
fn a_flat_state_that_is_not_the_tries_is_refused() {
    let mut pair = Pair::new(0);
    let filling = random_diff(&mut rng(72), &pair.state, &Mix::default(), 3_000);
    pair.apply(&filling);
    pair.persist();
    pair.limited.shrink(&BTreeSet::new());
    for (account, _) in pair.disk.accounts.lock().unwrap().values_mut() {
        account.balance += U256::ONE;
    }
    let refused = (0..200).find_map(|n| pair.limited.prove(address(n), &[]).err());
    assert!(matches!(refused, Some(TrieError::FlatStateDiffers { .. })), "{refused:?}");
}

#[test]
fn write_sets_pushed_one_by_one_give_the_root_of_the_whole_block() {
    for seed in 80..90 {
        let mut rng = rng(seed);
        let mix = Mix { accounts: 200, deletions: 20, ..Mix::default() };
        let mut state = MemoryState::default();
        let (mut streamed, mut whole) = (StateTrie::new(), StateTrie::new());
        for _ in 0..10 {
            // The write sets of one block's transactions: later ones write over earlier ones.
            for _ in 0..20 {
                let diff = random_diff(&mut rng, &state, &mix, 5);
                state.apply(&diff);
                streamed.push(&diff).unwrap();
                whole.update(&diff);
                whole.root();
            }
            assert_eq!(streamed.root(), whole.root());
            assert_eq!(streamed.root(), expected_root(&state));
        }
    }
}
