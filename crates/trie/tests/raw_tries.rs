//! Tries over keys that nobody hashed: long shared prefixes, embedded nodes, collapsing extensions.

mod common;

use alloy_primitives::{B256, Bytes};
use alloy_trie::{HashBuilder, Nibbles};
use blockraft_trie::{RawTrie, plain_root};
use common::rng;
use proptest::prelude::*;
use rand::Rng;
use std::collections::BTreeMap;

fn plain(values: &BTreeMap<B256, Bytes>) -> B256 {
    plain_root(&values.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

#[test]
fn the_slow_twin_equals_alloys_hash_builder() {
    let mut rng = rng(1);
    for count in [0, 1, 2, 3, 10, 100, 3_000] {
        let values: BTreeMap<B256, Bytes> = (0..count)
            .map(|_| (B256::from(rng.random::<[u8; 32]>()), Bytes::from(rng.random::<[u8; 40]>())))
            .collect();
        let mut builder = HashBuilder::default();
        for (key, value) in &values {
            builder.add_leaf(Nibbles::unpack(key), value);
        }
        assert_eq!(plain(&values), builder.root());
        assert_eq!(RawTrie::build(&values).root(), plain(&values));
    }
}

#[test]
fn long_values_are_hashed_too() {
    let mut rng = rng(2);
    let mut trie = RawTrie::default();
    let mut values = BTreeMap::new();
    for len in (0..700).step_by(7) {
        let key = B256::from(rng.random::<[u8; 32]>());
        let value = Bytes::from(vec![len as u8; len + 1]);
        trie.set(key, value.clone());
        values.insert(key, value);
        assert_eq!(trie.root(), plain(&values));
    }
}

/// A key of few different nibbles at the places given, so that prefixes are shared in all lengths.
fn key() -> impl Strategy<Value = B256> {
    prop::collection::vec((0usize..64, 1u8..4), 0..4).prop_map(|nibbles| {
        let mut key = B256::ZERO;
        for (index, digit) in nibbles {
            key.0[index / 2] |= if index % 2 == 0 { digit << 4 } else { digit };
        }
        key
    })
}

/// Empty removes; short is embedded near the end of a key; long never is.
fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        2 => Just(Bytes::new()),
        3 => (1u8..=255).prop_map(|byte| Bytes::from(vec![byte])),
        2 => prop::collection::vec(any::<u8>(), 2..34).prop_map(Bytes::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_history_of_writes_ends_in_the_root_of_its_values(
        batches in prop::collection::vec(prop::collection::vec((key(), value()), 1..20), 1..12),
    ) {
        let mut trie = RawTrie::default();
        let mut values = BTreeMap::new();
        for batch in batches {
            for (key, value) in batch {
                trie.set(key, value.clone());
                if value.is_empty() {
                    values.remove(&key);
                } else {
                    values.insert(key, value);
                }
            }
            prop_assert_eq!(trie.root(), plain(&values));
            prop_assert_eq!(RawTrie::build(&values).root(), plain(&values));
        }
    }
}
