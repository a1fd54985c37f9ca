//! Bodies of blocks, for consensus clients that keep only headers' roots.

use super::EngineError;
use crate::{api::Api, errors::RpcResult};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::B256;
use alloy_rpc_types_engine::ExecutionPayloadBodyV1;
use blockraft_primitives::{SealedBlock, limits::ENGINE_BODIES_COUNT_MAX};

/// `engine_getPayloadBodiesByHashV1`: in the order asked for, `null` where there is no such block.
pub(super) fn by_hash(
    api: &Api,
    hashes: &[B256],
) -> RpcResult<Vec<Option<ExecutionPayloadBodyV1>>> {
    check_count(hashes.len() as u64)?;
    hashes
        .iter()
        .map(|hash| match api.store.number_of(hash)? {
            Some(number) => Ok(api.store.block(number)?.map(|block| body(&block))),
            None => Ok(None),
        })
        .collect()
}

/// `engine_getPayloadBodiesByRangeV1`: up to the head, without `null`s after it.
pub(super) fn by_range(
    api: &Api,
    start: u64,
    count: u64,
) -> RpcResult<Vec<Option<ExecutionPayloadBodyV1>>> {
    if start == 0 || count == 0 {
        let problem = format!("invalid start or count, start: {start} count: {count}");
        return Err(EngineError::InvalidParams(problem).into());
    }
    check_count(count)?;
    let last = (start.saturating_add(count - 1)).min(api.store.head().number);
    (start..=last).map(|number| Ok(api.store.block(number)?.map(|block| body(&block)))).collect()
}

fn check_count(count: u64) -> Result<(), EngineError> {
    if count > ENGINE_BODIES_COUNT_MAX {
        let problem = format!("{count} bodies, at most {ENGINE_BODIES_COUNT_MAX} at once");
        return Err(EngineError::TooLarge(problem));
    }
    Ok(())
}

fn body(block: &SealedBlock) -> ExecutionPayloadBodyV1 {
    ExecutionPayloadBodyV1 {
        transactions: block.transactions.iter().map(|tx| tx.encoded_2718().into()).collect(),
        withdrawals: block.withdrawals.clone().map(|list| list.into_inner()),
    }
}
