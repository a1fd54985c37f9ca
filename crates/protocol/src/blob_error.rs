//! What can be wrong with blobs, in geth's words.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

/// Why the blobs of a transaction are not taken (geth: `core/txpool/validation.go`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum BlobError {
    /// The transaction as blocks hold it, without its blobs.
    #[error("missing sidecar in blob transaction")]
    MissingSidecar,
    /// Proofs of another fork: of blobs (version 0), or from Osaka on of cells (version 1, EIP-7594).
    #[error("unexpected sidecar version, want: {want}, got: {got}")]
    SidecarVersion {
        /// What the fork asks for.
        want: u8,
        /// What came.
        got: u8,
    },
    /// Less than the least that blob gas can cost.
    #[error("transaction gas price below minimum: blob fee cap {fee_cap}, minimum needed {needed}")]
    FeeTooLow {
        /// The transaction's, wei.
        fee_cap: u128,
        /// Wei.
        needed: u128,
    },
    /// No hash of a blob.
    #[error("blobless blob transaction")]
    NoBlobs,
    /// More than one transaction may have (EIP-7594).
    #[error("too many blobs in transaction: have {have}, permitted {permitted}")]
    TooManyBlobs {
        /// The transaction's.
        have: u64,
        /// At most.
        permitted: u64,
    },
    /// A blob too many or too few.
    #[error("invalid number of {blobs} blobs compared to {hashes} blob hashes")]
    BlobCount {
        /// In the sidecar.
        blobs: u64,
        /// In the transaction.
        hashes: u64,
    },
    /// A commitment too many or too few.
    #[error("invalid number of {commitments} blob commitments compared to {hashes} blob hashes")]
    CommitmentCount {
        /// In the sidecar.
        commitments: u64,
        /// In the transaction.
        hashes: u64,
    },
    /// The commitment of another blob.
    #[error("blob {index}: computed hash {computed:#x} mismatches transaction one {named:#x}")]
    Hash {
        /// Which blob.
        index: u64,
        /// Of the commitment.
        computed: B256,
        /// In the transaction.
        named: B256,
    },
    /// A proof too many or too few.
    #[error("invalid number of {got} blob proofs expected {expected}")]
    ProofCount {
        /// In the sidecar.
        got: u64,
        /// One a blob, or 128 a blob from Osaka on.
        expected: u64,
    },
    /// The proofs do not prove that the blobs are those of the commitments.
    #[error("KZG verification error: {0}")]
    Kzg(String),
}
