//! What happens around every call: metrics, geth's text for unknown methods, and batches.

use crate::{
    SubmitError,
    api::Api,
    args::Args,
    errors::{INVALID_REQUEST, METHOD_NOT_FOUND, RESPONSE_TOO_LARGE, RpcError, RpcResult},
    http::Transport,
};
use alloy_primitives::Bytes;
use blockraft_primitives::limits::{RPC_BATCH_LEN_MAX, RPC_RESPONSE_BYTES_MAX};
use futures::{Stream, StreamExt, stream};
use jsonrpsee::{
    BatchResponseBuilder, MethodResponse, Methods, ResponsePayload,
    server::middleware::rpc::{
        Batch, BatchEntry, BatchEntryErr, Notification, Request, RpcServiceT,
    },
    types::{ErrorObjectOwned, Id},
};
use metrics::{counter, histogram};
use std::{future::Future, pin::pin, sync::Arc};

/// Calls of one batch that run at the same time when they only read. More would only hold more answers
/// in memory.
const BATCH_READ_WIDTH: usize = 4;

/// What batches are made of when they carry load.
pub(crate) const SEND: &str = "eth_sendRawTransaction";

/// The middleware, around one connection's service.
#[derive(Clone)]
pub(crate) struct Calls<S> {
    service: S,
    methods: Methods,
    api: Arc<Api>,
}

impl<S> Calls<S> {
    pub(crate) fn new(service: S, methods: Methods, api: Arc<Api>) -> Self {
        Self { service, methods, api }
    }

    /// The method's name as a label that lives for ever, or what to answer instead of calling it.
    fn admit(&self, request: &Request<'_>) -> Result<&'static str, RpcError> {
        let method = request.method_name();
        let Some((name, _)) = self.methods.method_with_name(method) else {
            counter!("blockraft_rpc_server_calls_unknown_total").increment(1);
            return Err(RpcError::method_not_found(method));
        };
        let subscribes = matches!(name, "eth_subscribe" | "eth_unsubscribe");
        if subscribes && request.extensions.get::<Transport>() == Some(&Transport::Http) {
            return Err(RpcError::new(METHOD_NOT_FOUND, "notifications not supported"));
        }
        Ok(name)
    }
}

impl<S> RpcServiceT for Calls<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            NotificationResponse = MethodResponse,
            BatchResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(
        &self,
        request: Request<'a>,
    ) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        let admitted = self.admit(&request);
        let service = self.service.clone();
        async move {
            let method = match admitted {
                Ok(method) => method,
                Err(error) => {
                    return MethodResponse::error(request.id, ErrorObjectOwned::from(error));
                }
            };
            counter!("blockraft_rpc_server_calls_started_total", "method" => method).increment(1);
            let started = tokio::time::Instant::now();
            let response = service.call(request).await;
            let seconds = started.elapsed().as_secs_f64();
            histogram!("blockraft_rpc_server_call_duration_seconds", "method" => method)
                .record(seconds);
            if response.is_success() {
                counter!("blockraft_rpc_server_calls_successful_total", "method" => method)
                    .increment(1);
            } else {
                counter!("blockraft_rpc_server_calls_failed_total", "method" => method)
                    .increment(1);
            }
            response
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        let this = self.clone();
        async move { run_batch(&this, batch.into_iter().collect()).await }
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.service.notification(notification)
    }
}

type Entry<'a> = Result<BatchEntry<'a>, BatchEntryErr<'a>>;

/// Answers a batch in its order. Neighbouring writes run together, so that one batch of transactions
/// is one admission and not a thousand; a read after a write sees what the write did. Once the answer
/// is as long as it may be, the rest is not run, and each of its calls is told so.
async fn run_batch<'a, S>(calls: &Calls<S>, entries: Vec<Entry<'a>>) -> MethodResponse
where
    Calls<S>: RpcServiceT<MethodResponse = MethodResponse>,
{
    if entries.is_empty() {
        return error(Id::Null, INVALID_REQUEST, "empty batch");
    }
    let ids: Vec<Option<Id<'static>>> = entries.iter().map(id_of).collect();
    let too_long = entries.len() > RPC_BATCH_LEN_MAX as usize;
    let mut responses = Vec::with_capacity(entries.len());
    if !too_long {
        let mut room = RPC_RESPONSE_BYTES_MAX as usize;
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let writes = is_write(&first);
            let mut run = vec![first];
            while let Some(next) = entries.next_if(|next| is_write(next) == writes) {
                run.push(next);
            }
            if let Some(sends) = sends_of(&run) {
                let answers = stream::iter(send_all(&calls.api, sends).await.into_iter().map(Some));
                if !fill(&mut responses, &mut room, answers).await {
                    break;
                }
                continue;
            }
            let width = if writes { run.len() } else { BATCH_READ_WIDTH };
            let pending: Vec<_> = run.into_iter().map(|entry| answer(calls, entry)).collect();
            let answers = stream::iter(pending).buffered(width);
            if !fill(&mut responses, &mut room, answers).await {
                break;
            }
        }
    }
    let (code, text) = match too_long {
        true => (INVALID_REQUEST, "batch too large"),
        false => (RESPONSE_TOO_LARGE, "response too large"),
    };
    let unanswered = ids.into_iter().skip(responses.len());
    responses.extend(unanswered.map(|id| id.map(|id| error(id, code, text))));

    let mut batch = BatchResponseBuilder::new_with_limit(usize::MAX);
    for response in responses.into_iter().flatten() {
        if let Err(refused) = batch.append(response) {
            return refused;
        }
    }
    if batch.is_empty() {
        return MethodResponse::notification();
    }
    MethodResponse::from_batch(batch.finish())
}

/// The calls of a run that are all `eth_sendRawTransaction`: they go to the gateway as one.
fn sends_of<'b, 'a>(run: &'b [Entry<'a>]) -> Option<Vec<&'b Request<'a>>> {
    let call = |entry: &'b Entry<'a>| match entry {
        Ok(BatchEntry::Call(call)) if call.method_name() == SEND => Some(call),
        _ => None,
    };
    if run.len() < 2 { None } else { run.iter().map(call).collect() }
}

/// Answers them, each as if it had been sent alone.
async fn send_all(api: &Arc<Api>, calls: Vec<&Request<'_>>) -> Vec<MethodResponse> {
    let counted = CountedSends::start(calls.len());
    let arguments: Vec<RpcResult<Bytes>> = calls.iter().map(|call| raw_of(call)).collect();
    let raw = arguments.iter().flatten().cloned().collect();
    let mut verdicts = api.submit_all(raw).await.into_iter();
    let mut successes = 0;
    let answers = calls.into_iter().zip(arguments).map(|(call, argument)| {
        let id = call.id.clone();
        let verdict = argument.and_then(|_| {
            let verdict = verdicts.next().unwrap_or(Err(SubmitError::ShuttingDown));
            verdict.map_err(RpcError::from)
        });
        match verdict {
            Ok(hash) => {
                successes += 1;
                let hash = ResponsePayload::success_borrowed(&hash);
                MethodResponse::response(id, hash, RPC_RESPONSE_BYTES_MAX as usize)
            }
            Err(refusal) => MethodResponse::error(id, ErrorObjectOwned::from(refusal)),
        }
    });
    let answers = answers.collect();
    counted.end(successes);
    answers
}

/// What metrics tell of transactions that are handed over as one.
pub(crate) struct CountedSends {
    count: usize,
    started: tokio::time::Instant,
}

impl CountedSends {
    pub(crate) fn start(count: usize) -> Self {
        counter!("blockraft_rpc_server_calls_started_total", "method" => SEND)
            .increment(count as u64);
        Self { count, started: tokio::time::Instant::now() }
    }

    pub(crate) fn end(self, successes: u64) {
        let duration = histogram!("blockraft_rpc_server_call_duration_seconds", "method" => SEND);
        duration.record_many(self.started.elapsed().as_secs_f64(), self.count);
        counter!("blockraft_rpc_server_calls_successful_total", "method" => SEND)
            .increment(successes);
        counter!("blockraft_rpc_server_calls_failed_total", "method" => SEND)
            .increment(self.count as u64 - successes);
    }
}

/// The one argument. What does not read as such is told in the words of every other call.
fn raw_of(call: &Request<'_>) -> RpcResult<Bytes> {
    let params = call.params();
    let one = params.as_str().and_then(|text| serde_json::from_str::<(Bytes,)>(text).ok());
    match one {
        Some((raw,)) => Ok(raw),
        None => Args::parse(&params, 1)?.required(0),
    }
}

/// Takes answers until there is no room; then `false`.
async fn fill(
    responses: &mut Vec<Option<MethodResponse>>,
    room: &mut usize,
    answers: impl Stream<Item = Option<MethodResponse>>,
) -> bool {
    let mut answers = pin!(answers);
    while let Some(answer) = answers.next().await {
        let length = answer.as_ref().map_or(0, |response| response.as_ref().len() + 1);
        let Some(left) = room.checked_sub(length) else { return false };
        *room = left;
        responses.push(answer);
    }
    true
}

/// `None` for a notification, which is not answered.
async fn answer<'a, S>(calls: &Calls<S>, entry: Entry<'a>) -> Option<MethodResponse>
where
    Calls<S>: RpcServiceT<MethodResponse = MethodResponse>,
{
    match entry {
        Ok(BatchEntry::Call(request)) => Some(calls.call(request).await),
        Ok(BatchEntry::Notification(_)) => None,
        Err(invalid) => {
            let (_, id) = invalid.into_parts();
            Some(error(id, INVALID_REQUEST, "invalid request"))
        }
    }
}

fn id_of(entry: &Entry<'_>) -> Option<Id<'static>> {
    match entry {
        Ok(BatchEntry::Call(request)) => Some(request.id.clone().into_owned()),
        Ok(BatchEntry::Notification(_)) => None,
        Err(_) => Some(Id::Null),
    }
}

fn error(id: Id<'_>, code: i32, text: &str) -> MethodResponse {
    MethodResponse::error(id, ErrorObjectOwned::from(RpcError::new(code, text)))
}

fn is_write(entry: &Entry<'_>) -> bool {
    entry
        .as_ref()
        .is_ok_and(|call| matches!(call.method_name(), SEND | "eth_sendRawTransactionSync"))
}
