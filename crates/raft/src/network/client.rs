//! The sending side: what openraft's core and its replication tasks call.

use super::{
    message::{APPEND, PRE_VOTE, TRANSFER, VOTE, encode_append},
    snapshot,
};
use crate::{
    Member, Plane, Transport, TransportError,
    codec::{decode, encode},
    config::APPEND_PIPELINE_LEN,
    state_machine::SnapshotFile,
    types::{Snapshot, TypeConfig, Vote},
};
use blockraft_primitives::NodeId;
use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::de::DeserializeOwned;
use std::{future::Future, time::Duration};

type Error = RPCError<TypeConfig>;

/// Makes the clients of one node.
#[derive(Clone, Debug)]
pub(crate) struct NetworkFactory {
    pub(crate) transport: Transport,
    /// For requests that carry entries.
    pub(crate) append_timeout: Duration,
}

impl NetworkFactory {
    fn client(&self, target: NodeId, member: &Member, plane: Plane) -> Network {
        self.transport.set_address(target, &member.raft_addr);
        Network { factory: self.clone(), target, plane }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Network {
        self.client(target, node, Plane::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Member) -> Network {
        self.client(target, node, Plane::Control)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, node: &Member) -> Network {
        self.client(target, node, Plane::Snapshot)
    }
}

/// A way to one peer.
#[derive(Debug)]
pub(crate) struct Network {
    factory: NetworkFactory,
    target: NodeId,
    /// Where appends go. Votes and transfers always go over the control plane.
    plane: Plane,
}

impl Network {
    fn transport(&self) -> &Transport {
        &self.factory.transport
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        action: RPCTypes,
        plane: Plane,
        kind: u8,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<T, Error> {
        ask(self.transport(), self.target, action, plane, kind, payload, deadline).await
    }

    async fn append(
        transport: Transport,
        target: NodeId,
        plane: Plane,
        request: AppendEntriesRequest<TypeConfig>,
        deadline: Duration,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        let payload = encode_append(&request);
        ask(&transport, target, RPCTypes::AppendEntries, plane, APPEND, payload, deadline).await
    }

    /// openraft's budget is one heartbeat; entries have to reach the disk, which may take longer.
    fn append_deadline(&self, has_entries: bool, option: &RPCOption) -> Duration {
        if has_entries {
            self.factory.append_timeout.max(option.soft_ttl())
        } else {
            option.soft_ttl()
        }
    }
}

async fn ask<T: DeserializeOwned>(
    transport: &Transport,
    target: NodeId,
    action: RPCTypes,
    plane: Plane,
    kind: u8,
    payload: Bytes,
    deadline: Duration,
) -> Result<T, Error> {
    let answer = transport
        .request(target, plane, kind, payload, deadline)
        .await
        .map_err(|error| rpc_error(transport, target, action, error))?;
    decode(&answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
}

/// openraft backs off from an unreachable peer and retries the others at once.
fn rpc_error(
    transport: &Transport,
    target: NodeId,
    action: RPCTypes,
    error: TransportError,
) -> Error {
    match error {
        TransportError::Timeout { after, .. } => RPCError::Timeout(Timeout {
            action,
            id: transport.identity().node_id,
            target,
            timeout: after,
        }),
        TransportError::Disconnected { .. } | TransportError::TooLong { .. } => {
            RPCError::Network(NetworkError::new(&error))
        }
        TransportError::UnknownPeer(_)
        | TransportError::Unreachable { .. }
        | TransportError::Rejected { .. }
        | TransportError::Refused { .. }
        | TransportError::Stopped => RPCError::Unreachable(Unreachable::new(&error)),
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        let deadline = self.append_deadline(!rpc.entries.is_empty(), &option);
        Self::append(self.transport().clone(), self.target, self.plane, rpc, deadline).await
    }

    /// Several requests are on their way at a time; answers come back in the order of the requests.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Error>>, Error>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let answers = input
            .map(move |request| {
                let deadline = self.append_deadline(!request.entries.is_empty(), &option);
                let prev = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(prev);
                Self::append(self.transport().clone(), self.target, self.plane, request, deadline)
                    .map(move |answer| Ok(answer?.into_stream_result(prev, last)))
            })
            .buffered(APPEND_PIPELINE_LEN)
            .boxed();
        async move { Ok(answers) }.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        let payload = encode(&rpc).into();
        self.ask(RPCTypes::Vote, Plane::Control, VOTE, payload, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        let payload = encode(&rpc).into();
        self.ask(RPCTypes::Vote, Plane::Control, PRE_VOTE, payload, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let transport = self.transport().clone();
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = snapshot::send(&transport, self.target, vote, snapshot) => match sent {
                Ok(response) => Ok(response),
                Err(snapshot::SendError::Transport(error)) => {
                    let action = RPCTypes::InstallSnapshot;
                    Err(rpc_error(&transport, self.target, action, error).into())
                }
                Err(error) => Err(StreamingError::Network(NetworkError::new(&error))),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Error> {
        let payload = encode(&req).into();
        self.ask(RPCTypes::TransferLeader, Plane::Control, TRANSFER, payload, option.soft_ttl())
            .await
    }
}
