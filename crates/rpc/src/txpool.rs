//! The `txpool` namespace: the replicated pool, the same on every node.

use crate::{api::Api, args::Args, convert, errors::RpcResult, registry::Registry};
use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, U64};
use blockraft_primitives::Transaction;
use serde::Serialize;
use std::collections::BTreeMap;

pub(crate) fn register(registry: &mut Registry) {
    registry.quick("txpool_status", 0, |api, _| {
        let (pending, queued) = api.pool.read().status();
        Ok(Halves { pending: U64::from(pending), queued: U64::from(queued) })
    });
    registry.read("txpool_content", 0, |api, _| {
        let base_fee = api.next_base_fee();
        Ok(by_sender(api, |tx| convert::pending_transaction(tx, base_fee)))
    });
    registry.read("txpool_inspect", 0, |api, _| Ok(by_sender(api, summary)));
    registry.read("txpool_contentFrom", 1, content_from);
}

/// What could go into the next block, and what waits for an earlier nonce.
#[derive(Debug, Serialize)]
struct Halves<T> {
    pending: T,
    queued: T,
}

type ByNonce<T> = BTreeMap<u64, T>;
/// By checksummed address, as geth writes it.
type BySender<T> = BTreeMap<String, ByNonce<T>>;

fn by_sender<T>(api: &Api, show: impl Fn(&Transaction) -> T) -> Halves<BySender<T>> {
    let mut halves = Halves { pending: BySender::new(), queued: BySender::new() };
    let content = api.pool.read().content();
    for (sender, content) in content {
        let name = sender.to_checksum(None);
        if !content.executable.is_empty() {
            halves.pending.insert(name.clone(), by_nonce(&content.executable, &show));
        }
        if !content.queued.is_empty() {
            halves.queued.insert(name, by_nonce(&content.queued, &show));
        }
    }
    halves
}

fn content_from(
    api: &Api,
    args: &Args,
) -> RpcResult<Halves<ByNonce<alloy_rpc_types_eth::Transaction>>> {
    let sender: Address = args.required(0)?;
    let base_fee = api.next_base_fee();
    let content = api.pool.read().content_from(sender);
    let show = |tx: &Transaction| convert::pending_transaction(tx, base_fee);
    Ok(Halves {
        pending: by_nonce(&content.executable, show),
        queued: by_nonce(&content.queued, show),
    })
}

fn by_nonce<T>(transactions: &[Transaction], show: impl Fn(&Transaction) -> T) -> ByNonce<T> {
    transactions.iter().map(|tx| (tx.nonce(), show(tx))).collect()
}

/// geth's one-line form.
fn summary(tx: &Transaction) -> String {
    let to = tx.to().map_or_else(|| "contract creation".to_owned(), |to| to.to_checksum(None));
    format!("{to}: {} wei + {} gas × {} wei", tx.value(), tx.gas_limit(), tx.max_fee_per_gas())
}
