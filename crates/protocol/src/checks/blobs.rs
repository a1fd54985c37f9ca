//! Blobs that travel beside a transaction (EIP-4844): versioned hashes, commitments and proofs.
//!
//! From Osaka on the proofs are of cells (EIP-7594), before they are of blobs; the fork at the head decides
//! which are taken.

use crate::BlobError;
use alloy_consensus::{Transaction as _, TxEip4844Variant};
use alloy_eips::{
    eip4844::{DATA_GAS_PER_BLOB, env_settings::EnvKzgSettings, kzg_to_versioned_hash},
    eip7594::{BlobTransactionSidecarVariant, CELLS_PER_EXT_BLOB},
};
use alloy_primitives::{B256, U256};
use blockraft_primitives::limits::BLOBS_PER_TX_MAX;

/// No blob gas is cheaper (EIP-4844), wei.
const BLOB_FEE_MIN: u128 = 1;

/// Checks the blobs of a transaction, in geth's order: what is cheap first, the proofs last.
pub(super) fn check(tx: &TxEip4844Variant, osaka: bool) -> Result<(), BlobError> {
    let sidecar = tx.sidecar().ok_or(BlobError::MissingSidecar)?;
    let (want, got) = (u8::from(osaka), u8::from(sidecar.is_eip7594()));
    if want != got {
        return Err(BlobError::SidecarVersion { want, got });
    }
    let fee_cap = tx.max_fee_per_blob_gas().unwrap_or_default();
    if fee_cap < BLOB_FEE_MIN {
        return Err(BlobError::FeeTooLow { fee_cap, needed: BLOB_FEE_MIN });
    }
    let hashes = tx.blob_versioned_hashes().unwrap_or_default();
    check_counts(sidecar, hashes.len() as u64)?;
    check_hashes(sidecar, hashes)?;
    sidecar
        .validate(hashes, EnvKzgSettings::Default.get())
        .map_err(|error| BlobError::Kzg(error.to_string()))
}

/// What the blobs of a transaction pay at most, wei.
pub(crate) fn blob_cost(blobs: usize, max_fee_per_blob_gas: u128) -> U256 {
    U256::from(blobs as u64 * DATA_GAS_PER_BLOB) * U256::from(max_fee_per_blob_gas)
}

fn check_counts(sidecar: &BlobTransactionSidecarVariant, hashes: u64) -> Result<(), BlobError> {
    if hashes == 0 {
        return Err(BlobError::NoBlobs);
    }
    let permitted = BLOBS_PER_TX_MAX as u64;
    if hashes > permitted {
        return Err(BlobError::TooManyBlobs { have: hashes, permitted });
    }
    let blobs = sidecar.blobs().len() as u64;
    if blobs != hashes {
        return Err(BlobError::BlobCount { blobs, hashes });
    }
    let commitments = sidecar.commitments().len() as u64;
    if commitments != hashes {
        return Err(BlobError::CommitmentCount { commitments, hashes });
    }
    Ok(())
}

fn check_hashes(sidecar: &BlobTransactionSidecarVariant, hashes: &[B256]) -> Result<(), BlobError> {
    for (index, (named, commitment)) in hashes.iter().zip(sidecar.commitments()).enumerate() {
        let computed = kzg_to_versioned_hash(commitment.as_slice());
        if computed != *named {
            return Err(BlobError::Hash { index: index as u64, computed, named: *named });
        }
    }
    let (got, expected) = match sidecar {
        BlobTransactionSidecarVariant::Eip4844(sidecar) => (sidecar.proofs.len(), hashes.len()),
        BlobTransactionSidecarVariant::Eip7594(sidecar) => {
            (sidecar.cell_proofs.len(), hashes.len() * CELLS_PER_EXT_BLOB)
        }
    };
    if got != expected {
        let (got, expected) = (got as u64, expected as u64);
        return Err(BlobError::ProofCount { got, expected });
    }
    Ok(())
}
