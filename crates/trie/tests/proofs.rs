//! Proofs satisfy alloy's verifier, for what exists and for what does not.

#![allow(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

mod common;

use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount, proof::verify_proof};
use blockraft_primitives::MemoryState;
use blockraft_trie::{AccountProof, RawTrie, StateTrie};
use common::{Mix, address, expected_storage_root, random_diff, rng};
use rand::Rng;
use std::collections::BTreeMap;

fn rlp(value: &impl Encodable) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

fn verify(root: B256, key: B256, value: Option<Vec<u8>>, nodes: &[Bytes]) {
    verify_proof(root, Nibbles::unpack(key), value, nodes).unwrap();
}

fn check(trie: &mut StateTrie, state: &MemoryState, n: u64, slots: &[U256]) {
    let root = trie.root();
    let account = state.accounts.get(&address(n)).copied();
    let proof: AccountProof = trie.prove(address(n), slots).unwrap();
    let storage_root =
        account.map_or(EMPTY_ROOT_HASH, |_| expected_storage_root(state, address(n)));
    assert_eq!((proof.account, proof.storage_root), (account, storage_root));
    let leaf = account.map(|account| {
        rlp(&TrieAccount {
            nonce: account.nonce,
            balance: account.balance,
            storage_root,
            code_hash: account.code_hash,
        })
    });
    verify(root, keccak256(address(n)), leaf, &proof.nodes);
    assert_eq!(proof.slots.iter().map(|s| s.slot).collect::<Vec<_>>(), slots);
    for slot in &proof.slots {
        let value = account.and_then(|_| state.storage.get(&address(n))?.get(&slot.slot).copied());
        assert_eq!(slot.value, value.unwrap_or_default());
        let key = keccak256(B256::from(slot.slot));
        verify(storage_root, key, value.map(|value| rlp(&value)), &slot.nodes);
    }
}

#[test]
fn accounts_and_slots_that_exist_or_not() {
    let mut rng = rng(1);
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    let slots: Vec<U256> = (0..50).map(U256::from).collect();
    check(&mut trie, &state, 0, &slots);
    // From one account, over rows and columns with a single one, to hundreds.
    for count in [1, 1, 1, 2, 3, 5, 10, 50, 400] {
        let diff = random_diff(&mut rng, &state, &Mix { deletions: 0, ..Mix::default() }, count);
        state.apply(&diff);
        trie.update(&diff);
        for n in 0..320 {
            check(&mut trie, &state, n, &slots);
        }
    }
}

#[test]
fn slots_of_a_split_contract() {
    let mut rng = rng(2);
    let (mut state, mut trie) = (MemoryState::default(), StateTrie::new());
    let mix = Mix {
        accounts: 1,
        slots: 50_000,
        slots_at_once: 30_000,
        deletions: 0,
        wipes: 0,
        zeros: 10,
    };
    for _ in 0..3 {
        let diff = random_diff(&mut rng, &state, &mix, 1);
        state.apply(&diff);
        trie.update(&diff);
        let slots: Vec<U256> = (0..300).map(|_| U256::from(rng.random_range(0..60_000))).collect();
        check(&mut trie, &state, 0, &slots);
    }
}

#[test]
fn nodes_that_lie_inside_their_parents() {
    let mut rng = rng(3);
    for _ in 0..200 {
        // Keys that differ at their ends only, with values short enough to be embedded.
        let mut values = BTreeMap::new();
        for _ in 0..rng.random_range(1..12) {
            let mut key = B256::repeat_byte(0x11);
            for _ in 0..rng.random_range(0..3) {
                key.0[rng.random_range(28..32)] = rng.random();
            }
            values.insert(key, Bytes::from(vec![7; rng.random_range(1..5)]));
        }
        let mut trie = RawTrie::build(&values);
        let root = trie.root();
        for (key, value) in &values {
            verify(root, *key, Some(value.to_vec()), &trie.prove(key));
            for index in [0, 15, 29, 31] {
                let mut absent = *key;
                absent.0[index] ^= 0x20;
                let value = values.get(&absent).map(|v| v.to_vec());
                verify(root, absent, value, &trie.prove(&absent));
            }
        }
    }
}
