//! Writing to the log, and reading behind everything that was written.

use super::RaftNode;
use crate::{
    ApplyResponse, BarrierError, ProposeError, metric,
    types::{EntryData, TypeConfig},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use openraft::{
    ReadPolicy,
    errors::{ClientWriteError, LinearizableReadError, RaftError as OpenraftError},
    impls::ProgressResponder,
    raft::ClientWriteResult,
};
use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A proposal that Raft has taken; resolves when the entry was applied here, or is given up.
#[must_use = "a proposal's outcome tells whether it was committed"]
pub struct Proposal {
    outcome: BoxFuture<'static, Result<ApplyResponse, ProposeError>>,
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal").finish_non_exhaustive()
    }
}

impl Future for Proposal {
    type Output = Result<ApplyResponse, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome.poll_unpin(cx)
    }
}

impl RaftNode {
    /// Proposes an entry and waits until it was committed and applied here. No deadline: a leader
    /// that lost its quorum keeps a proposal that it took until the quorum is back or another leads.
    /// A caller that gives up must count the outcome as unknown.
    pub async fn propose(&self, entry: Bytes) -> Result<ApplyResponse, ProposeError> {
        self.propose_ff(entry).await?.await
    }

    /// Hands an entry to Raft and returns once it is queued; many may be on their way. Entries of
    /// one caller that awaits each call are logged in the order of the calls.
    pub async fn propose_ff(&self, entry: Bytes) -> Result<Proposal, ProposeError> {
        let (responder, completed) =
            ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
        self.raft
            .client_write_ff(EntryData(entry), Some(responder))
            .await
            .map_err(|_| ProposeError::Fatal)?;
        let outcome = async move {
            let outcome = match completed.await {
                Ok(Ok(written)) => Ok(written.data),
                Ok(Err(ClientWriteError::ForwardToLeader(forward))) => {
                    Err(ProposeError::NotLeader { leader: forward.leader_id })
                }
                Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Unknown),
                Ok(Err(
                    ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_),
                )) => unreachable!("a proposal changes no membership and has no precondition"),
                // Raft stopped with the proposal in its hands.
                Err(_) => Err(ProposeError::Unknown),
            };
            metric::proposal(outcome.is_ok());
            outcome
        };
        Ok(Proposal { outcome: outcome.boxed() })
    }

    /// Confirms with a quorum that this node leads, and waits until it has applied everything that
    /// was committed before the call. Answers the index that was reached. A new leader calls it
    /// before it builds on its state.
    pub async fn barrier(&self) -> Result<u64, BarrierError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(read.index()),
            Err(OpenraftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(BarrierError::NotLeader { leader: forward.leader_id })
            }
            Err(OpenraftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(BarrierError::NoQuorum)
            }
            Err(OpenraftError::Fatal(_)) => Err(BarrierError::Fatal),
        }
    }
}
