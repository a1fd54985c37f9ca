//! Whether a header says what execution gave.

use crate::{ExecutionError, error::HeaderMismatch, runner::Finished};
use alloy_consensus::Header;
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bloom};
use blockraft_primitives::ChainSpec;

/// What a header must say after execution, beside the state root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commitments {
    pub(crate) gas_used: u64,
    pub(crate) receipts_root: B256,
    /// Whether the receipts are complete: before Byzantium they need state roots, which are not always
    /// asked for.
    pub(crate) receipts_complete: bool,
    pub(crate) logs_bloom: Bloom,
    pub(crate) blob_gas_used: Option<u64>,
    pub(crate) requests_hash: Option<B256>,
}

impl Commitments {
    /// Fields that the fork does not have are absent.
    pub(crate) fn new(
        spec: &ChainSpec,
        timestamp: u64,
        finished: &Finished,
        (receipts_root, logs_bloom): (B256, Bloom),
    ) -> Self {
        let cancun = spec.is_cancun_active_at_timestamp(timestamp);
        let prague = spec.is_prague_active_at_timestamp(timestamp);
        let mut statuses = finished.receipts.iter().map(|receipt| &receipt.status);
        Self {
            gas_used: finished.gas_used,
            receipts_root,
            receipts_complete: statuses.all(|status| status.is_post_state()),
            logs_bloom,
            blob_gas_used: cancun.then_some(finished.blob_gas_used),
            requests_hash: prague.then(|| finished.requests.requests_hash()),
        }
    }

    /// Makes `header` say so.
    pub(crate) fn write(self, header: &mut Header) {
        header.gas_used = self.gas_used;
        header.receipts_root = self.receipts_root;
        header.logs_bloom = self.logs_bloom;
        header.blob_gas_used = self.blob_gas_used;
        header.requests_hash = self.requests_hash;
    }

    /// The first field of `header` that says otherwise. Receipts before Byzantium carry state roots;
    /// without these their root is not known.
    pub(crate) fn check(self, spec: &ChainSpec, header: &Header) -> Result<(), ExecutionError> {
        let mismatch = if header.gas_used != self.gas_used {
            HeaderMismatch::GasUsed { got: header.gas_used, expected: self.gas_used }
        } else if header.receipts_root != self.receipts_root
            && (self.receipts_complete || spec.is_byzantium_active_at_block(header.number))
        {
            HeaderMismatch::ReceiptsRoot { got: header.receipts_root, expected: self.receipts_root }
        } else if header.logs_bloom != self.logs_bloom {
            HeaderMismatch::LogsBloom {
                got: Box::new(header.logs_bloom),
                expected: Box::new(self.logs_bloom),
            }
        } else if header.blob_gas_used != self.blob_gas_used {
            HeaderMismatch::BlobGasUsed { got: header.blob_gas_used, expected: self.blob_gas_used }
        } else if header.requests_hash != self.requests_hash {
            HeaderMismatch::RequestsHash { got: header.requests_hash, expected: self.requests_hash }
        } else {
            return Ok(());
        };
        Err(mismatch.at(header))
    }
}
