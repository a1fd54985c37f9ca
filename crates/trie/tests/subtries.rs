//! Tries built from flat state, and subtries that move between nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

mod common;

use alloy_primitives::{B256, U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use blockraft_primitives::{Account, MemoryState, PartitionSet};
use blockraft_trie::{
    StateTrie, SubtrieBuilder, SubtrieExport, SubtrieRoot, TrieError, assemble_root,
};
use common::{Mix, expected_root, random_diff, rng};
use std::collections::BTreeMap;

type Flat = BTreeMap<B256, (Account, BTreeMap<B256, U256>)>;

/// The state as the flat store has it: sorted, by hashes.
fn flat(state: &MemoryState) -> Flat {
    let accounts = state.accounts.iter().map(|(address, account)| {
        let slots = state.storage.get(address).into_iter().flatten();
        let slots = slots.map(|(slot, value)| (keccak256(B256::from(*slot)), *value)).collect();
        (keccak256(address), (*account, slots))
    });
    accounts.collect()
}

fn build(flat: &Flat) -> StateTrie {
    StateTrie::build(|prefix, builder: &mut SubtrieBuilder| {
        for (key, (account, slots)) in flat.iter().filter(|(key, _)| key.0[0] == prefix) {
            builder.add_account(*key, account, slots.iter().map(|(k, v)| (*k, *v)))?;
        }
        Ok::<(), TrieError>(())
    })
    .unwrap()
}

/// A state of so many changes, and its trie as updates made it.
fn random_state(seed: u64, count: usize, mix: Mix) -> (MemoryState, StateTrie) {
    let mut rng = rng(seed);
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    for _ in 0..4 {
        let diff = random_diff(&mut rng, &state, &mix, count);
        state.apply(&diff);
        trie.update(&diff);
    }
    (state, trie)
}

fn all_roots(trie: &mut StateTrie) -> Vec<SubtrieRoot> {
    trie.subtrie_roots(&PartitionSet::ALL)
}

#[test]
fn a_trie_built_from_flat_state_equals_one_made_by_updates() {
    for (seed, count) in [(1, 1), (2, 3), (3, 40), (4, 3_000)] {
        let mix = Mix { accounts: 10_000, ..Mix::default() };
        let (mut state, mut updated) = random_state(seed, count, mix);
        let mut built = build(&flat(&state));
        assert_eq!(built.root(), expected_root(&state));
        assert_eq!(updated.root(), expected_root(&state));
        let mut rng = rng(seed);
        for _ in 0..3 {
            let diff = random_diff(&mut rng, &state, &mix, 200);
            state.apply(&diff);
            built.update(&diff);
            assert_eq!(built.root(), expected_root(&state));
        }
    }
}

#[test]
fn a_large_contract_is_built_split() {
    let mix = Mix {
        accounts: 3,
        slots: 40_000,
        slots_at_once: 40_000,
        deletions: 0,
        wipes: 0,
        ..Mix::default()
    };
    let (state, _) = random_state(5, 3, mix);
    assert_eq!(build(&flat(&state)).root(), expected_root(&state));
}

#[test]
fn flat_state_out_of_order_or_place_is_refused() {
    let account = Account::default();
    let key = |first: u8, last: u8| {
        let mut key = B256::with_last_byte(last);
        key.0[0] = first;
        key
    };
    let mut builder = SubtrieBuilder::new(7);
    builder.add_account(key(7, 2), &account, []).unwrap();
    for wrong in [key(7, 2), key(7, 1), key(8, 3)] {
        let error = builder.add_account(wrong, &account, []).unwrap_err();
        assert_eq!(error, TrieError::LeafOrder { prefix: 7, key: wrong });
    }
    let slots = [(key(1, 0), U256::ONE), (key(0, 0), U256::ONE)];
    let error = builder.add_account(key(7, 9), &account, slots).unwrap_err();
    assert_eq!(error, TrieError::LeafOrder { prefix: 7, key: key(0, 0) });
}

#[test]
fn the_state_root_follows_from_the_roots_of_all_subtries() {
    for (seed, count) in [(10, 0), (11, 1), (12, 2), (13, 20), (14, 2_000)] {
        let mix = Mix { accounts: 5_000, ..Mix::default() };
        let (state, mut trie) = random_state(seed, count, mix);
        let mut roots = all_roots(&mut trie);
        roots.reverse();
        assert_eq!(assemble_root(&roots), Ok(expected_root(&state)));
        for root in &roots {
            let mut bytes = Vec::new();
            root.encode(&mut bytes);
            assert_eq!(SubtrieRoot::decode(&mut bytes.as_slice()), Ok(root.clone()));
            assert_eq!(trie.subtrie_root(root.prefix()), *root);
        }
        assert_eq!(trie.root(), expected_root(&state));
        roots.pop();
        assert_eq!(assemble_root(&roots), Err(TrieError::IncompleteRoots { got: 255, given: 255 }));
    }
}

#[test]
fn owners_that_hash_only_their_own_subtries_give_one_root() {
    let mut rng = rng(20);
    let mix = Mix { accounts: 3_000, ..Mix::default() };
    let mut state = MemoryState::default();
    let mut owners = vec![StateTrie::new(); 3];
    for round in 0..8u8 {
        let diff = random_diff(&mut rng, &state, &mix, 400);
        state.apply(&diff);
        let mut roots = Vec::new();
        for (index, owner) in owners.iter_mut().enumerate() {
            owner.update(&diff);
            // Ownership moves from round to round.
            let owned: PartitionSet =
                (0..=255).filter(|p: &u8| (p / 7 + round) as usize % 3 == index).collect();
            roots.extend(owner.subtrie_roots(&owned));
        }
        assert_eq!(assemble_root(&roots), Ok(expected_root(&state)), "round {round}");
    }
    for owner in &mut owners {
        assert_eq!(owner.root(), expected_root(&state));
    }
}

#[test]
fn subtries_that_take_their_changes_later_and_together_come_to_the_same() {
    let mut rng = rng(21);
    let mix = Mix { accounts: 2_000, ..Mix::default() };
    let mut state = MemoryState::default();
    let mut trie = StateTrie::new();
    let own: PartitionSet = (0..=255).filter(|p: &u8| p.is_multiple_of(3)).collect();
    for round in 0..4 {
        let mut missed = Vec::new();
        let mut whole = trie.clone();
        for _ in 0..3 {
            let diff = random_diff(&mut rng, &state, &mix, 300);
            state.apply(&diff);
            whole.update(&diff);
            trie.push_to(&diff, &own).unwrap();
            assert_eq!(trie.subtrie_roots(&own), whole.subtrie_roots(&own), "round {round}");
            missed.push(diff);
        }
        for diff in &missed {
            trie.push_to(diff, &own.others()).unwrap();
        }
        assert_eq!(trie.root(), expected_root(&state), "round {round}");
    }
}

#[test]
fn a_subtrie_moves_to_another_node_and_is_verified() {
    let mix = Mix { accounts: 2_000, ..Mix::default() };
    let (state, mut trie) = random_state(30, 1_000, mix);
    let mut other = StateTrie::new();
    for root in all_roots(&mut trie) {
        let export = trie.export_subtrie(root.prefix());
        let mut bytes = Vec::new();
        export.encode(&mut bytes);
        let export = SubtrieExport::decode(&mut bytes.as_slice()).unwrap();
        other.replace_subtrie(export.build(&root).unwrap());

        let mut wrong = export.clone();
        if let Some(account) = wrong.accounts.first_mut() {
            account.balance += U256::ONE;
            let error = wrong.build(&root).unwrap_err();
            assert!(matches!(error, TrieError::SubtrieMismatch { .. }), "{error}");
        }
        let mut wrong = export.clone();
        if wrong.accounts.len() > 1 {
            wrong.accounts.swap(0, 1);
            let error = wrong.build(&root).unwrap_err();
            assert!(matches!(error, TrieError::LeafOrder { .. }), "{error}");
        }
    }
    assert_eq!(other.root(), expected_root(&state));
    assert_eq!(other.check_root(expected_root(&state)), Ok(()));
    let wrong = B256::repeat_byte(1);
    assert_eq!(
        other.check_root(wrong),
        Err(TrieError::RootMismatch { got: expected_root(&state), expected: wrong })
    );
}
