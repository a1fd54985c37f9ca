//! Proofs that an account or a slot has a value, or that there is none (EIP-1186).

use crate::{
    StateTrie,
    storage_trie::{StorageTrie, slot_key},
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use blockraft_primitives::Account;

/// What `eth_getProof` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountProof {
    /// The account; `None` if the proof shows its absence.
    pub account: Option<Account>,
    /// Of its storage.
    pub storage_root: B256,
    /// RLP of the nodes from the state root to the account, or to where its path ends.
    pub nodes: Vec<Bytes>,
    /// One for each slot asked for, in that order.
    pub slots: Vec<SlotProof>,
}

/// The value of one slot and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotProof {
    /// The slot's number, not hashed.
    pub slot: U256,
    /// Zero if the proof shows its absence.
    pub value: U256,
    /// RLP of the nodes from the storage root to the slot, or to where its path ends.
    pub nodes: Vec<Bytes>,
}

impl StateTrie {
    /// Proves an account and some of its slots against [`Self::root`]. Hashes what changed.
    pub fn prove(&mut self, address: Address, slots: &[U256]) -> AccountProof {
        self.root();
        let storage_root = self.storage_root(address).unwrap_or(EMPTY_ROOT_HASH);
        let storage = self.storage_trie(address);
        AccountProof {
            account: self.account(address),
            storage_root,
            nodes: self.accounts.prove(&keccak256(address)),
            slots: slots.iter().map(|slot| prove_slot(storage, *slot)).collect(),
        }
    }
}

fn prove_slot(storage: Option<&StorageTrie>, slot: U256) -> SlotProof {
    let key = slot_key(slot);
    SlotProof {
        slot,
        value: storage.map_or(U256::ZERO, |storage| storage.get(&key)),
        nodes: storage.map_or_else(Vec::new, |storage| storage.prove(&key)),
    }
}
