//! Blobs of the pool, for consensus clients that have only seen their hashes.

use super::{EngineError, rules::Fork};
use crate::{api::Api, errors::RpcResult};
use alloy_consensus::TxEnvelope;
use alloy_eips::{
    eip4844::{BlobAndProofV1, BlobAndProofV2},
    eip7594::BlobTransactionSidecarVariant,
};
use alloy_primitives::B256;
use blockraft_primitives::limits::ENGINE_BLOBS_COUNT_MAX;

/// `engine_getBlobsV1`: in the order asked for, `null` where the pool does not hold the blob. Blobs with the
/// proofs of before Osaka.
pub(super) fn v1(api: &Api, hashes: &[B256]) -> RpcResult<Vec<Option<BlobAndProofV1>>> {
    check_count(hashes)?;
    let fork = Fork::at(api.spec(), api.store.head().timestamp);
    if fork >= Fork::Osaka {
        let problem = format!("getBlobsV1 is not for blocks of {fork}");
        return Err(EngineError::UnsupportedFork(problem).into());
    }
    let mut found = vec![None; hashes.len()];
    each_sidecar(api, |sidecar| {
        if let BlobTransactionSidecarVariant::Eip4844(sidecar) = sidecar {
            for (at, blob) in sidecar.match_versioned_hashes(hashes) {
                found[at] = Some(blob);
            }
        }
    });
    Ok(found)
}

/// `engine_getBlobsV2`: all that were asked for, with the proofs of their cells, or `null`.
pub(super) fn v2(api: &Api, hashes: &[B256]) -> RpcResult<Option<Vec<BlobAndProofV2>>> {
    check_count(hashes)?;
    let mut found = vec![None; hashes.len()];
    each_sidecar(api, |sidecar| {
        if let BlobTransactionSidecarVariant::Eip7594(sidecar) = sidecar {
            for (at, blob) in sidecar.match_versioned_hashes(hashes) {
                found[at] = Some(blob);
            }
        }
    });
    Ok(found.into_iter().collect())
}

fn check_count(hashes: &[B256]) -> Result<(), EngineError> {
    if hashes.len() > ENGINE_BLOBS_COUNT_MAX {
        let (count, max) = (hashes.len(), ENGINE_BLOBS_COUNT_MAX);
        return Err(EngineError::TooLarge(format!("{count} blobs, at most {max} at once")));
    }
    Ok(())
}

fn each_sidecar(api: &Api, mut look: impl FnMut(&BlobTransactionSidecarVariant)) {
    for record in api.pool.read().records() {
        if let TxEnvelope::Eip4844(tx) = record.transaction.inner()
            && let Some(sidecar) = tx.tx().sidecar()
        {
            look(sidecar);
        }
    }
}
