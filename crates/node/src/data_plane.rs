//! What nodes say to one another beside Raft: batches of transactions on their way to the leader, log
//! entries that a consensus client's word came to, signatures whose senders are wanted, and units of work, on a
//! connection of their own.

use crate::{
    chain::Chain,
    engine::answer_of,
    executor::ExecutorHandle,
    maintenance::{FETCH_KIND, answer_fetch},
    producer::{ProducerHandle, Verdicts},
    recovery::recover_all,
};
use alloy_primitives::Address;
use blockraft_primitives::{
    AdmitBatch, NodeId,
    limits::{LEADER_WAIT_MS, RECOVERY_WAIT_MS},
};
use blockraft_protocol::{NodeStatus, Refusal, Request, Response, SignedHash};
use blockraft_raft::{Handler, Plane, RaftNode, RaftStatus, Refused, Transport, TransportError};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Messages of `protocol::message`, which tells them apart. The other kind is a fetch of a snapshot.
const KIND_MESSAGE: u8 = 0;

/// The other members, to ask.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) transport: Transport,
}

/// The verdicts of a batch that another node proposes, when they come.
pub(crate) type PendingVerdicts = BoxFuture<'static, Verdicts>;

impl Peers {
    /// Sends a batch to the leader. It is on its way, in order, when the future has been polled once.
    pub(crate) fn submit(&self, leader: NodeId, batch: AdmitBatch) -> PendingVerdicts {
        let transport = self.transport.clone();
        let request = Request::Submit(batch).encode();
        let deadline = Duration::from_millis(LEADER_WAIT_MS);
        let ask = async move {
            transport.request(leader, Plane::Data, KIND_MESSAGE, request.into(), deadline).await
        };
        ask.map(|answer| verdicts_of(answer.as_deref())).boxed()
    }

    /// Has a member recover senders; `None` when it does not, or not in time.
    pub(crate) async fn recover(
        &self,
        peer: NodeId,
        signed: Vec<SignedHash>,
    ) -> Option<Vec<Option<Address>>> {
        let count = signed.len();
        let request = Request::Recover(signed).encode();
        let deadline = Duration::from_millis(RECOVERY_WAIT_MS);
        let answer =
            self.transport.request(peer, Plane::Data, KIND_MESSAGE, request.into(), deadline);
        match answer.await.map(|bytes| Response::decode(&bytes)) {
            Ok(Ok(Response::Recovered(senders))) if senders.len() == count => Some(senders),
            Ok(Ok(_) | Err(_)) => {
                tracing::warn!(peer, "the answer to signatures is none");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "no senders from another member");
                None
            }
        }
    }

    /// Has the leader propose an entry: whether it fitted the chain, once it is applied there.
    pub(crate) async fn propose(
        &self,
        leader: NodeId,
        entry: alloy_primitives::Bytes,
    ) -> Result<bool, Refusal> {
        let request = Request::Propose(entry).encode();
        let deadline = Duration::from_millis(LEADER_WAIT_MS);
        let answer =
            self.transport.request(leader, Plane::Data, KIND_MESSAGE, request.into(), deadline);
        match answer.await.map(|bytes| Response::decode(&bytes)) {
            Ok(Ok(Response::Proposed { accepted })) => Ok(accepted),
            Ok(Ok(Response::Refused(refusal))) => Err(refusal),
            Ok(Ok(_) | Err(_)) => {
                tracing::warn!("the leader's answer to an entry is no answer to an entry");
                Err(Refusal::OutcomeUnknown)
            }
            Err(error) => {
                tracing::debug!(%error, "no answer from the leader");
                Err(Refusal::OutcomeUnknown)
            }
        }
    }
}

fn verdicts_of(answer: Result<&[u8], &TransportError>) -> Verdicts {
    match answer.map(Response::decode) {
        Ok(Ok(Response::Verdicts(verdicts))) => Ok(verdicts),
        Ok(Ok(Response::Refused(refusal))) => Err(refusal),
        Ok(Ok(_) | Err(_)) => {
            tracing::warn!("the leader's answer to a batch is no answer to a batch");
            Err(Refusal::OutcomeUnknown)
        }
        Err(
            TransportError::Unreachable { .. }
            | TransportError::UnknownPeer(_)
            | TransportError::Rejected { .. },
        ) => Err(Refusal::NotLeader { leader: None }),
        Err(error) => {
            tracing::debug!(%error, "no answer from the leader");
            Err(Refusal::OutcomeUnknown)
        }
    }
}

/// Answers the other members.
#[derive(Debug)]
pub(crate) struct DataPlane {
    pub(crate) node_id: NodeId,
    pub(crate) chain: Arc<Chain>,
    pub(crate) raft: watch::Receiver<RaftStatus>,
    pub(crate) log: RaftNode,
    pub(crate) producer: ProducerHandle,
    pub(crate) executor: ExecutorHandle,
}

impl Handler for DataPlane {
    fn handle(
        &self,
        peer: NodeId,
        _plane: Plane,
        kind: u8,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        if kind == FETCH_KIND {
            let store = self.chain.store.clone();
            let answer = tokio::task::spawn_blocking(move || answer_fetch(&store, &payload));
            return async move { answer.await.unwrap_or_else(|e| Err(Refused(e.to_string()))) }
                .boxed();
        }
        let request = match Request::decode(&payload) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(peer, %error, "a request that cannot be read");
                return futures::future::ready(Err(Refused(error.to_string()))).boxed();
            }
        };
        match request {
            Request::Submit(batch) => {
                let producer = self.producer.clone();
                async move { Ok(answer_submit(&producer, batch).await.encode().into()) }.boxed()
            }
            Request::Propose(entry) => {
                let log = self.log.clone();
                async move {
                    let response = match answer_of(log.propose(entry.into()).await) {
                        Ok(accepted) => Response::Proposed { accepted },
                        Err(refusal) => Response::Refused(refusal),
                    };
                    Ok(response.encode().into())
                }
                .boxed()
            }
            Request::Execute(unit) => {
                let executor = self.executor.clone();
                async move { Ok(executor.execute(unit).await.encode().into()) }.boxed()
            }
            Request::Hash(unit) => {
                let executor = self.executor.clone();
                async move { Ok(executor.hash(unit).await.encode().into()) }.boxed()
            }
            Request::Recover(signed) => {
                let recovering = tokio::task::spawn_blocking(move || recover_all(&signed));
                async move {
                    let senders = recovering.await.map_err(|error| Refused(error.to_string()))?;
                    Ok(Response::Recovered(senders).encode().into())
                }
                .boxed()
            }
            Request::Status => {
                let status = Response::Status(self.status()).encode();
                futures::future::ready(Ok(status.into())).boxed()
            }
        }
    }
}

impl DataPlane {
    fn status(&self) -> NodeStatus {
        let raft = self.raft.borrow();
        let head = self.chain.store.head();
        NodeStatus {
            node: self.node_id,
            term: raft.term,
            leader: raft.leader,
            applied_index: raft.applied_index.unwrap_or(0),
            head_number: head.number,
            head_hash: head.hash(),
        }
    }
}

async fn answer_submit(producer: &ProducerHandle, batch: AdmitBatch) -> Response {
    let Some(verdicts) = producer.submit(batch.transactions).await else {
        return Response::Refused(Refusal::NotLeader { leader: None });
    };
    match verdicts.await {
        Ok(Ok(verdicts)) => Response::Verdicts(verdicts),
        Ok(Err(refusal)) => Response::Refused(refusal),
        // The producer is gone with this node's lead.
        Err(_) => Response::Refused(Refusal::OutcomeUnknown),
    }
}
