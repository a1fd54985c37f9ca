//! Senders by the rules of a block's fork.

use super::ConsensusError;
use alloy_consensus::{
    Transaction as _, TxEnvelope,
    transaction::{Recovered, SignerRecoverable},
};
use alloy_hardforks::EthereumHardforks;
use blockraft_primitives::{ChainSpec, Transaction};
use std::sync::Arc;

/// The sender of the transaction at `index` of block `number`. From Homestead on a signature's `s` is low
/// (EIP-2); before Spurious Dragon there is no replay protection (EIP-155).
pub fn recover(
    spec: &ChainSpec,
    number: u64,
    index: usize,
    tx: TxEnvelope,
) -> Result<Transaction, ConsensusError> {
    if tx.is_legacy() && tx.chain_id().is_some() && !spec.is_spurious_dragon_active_at_block(number)
    {
        return Err(ConsensusError::ReplayProtection { index });
    }
    let signer = if spec.is_homestead_active_at_block(number) {
        tx.recover_signer()
    } else {
        tx.recover_signer_unchecked()
    };
    let signer = signer.map_err(|_| ConsensusError::Signature { index })?;
    Ok(Arc::new(Recovered::new_unchecked(tx, signer)))
}
