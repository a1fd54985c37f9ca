//! A small chain in memory to run blocks on.

use alloy_consensus::{
    Header, Sealable, Sealed, SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered,
};
use alloy_eips::{
    eip2935::{HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE},
    eip4788::{BEACON_ROOTS_ADDRESS, BEACON_ROOTS_CODE},
    eip7002::{WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, WITHDRAWAL_REQUEST_PREDEPLOY_CODE},
    eip7251::{CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, CONSOLIDATION_REQUEST_PREDEPLOY_CODE},
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{
    Address, B256, Bytes, Signature, TxKind, U256, address, keccak256, map::AddressMap,
};
use alloy_trie::{
    TrieAccount,
    root::{state_root_unhashed, storage_root_unhashed},
};
use blockraft_execution::{BlockAttributes, BuiltBlock, build_block, execute_block};
use blockraft_primitives::{Account, ChainSpec, MemoryState, Transaction, network};
use std::sync::Arc;

pub(crate) const CHAIN_ID: u64 = 1337;
pub(crate) const FEE_RECIPIENT: Address = address!("00000000000000000000000000000000000000fe");
pub(crate) const GWEI: u128 = 1_000_000_000;
pub(crate) const ETHER: u128 = 1_000_000_000_000_000_000;

/// A state and the block that it belongs to.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) spec: ChainSpec,
    pub(crate) state: MemoryState,
    pub(crate) head: Sealed<Header>,
}

/// The rules of a fork, by the suites' name, from the genesis on.
pub(crate) fn rules_of(fork: &str) -> ChainSpec {
    ChainSpec::new(&network(fork, CHAIN_ID).unwrap()).unwrap()
}

/// The rules of Osaka from the genesis on.
pub(crate) fn osaka() -> ChainSpec {
    rules_of("Osaka")
}

/// The rules of Cancun: self-destructs of old contracts no longer, requests not yet.
pub(crate) fn cancun() -> ChainSpec {
    rules_of("Cancun")
}

/// The rules of Shanghai: self-destructs wipe contracts, no blobs.
pub(crate) fn shanghai() -> ChainSpec {
    rules_of("Shanghai")
}

/// The account of a number: `user(1)` is a sender with funds on a new [`Chain`], up to `user(99)`.
pub(crate) fn user(number: u64) -> Address {
    Address::from_word(keccak256(number.to_be_bytes()))
}

impl Chain {
    /// Users with 1,000 ether each, the system contracts, and a genesis of 30 million gas.
    pub(crate) fn new(spec: ChainSpec) -> Self {
        let london = spec.is_london_active_at_block(0);
        let header = Header {
            gas_limit: 30_000_000,
            timestamp: 1,
            base_fee_per_gas: london.then_some(GWEI as u64),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            ..Default::default()
        };
        let mut chain = Self { spec, state: MemoryState::default(), head: header.seal_slow() };
        for number in 1..100 {
            chain.fund(user(number), 1_000 * ETHER);
        }
        chain.deploy(HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE.clone());
        chain.deploy(BEACON_ROOTS_ADDRESS, BEACON_ROOTS_CODE.clone());
        let requests = WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone();
        chain.deploy(WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, requests);
        let requests = CONSOLIDATION_REQUEST_PREDEPLOY_CODE.clone();
        chain.deploy(CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, requests);
        chain
    }

    /// Sets a balance.
    pub(crate) fn fund(&mut self, address: Address, wei: u128) {
        self.state.accounts.entry(address).or_default().balance = U256::from(wei);
    }

    /// Puts code at an address.
    pub(crate) fn deploy(&mut self, address: Address, code: impl Into<Bytes>) {
        let code = code.into();
        let code_hash = keccak256(&code);
        self.state.codes.insert(code_hash, code);
        let account = self.state.accounts.entry(address).or_default();
        *account = Account { nonce: 1, code_hash, ..*account };
    }

    /// The attributes of a block one second after the head.
    pub(crate) fn attributes(&self) -> BlockAttributes {
        BlockAttributes {
            timestamp: self.head.timestamp + 1,
            fee_recipient: FEE_RECIPIENT,
            gas_limit: self.head.gas_limit,
            prev_randao: keccak256(self.head.hash()),
            ..Default::default()
        }
    }

    /// Builds a block, checks that execution of the block agrees, and makes it the head.
    pub(crate) fn build(&mut self, candidates: &[Transaction]) -> BuiltBlock {
        let attributes = self.attributes();
        self.build_with(&attributes, candidates)
    }

    /// As [`Chain::build`], with chosen attributes.
    pub(crate) fn build_with(
        &mut self,
        attributes: &BlockAttributes,
        candidates: &[Transaction],
    ) -> BuiltBlock {
        let built =
            build_block(&self.spec, &self.state, &self.head, attributes, candidates).unwrap();
        let executed = execute_block(
            &self.spec,
            &self.state,
            &built.header,
            &built.transactions,
            &[],
            &attributes.withdrawals,
        )
        .unwrap();
        assert_eq!(
            (&executed.receipts, &executed.diff, executed.gas_used),
            (&built.receipts, &built.diff, built.gas_used)
        );
        built.diff.assert_sorted();
        self.state.apply(&built.diff);
        let sealed = built.clone().seal(state_root(&self.state));
        self.head = sealed.block.header.clone();
        self.state.block_hashes.insert(self.head.number, self.head.hash());
        built
    }

    /// The account as it is at the head.
    pub(crate) fn account(&self, address: Address) -> Account {
        self.state.accounts.get(&address).copied().unwrap_or_default()
    }
}

/// A transaction that calls `to`: 100,000 gas, a tip of 1 gwei and at most 10 gwei a gas.
pub(crate) fn call(nonce: u64, to: Address, value: u128) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 10 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: TxKind::Call(to),
        value: U256::from(value),
        ..Default::default()
    }
}

/// A transaction with its sender. Nothing here looks at signatures.
pub(crate) fn from<T>(sender: Address, tx: T) -> Transaction
where
    T: SignableTransaction<Signature>,
    TxEnvelope: From<alloy_consensus::Signed<T>>,
{
    let signed = tx.into_signed(Signature::test_signature());
    Arc::new(Recovered::new_unchecked(TxEnvelope::from(signed), sender))
}

/// State root by alloy-trie, from nothing but the flat state.
pub(crate) fn state_root(state: &MemoryState) -> B256 {
    let storage: AddressMap<B256> = state
        .storage
        .iter()
        .map(|(address, slots)| {
            (*address, storage_root_unhashed(slots.iter().map(|(k, v)| (B256::from(*k), *v))))
        })
        .collect();
    state_root_unhashed(state.accounts.iter().map(|(address, account)| {
        let storage_root = storage
            .get(address)
            .copied()
            .unwrap_or_else(|| storage_root_unhashed(std::iter::empty::<(B256, U256)>()));
        (
            *address,
            TrieAccount {
                nonce: account.nonce,
                balance: account.balance,
                storage_root,
                code_hash: account.code_hash,
            },
        )
    }))
}
