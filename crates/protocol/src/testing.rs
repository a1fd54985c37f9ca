//! What the unit tests of this crate share.

use crate::AdmissionRules;
use alloy_consensus::{Header, SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_genesis::ChainConfig;
use alloy_primitives::{Address, Signature, TxKind, U256};
use blockraft_primitives::{Account, ChainSpec, ClusterOptions, Transaction, network};
use std::sync::Arc;

pub(crate) const CHAIN_ID: u64 = 1337;
pub(crate) const BLOCK_GAS: u64 = 30_000_000;

/// All forks to Osaka from genesis.
pub(crate) fn osaka() -> ChainConfig {
    network("Osaka", CHAIN_ID).expect("a network of this name")
}

pub(crate) fn rules_of(config: &ChainConfig) -> AdmissionRules {
    let spec = ChainSpec::new(config).expect("forks are in order");
    let head = Header { gas_limit: BLOCK_GAS, ..Header::default() };
    AdmissionRules::at(&spec, &head, &ClusterOptions::default())
}

pub(crate) fn rules() -> AdmissionRules {
    rules_of(&osaka())
}

pub(crate) fn sender(number: u64) -> Address {
    Address::left_padding_from(&(0xa11c_e000 + number).to_be_bytes())
}

pub(crate) fn account(nonce: u64, balance: u64) -> Account {
    Account { nonce, balance: U256::from(balance), ..Account::default() }
}

/// A transfer of nothing that costs `21_000 * fee` wei at most. Nobody has signed it.
pub(crate) fn transfer(from: u64, nonce: u64, fee: u128) -> Transaction {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: fee,
        to: TxKind::Call(Address::ZERO),
        ..TxEip1559::default()
    };
    unsigned(from, tx)
}

/// The signature only makes the hashes of different senders differ.
pub(crate) fn unsigned(from: u64, tx: TxEip1559) -> Transaction {
    let signature = Signature::new(U256::from(from + 1), U256::from(1), false);
    let envelope = TxEnvelope::Eip1559(tx.into_signed(signature));
    Arc::new(Recovered::new_unchecked(envelope, sender(from)))
}
