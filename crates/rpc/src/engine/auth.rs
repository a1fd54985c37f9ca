//! Who may talk to the Engine API: every HTTP request, and the upgrade to a WebSocket, carries a token.

use super::{calls::EngineCall, jwt::JwtSecret};
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use jsonrpsee::server::{HttpBody, HttpRequest, HttpResponse};
use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::mpsc;
use tower::{Layer, Service};

/// Reads the wall clock: seconds since 1970.
pub type UnixClock = dyn Fn() -> u64 + Send + Sync;

/// How to serve the Engine API.
#[derive(Clone)]
pub struct EngineConfig {
    /// Its own port.
    pub listen: SocketAddr,
    /// What node and consensus client share.
    pub secret: JwtSecret,
    /// Names by which clients may address this port, beside the local ones; `*` for any.
    pub hosts: Vec<String>,
    /// Tokens have an age.
    pub clock: Arc<UnixClock>,
    /// Takes the calls, in the order in which they came.
    pub calls: mpsc::Sender<EngineCall>,
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("listen", &self.listen)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// Puts the check of tokens before a service.
#[derive(Clone)]
pub(crate) struct AuthLayer {
    pub(crate) secret: JwtSecret,
    pub(crate) clock: Arc<UnixClock>,
}

/// A service behind that check.
#[derive(Clone)]
pub(crate) struct Authenticated<S> {
    inner: S,
    layer: AuthLayer,
}

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { inner, layer: self.clone() }
    }
}

impl<S> Service<HttpRequest> for Authenticated<S>
where
    S: Service<HttpRequest, Response = HttpResponse>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = HttpResponse;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<HttpResponse, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        match self.layer.secret.admits(authorization, (self.layer.clock)()) {
            Ok(()) => self.inner.call(request).boxed(),
            Err(text) => std::future::ready(Ok(unauthorized(text))).boxed(),
        }
    }
}

/// As Go's `http.Error` writes it.
fn unauthorized(text: &str) -> HttpResponse {
    let mut response = HttpResponse::new(HttpBody::from(format!("{text}\n")));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
