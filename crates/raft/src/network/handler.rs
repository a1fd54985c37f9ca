//! The answering side: other members' messages to this node's Raft.

use super::{
    message::{
        APPEND, PRE_VOTE, SNAPSHOT_BEGIN, SNAPSHOT_CHUNK, SNAPSHOT_END, TRANSFER, VOTE,
        decode_append, decode_chunk,
    },
    snapshot::Receiver,
};
use crate::{
    Handler, Plane, Refused,
    codec::{decode, encode},
    state_machine::StateMachine,
    types::TypeConfig,
};
use blockraft_primitives::NodeId;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use openraft::Raft;
use serde::Serialize;
use std::{fmt::Display, sync::Arc};

/// Answers Raft's planes and passes the node's own on.
pub(crate) struct RaftHandler {
    pub(crate) raft: Raft<TypeConfig, StateMachine>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) data: Arc<dyn Handler>,
}

impl Handler for RaftHandler {
    fn handle(
        &self,
        peer: NodeId,
        plane: Plane,
        kind: u8,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Refused>> {
        match plane {
            Plane::Data | Plane::Execution => self.data.handle(peer, plane, kind, payload),
            Plane::Control | Plane::Replication => {
                raft_request(self.raft.clone(), kind, payload).boxed()
            }
            Plane::Snapshot => {
                snapshot_request(self.raft.clone(), Arc::clone(&self.receiver), kind, payload)
                    .boxed()
            }
        }
    }
}

async fn raft_request(
    raft: Raft<TypeConfig, StateMachine>,
    kind: u8,
    payload: Bytes,
) -> Result<Bytes, Refused> {
    match kind {
        APPEND => {
            let request = decode_append(payload).map_err(refused)?;
            answer(raft.append_entries(request).await)
        }
        VOTE => answer(raft.vote(decode(&payload).map_err(refused)?).await),
        PRE_VOTE => answer(raft.pre_vote(decode(&payload).map_err(refused)?).await),
        TRANSFER => answer(raft.handle_transfer_leader(decode(&payload).map_err(refused)?).await),
        unknown => Err(Refused(format!("unknown raft message {unknown}"))),
    }
}

async fn snapshot_request(
    raft: Raft<TypeConfig, StateMachine>,
    receiver: Arc<Receiver>,
    kind: u8,
    payload: Bytes,
) -> Result<Bytes, Refused> {
    match kind {
        SNAPSHOT_BEGIN => answer(receiver.begin(decode(&payload).map_err(refused)?).await),
        SNAPSHOT_CHUNK => answer(receiver.chunk(decode_chunk(payload).map_err(refused)?).await),
        SNAPSHOT_END => {
            let (vote, snapshot) = receiver.end().await.map_err(refused)?;
            answer(raft.install_full_snapshot(vote, snapshot).await)
        }
        unknown => Err(Refused(format!("unknown snapshot message {unknown}"))),
    }
}

fn answer<T: Serialize, E: Display>(result: Result<T, E>) -> Result<Bytes, Refused> {
    result.map(|value| encode(&value).into()).map_err(refused)
}

fn refused(error: impl Display) -> Refused {
    Refused(error.to_string())
}
