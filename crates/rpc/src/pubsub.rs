//! `eth_subscribe` over WebSocket. One task of jsonrpsee's for each subscription; a client that does not
//! keep up is cut off rather than buffered for.

use crate::{
    HeadChange,
    api::Api,
    args::Args,
    convert,
    errors::{METHOD_NOT_FOUND, RpcError, RpcResult},
    eth::logs::{check_size, matching},
    registry::Registry,
};
use alloy_rpc_types_eth::{Filter, Log};
use blockraft_primitives::Transaction;
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionCloseResponse, SubscriptionSink, core::SubscriptionError,
    types::ErrorObjectOwned,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::{sync::Arc, time::Duration};
use tokio::sync::broadcast::{self, error::RecvError};

/// How long one message may wait for room in a client's buffer.
const SEND_WAIT: Duration = Duration::from_secs(5);

pub(crate) fn register(registry: &mut Registry) {
    registry
        .module_mut()
        .register_subscription(
            "eth_subscribe",
            "eth_subscription",
            "eth_unsubscribe",
            |params, pending, api, _| async move {
                let kind = Args::parse(&params, 2).and_then(|args| Kind::parse(&args));
                match kind {
                    Ok(kind) => serve(pending, &api, kind).await,
                    Err(error) => {
                        pending.reject(ErrorObjectOwned::from(error)).await;
                        SubscriptionCloseResponse::None
                    }
                }
            },
        )
        .expect("method names are unique");
}

/// What a client subscribes to.
enum Kind {
    NewHeads,
    Logs(Box<Filter>),
    NewPendingTransactions {
        full: bool,
    },
    /// A node that answers is in sync: there is never anything to say.
    Syncing,
}

impl Kind {
    fn parse(args: &Args) -> RpcResult<Self> {
        let name: String = args.required(0)?;
        match name.as_str() {
            "newHeads" => Ok(Self::NewHeads),
            "logs" => {
                let filter: Filter = args.optional(1)?.unwrap_or_default();
                check_size(&filter)?;
                Ok(Self::Logs(Box::new(filter)))
            }
            "newPendingTransactions" => {
                Ok(Self::NewPendingTransactions { full: args.optional(1)?.unwrap_or(false) })
            }
            "syncing" => Ok(Self::Syncing),
            _ => {
                let text = format!("no {name:?} subscription in eth namespace");
                Err(RpcError::new(METHOD_NOT_FOUND, text))
            }
        }
    }
}

/// Why a subscription ended.
enum End {
    /// The client left or unsubscribed.
    Gone,
    /// The client did not keep up.
    TooSlow,
}

async fn serve(
    pending: PendingSubscriptionSink,
    api: &Arc<Api>,
    kind: Kind,
) -> SubscriptionCloseResponse {
    // Before the client learns its id: whatever happens after that, it hears of.
    let mut heads = api.heads.subscribe();
    let mut arrivals = api.pending.subscribe();
    let Ok(sink) = pending.accept().await else { return SubscriptionCloseResponse::None };
    let end = match kind {
        Kind::NewHeads => {
            let show = |change| match change {
                HeadChange::Added(block) => vec![json(&convert::header(&block.header))],
                HeadChange::Removed(_) => Vec::new(),
            };
            each(&sink, &mut heads, show).await
        }
        Kind::Logs(filter) => {
            let show = |change| logs_of(&filter, &change);
            each(&sink, &mut heads, show).await
        }
        Kind::NewPendingTransactions { full } => {
            each(&sink, &mut arrivals, |batch| show_arrivals(api, full, &batch)).await
        }
        Kind::Syncing => {
            sink.closed().await;
            End::Gone
        }
    };
    match end {
        End::Gone => SubscriptionCloseResponse::None,
        End::TooSlow => {
            SubscriptionCloseResponse::NotifErr(SubscriptionError::from("subscriber is too slow"))
        }
    }
}

/// Passes on what each message comes to, until somebody gives up.
async fn each<T: Clone>(
    sink: &SubscriptionSink,
    messages: &mut broadcast::Receiver<T>,
    show: impl Fn(T) -> Vec<Box<RawValue>>,
) -> End {
    use jsonrpsee::SendTimeoutError::{Closed, Timeout};
    loop {
        let message = tokio::select! {
            () = sink.closed() => return End::Gone,
            message = messages.recv() => message,
        };
        let message = match message {
            Ok(message) => message,
            Err(RecvError::Lagged(_)) => return End::TooSlow,
            Err(RecvError::Closed) => return End::Gone,
        };
        for notification in show(message) {
            match sink.send_timeout(notification, SEND_WAIT).await {
                Ok(()) => {}
                Err(Timeout(_)) => return End::TooSlow,
                Err(Closed(_)) => return End::Gone,
            }
        }
    }
}

/// The logs of a block that came; of one that was taken back, the last one first, as removed.
fn logs_of(filter: &Filter, change: &HeadChange) -> Vec<Box<RawValue>> {
    match change {
        HeadChange::Added(block) => matching(filter, block).map(|log| json(&log)).collect(),
        HeadChange::Removed(block) => {
            let removed = matching(filter, block).map(|log| Log { removed: true, ..log });
            let mut shown: Vec<_> = removed.map(|log| json(&log)).collect();
            shown.reverse();
            shown
        }
    }
}

fn show_arrivals(api: &Api, full: bool, batch: &[Transaction]) -> Vec<Box<RawValue>> {
    if !full {
        return batch.iter().map(|tx| json(tx.tx_hash())).collect();
    }
    let base_fee = api.next_base_fee();
    batch.iter().map(|tx| json(&convert::pending_transaction(tx, base_fee))).collect()
}

fn json(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("plain fields serialise")
}
