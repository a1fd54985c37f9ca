//! A body against its header.

use super::ConsensusError;
use alloy_consensus::{
    Block, Transaction as _, TxEip4844Variant, TxEnvelope,
    proofs::{calculate_ommers_root, calculate_transaction_root, calculate_withdrawals_root},
};
use alloy_eips::eip4844::DATA_GAS_PER_BLOB;
use alloy_hardforks::EthereumHardforks;
use alloy_rlp::Encodable;
use blockraft_primitives::ChainSpec;

/// RLP of a block from Osaka on: 10 MiB less a margin of 2 MiB (EIP-7934).
const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Whether the body is the one that the header speaks of, and one that the fork allows. Needs no state.
pub fn check_body(spec: &ChainSpec, block: &Block<TxEnvelope>) -> Result<(), ConsensusError> {
    let Block { header, body } = block;
    let osaka = spec.is_osaka_active_at_timestamp(header.timestamp);
    if osaka && block.length() > BLOCK_BYTES_MAX {
        return Err(ConsensusError::BlockSize { got: block.length(), limit: BLOCK_BYTES_MAX });
    }
    for (index, tx) in body.transactions.iter().enumerate() {
        if let TxEnvelope::Eip4844(tx) = tx
            && matches!(tx.tx(), TxEip4844Variant::TxEip4844WithSidecar(_))
        {
            return Err(ConsensusError::BlobSidecar { index });
        }
    }
    let expected = calculate_transaction_root(&body.transactions);
    if header.transactions_root != expected {
        let got = header.transactions_root;
        return Err(ConsensusError::TransactionsRoot { got, expected });
    }
    let expected = calculate_ommers_root(&body.ommers);
    if header.ommers_hash != expected {
        return Err(ConsensusError::OmmersHash { got: header.ommers_hash, expected });
    }
    let expected = body.withdrawals.as_ref().map(|list| calculate_withdrawals_root(list));
    if header.withdrawals_root != expected {
        let got = header.withdrawals_root;
        return Err(ConsensusError::WithdrawalsRoot { got, expected });
    }
    check_blob_gas(spec, block)
}

fn check_blob_gas(spec: &ChainSpec, block: &Block<TxEnvelope>) -> Result<(), ConsensusError> {
    let Some(params) = spec.blob_params(block.header.timestamp) else { return Ok(()) };
    let sum: u64 = block.body.transactions.iter().filter_map(|tx| tx.blob_gas_used()).sum();
    let limit = params.max_blob_count * DATA_GAS_PER_BLOB;
    if sum > limit {
        return Err(ConsensusError::TooManyBlobs { got: sum, limit });
    }
    match block.header.blob_gas_used {
        Some(got) if got != sum => Err(ConsensusError::BlobGasUsed { got, expected: sum }),
        _ => Ok(()),
    }
}
