//! The server: one port for HTTP and WebSocket.

use crate::{
    api::Api,
    config::RpcConfig,
    context::RpcContext,
    engine::{self, TokenCheck},
    http::{Gate, GateLayer},
    methods,
    middleware::Calls,
    sends::SendsLayer,
};
use alloy_primitives::{B128, U128};
use blockraft_primitives::limits;
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use jsonrpsee::{
    Methods,
    core::traits::IdProvider,
    server::{
        BatchRequestConfig, PingConfig, ServerBuilder, ServerConfig, ServerConfigBuilder,
        ServerHandle, middleware::rpc::RpcServiceBuilder,
    },
    types::SubscriptionId,
};
use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};
use tower_http::{
    cors::{AllowOrigin, CorsLayer},
    validate_request::ValidateRequestHeaderLayer,
};

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
        let cors = cors(&config.cors_origins)?;
        let runtime = context.runtime.clone();
        let api = Arc::new(Api::new(&config, context));
        let methods = Methods::from(methods::register(api.clone()));
        let gate = Gate {
            api: api.clone(),
            hosts: config.hosts,
            origins: config.cors_origins,
            metrics: config.metrics,
        };
        let public = Listening::start(
            config.listen,
            settings(runtime.clone()),
            (gate, cors, None),
            methods.clone(),
        );
        let public = public.await?;
        let Some(config) = config.engine else { return Ok(RunningRpc { public, engine: None }) };
        let mut with_engine = methods;
        with_engine
            .merge(engine::register(api.clone(), &config))
            .expect("no other namespace has methods of these names");
        let gate = Gate { api, hosts: config.hosts, origins: Vec::new(), metrics: None };
        let auth = TokenCheck { secret: config.secret, clock: config.clock };
        let engine = Listening::start(
            config.listen,
            engine_settings(runtime),
            (gate, None, Some(auth)),
            with_engine,
        );
        Ok(RunningRpc { public, engine: Some(engine.await?) })
    }
}

/// Who may call: the checks of every request, cross-origin rules, and tokens where they are asked for.
type Doorkeepers = (Gate, Option<CorsLayer>, Option<TokenCheck>);

/// One port with its methods. Dropping it stops it.
#[derive(Debug)]
struct Listening {
    local_addr: SocketAddr,
    method_names: BTreeSet<&'static str>,
    handle: ServerHandle,
}

impl Listening {
    async fn start(
        addr: SocketAddr,
        settings: ServerConfig,
        (gate, cors, auth): Doorkeepers,
        methods: Methods,
    ) -> Result<Self, RpcServerError> {
        let method_names = methods.method_names().collect();
        let layered = methods.clone();
        let api = gate.api.clone();
        let request_bytes_max = limits::RPC_REQUEST_BYTES_MAX;
        // Load comes to the port without tokens.
        let sends = auth.is_none().then(|| SendsLayer { api: api.clone(), request_bytes_max });
        let server = ServerBuilder::new()
            .set_config(settings)
            .set_http_middleware(
                tower::ServiceBuilder::new()
                    .option_layer(auth.map(ValidateRequestHeaderLayer::custom))
                    .layer(GateLayer(Arc::new(gate)))
                    .option_layer(cors)
                    .option_layer(sends),
            )
            .set_rpc_middleware(
                RpcServiceBuilder::new()
                    .layer_fn(move |service| Calls::new(service, layered.clone(), api.clone())),
            )
            .build(addr)
            .await
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => RpcServerError::AddressInUse { addr },
                _ => RpcServerError::Listen { addr, source },
            })?;
        let local_addr =
            server.local_addr().map_err(|source| RpcServerError::Listen { addr, source })?;
        Ok(Self { local_addr, method_names, handle: server.start(methods) })
    }
}

/// A server that runs. Dropping it stops it.
#[derive(Debug)]
pub struct RunningRpc {
    public: Listening,
    engine: Option<Listening>,
}

impl RunningRpc {
    /// Where it listens; the port is the real one when the configured one was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.public.local_addr
    }

    /// Every method that is served there.
    pub fn method_names(&self) -> &BTreeSet<&'static str> {
        &self.public.method_names
    }

    /// Where the Engine API listens, if it does.
    pub fn engine_addr(&self) -> Option<SocketAddr> {
        self.engine.as_ref().map(|engine| engine.local_addr)
    }

    /// Every method that is served there: the public ones, and the `engine` namespace.
    pub fn engine_method_names(&self) -> Option<&BTreeSet<&'static str>> {
        self.engine.as_ref().map(|engine| &engine.method_names)
    }

    /// Takes no more requests; those under way are answered. Stopping twice changes nothing.
    pub fn stop(&self) {
        for listening in [Some(&self.public), self.engine.as_ref()].into_iter().flatten() {
            // The only error is that it was stopped before.
            let _already_stopped = listening.handle.stop();
        }
    }

    /// Resolves when the last connection is closed. A caller in a hurry puts a time limit around it.
    pub async fn stopped(self) {
        self.public.handle.stopped().await;
        if let Some(engine) = self.engine {
            engine.handle.stopped().await;
        }
    }
}

fn settings(runtime: tokio::runtime::Handle) -> ServerConfig {
    common_settings(runtime)
        .max_request_body_size(limits::RPC_REQUEST_BYTES_MAX)
        .max_response_body_size(limits::RPC_RESPONSE_BYTES_MAX)
        .max_connections(limits::RPC_CONNECTION_COUNT_MAX)
        .build()
}

/// A consensus client is one and trusted, and its blocks are large.
fn engine_settings(runtime: tokio::runtime::Handle) -> ServerConfig {
    common_settings(runtime)
        .max_request_body_size(limits::ENGINE_REQUEST_BYTES_MAX)
        .max_response_body_size(limits::ENGINE_RESPONSE_BYTES_MAX)
        .max_connections(limits::ENGINE_CONNECTION_COUNT_MAX)
        .build()
}

fn common_settings(runtime: tokio::runtime::Handle) -> ServerConfigBuilder {
    ServerConfig::builder()
        .max_subscriptions_per_connection(limits::RPC_SUBSCRIPTION_COUNT_MAX)
        .set_message_buffer_capacity(limits::RPC_WS_BUFFER_LEN_MAX)
        // The middleware has the limit, because it answers every call of a batch that is too long.
        .set_batch_request_config(BatchRequestConfig::Unlimited)
        .enable_ws_ping(PingConfig::default())
        .set_id_provider(HexIds)
        .custom_tokio_runtime(runtime)
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
