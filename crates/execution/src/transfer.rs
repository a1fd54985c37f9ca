//! Plain transfers without the EVM.
//!
//! A transaction that only moves ether to an account without code does what a few additions do. This file
//! says when that is so, and what comes of it; whatever is not plainly a transfer that succeeds, refused
//! ones included, is left to the EVM, so no rule and no error is stated twice.

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_primitives::{Address, U256};
use blockraft_primitives::Account;
use revm::{
    context::{BlockEnv, Cfg, CfgEnv},
    primitives::hardfork::SpecId,
};

/// Gas of every plain transfer: 21,000 intrinsic, which is the floor of EIP-7623 as well.
pub(crate) const TRANSFER_GAS: u64 = 21_000;

/// What the block and the fork say about transfers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransferRules {
    /// Off before London (fees differ) and from Amsterdam on (gas and logs differ).
    enabled: bool,
    chain_id: u64,
    base_fee: u128,
    tx_gas_limit_max: u64,
    fee_recipient: Address,
}

/// What a transfer moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Wei to the receiver.
    pub(crate) value: U256,
    /// Wei that the sender pays for gas.
    pub(crate) fee: U256,
    /// The part of the fee that the fee recipient gets; the rest is burnt.
    pub(crate) tip: U256,
}

impl TransferRules {
    /// The rules of one block.
    pub(crate) fn new(cfg: &CfgEnv, block: &BlockEnv) -> Self {
        Self {
            enabled: cfg.spec >= SpecId::LONDON && cfg.spec < SpecId::AMSTERDAM,
            chain_id: cfg.chain_id,
            base_fee: u128::from(block.basefee),
            tx_gas_limit_max: cfg.tx_gas_limit_cap().min(block.gas_limit),
            fee_recipient: block.beneficiary,
        }
    }

    /// Receives the tips.
    pub(crate) fn fee_recipient(&self) -> Address {
        self.fee_recipient
    }

    /// The receiver of a transaction that may be a plain transfer, going by its own fields.
    pub(crate) fn receiver_of(&self, tx: &TxEnvelope) -> Option<Address> {
        if !tx.input().is_empty() {
            return None;
        }
        let plain = match tx {
            TxEnvelope::Legacy(_) => true,
            TxEnvelope::Eip2930(tx) => tx.tx().access_list.is_empty(),
            TxEnvelope::Eip1559(tx) => tx.tx().access_list.is_empty(),
            TxEnvelope::Eip4844(_) | TxEnvelope::Eip7702(_) => false,
        };
        let chain = match tx.chain_id() {
            Some(chain_id) => chain_id == self.chain_id,
            None => tx.is_legacy(),
        };
        let gas = (TRANSFER_GAS..=self.tx_gas_limit_max).contains(&tx.gas_limit());
        let max_fee = tx.max_fee_per_gas();
        let price = max_fee >= self.base_fee
            && tx.max_priority_fee_per_gas().is_none_or(|priority| priority <= max_fee);
        let plain = self.enabled && plain && chain && gas && price;
        tx.to().filter(|to| plain && !is_reserved(to))
    }

    /// The transfer, if the sender can make it: no code, the nonce right, funds enough. That the receiver
    /// has no code either, and that no empty account is touched (EIP-161), is for the caller to see.
    pub(crate) fn resolve(&self, tx: &TxEnvelope, sender: &Account) -> Option<Transfer> {
        let value = tx.value();
        let worst_fee = U256::from(tx.max_fee_per_gas()) * U256::from(tx.gas_limit());
        let fits = sender.nonce == tx.nonce()
            && sender.nonce < u64::MAX - 1
            && !sender.has_code()
            && value.checked_add(worst_fee).is_some_and(|total| total <= sender.balance);
        if !fits {
            return None;
        }
        let price = tx.effective_gas_price(Some(self.base_fee as u64));
        let gas = U256::from(TRANSFER_GAS);
        Some(Transfer {
            value,
            fee: U256::from(price) * gas,
            tip: U256::from(price - self.base_fee) * gas,
        })
    }
}

/// Precompiles of every fork, known and to come, have tiny addresses.
fn is_reserved(address: &Address) -> bool {
    address.0[..18].iter().all(|byte| *byte == 0)
}
