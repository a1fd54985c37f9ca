//! Blocks that the node makes for a consensus client, out of the replicated pool.

use super::{
    branch::{BranchState, tip_header},
    validate::{PayloadRules, parent_of},
};
use crate::{chain::Chain, error::NodeError};
use alloy_consensus::{
    Block, BlockBody, Header, Sealed, Transaction as _, TxEip4844Variant, TxEnvelope,
    transaction::Recovered,
};
use alloy_eips::{eip4895::Withdrawals, eip7594::BlobTransactionSidecarVariant};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, U256, keccak256};
use blockraft_execution::{BlockAttributes, BuiltBlock, next_header};
use blockraft_primitives::{
    DiffIndex, PayloadEntry, Receipt, Transaction,
    limits::{BLOCK_TX_COUNT_MAX, ENGINE_BUILD_COUNT_MAX},
};
use blockraft_protocol::{Branch, Candidate};
use blockraft_rpc::{BuiltPayload, PayloadId, PayloadRequest};
use std::{collections::VecDeque, sync::Arc};

/// A block that was asked for.
#[derive(Debug)]
pub(super) struct Build {
    id: PayloadId,
    pub(super) parent: B256,
    pub(super) request: PayloadRequest,
    pub(super) built: Option<Arc<BuiltPayload>>,
}

/// The last of them.
#[derive(Debug, Default)]
pub(super) struct Builds(VecDeque<Build>);

impl Builds {
    /// Begins a block, unless the same one is begun already.
    pub(super) fn begin(&mut self, parent: B256, request: PayloadRequest) -> PayloadId {
        let id = id_of(parent, &request);
        if self.get(id).is_none() {
            self.0.push_back(Build { id, parent, request, built: None });
            if self.0.len() > ENGINE_BUILD_COUNT_MAX {
                self.0.pop_front();
            }
        }
        id
    }

    pub(super) fn get(&self, id: PayloadId) -> Option<&Build> {
        self.0.iter().find(|build| build.id == id)
    }

    pub(super) fn finish(&mut self, id: PayloadId, built: Arc<BuiltPayload>) {
        if let Some(build) = self.0.iter_mut().find(|build| build.id == id) {
            build.built = Some(built);
        }
    }
}

/// Tells builds apart: the parent and every attribute.
fn id_of(parent: B256, request: &PayloadRequest) -> PayloadId {
    let mut bytes = parent.to_vec();
    bytes.extend_from_slice(&request.timestamp.to_be_bytes());
    bytes.extend_from_slice(request.prev_randao.as_slice());
    bytes.extend_from_slice(request.fee_recipient.as_slice());
    if let Some(withdrawals) = &request.withdrawals {
        bytes.extend(alloy_rlp::encode(withdrawals));
    }
    bytes.extend_from_slice(request.parent_beacon_block_root.unwrap_or_default().as_slice());
    let [a, b, c, d, e, f, g, h, ..] = keccak256(bytes).0;
    PayloadId::new([a, b, c, d, e, f, g, h])
}

/// Builds, executes and seals a block on the end of `branch`.
pub(super) fn build(
    chain: &Chain,
    rules: &PayloadRules,
    branch: &Branch,
    request: &PayloadRequest,
) -> Result<(Candidate, BuiltPayload), NodeError> {
    let spec = &rules.spec;
    let parent = tip_header(chain, branch)?;
    let attributes = BlockAttributes {
        timestamp: request.timestamp,
        fee_recipient: request.fee_recipient,
        gas_limit: chain.store.genesis().block_gas_limit(),
        prev_randao: request.prev_randao,
        extra_data: b"blockraft".as_slice().into(),
        parent_beacon_block_root: request.parent_beacon_block_root,
        withdrawals: request.withdrawals.clone().unwrap_or_default(),
        gasless: rules.gasless(),
    };
    let osaka = spec.is_osaka_active_at_timestamp(request.timestamp);
    let base_fee = next_header(spec, &parent, &attributes).base_fee_per_gas.map_or(0, u128::from);
    let pooled = chain.pool.read().candidates(base_fee, BLOCK_TX_COUNT_MAX, attributes.gas_limit);
    let (candidates, sidecars): (Vec<_>, Vec<_>) =
        pooled.into_iter().filter_map(|(_, tx)| without_blobs(tx, osaka)).unzip();
    let state = BranchState::new(chain, branch)?;
    let on = (parent_of(branch), &state);
    let built = chain.build_given(&parent, &attributes, &candidates, on)?;
    let BuiltBlock { mut header, included, transactions, receipts, diff, requests, .. } = built;
    let diff = Arc::new(diff);
    let mut hash = B256::ZERO;
    chain.root_after(branch, &diff, |root| {
        header.state_root = root;
        hash = header.hash_slow();
        hash
    })?;
    let value = value_of(&header, &transactions, &receipts);
    let envelopes = transactions.iter().map(|tx| tx.inner().clone()).collect();
    let withdrawals = request.withdrawals.clone().map(Withdrawals::new);
    let body = BlockBody { transactions: envelopes, ommers: Vec::new(), withdrawals };
    let payload = BuiltPayload {
        hash,
        block: Block { header: header.clone(), body },
        requests,
        blobs: included.iter().filter_map(|index| sidecars[*index].clone()).collect(),
        value,
    };
    let index = Arc::new(DiffIndex::new(&diff));
    let entry = PayloadEntry {
        header: header.clone(),
        transactions,
        withdrawals: request.withdrawals.clone(),
        receipts,
        diff: Arc::unwrap_or_clone(diff),
    };
    let header = Sealed::new_unchecked(header, hash);
    Ok((Candidate { header, entry: Arc::new(entry), index }, payload))
}

/// A pooled transaction as it stands in a block, and its blobs. `None` for blobs whose proofs are of
/// another fork than the block's, and for a blob transaction that has lost its blobs.
fn without_blobs(
    tx: Transaction,
    osaka: bool,
) -> Option<(Transaction, Option<BlobTransactionSidecarVariant>)> {
    let TxEnvelope::Eip4844(signed) = tx.inner() else { return Some((tx, None)) };
    let TxEip4844Variant::TxEip4844WithSidecar(with_blobs) = signed.tx() else { return None };
    let sidecar = with_blobs.sidecar.clone();
    if sidecar.is_eip7594() != osaka {
        return None;
    }
    let bare = TxEip4844Variant::TxEip4844(with_blobs.tx.clone());
    let bare = alloy_consensus::Signed::new_unchecked(bare, *signed.signature(), *signed.hash());
    let bare = Recovered::new_unchecked(TxEnvelope::Eip4844(bare), tx.signer());
    Some((Arc::new(bare), Some(sidecar)))
}

/// The priority fees of all transactions, wei.
fn value_of(header: &Header, transactions: &[Transaction], receipts: &[Receipt]) -> U256 {
    let mut value = U256::ZERO;
    let mut gas_before = 0;
    for (tx, receipt) in transactions.iter().zip(receipts) {
        let gas = receipt.cumulative_gas_used - gas_before;
        gas_before = receipt.cumulative_gas_used;
        let base_fee = header.base_fee_per_gas.unwrap_or_default();
        let tip = tx.effective_tip_per_gas(base_fee).unwrap_or_default();
        value += U256::from(tip) * U256::from(gas);
    }
    value
}
