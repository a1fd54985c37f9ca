//! Filters that clients poll. They live on one node and are forgotten when nobody asks.

use crate::{
    api::Api,
    args::Args,
    convert,
    errors::{RpcError, RpcResult},
    eth::logs::filter_argument,
    registry::Registry,
    workers::Cancel,
};
use alloy_primitives::{B128, B256, U128};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log, Transaction as RpcTransaction};
use blockraft_primitives::{
    Transaction,
    limits::{RPC_FILTER_COUNT_MAX, RPC_FILTER_IDLE_MS},
};
use parking_lot::Mutex;
use serde::Serialize;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};
use tokio::{
    sync::broadcast::{self, error::TryRecvError},
    time::Instant,
};

pub(crate) fn register(registry: &mut Registry) {
    registry.quick("eth_newFilter", 1, |api, args| {
        api.install(Kind::Logs(Arc::new(filter_argument(args, 0)?)))
    });
    registry.quick("eth_newBlockFilter", 0, |api, _| api.install(Kind::Blocks));
    registry.quick("eth_newPendingTransactionFilter", 1, |api, args| {
        let full = args.optional(0)?.unwrap_or(false);
        api.install(Kind::Pending { arrivals: api.pending.subscribe(), full })
    });
    registry.quick("eth_uninstallFilter", 1, |api, args| {
        let id: U128 = args.required(0)?;
        Ok(api.filters.0.lock().remove(&id).is_some())
    });
    registry.long_read("eth_getFilterChanges", 1, changes);
    registry.long_read("eth_getFilterLogs", 1, |api, args, cancel| {
        let id: U128 = args.required(0)?;
        match api.poll(id)? {
            Poll::Logs { filter, .. } => api.logs(&filter, cancel),
            Poll::Blocks { .. } | Poll::Pending { .. } => Err(not_found()),
        }
    });
}

/// The installed filters by id: 16 random bytes as a quantity, as in geth.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<BTreeMap<U128, Installed>>);

#[derive(Debug)]
struct Installed {
    kind: Kind,
    /// The first block that was not reported.
    next_block: u64,
    used_at: Instant,
}

#[derive(Debug)]
enum Kind {
    Logs(Arc<Filter>),
    Blocks,
    Pending { arrivals: broadcast::Receiver<Arc<[Transaction]>>, full: bool },
}

/// What is due for one filter.
enum Poll {
    Logs { filter: Arc<Filter>, from: u64 },
    Blocks { from: u64 },
    Pending { arrived: Vec<Transaction>, full: bool },
}

/// What a filter has seen since the last time.
#[derive(Serialize)]
#[serde(untagged)]
enum Changes {
    Logs(Vec<Log>),
    Hashes(Vec<B256>),
    Transactions(Vec<RpcTransaction>),
}

impl Api {
    fn install(&self, kind: Kind) -> RpcResult<U128> {
        let now = Instant::now();
        let installed = Installed { kind, next_block: self.store.head().number + 1, used_at: now };
        let mut filters = self.filters.0.lock();
        let idle = Duration::from_millis(RPC_FILTER_IDLE_MS);
        filters.retain(|_, filter| now.duration_since(filter.used_at) < idle);
        if filters.len() >= RPC_FILTER_COUNT_MAX {
            let text = format!("too many filters, this node keeps {RPC_FILTER_COUNT_MAX}");
            return Err(RpcError::server(text));
        }
        let id = U128::from_be_bytes(B128::random().0);
        filters.insert(id, installed);
        Ok(id)
    }

    fn poll(&self, id: U128) -> RpcResult<Poll> {
        let mut filters = self.filters.0.lock();
        let filter = filters.get_mut(&id).ok_or_else(not_found)?;
        filter.used_at = Instant::now();
        let from = filter.next_block;
        Ok(match &mut filter.kind {
            Kind::Logs(wanted) => Poll::Logs { filter: wanted.clone(), from },
            Kind::Blocks => Poll::Blocks { from },
            Kind::Pending { arrivals, full } => {
                Poll::Pending { arrived: drain(arrivals), full: *full }
            }
        })
    }

    /// Notes that blocks to `last` were reported.
    fn reported(&self, id: U128, last: u64) {
        if let Some(filter) = self.filters.0.lock().get_mut(&id) {
            filter.next_block = filter.next_block.max(last + 1);
        }
    }
}

fn changes(api: &Api, args: &Args, cancel: &Cancel) -> RpcResult<Changes> {
    let id: U128 = args.required(0)?;
    let head = api.store.head().number;
    let changes = match api.poll(id)? {
        Poll::Logs { filter, from } => Changes::Logs(new_logs(api, &filter, from..=head, cancel)?),
        Poll::Blocks { from } => {
            let headers = (from..=head).map(|number| api.store.header(number));
            let hashes: Result<Vec<Option<B256>>, _> =
                headers.map(|header| header.map(|known| known.map(|h| h.hash()))).collect();
            Changes::Hashes(hashes?.into_iter().flatten().collect())
        }
        Poll::Pending { arrived, full: false } => {
            Changes::Hashes(arrived.iter().map(|tx| *tx.tx_hash()).collect())
        }
        Poll::Pending { arrived, full: true } => {
            let base_fee = api.next_base_fee();
            let show = |tx| convert::pending_transaction(tx, base_fee);
            Changes::Transactions(arrived.iter().map(show).collect())
        }
    };
    api.reported(id, head);
    Ok(changes)
}

/// Logs of a range of blocks up to the head, as far as the filter's own range goes.
fn new_logs(
    api: &Api,
    filter: &Filter,
    blocks: RangeInclusive<u64>,
    cancel: &Cancel,
) -> RpcResult<Vec<Log>> {
    let (from, head) = blocks.into_inner();
    let FilterBlockOption::Range { from_block, to_block } = filter.block_option else {
        return Ok(Vec::new());
    };
    let first = from_block.map_or(from, |tag| match tag.as_number() {
        Some(number) => number.max(from),
        None => from,
    });
    let last = to_block.and_then(|tag| tag.as_number()).map_or(head, |number| number.min(head));
    if first > last {
        return Ok(Vec::new());
    }
    api.logs_between(filter, first, last, cancel)
}

/// All that has arrived; what was lost because nobody asked for too long is passed over.
fn drain(arrivals: &mut broadcast::Receiver<Arc<[Transaction]>>) -> Vec<Transaction> {
    let mut arrived = Vec::new();
    loop {
        match arrivals.try_recv() {
            Ok(batch) => arrived.extend(batch.iter().cloned()),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return arrived,
        }
    }
}

fn not_found() -> RpcError {
    RpcError::server("filter not found")
}
