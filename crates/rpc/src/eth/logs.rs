//! `eth_getLogs`: which logs match, within limits that never make a single block unreadable.

use crate::{
    api::Api,
    args::Args,
    convert,
    errors::{RpcError, RpcResult},
    registry::Registry,
    workers::{Cancel, read_timed_out},
};
use alloy_primitives::{Address, B256};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use blockraft_primitives::{
    SealedBlock,
    limits::{RPC_FILTER_ITEM_COUNT_MAX, RPC_LOGS_BLOCK_RANGE_MAX, RPC_LOGS_COUNT_MAX},
};
use blockraft_storage::LogQuery;

pub(crate) fn register(registry: &mut Registry) {
    registry.long_read("eth_getLogs", 1, |api, args, cancel| {
        api.logs(&filter_argument(args, 0)?, cancel)
    });
}

/// The filter at `index`, checked for size.
pub(crate) fn filter_argument(args: &Args, index: usize) -> RpcResult<Filter> {
    let filter = args.required(index)?;
    check_size(&filter)?;
    Ok(filter)
}

/// Refuses filters with too many addresses or topics.
pub(crate) fn check_size(filter: &Filter) -> RpcResult<()> {
    let longest = filter.topics.iter().map(|topic| topic.len()).max().unwrap_or(0);
    if longest.max(filter.address.len()) > RPC_FILTER_ITEM_COUNT_MAX {
        let text = format!(
            "exceed max addresses or topics per search position ({RPC_FILTER_ITEM_COUNT_MAX})"
        );
        return Err(RpcError::invalid_params(text));
    }
    Ok(())
}

impl Api {
    /// The logs that match, in the order of the chain.
    pub(crate) fn logs(&self, filter: &Filter, cancel: &Cancel) -> RpcResult<Vec<Log>> {
        match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let block = self.block(hash.into())?;
                let block = block.ok_or_else(|| RpcError::server("unknown block"))?;
                Ok(matching(filter, &block).collect())
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let head = self.store.head().number;
                let from = from_block.map_or(head, |tag| self.number(tag));
                let to = to_block.map_or(head, |tag| self.number(tag));
                if from > to {
                    return Err(RpcError::invalid_params("invalid block range params"));
                }
                if from > head {
                    let text = "block range extends beyond current head block";
                    return Err(RpcError::invalid_params(text));
                }
                self.logs_between(filter, from, to.min(head), cancel)
            }
        }
    }

    /// The logs that match in blocks `from` to `to`, which exist.
    pub(crate) fn logs_between(
        &self,
        filter: &Filter,
        from: u64,
        to: u64,
        cancel: &Cancel,
    ) -> RpcResult<Vec<Log>> {
        if to - from >= RPC_LOGS_BLOCK_RANGE_MAX {
            let fits = from + RPC_LOGS_BLOCK_RANGE_MAX - 1;
            let text = format!(
                "query exceeds max block range {RPC_LOGS_BLOCK_RANGE_MAX}, retry with the range {from:#x}-{fits:#x}"
            );
            return Err(RpcError::invalid_params(text));
        }
        let mut logs = Vec::new();
        for number in self.store.blocks_with_logs(&query(filter, from, to))? {
            if cancel.is_set() {
                return Err(read_timed_out());
            }
            let Some(block) = self.store.block(number)? else { continue };
            logs.extend(matching(filter, &block));
            // One block is always answered whole.
            if logs.len() > RPC_LOGS_COUNT_MAX && number > from {
                let fits = number - 1;
                let text = format!(
                    "query exceeds max results {RPC_LOGS_COUNT_MAX}, retry with the range {from:#x}-{fits:#x}"
                );
                return Err(RpcError::invalid_params(text));
            }
            if logs.len() > RPC_LOGS_COUNT_MAX && to > from {
                let text = format!(
                    "query exceeds max results {RPC_LOGS_COUNT_MAX}, retry with the range {from:#x}-{from:#x}"
                );
                return Err(RpcError::invalid_params(text));
            }
        }
        Ok(logs)
    }
}

/// The logs of one block that match, whatever blocks the filter names.
pub(crate) fn matching<'a>(
    filter: &'a Filter,
    block: &'a SealedBlock,
) -> impl Iterator<Item = Log> + 'a {
    let possible = filter.matches_bloom(block.header.logs_bloom);
    let logs = possible.then(|| convert::logs(block)).into_iter().flatten();
    logs.filter(|log| {
        filter.matches_address(log.inner.address) && filter.matches_topics(log.inner.topics())
    })
}

/// The filter as the log index takes it, sorted so that equal filters are equal queries.
fn query(filter: &Filter, from: u64, to: u64) -> LogQuery {
    let mut addresses: Vec<Address> = filter.address.iter().copied().collect();
    addresses.sort_unstable();
    let topics = filter.topics.each_ref().map(|topic| {
        let mut topics: Vec<B256> = topic.iter().copied().collect();
        topics.sort_unstable();
        topics
    });
    LogQuery { from, to, addresses, topics }
}
