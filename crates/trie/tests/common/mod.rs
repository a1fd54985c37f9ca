//! A model state and random diffs over it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses some of it")]
#![allow(clippy::print_stdout, reason = "a failing test shows its seed")]

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::{
    TrieAccount,
    root::{state_root_unhashed, storage_root_unhashed},
};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, MemoryState, SlotChange, StateDiff,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;

pub fn rng(seed: u64) -> SmallRng {
    println!("seed {seed}");
    SmallRng::seed_from_u64(seed)
}

/// The n-th address that tests know.
pub fn address(n: u64) -> Address {
    Address::left_padding_from(&(n * 0x1_0000_0001).to_be_bytes())
}

/// The root of a model state, by alloy and from scratch.
pub fn expected_root(state: &MemoryState) -> B256 {
    state_root_unhashed(state.accounts.iter().map(|(address, account)| {
        let account = TrieAccount {
            nonce: account.nonce,
            balance: account.balance,
            storage_root: expected_storage_root(state, *address),
            code_hash: account.code_hash,
        };
        (*address, account)
    }))
}

pub fn expected_storage_root(state: &MemoryState, address: Address) -> B256 {
    let slots = state.storage.get(&address);
    storage_root_unhashed(
        slots.into_iter().flatten().map(|(slot, value)| (B256::from(*slot), *value)),
    )
}

/// How random diffs look.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Accounts and slots are drawn from so many.
    pub accounts: u64,
    pub slots: u64,
    /// Slots that one account change writes, at most.
    pub slots_at_once: usize,
    /// Parts of a hundred.
    pub deletions: u32,
    pub wipes: u32,
    pub zeros: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { accounts: 300, slots: 40, slots_at_once: 8, deletions: 15, wipes: 10, zeros: 40 }
    }
}

pub fn random_account(rng: &mut SmallRng) -> Account {
    let balance = match rng.random_range(0..10) {
        0 => U256::ZERO,
        1 => U256::MAX >> rng.random_range(0..130),
        2 => U256::from(rng.random_range(0..300u64)),
        _ => U256::from(rng.random::<u128>()) >> rng.random_range(0..100),
    };
    let has_code = rng.random_bool(0.2);
    let code_hash = if has_code { keccak256(rng.random::<[u8; 2]>()) } else { KECCAK256_EMPTY };
    Account { nonce: rng.random::<u64>() >> rng.random_range(0..64), balance, code_hash }
}

pub fn random_slots(rng: &mut SmallRng, mix: &Mix) -> Vec<SlotChange> {
    let count = rng.random_range(0..=mix.slots_at_once);
    let slots: BTreeMap<U256, U256> = (0..count)
        .map(|_| {
            let zero = rng.random_range(0..100) < mix.zeros;
            let value = if zero {
                U256::ZERO
            } else {
                U256::from(rng.random::<u128>() >> rng.random_range(0..127))
            };
            (U256::from(rng.random_range(0..mix.slots)), value)
        })
        .collect();
    slots.into_iter().map(|(slot, value)| SlotChange { slot, value }).collect()
}

/// A diff that touches `count` accounts, or fewer if one is drawn twice.
pub fn random_diff(rng: &mut SmallRng, state: &MemoryState, mix: &Mix, count: usize) -> StateDiff {
    let mut accounts = BTreeMap::new();
    for _ in 0..count {
        let address = address(rng.random_range(0..mix.accounts));
        let exists = state.accounts.contains_key(&address);
        let dice = rng.random_range(0..100);
        let (change, storage) = if dice < mix.deletions {
            (AccountChange::Deleted, Vec::new())
        } else if exists && dice % 3 == 0 {
            (AccountChange::Unchanged, random_slots(rng, mix))
        } else {
            (AccountChange::Set(random_account(rng)), random_slots(rng, mix))
        };
        let storage_wiped =
            change == AccountChange::Deleted || rng.random_range(0..100) < mix.wipes;
        accounts.insert(address, AccountDiff { address, change, storage_wiped, storage });
    }
    let diff = StateDiff { accounts: accounts.into_values().collect(), codes: Vec::new() };
    diff.assert_sorted();
    diff
}

/// The diff that takes `after` back to `before`, where `diff` led from one to the other.
pub fn inverse(diff: &StateDiff, before: &MemoryState, after: &MemoryState) -> StateDiff {
    let accounts = diff.accounts.iter().map(|change| {
        let address = change.address;
        let old_slots = before.storage.get(&address).cloned().unwrap_or_default();
        let new_slots = after.storage.get(&address).cloned().unwrap_or_default();
        let mut storage: BTreeMap<U256, U256> =
            new_slots.keys().map(|slot| (*slot, U256::ZERO)).collect();
        storage.extend(old_slots);
        let change = before
            .accounts
            .get(&address)
            .map_or(AccountChange::Deleted, |account| AccountChange::Set(*account));
        let storage = storage.into_iter().map(|(slot, value)| SlotChange { slot, value }).collect();
        AccountDiff { address, change, storage_wiped: false, storage }
    });
    StateDiff { accounts: accounts.collect(), codes: Vec::new() }
}
