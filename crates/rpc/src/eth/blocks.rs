//! Blocks and headers. What is not there is `null`, never an error.

use crate::{
    api::Api,
    args::Args,
    convert,
    errors::{INTERNAL, RpcError, RpcResult},
    registry::Registry,
};
use alloy_consensus::{Header, constants::EMPTY_RECEIPTS, proofs::calculate_transaction_root};
use alloy_eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718, eip4895::Withdrawals};
use alloy_primitives::{B256, Bloom, Bytes, U64};
use alloy_rpc_types_eth::TransactionReceipt;
use blockraft_primitives::{SealedBlock, Transaction};
use serde::Serialize;
use serde_json::Value;

pub(crate) fn register(registry: &mut Registry) {
    registry.read("eth_getBlockByNumber", 2, get_block_by_number);
    registry.read("eth_getBlockByHash", 2, get_block_by_hash);
    registry.read("eth_getHeaderByNumber", 1, get_header_by_number);
    registry.read("eth_getHeaderByHash", 1, get_header_by_hash);
    registry.read("eth_getBlockReceipts", 1, get_block_receipts);
    registry.read("eth_getBlockTransactionCountByNumber", 1, transaction_count);
    registry.read("eth_getBlockTransactionCountByHash", 1, transaction_count);
    registry.read("eth_getUncleCountByBlockNumber", 1, uncle_count);
    registry.read("eth_getUncleCountByBlockHash", 1, uncle_count);
    registry.read("eth_getUncleByBlockNumberAndIndex", 2, get_uncle);
    registry.read("eth_getUncleByBlockHashAndIndex", 2, get_uncle);
    registry.read("debug_getRawHeader", 1, raw_header);
    registry.read("debug_getRawBlock", 1, raw_block);
    registry.read("debug_getRawReceipts", 1, raw_receipts);
}

fn get_block_by_number(api: &Api, args: &Args) -> RpcResult<Option<Value>> {
    let tag: BlockNumberOrTag = args.required(0)?;
    let full = args.optional(1)?.unwrap_or(false);
    if tag == BlockNumberOrTag::Pending {
        return pending_block(api, full).map(Some);
    }
    match api.block(tag.into())? {
        Some(block) => json(&convert::block(&block, full)).map(Some),
        None => Ok(None),
    }
}

fn get_block_by_hash(api: &Api, args: &Args) -> RpcResult<Option<Value>> {
    let hash: B256 = args.required(0)?;
    let full = args.optional(1)?.unwrap_or(false);
    match api.block(hash.into())? {
        Some(block) => json(&convert::block(&block, full)).map(Some),
        None => Ok(None),
    }
}

fn get_header_by_number(api: &Api, args: &Args) -> RpcResult<Option<Value>> {
    let tag: BlockNumberOrTag = args.required(0)?;
    if tag == BlockNumberOrTag::Pending {
        let mut header = pending_block(api, false)?;
        if let Some(fields) = header.as_object_mut() {
            fields.retain(|name, _| !BODY_FIELDS.contains(&name.as_str()));
        }
        return Ok(Some(header));
    }
    api.header(tag.into())?.map(|header| json(&convert::header(&header))).transpose()
}

/// What a block has and a header has not.
const BODY_FIELDS: [&str; 4] = ["transactions", "uncles", "withdrawals", "size"];

fn get_header_by_hash(api: &Api, args: &Args) -> RpcResult<Option<Value>> {
    let hash: B256 = args.required(0)?;
    api.header(hash.into())?.map(|header| json(&convert::header(&header))).transpose()
}

fn get_block_receipts(api: &Api, args: &Args) -> RpcResult<Option<Vec<TransactionReceipt>>> {
    let id: BlockId = args.required(0)?;
    if id == BlockId::pending() {
        return Ok(Some(Vec::new()));
    }
    Ok(api.block(id)?.map(|block| convert::receipts(api.spec(), &block)))
}

fn transaction_count(api: &Api, args: &Args) -> RpcResult<Option<U64>> {
    let id: BlockId = args.required(0)?;
    if id == BlockId::pending() {
        return Ok(Some(U64::from(pending_transactions(api).len())));
    }
    Ok(api.block(id)?.map(|block| U64::from(block.transactions.len())))
}

fn uncle_count(api: &Api, args: &Args) -> RpcResult<Option<U64>> {
    let id: BlockId = args.required(0)?;
    if id == BlockId::pending() {
        return Ok(Some(U64::ZERO));
    }
    Ok(api.block(id)?.map(|block| U64::from(block.ommers.len())))
}

fn get_uncle(api: &Api, args: &Args) -> RpcResult<Option<Value>> {
    let id: BlockId = args.required(0)?;
    let index = args.quantity(1)?;
    if id == BlockId::pending() {
        return Ok(None);
    }
    let Some(block) = api.block(id)? else { return Ok(None) };
    let ommer = usize::try_from(index).ok().and_then(|index| block.ommers.get(index));
    ommer.map(|ommer| json(&convert::ommer(ommer))).transpose()
}

/// The block that would follow if it were cut now: the executable transactions of the pool that fit by
/// their gas limits. It has not run, so its state root is the parent's and it has no receipts; as in geth
/// hash, nonce and miner are `null`.
fn pending_block(api: &Api, full: bool) -> RpcResult<Value> {
    let header = api.next_header();
    let transactions = pending_transactions(api);
    let envelopes: Vec<_> = transactions.iter().map(|tx| tx.inner()).collect();
    let header = Header {
        transactions_root: calculate_transaction_root(&envelopes),
        receipts_root: EMPTY_RECEIPTS,
        state_root: api.store.head().state_root,
        logs_bloom: Bloom::ZERO,
        ..header
    };
    let base_fee = header.base_fee_per_gas;
    let withdrawals = header.withdrawals_root.map(|_| Withdrawals::default());
    let block = SealedBlock {
        header: alloy_consensus::Sealed::new_unchecked(header, B256::ZERO),
        transactions,
        receipts: Vec::new(),
        ommers: Vec::new(),
        withdrawals,
    };
    let mut value = json(&convert::block(&block, false))?;
    if let Some(fields) = value.as_object_mut() {
        for name in ["hash", "nonce", "miner"] {
            fields.insert(name.to_owned(), Value::Null);
        }
        if full {
            let pending = block.transactions.iter();
            let pending: Vec<_> =
                pending.map(|tx| convert::pending_transaction(tx, base_fee)).collect();
            fields.insert("transactions".to_owned(), json(&pending)?);
        }
    }
    Ok(value)
}

/// Executable transactions of the pool by sender and nonce, as many as the gas limit allows.
fn pending_transactions(api: &Api) -> Vec<Transaction> {
    use alloy_consensus::Transaction as _;
    let content = api.pool.read().content();
    let mut room = api.store.genesis().block_gas_limit();
    let mut taken = Vec::new();
    for tx in content.into_values().flat_map(|sender| sender.executable) {
        match room.checked_sub(tx.gas_limit()) {
            Some(left) => room = left,
            None => break,
        }
        taken.push(tx);
    }
    taken
}

fn raw_header(api: &Api, args: &Args) -> RpcResult<Bytes> {
    let header = api.header(args.required(0)?)?.ok_or_else(RpcError::header_not_found)?;
    Ok(alloy_rlp::encode(header.inner()).into())
}

fn raw_block(api: &Api, args: &Args) -> RpcResult<Bytes> {
    let block = api.block(args.required(0)?)?.ok_or_else(|| RpcError::server("block not found"))?;
    Ok(block.rlp().into())
}

fn raw_receipts(api: &Api, args: &Args) -> RpcResult<Vec<Bytes>> {
    let block = api.block(args.required(0)?)?.ok_or_else(|| RpcError::server("block not found"))?;
    let indices = 0..block.receipts.len();
    Ok(indices.map(|i| convert::consensus_receipt(&block, i).encoded_2718().into()).collect())
}

fn json(value: &impl Serialize) -> RpcResult<Value> {
    serde_json::to_value(value).map_err(|error| RpcError::new(INTERNAL, error.to_string()))
}
