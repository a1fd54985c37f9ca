//! Transactions and their receipts. What is not there is `null`, never an error.

use crate::{api::Api, args::Args, convert, errors::RpcResult, registry::Registry};
use alloy_eips::{BlockId, eip2718::Encodable2718};
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_eth::{Transaction as RpcTransaction, TransactionReceipt};
use blockraft_primitives::SealedBlock;
use std::sync::Arc;

pub(crate) fn register(registry: &mut Registry) {
    registry.read("eth_getTransactionByHash", 1, |api, args| {
        api.transaction_by_hash(&args.required(0)?)
    });
    registry.read("eth_getTransactionByBlockHashAndIndex", 2, by_index);
    registry.read("eth_getTransactionByBlockNumberAndIndex", 2, by_index);
    registry.read("eth_getTransactionReceipt", 1, |api, args| api.receipt(&args.required(0)?));
    registry.read("eth_getRawTransactionByHash", 1, |api, args| raw(api, &args.required(0)?));
    registry.read("eth_getRawTransactionByBlockHashAndIndex", 2, raw_at);
    registry.read("eth_getRawTransactionByBlockNumberAndIndex", 2, raw_at);
    registry.read("debug_getRawTransaction", 1, |api, args| raw(api, &args.required(0)?));
}

impl Api {
    /// The block that includes the transaction, and its place there.
    pub(crate) fn locate(&self, hash: &B256) -> RpcResult<Option<(Arc<SealedBlock>, usize)>> {
        let Some(location) = self.store.transaction(hash)? else { return Ok(None) };
        Ok(self.store.block(location.block)?.map(|block| (block, location.index)))
    }

    /// The receipt; `None` for a transaction that no block includes.
    pub(crate) fn receipt(&self, hash: &B256) -> RpcResult<Option<TransactionReceipt>> {
        let Some((block, index)) = self.locate(hash)? else { return Ok(None) };
        let first_log = block.first_log_index(index);
        Ok(Some(convert::receipt(self.spec(), &block, index, first_log)))
    }

    /// The pool is asked first: a transaction leaves it only after its block is visible, so one that moves
    /// from pool to chain meanwhile is found in one of them.
    fn transaction_by_hash(&self, hash: &B256) -> RpcResult<Option<RpcTransaction>> {
        let pooled = self.pool.read().by_hash(hash).map(|(_, tx)| tx.clone());
        if let Some((block, index)) = self.locate(hash)? {
            return Ok(Some(convert::transaction(&block, index)));
        }
        let base_fee = self.next_base_fee();
        Ok(pooled.map(|tx| convert::pending_transaction(&tx, base_fee)))
    }
}

/// Block number or hash, and index.
fn at(api: &Api, args: &Args) -> RpcResult<Option<(Arc<SealedBlock>, usize)>> {
    let block: BlockId = args.required(0)?;
    let index = args.quantity(1)?;
    let Some(block) = api.block(block)? else { return Ok(None) };
    let index = usize::try_from(index).ok().filter(|i| *i < block.transactions.len());
    Ok(index.map(|index| (block, index)))
}

fn by_index(api: &Api, args: &Args) -> RpcResult<Option<RpcTransaction>> {
    Ok(at(api, args)?.map(|(block, index)| convert::transaction(&block, index)))
}

fn raw(api: &Api, hash: &B256) -> RpcResult<Option<Bytes>> {
    let pooled = api.pool.read().by_hash(hash).map(|(_, tx)| tx.encoded_2718().into());
    match api.locate(hash)? {
        Some((block, index)) => Ok(Some(block.transactions[index].encoded_2718().into())),
        None => Ok(pooled),
    }
}

fn raw_at(api: &Api, args: &Args) -> RpcResult<Option<Bytes>> {
    Ok(at(api, args)?.map(|(block, index)| block.transactions[index].encoded_2718().into()))
}
