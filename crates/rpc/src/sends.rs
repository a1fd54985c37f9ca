//! Batches that are nothing but `eth_sendRawTransaction`, which is what load is made of: read and answered in one
//! piece. Every other request goes on as it came, and so does every batch with something in it that is not plain.

use crate::{
    SubmitError, Verdict,
    api::Api,
    errors::RpcError,
    middleware::{CountedSends, SEND},
};
use alloy_primitives::{Bytes, hex};
use blockraft_primitives::limits::RPC_BATCH_LEN_MAX;
use futures::{FutureExt, future::BoxFuture};
use http::{
    Method,
    header::{CONTENT_LENGTH, HeaderMap},
};
use jsonrpsee::{
    MethodResponse,
    core::http_helpers::{HttpError, read_body},
    server::{
        HttpBody, HttpRequest, HttpResponse,
        http::{content_type_is_json, response},
    },
    types::{ErrorObjectOwned, Id},
};
use serde::Deserialize;
use std::{
    iter::repeat_with,
    sync::Arc,
    task::{Context, Poll},
};
use tower::{Layer, Service};

/// A shorter body is no load.
const BODY_BYTES_MIN: usize = 512;
/// Where a batch's first method is named, if it is a plain one.
const METHOD_WITHIN_BYTES: usize = 128;
/// Room made for each answer.
const ANSWER_BYTES_EXPECTED: usize = 112;

/// Puts this before a service, for bodies up to so many bytes.
#[derive(Clone)]
pub(crate) struct SendsLayer {
    pub(crate) api: Arc<Api>,
    pub(crate) request_bytes_max: u32,
}

/// A service behind this.
#[derive(Clone)]
pub(crate) struct Sends<S> {
    inner: S,
    layer: SendsLayer,
}

impl<S> Layer<S> for SendsLayer {
    type Service = Sends<S>;

    fn layer(&self, inner: S) -> Sends<S> {
        Sends { inner, layer: self.clone() }
    }
}

impl<S> Service<HttpRequest> for Sends<S>
where
    S: Service<HttpRequest, Response = HttpResponse> + Clone + Send + 'static,
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
        let is_json = request.method() == Method::POST && content_type_is_json(&request);
        if !is_json || body_bytes(request.headers()) < BODY_BYTES_MIN {
            return self.inner.call(request).boxed();
        }
        // The one that was polled is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let SendsLayer { api, request_bytes_max } = self.layer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let (body, is_single) = match read_body(&parts.headers, body, request_bytes_max).await {
                Ok(body) => body,
                Err(HttpError::TooLarge) => return Ok(response::too_large(request_bytes_max)),
                Err(HttpError::Malformed) => return Ok(response::malformed()),
                Err(HttpError::Stream(error)) => {
                    tracing::debug!(%error, "a request's body could not be read");
                    return Ok(response::internal_error());
                }
            };
            if !is_single && let Some((ids, raw)) = read_sends(&body) {
                return Ok(response::ok_response(answer(&api, &ids, raw).await));
            }
            inner.call(HttpRequest::from_parts(parts, HttpBody::from(body))).await
        }
        .boxed()
    }
}

fn body_bytes(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// One call, with nothing about it that would have to be told of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call<'a> {
    jsonrpc: &'a str,
    #[serde(borrow)]
    id: Id<'a>,
    method: &'a str,
    #[serde(borrow)]
    params: [&'a str; 1],
}

/// Ids and raw transactions of a batch of plain calls; `None` for any other.
fn read_sends(body: &[u8]) -> Option<(Vec<Id<'_>>, Vec<Bytes>)> {
    let beginning = &body[..body.len().min(METHOD_WITHIN_BYTES)];
    if !beginning.windows(SEND.len()).any(|text| text == SEND.as_bytes()) {
        return None;
    }
    let calls: Vec<Call<'_>> = serde_json::from_slice(body).ok()?;
    if !(2..=RPC_BATCH_LEN_MAX as usize).contains(&calls.len()) {
        return None;
    }
    let (mut ids, mut raw) = (Vec::with_capacity(calls.len()), Vec::with_capacity(calls.len()));
    for Call { jsonrpc, id, method, params: [text] } in calls {
        if jsonrpc != "2.0" || method != SEND {
            return None;
        }
        ids.push(id);
        raw.push(hex::decode(text).ok()?.into());
    }
    Some((ids, raw))
}

async fn answer(api: &Arc<Api>, ids: &[Id<'_>], raw: Vec<Bytes>) -> Vec<u8> {
    let counted = CountedSends::start(ids.len());
    let (body, successes) = body_of(ids, api.submit_all(raw).await);
    counted.end(successes);
    body
}

/// The answer to a batch, and how many of its calls succeeded. A node that is stopping may have no verdict on the
/// last ones.
fn body_of(ids: &[Id<'_>], verdicts: Vec<Verdict>) -> (Vec<u8>, u64) {
    let mut body = Vec::with_capacity(ANSWER_BYTES_EXPECTED * ids.len());
    let mut successes = 0;
    let verdicts = verdicts.into_iter().chain(repeat_with(|| Err(SubmitError::ShuttingDown)));
    for (id, verdict) in ids.iter().zip(verdicts) {
        body.push(if body.is_empty() { b'[' } else { b',' });
        match verdict {
            Ok(hash) => {
                successes += 1;
                body.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
                serde_json::to_writer(&mut body, id).expect("an id that was read can be written");
                body.extend_from_slice(br#","result":""#);
                let mut text = hex::Buffer::<32, true>::new();
                body.extend_from_slice(text.format(&hash.0).as_bytes());
                body.extend_from_slice(br#""}"#);
            }
            Err(refusal) => {
                let error = ErrorObjectOwned::from(RpcError::from(refusal));
                let response = MethodResponse::error(id.clone(), error);
                body.extend_from_slice(response.as_ref().as_bytes());
            }
        }
    }
    body.push(b']');
    (body, successes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::B256;
    use serde_json::{Value, json};

    fn call(id: &str, method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
    }

    #[test]
    fn only_plain_batches_are_taken() {
        let plain = call("7", SEND, r#"["0x02aa"]"#);
        let body = format!("[{plain}, {}]", call(r#""a""#, SEND, r#"["0x"]"#));
        let (ids, raw) = read_sends(body.as_bytes()).unwrap();
        assert_eq!(ids, [Id::Number(7), Id::Str("a".into())]);
        assert_eq!(raw, [Bytes::from_static(&[2, 0xaa]), Bytes::new()]);
        for other in [
            call("1", "eth_chainId", "[]"),
            call("1", SEND, "[]"),
            call("1", SEND, r#"["0x02aa", 1]"#),
            call("1", SEND, r#"["0x02a"]"#),
            call("1", SEND, r#"["zz"]"#),
            call("[]", SEND, r#"["0x02aa"]"#),
            format!(r#"{{"id":1,"method":"{SEND}","params":["0x02aa"]}}"#),
            format!(r#"{{"jsonrpc":"2.0","method":"{SEND}","params":["0x02aa"]}}"#),
            "1".to_owned(),
        ] {
            let body = format!("[{plain},{other}]");
            assert!(read_sends(body.as_bytes()).is_none(), "{body}");
        }
        assert!(read_sends(format!("[{plain}]").as_bytes()).is_none());
        let many = vec![plain.as_str(); RPC_BATCH_LEN_MAX as usize + 1].join(",");
        assert!(read_sends(format!("[{many}]").as_bytes()).is_none());
    }

    #[test]
    fn each_call_is_answered_though_there_is_no_verdict_on_it() {
        let hash = B256::repeat_byte(7);
        let (body, successes) = body_of(&[Id::Number(1), Id::Str("b".into())], vec![Ok(hash)]);
        let answers: Value = serde_json::from_slice(&body).unwrap();
        let stopping = ErrorObjectOwned::from(RpcError::from(SubmitError::ShuttingDown));
        let expected = json!([
            { "jsonrpc": "2.0", "id": 1, "result": hash },
            { "jsonrpc": "2.0", "id": "b", "error": stopping },
        ]);
        assert_eq!((answers, successes), (expected, 1));
    }
}
