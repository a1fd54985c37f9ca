//! The server: one port for HTTP and WebSocket.

use crate::{
    api::Api,
    config::RpcConfig,
    context::RpcContext,
    http::{Gate, GateLayer},
    methods,
    middleware::Calls,
};
use alloy_primitives::{B128, U128};
use blockraft_primitives::limits;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use jsonrpsee::{
    Methods,
    core::traits::IdProvider,
    server::{
        BatchRequestConfig, PingConfig, ServerBuilder, ServerConfig, ServerHandle,
        middleware::rpc::RpcServiceBuilder,
    },
    types::SubscriptionId,
};
use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RpcServerError {
    /// Somebody else has the port.
    #[error("RPC address {addr} is already in use by another process")]
    AddressInUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen for RPC at {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An origin that is no header value.
    #[error("invalid CORS origin {origin:?}")]
    CorsOrigin {
        /// The origin.
        origin: String,
    },
}

/// The door: see [`RpcServer::start`].
#[derive(Debug)]
pub struct RpcServer;

impl RpcServer {
    /// Listens and serves until the returned handle is stopped or dropped. Connections run as
    /// jsonrpsee's own tasks on the context's runtime; blocking work on its blocking threads.
    pub async fn start(
        config: RpcConfig,
        context: RpcContext,
    ) -> Result<RunningRpc, RpcServerError> {
        let addr = config.listen;
        let cors = cors(&config.cors_origins)?;
        let runtime = context.runtime.clone();
        let api = Arc::new(Api::new(&config, context));
        let methods = Methods::from(methods::register(api.clone()));
        let gate = Gate {
            api,
            hosts: config.hosts,
            origins: config.cors_origins,
            metrics: config.metrics,
        };
        let method_names = methods.method_names().collect();
        let layered = methods.clone();
        let server = ServerBuilder::new()
            .set_config(settings(runtime))
            .set_http_middleware(
                tower::ServiceBuilder::new().layer(GateLayer(Arc::new(gate))).option_layer(cors),
            )
            .set_rpc_middleware(
                RpcServiceBuilder::new()
                    .layer_fn(move |service| Calls::new(service, layered.clone())),
            )
            .build(addr)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => RpcServerError::AddressInUse { addr },
                _ => RpcServerError::Listen { addr, source },
            })?;
        let local_addr =
            server.local_addr().map_err(|source| RpcServerError::Listen { addr, source })?;
        Ok(RunningRpc { local_addr, method_names, handle: server.start(methods) })
    }
}

/// A server that runs. Dropping it stops it.
#[derive(Debug)]
pub struct RunningRpc {
    local_addr: SocketAddr,
    method_names: BTreeSet<&'static str>,
    handle: ServerHandle,
}

impl RunningRpc {
    /// Where it listens; the port is the real one when the configured one was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Every method that is served.
    pub fn method_names(&self) -> &BTreeSet<&'static str> {
        &self.method_names
    }

    /// Takes no more requests; those under way are answered. Stopping twice changes nothing.
    pub fn stop(&self) {
        // The only error is that it was stopped before.
        let _already_stopped = self.handle.stop();
    }

    /// Resolves when the last connection is closed. A caller in a hurry puts a time limit around it.
    pub async fn stopped(self) {
        self.handle.stopped().await;
    }
}

fn settings(runtime: tokio::runtime::Handle) -> ServerConfig {
    ServerConfig::builder()
        .max_request_body_size(limits::RPC_REQUEST_BYTES_MAX)
        .max_response_body_size(limits::RPC_RESPONSE_BYTES_MAX)
        .max_connections(limits::RPC_CONNECTION_COUNT_MAX)
        .max_subscriptions_per_connection(limits::RPC_SUBSCRIPTION_COUNT_MAX)
        .set_message_buffer_capacity(limits::RPC_WS_BUFFER_LEN_MAX)
        // The middleware has the limit, because it answers every call of a batch that is too long.
        .set_batch_request_config(BatchRequestConfig::Unlimited)
        .enable_ws_ping(PingConfig::default())
        .set_id_provider(HexIds)
        .custom_tokio_runtime(runtime)
        .build()
}

fn cors(origins: &[String]) -> Result<Option<CorsLayer>, RpcServerError> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let parsed: Result<Vec<HeaderValue>, RpcServerError> = origins
            .iter()
            .map(|origin| {
                let invalid = |_| RpcServerError::CorsOrigin { origin: origin.clone() };
                HeaderValue::from_str(origin).map_err(invalid)
            })
            .collect();
        AllowOrigin::list(parsed?)
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([CONTENT_TYPE]);
    Ok(Some(layer))
}

/// Subscription ids as geth gives them: 16 random bytes as a hex quantity. Clients take no other.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        let id = U128::from_be_bytes(B128::random().0);
        SubscriptionId::Str(format!("{id:#x}").into())
    }
}
