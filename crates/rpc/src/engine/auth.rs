//! Who may talk to the Engine API: every HTTP request, and the upgrade to a WebSocket, carries a token.

use super::{calls::EngineCall, jwt::JwtSecret};
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use jsonrpsee::server::{HttpBody, HttpResponse};
use std::{fmt, net::SocketAddr, sync::Arc};
use tokio::sync::mpsc;
use tower_http::validate_request::ValidateRequest;

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

/// The check of a request's token.
#[derive(Clone)]
pub(crate) struct TokenCheck {
    pub(crate) secret: JwtSecret,
    pub(crate) clock: Arc<UnixClock>,
}

impl<B> ValidateRequest<B> for TokenCheck {
    type ResponseBody = HttpBody;

    fn validate(&mut self, request: &mut http::Request<B>) -> Result<(), HttpResponse> {
        let authorization = request.headers().get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        self.secret.admits(authorization, (self.clock)()).map_err(unauthorized)
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
