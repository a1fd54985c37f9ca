//! JSON-RPC calls beside the load: status, heights, receipts.

use crate::http::{Connection, Endpoint};
use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use std::time::Duration;

/// Longest wait for an answer. Writes wait up to ten seconds for a leader (`LEADER_WAIT_MS`).
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest wait for receipts of a block: anvil needs time in the square of its transactions, and tens
/// of seconds for some thousand. What reads them is not being measured.
const RECEIPTS_TIMEOUT: Duration = Duration::from_secs(180);

/// One answer, its result not yet parsed.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer<'a> {
    /// Null when the node could not read the request.
    #[serde(default)]
    pub(crate) id: Option<u64>,
    /// Present on success.
    #[serde(borrow, default)]
    pub(crate) result: Option<&'a RawValue>,
    /// Present on failure.
    #[serde(default)]
    pub(crate) error: Option<RpcError>,
}

/// A JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RpcError {
    /// Its code.
    pub(crate) code: i64,
    /// Its text.
    pub(crate) message: String,
}

/// Parses one answer or a batch of them, whichever the body is.
pub(crate) fn parse_answers(body: &[u8]) -> serde_json::Result<Vec<Answer<'_>>> {
    if body.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice(body)
    } else {
        Ok(vec![serde_json::from_slice(body)?])
    }
}

/// A caller of one node that connects again when it has to.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    connection: Option<Connection>,
}

impl Client {
    /// A caller; connects with the first call.
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    /// The node that is called.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One call.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: Value,
    ) -> anyhow::Result<T> {
        let mut results = self.batch(method, vec![params]).await?;
        results.pop().with_context(|| format!("{method}: no answer"))
    }

    /// One method with many parameter lists, in one request; results in the order of `params`.
    /// Errors when any of the calls does.
    pub(crate) async fn batch<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: Vec<Value>,
    ) -> anyhow::Result<Vec<T>> {
        let count = params.len();
        let calls = params.into_iter().enumerate().map(|(id, params)| {
            json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
        });
        let body = match count {
            0 => return Ok(Vec::new()),
            1 => calls.map(|call| call.to_string()).collect(),
            _ => Value::from_iter(calls).to_string(),
        };
        let place = format!("{method} at {}", self.endpoint);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.endpoint).await.with_context(|| place.clone())?,
        };
        let timeout =
            if method == "eth_getBlockReceipts" { RECEIPTS_TIMEOUT } else { REQUEST_TIMEOUT };
        let answer = tokio::time::timeout(timeout, connection.post(body.as_bytes()))
            .await
            .map_err(|_| anyhow!("no answer within {timeout:?}"))
            .and_then(|answer| answer.map_err(Into::into))
            .with_context(|| place.clone())?;
        let results = parse_results(answer, count).with_context(|| place.clone());
        if !connection.is_closing() {
            self.connection = Some(connection);
        }
        results
    }
}

fn parse_results<T: DeserializeOwned>(body: &[u8], count: usize) -> anyhow::Result<Vec<T>> {
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for answer in parse_answers(body)? {
        if let Some(RpcError { code, message }) = answer.error {
            return Err(anyhow!("error {code}: {message}"));
        }
        let id = answer.id.context("an answer without id")? as usize;
        ensure!(id < count, "an answer to a call that was not made: {id}");
        let result = answer.result.map_or("null", RawValue::get);
        results[id] = Some(serde_json::from_str(result)?);
    }
    let missing = || "a call of the batch was not answered";
    results.into_iter().map(|result| result.with_context(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_answers_are_put_in_the_order_of_the_calls() {
        let body =
            br#"[{"jsonrpc":"2.0","id":1,"result":"b"},{"jsonrpc":"2.0","id":0,"result":"a"}]"#;
        assert_eq!(parse_results::<String>(body, 2).unwrap(), ["a", "b"]);
    }

    #[test]
    fn errors_and_missing_answers_are_told() {
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32002,"message":"no leader"}}"#,
                "error -32002: no leader",
            ),
            ("[]", "a call of the batch was not answered"),
            (r#"{"jsonrpc":"2.0","id":5,"result":1}"#, "an answer to a call that was not made: 5"),
        ] {
            let error = parse_results::<Value>(body.as_bytes(), 1).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
