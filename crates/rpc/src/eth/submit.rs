//! Sending transactions. An answer with a hash means: the transaction is in a committed log entry.

use crate::{
    HeadChange, Submission, SubmitError, Verdict,
    api::Api,
    args::Args,
    errors::{RpcError, RpcResult, SYNC_NOT_READY, SYNC_TIMEOUT},
    registry::Registry,
};
use alloy_consensus::Transaction as _;
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_eth::TransactionReceipt;
use blockraft_primitives::limits::{RPC_SYNC_TIMEOUT_DEFAULT_MS, RPC_SYNC_TIMEOUT_MAX_MS};
use blockraft_protocol::{PoolError, hash_of};
use std::{sync::Arc, time::Duration};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc::error::TrySendError,
    oneshot,
};

pub(crate) fn register(registry: &mut Registry) {
    registry.wait("eth_sendRawTransaction", 1, |api, args| async move {
        Ok(api.submit(args.required(0)?).await?)
    });
    registry.wait("eth_sendRawTransactionSync", 2, send_sync);
}

impl Api {
    /// Hands a raw transaction to the gateway and waits for its verdict. The same transaction sent again
    /// is the same success, whether it waits in the pool or is in a block by now.
    async fn submit(self: &Arc<Self>, raw: Bytes) -> Verdict {
        let mut verdicts = self.submit_all(vec![raw]).await;
        verdicts.pop().unwrap_or(Err(SubmitError::ShuttingDown))
    }

    /// Likewise for the transactions of one batch: one verdict each. They go to the gateway as one and
    /// come back as one, which costs a tenth of as many calls.
    pub(crate) async fn submit_all(self: &Arc<Self>, raw: Vec<Bytes>) -> Vec<Verdict> {
        let count = raw.len();
        let all = |error: fn() -> SubmitError| (0..count).map(|_| Err(error())).collect();
        if raw.is_empty() {
            return Vec::new();
        }
        let (reply, verdicts) = oneshot::channel();
        let Ok(_room) = self.submission_room.try_acquire_many(count as u32) else {
            return all(|| SubmitError::Busy);
        };
        match self.submissions.try_send(Submission { raw: raw.clone(), reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return all(|| SubmitError::Busy),
            Err(TrySendError::Closed(_)) => return all(|| SubmitError::ShuttingDown),
        }
        let Ok(verdicts) = verdicts.await else { return all(|| SubmitError::ShuttingDown) };
        let mut answers = Vec::with_capacity(count);
        for (raw, verdict) in raw.into_iter().zip(verdicts) {
            answers.push(self.recognise(raw, verdict).await);
        }
        answers
    }

    async fn recognise(self: &Arc<Self>, raw: Bytes, verdict: Verdict) -> Verdict {
        match verdict {
            Err(SubmitError::Pool(PoolError::AlreadyKnown)) => Ok(hash_of(&raw)),
            Err(SubmitError::Pool(PoolError::NonceTooLow { next, nonce })) => {
                let hash = hash_of(&raw);
                let api = self.clone();
                let located = self.workers.read(move || Ok(api.store.transaction(&hash)?)).await;
                match located {
                    Ok(Some(_)) => Ok(hash),
                    _ => Err(PoolError::NonceTooLow { next, nonce }.into()),
                }
            }
            verdict => verdict,
        }
    }
}

/// EIP-7966. The wait goes on over a change of leader: it looks at blocks, not at who makes them.
async fn send_sync(api: Arc<Api>, args: Args) -> RpcResult<TransactionReceipt> {
    let raw: Bytes = args.required(0)?;
    let asked_ms = args.optional_quantity(1)?.filter(|ms| *ms > 0);
    let wait_ms = asked_ms.unwrap_or(RPC_SYNC_TIMEOUT_DEFAULT_MS).min(RPC_SYNC_TIMEOUT_MAX_MS);
    // Before the transaction is sent, so that its block cannot be missed.
    let heads = api.heads.subscribe();
    let raw_hash = hash_of(&raw);
    let hash = match api.submit(raw).await {
        Ok(hash) => hash,
        Err(error @ SubmitError::NoLeader { .. }) => {
            return Err(RpcError::new(SYNC_NOT_READY, error.to_string()).with_data(&raw_hash));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(receipt) = read_receipt(&api, hash).await? {
        return Ok(receipt);
    }
    if is_queued(&api, &hash) {
        let text = "the transaction was added to the pool but waits for an earlier nonce";
        return Err(RpcError::new(SYNC_NOT_READY, text).with_data(&hash));
    }
    match tokio::time::timeout(Duration::from_millis(wait_ms), included(&api, heads, hash)).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!(
                "the transaction was added to the pool but was not included within {wait_ms} ms"
            );
            Err(RpcError::new(SYNC_TIMEOUT, text).with_data(&hash))
        }
    }
}

/// Waits for the block that includes the transaction.
async fn included(
    api: &Arc<Api>,
    mut heads: broadcast::Receiver<HeadChange>,
    hash: B256,
) -> RpcResult<TransactionReceipt> {
    loop {
        let look = match heads.recv().await {
            Ok(HeadChange::Added(block)) => {
                block.transactions.iter().any(|tx| *tx.tx_hash() == hash)
            }
            Ok(HeadChange::Removed(_)) => false,
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return Err(SubmitError::ShuttingDown.into()),
        };
        if look && let Some(receipt) = read_receipt(api, hash).await? {
            return Ok(receipt);
        }
    }
}

async fn read_receipt(api: &Arc<Api>, hash: B256) -> RpcResult<Option<TransactionReceipt>> {
    let reader = api.clone();
    api.workers.read(move || reader.receipt(&hash)).await
}

/// Whether the pool holds the transaction behind a nonce gap.
fn is_queued(api: &Api, hash: &B256) -> bool {
    let pool = api.pool.read();
    let Some((_, tx)) = pool.by_hash(hash) else { return false };
    pool.next_nonce(tx.signer()).is_some_and(|next| tx.nonce() >= next)
}
