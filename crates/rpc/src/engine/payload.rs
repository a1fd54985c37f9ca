//! Payloads to blocks and back.

use super::{
    BuiltPayload,
    rules::{Beside, Fork},
};
use alloy_consensus::{
    Block, BlockBody, EMPTY_OMMER_ROOT_HASH, Header, Transaction as _, TxEnvelope,
    proofs::{calculate_withdrawals_root, ordered_trie_root_encoded},
};
use alloy_eips::{
    eip2718::Decodable2718,
    eip4895::{Withdrawal, Withdrawals},
    eip7594::BlobTransactionSidecarVariant,
    eip7685::Requests,
};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256};
use alloy_rpc_types_engine::{
    BlobsBundleV1, BlobsBundleV2, ExecutionPayloadEnvelopeV2, ExecutionPayloadEnvelopeV3,
    ExecutionPayloadEnvelopeV4, ExecutionPayloadEnvelopeV5, ExecutionPayloadFieldV2,
    ExecutionPayloadV1, ExecutionPayloadV2, ExecutionPayloadV3,
};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

/// A payload of any version, as it is received: whether it has the fields of its version is checked
/// against the fork.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PayloadParam {
    pub(super) parent_hash: B256,
    pub(super) fee_recipient: Address,
    pub(super) state_root: B256,
    pub(super) receipts_root: B256,
    pub(super) logs_bloom: Bloom,
    pub(super) prev_randao: B256,
    #[serde(with = "alloy_serde::quantity")]
    pub(super) block_number: u64,
    #[serde(with = "alloy_serde::quantity")]
    pub(super) gas_limit: u64,
    #[serde(with = "alloy_serde::quantity")]
    pub(super) gas_used: u64,
    #[serde(with = "alloy_serde::quantity")]
    pub(super) timestamp: u64,
    pub(super) extra_data: Bytes,
    pub(super) base_fee_per_gas: U256,
    pub(super) block_hash: B256,
    pub(super) transactions: Vec<Bytes>,
    pub(super) withdrawals: Option<Vec<Withdrawal>>,
    #[serde(default, with = "alloy_serde::quantity::opt")]
    pub(super) blob_gas_used: Option<u64>,
    #[serde(default, with = "alloy_serde::quantity::opt")]
    pub(super) excess_blob_gas: Option<u64>,
}

/// Why a payload is invalid whatever the chain looks like. No ancestor is at fault, so none is named.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PayloadError {
    /// Not the bytes of a transaction.
    #[error("invalid transaction {index}: {problem}")]
    Transaction {
        /// Place in the block.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// More than a header can say.
    #[error("base fee {0} does not fit 64 bits")]
    BaseFee(U256),
    /// Of another block.
    #[error("block hash mismatch: the payload says {got}, its header has {expected}")]
    BlockHash {
        /// In the payload.
        got: B256,
        /// Of the header.
        expected: B256,
    },
    /// What the consensus client has blobs of is not what the transactions name.
    #[error("expected blob versioned hashes do not match the transactions' own")]
    VersionedHashes,
}

impl PayloadParam {
    /// The block that the payload describes, if its header has the hash that the payload names and its
    /// blobs are those that are expected.
    pub(super) fn into_block(
        self,
        beside: Beside,
    ) -> Result<(B256, Block<TxEnvelope>), PayloadError> {
        let transactions = decode_transactions(&self.transactions)?;
        let header = Header {
            parent_hash: self.parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: self.fee_recipient,
            state_root: self.state_root,
            transactions_root: ordered_trie_root_encoded(&self.transactions),
            receipts_root: self.receipts_root,
            logs_bloom: self.logs_bloom,
            number: self.block_number,
            gas_limit: self.gas_limit,
            gas_used: self.gas_used,
            timestamp: self.timestamp,
            extra_data: self.extra_data,
            mix_hash: self.prev_randao,
            base_fee_per_gas: Some(
                u64::try_from(self.base_fee_per_gas)
                    .map_err(|_| PayloadError::BaseFee(self.base_fee_per_gas))?,
            ),
            withdrawals_root: self.withdrawals.as_deref().map(calculate_withdrawals_root),
            blob_gas_used: self.blob_gas_used,
            excess_blob_gas: self.excess_blob_gas,
            parent_beacon_block_root: beside.beacon_root,
            requests_hash: beside.requests.map(|list| Requests::new(list).requests_hash()),
            ..Header::default()
        };
        let hash = header.hash_slow();
        if hash != self.block_hash {
            let (got, expected) = (self.block_hash, hash);
            return Err(PayloadError::BlockHash { got, expected });
        }
        if let Some(expected) = beside.versioned_hashes {
            let hashes = transactions.iter().filter_map(|tx| tx.blob_versioned_hashes()).flatten();
            if !hashes.eq(&expected) {
                return Err(PayloadError::VersionedHashes);
            }
        }
        let withdrawals = self.withdrawals.map(Withdrawals::new);
        let body = BlockBody { transactions, ommers: Vec::new(), withdrawals };
        Ok((hash, Block { header, body }))
    }
}

fn decode_transactions(raw: &[Bytes]) -> Result<Vec<TxEnvelope>, PayloadError> {
    let decode = |(index, raw): (usize, &Bytes)| {
        if raw.is_empty() {
            let problem = "no bytes".to_owned();
            return Err(PayloadError::Transaction { index, problem });
        }
        TxEnvelope::decode_2718_exact(raw)
            .map_err(|error| PayloadError::Transaction { index, problem: error.to_string() })
    };
    raw.iter().enumerate().map(decode).collect()
}

impl BuiltPayload {
    /// The answer of `engine_getPayloadV<version>`, which must be one for blocks of `fork`.
    pub(super) fn answer(&self, version: u8, fork: Fork) -> serde_json::Result<Box<RawValue>> {
        let (hash, block) = (self.hash, &self.block);
        let v3 = || ExecutionPayloadEnvelopeV3 {
            execution_payload: ExecutionPayloadV3::from_block_unchecked(hash, block),
            block_value: self.value,
            blobs_bundle: self.blob_proofs(),
            should_override_builder: false,
        };
        match version {
            1 => to_raw_value(&ExecutionPayloadV1::from_block_unchecked(hash, block)),
            2 => to_raw_value(&ExecutionPayloadEnvelopeV2 {
                execution_payload: if fork >= Fork::Shanghai {
                    let payload = ExecutionPayloadV2::from_block_unchecked(hash, block);
                    ExecutionPayloadFieldV2::V2(payload)
                } else {
                    let payload = ExecutionPayloadV1::from_block_unchecked(hash, block);
                    ExecutionPayloadFieldV2::V1(payload)
                },
                block_value: self.value,
            }),
            3 => to_raw_value(&v3()),
            4 => to_raw_value(&ExecutionPayloadEnvelopeV4 {
                envelope_inner: v3(),
                execution_requests: self.requests.clone(),
            }),
            _ => to_raw_value(&ExecutionPayloadEnvelopeV5 {
                execution_payload: ExecutionPayloadV3::from_block_unchecked(hash, block),
                block_value: self.value,
                blobs_bundle: self.cell_proofs(),
                should_override_builder: false,
                execution_requests: self.requests.clone(),
            }),
        }
    }

    /// With one proof a blob (EIP-4844). The builder takes no other sidecars before Osaka.
    fn blob_proofs(&self) -> BlobsBundleV1 {
        let sidecars = self.blobs.iter().filter_map(BlobTransactionSidecarVariant::as_eip4844);
        BlobsBundleV1::new(sidecars.cloned())
    }

    /// With a proof for each cell (EIP-7594). The builder takes no other sidecars from Osaka on.
    fn cell_proofs(&self) -> BlobsBundleV2 {
        let sidecars = self.blobs.iter().filter_map(BlobTransactionSidecarVariant::as_eip7594);
        BlobsBundleV2::new(sidecars.cloned())
    }
}
