//! What happens to an HTTP request before it is JSON-RPC: who may ask, probes, and the headers that say
//! which state an answer comes from.

use crate::{api::Api, config::MetricsSource, health};
use futures::{FutureExt, future::BoxFuture};
use http::{
    HeaderValue, Method, StatusCode, Uri,
    header::{CONTENT_TYPE, HOST, ORIGIN},
};
use jsonrpsee::server::{HttpBody, HttpRequest, HttpResponse, ws::is_upgrade_request};
use std::{
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service};

/// How a call came in; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// One request, one answer.
    Http,
    /// A connection that can carry notifications.
    WebSocket,
}

/// What the gate knows.
pub(crate) struct Gate {
    pub(crate) api: Arc<Api>,
    pub(crate) hosts: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) metrics: Option<Arc<MetricsSource>>,
}

/// Puts the gate before a service.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Gate>);

/// A service behind the gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.0.clone() }
    }
}

impl<S> Service<HttpRequest> for Gated<S>
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

    fn call(&mut self, mut request: HttpRequest) -> Self::Future {
        if let Some(page) = self.gate.page(&request) {
            return std::future::ready(Ok(page)).boxed();
        }
        if let Some(refusal) = self.gate.refuse(&request) {
            return std::future::ready(Ok(refusal)).boxed();
        }
        let upgrade = is_upgrade_request(&request);
        let transport = if upgrade { Transport::WebSocket } else { Transport::Http };
        request.extensions_mut().insert(transport);
        let answer = self.inner.call(request);
        let gate = self.gate.clone();
        async move {
            let mut response = answer.await?;
            gate.name_state(&mut response);
            Ok(response)
        }
        .boxed()
    }
}

impl Gate {
    /// Probes and metrics. They skip the host check: orchestrators ask by address or any name.
    fn page<B>(&self, request: &http::Request<B>) -> Option<HttpResponse> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        match request.uri().path() {
            "/livez" => Some(page(StatusCode::OK, "application/json", r#"{"live":true}"#)),
            "/readyz" => {
                let health = health::check(&self.api);
                let status = match health.ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                let body = serde_json::to_string(&health).expect("plain fields serialise");
                Some(page(status, "application/json", body))
            }
            "/metrics" => {
                let render = self.metrics.as_ref()?;
                Some(page(StatusCode::OK, "text/plain; version=0.0.4", render()))
            }
            _ => None,
        }
    }

    /// Names are checked so that a web page cannot reach the node through a name of its own that points
    /// here (DNS rebinding); an address cannot be rebound. Browsers do not apply CORS to WebSockets, so
    /// an upgrade's origin is checked here.
    fn refuse<B>(&self, request: &http::Request<B>) -> Option<HttpResponse> {
        let host = request
            .headers()
            .get(HOST)
            .and_then(|value| value.to_str().ok())
            .or_else(|| request.uri().host());
        if host.is_some_and(|host| !self.knows(host)) {
            return Some(page(StatusCode::FORBIDDEN, "text/plain", "invalid host specified\n"));
        }
        let origin = request.headers().get(ORIGIN)?.to_str().ok()?;
        if is_upgrade_request(request) && !self.admits(origin) {
            return Some(page(StatusCode::FORBIDDEN, "text/plain", "origin not allowed\n"));
        }
        None
    }

    fn knows(&self, host: &str) -> bool {
        let name = without_port(host);
        is_local(name)
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(name))
    }

    fn admits(&self, origin: &str) -> bool {
        let listed = |known: &String| known == "*" || known.eq_ignore_ascii_case(origin);
        let local = || {
            let uri = origin.parse::<Uri>().ok();
            uri.as_ref().and_then(Uri::host).is_some_and(|name| is_local(without_port(name)))
        };
        self.origins.iter().any(listed) || local()
    }

    fn name_state(&self, response: &mut HttpResponse) {
        let head = self.api.store.head();
        let (term, role) = {
            let cluster = self.api.cluster.borrow();
            (cluster.term, cluster.role)
        };
        let headers = response.headers_mut();
        headers.insert("x-blockraft-block", HeaderValue::from(head.number));
        headers.insert("x-blockraft-term", HeaderValue::from(term));
        headers.insert("x-blockraft-role", HeaderValue::from_static(role.name()));
    }
}

/// The host without its port; an IPv6 address without its brackets.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

fn is_local(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> HttpResponse {
    let mut response = HttpResponse::new(HttpBody::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
