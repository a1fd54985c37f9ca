//! The server's settings.

use crate::EngineConfig;
use alloy_primitives::B256;
use std::{fmt, net::SocketAddr, sync::Arc};
use tokio::sync::watch;

/// Renders all metrics in Prometheus' text format.
pub type MetricsSource = dyn Fn() -> String + Send + Sync;

/// Blocks that a consensus client calls safe and final, by hash; zero where it named none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finality {
    /// Not expected to be taken back.
    pub safe: B256,
    /// Never taken back.
    pub finalized: B256,
}

/// How to serve. Limits are not here: they are `blockraft_primitives::limits`.
#[derive(Clone)]
pub struct RpcConfig {
    /// Address of the one port for HTTP and WebSocket.
    pub listen: SocketAddr,
    /// Origins that browsers may call from; `*` for any, empty for none but the local machine.
    pub cors_origins: Vec<String>,
    /// Names by which clients may address this node, beside the local ones; `*` for any.
    pub hosts: Vec<String>,
    /// What `web3_clientVersion` answers.
    pub client_version: String,
    /// Threads that reads may occupy at once.
    pub read_worker_count: usize,
    /// Threads that EVM runs (`eth_call` and its kin) and proofs may occupy at once.
    pub call_worker_count: usize,
    /// What `GET /metrics` answers; without it there is no such page.
    pub metrics: Option<Arc<MetricsSource>>,
    /// What a consensus client last said is safe and final; `None` where every committed block is.
    pub finality: Option<watch::Receiver<Finality>>,
    /// The Engine API on a port of its own; `None` serves none.
    pub engine: Option<EngineConfig>,
}

impl fmt::Debug for RpcConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcConfig")
            .field("listen", &self.listen)
            .field("cors_origins", &self.cors_origins)
            .field("hosts", &self.hosts)
            .field("client_version", &self.client_version)
            .field("read_worker_count", &self.read_worker_count)
            .field("call_worker_count", &self.call_worker_count)
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl RpcConfig {
    /// Serves at `listen`, to local clients, without metrics.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            client_version: concat!("blockraft/v", env!("CARGO_PKG_VERSION")).to_owned(),
            read_worker_count: 8,
            call_worker_count: 4,
            metrics: None,
            finality: None,
            engine: None,
        }
    }
}
