//! The door: one member's Raft.

mod failure;
mod membership;
mod propose;
mod transfer;
mod watch;

pub(crate) use failure::Failure;
pub use propose::Proposal;

use crate::{
    Application, Handler, LogDevice, Member, MembershipChangeError, RaftConfig, RaftError,
    RaftStatus, Spawner, Transport,
    log::LogStore,
    network::{NetworkFactory, RaftHandler, Receiver},
    state_machine::StateMachine,
    types::TypeConfig,
};
use blockraft_primitives::NodeId;
use openraft::{
    Raft,
    errors::{Fatal, InitializeError, RaftError as OpenraftError},
};
use std::{collections::BTreeMap, fmt, io, sync::Arc};
use tokio::sync::watch as tokio_watch;

/// One member's Raft; cheap to clone. It runs until [`Self::shutdown`], or until it fails.
#[derive(Clone)]
pub struct RaftNode {
    raft: Raft<TypeConfig, StateMachine>,
    status: tokio_watch::Receiver<RaftStatus>,
    receiver: Arc<Receiver>,
    failure: Failure,
    config: RaftConfig,
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

impl RaftNode {
    /// Starts Raft over what is on disk: applies again what was committed and lost, then takes part
    /// in elections, if it is a member of a cluster. The identity is the transport's. Call it from
    /// within the runtime; tasks and threads are spawned on `spawner`, which must be the
    /// transport's own.
    ///
    /// Nothing reaches this node before [`Self::handler`] is served.
    pub async fn start(
        config: RaftConfig,
        log: Arc<dyn LogDevice>,
        application: Arc<dyn Application>,
        transport: Transport,
        spawner: Spawner,
    ) -> Result<Self, RaftError> {
        let id = transport.identity().node_id;
        let openraft_config = config.to_openraft()?;
        let failure = Failure::default();
        let store = {
            let (spawner, failure) = (spawner.clone(), failure.clone());
            let opened =
                spawner.tasks.clone().spawn_blocking(move || LogStore::open(log, spawner, failure));
            opened.await.map_err(|error| RaftError::Stopped(error.to_string()))??
        };
        let machine =
            StateMachine::start(Arc::clone(&application), spawner.clone(), failure.clone());
        let network = NetworkFactory {
            transport: transport.clone(),
            append_timeout: config.append_timeout(),
        };
        let raft = Raft::new(id, openraft_config, network, store, machine)
            .await
            .map_err(|error| failure.or(error))?;
        let status = watch::spawn(&raft, transport, failure.clone(), &spawner);
        let receiver = Arc::new(Receiver::new(application, spawner));
        Ok(Self { raft, status, receiver, failure, config })
    }

    /// What to serve on the transport: Raft's own planes, and `data` for the data plane.
    pub fn handler(&self, data: Arc<dyn Handler>) -> Arc<dyn Handler> {
        let receiver = Arc::clone(&self.receiver);
        Arc::new(RaftHandler { raft: self.raft.clone(), receiver, data })
    }

    /// Forms a cluster of `members`, all voters. Every one of them may call it, with the same
    /// members; on a node that belongs to a cluster already it does nothing.
    pub async fn initialize(
        &self,
        members: BTreeMap<NodeId, Member>,
    ) -> Result<(), MembershipChangeError> {
        match self.raft.initialize(members).await {
            Ok(()) | Err(OpenraftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(OpenraftError::APIError(InitializeError::NotInMembers(_))) => {
                Err(MembershipChangeError::NotAmongMembers)
            }
            Err(OpenraftError::Fatal(_)) => Err(MembershipChangeError::Fatal),
        }
    }

    /// Whether this node belongs to a cluster: its log or its state is not empty.
    pub async fn is_initialized(&self) -> Result<bool, RaftError> {
        self.raft.is_initialized().await.map_err(|error| self.failure.or(error))
    }

    /// This node's view of the cluster, now and whenever it changes.
    pub fn status(&self) -> tokio_watch::Receiver<RaftStatus> {
        self.status.clone()
    }

    /// Builds a snapshot now. Returns at once; [`RaftStatus::snapshot_index`] tells when it is done.
    pub async fn snapshot(&self) -> Result<(), RaftError> {
        self.raft.trigger().snapshot().await.map_err(|error| self.failure.or(error))
    }

    /// Resolves when Raft has failed: the process should end, another node leads.
    pub async fn failed(&self) -> Arc<RaftError> {
        self.failure.reported().await
    }

    /// Stops Raft and waits until it has. Proposals that are on their way end as unknown. Leadership
    /// is not handed over: see [`Self::transfer_leadership`].
    pub async fn shutdown(&self) -> Result<(), RaftError> {
        let stopped = self.raft.shutdown().await;
        stopped.map_err(|error| RaftError::Stopped(io::Error::other(error).to_string()))
    }
}

impl Failure {
    /// The failure that stopped openraft, or else openraft's own words.
    fn or(&self, error: Fatal<TypeConfig>) -> RaftError {
        match error {
            Fatal::Stopped => RaftError::ShutDown,
            other => match self.first() {
                Some(first) => RaftError::Stopped(first.to_string()),
                None => RaftError::Stopped(other.to_string()),
            },
        }
    }
}
