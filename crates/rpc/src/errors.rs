//! JSON-RPC errors with the codes and texts of geth, which client libraries look for.

use crate::{ProofError, SubmitError};
use alloy_primitives::{B256, Bytes, hex};
use blockraft_primitives::StateError;
use blockraft_storage::StorageError;
use jsonrpsee::types::ErrorObjectOwned;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// What a method answers.
pub(crate) type RpcResult<T> = Result<T, RpcError>;

/// geth's code for an error without one of its own.
pub(crate) const SERVER: i32 = -32000;
/// No leader, or the outcome is not known: the request may be sent again.
pub(crate) const UNAVAILABLE: i32 = -32002;
/// The answer would be too long.
pub(crate) const RESPONSE_TOO_LARGE: i32 = -32003;
/// Not a request.
pub(crate) const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
/// Arguments that do not fit.
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// The node's own fault.
pub(crate) const INTERNAL: i32 = -32603;
/// A reverted call; `data` is what it returned.
pub(crate) const REVERT: i32 = 3;
/// EIP-7966: no receipt within the time; `data` is the hash.
pub(crate) const SYNC_TIMEOUT: i32 = 4;
/// EIP-7966: the transaction cannot be included now; `data` is the hash.
pub(crate) const SYNC_NOT_READY: i32 = 5;

/// One JSON-RPC error.
#[derive(Debug)]
pub(crate) struct RpcError {
    code: i32,
    message: String,
    data: Option<Box<RawValue>>,
}

impl RpcError {
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// An error without a code of its own.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::new(SERVER, message)
    }

    pub(crate) fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    pub(crate) fn invalid_argument(index: usize, problem: impl std::fmt::Display) -> Self {
        Self::new(INVALID_PARAMS, format!("invalid argument {index}: {problem}"))
    }

    pub(crate) fn missing_argument(index: usize) -> Self {
        Self::new(INVALID_PARAMS, format!("missing value for required argument {index}"))
    }

    pub(crate) fn method_not_found(method: &str) -> Self {
        let message = format!("the method {method} does not exist/is not available");
        Self::new(METHOD_NOT_FOUND, message)
    }

    /// geth's answer where a block's header or state is asked for and there is no such block.
    pub(crate) fn header_not_found() -> Self {
        Self::server("header not found")
    }

    /// geth's answer where a block is known and its state was let go.
    pub(crate) fn pruned_state(root: &B256) -> Self {
        Self::server(format!("historical state {} is not available", hex::encode(root)))
    }

    /// A call that reverted: code 3, the decoded reason, and the returned bytes.
    pub(crate) fn revert(output: &Bytes) -> Self {
        let message = match revert_reason(output) {
            Some(reason) => format!("execution reverted: {reason}"),
            None => "execution reverted".to_owned(),
        };
        Self::new(REVERT, message).with_data(&hex::encode_prefixed(output))
    }

    pub(crate) fn with_data(self, data: &impl Serialize) -> Self {
        Self { data: to_raw_value(data).ok(), ..self }
    }
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        Self::owned(error.code, error.message, error.data)
    }
}

impl From<StateError> for RpcError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Pruned { .. } | StateError::UnknownBlock(_) => {
                Self::server(error.to_string())
            }
            StateError::Database(_) | StateError::Corrupt { .. } => {
                Self::new(INTERNAL, error.to_string())
            }
        }
    }
}

impl From<StorageError> for RpcError {
    fn from(error: StorageError) -> Self {
        Self::new(INTERNAL, error.to_string())
    }
}

impl From<ProofError> for RpcError {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::TooOld { .. } => Self::server(error.to_string()),
            ProofError::State(error) => error.into(),
        }
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Pool(_) | SubmitError::ReadOnly => Self::server(message),
            SubmitError::NoLeader { term, last_leader, retry_after_ms } => {
                Self::new(UNAVAILABLE, message).with_data(&NoLeaderData {
                    term,
                    last_leader,
                    retry_after_ms,
                })
            }
            SubmitError::OutcomeUnknown { hash } => {
                Self::new(UNAVAILABLE, message).with_data(&serde_json::json!({ "hash": hash }))
            }
            SubmitError::Busy | SubmitError::ShuttingDown => Self::new(UNAVAILABLE, message),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoLeaderData {
    term: u64,
    last_leader: Option<u64>,
    retry_after_ms: u64,
}

/// The text in `Error(string)`, or geth's name of a `Panic(uint256)` code.
fn revert_reason(output: &[u8]) -> Option<String> {
    const ERROR_STRING: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
    const PANIC: [u8; 4] = [0x4e, 0x48, 0x7b, 0x71];
    let (selector, arguments) = output.split_first_chunk::<4>()?;
    match *selector {
        ERROR_STRING => {
            let offset = word_as_usize(arguments, 0)?;
            let length = word_as_usize(arguments, offset)?;
            let start = offset.checked_add(32)?;
            let text = arguments.get(start..start.checked_add(length)?)?;
            Some(String::from_utf8_lossy(text).into_owned())
        }
        PANIC => Some(panic_text(word_as_usize(arguments, 0)?)),
        _ => None,
    }
}

/// The 32-byte number at `offset`; `None` where it is cut off or too large to be a length.
fn word_as_usize(bytes: &[u8], offset: usize) -> Option<usize> {
    let word = bytes.get(offset..offset.checked_add(32)?)?;
    let (high, low) = word.split_last_chunk::<8>()?;
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    usize::try_from(u64::from_be_bytes(*low)).ok()
}

fn panic_text(code: usize) -> String {
    let known = match code {
        0x00 => "generic panic",
        0x01 => "assert(false)",
        0x11 => "arithmetic underflow or overflow",
        0x12 => "division or modulo by zero",
        0x21 => "enum overflow",
        0x22 => "invalid encoded storage byte array accessed",
        0x31 => "out-of-bounds array access; popping on an empty array",
        0x32 => "out-of-bounds access of an array or bytesN",
        0x41 => "out of memory",
        0x51 => "uninitialized function",
        _ => return format!("unknown panic code: {code:#x}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(output: &str, expected: serde_json::Value) {
        let output: Bytes = output.parse().expect("hex");
        let error = ErrorObjectOwned::from(RpcError::revert(&output));
        assert_eq!(serde_json::to_value(error).expect("json"), expected);
    }

    #[test]
    fn reverts_carry_reason_and_data() {
        let user_error = "0x08c379a00000000000000000000000000000000000000000000000000000000000000020000000000000000000000000000000000000000000000000000000000000000a75736572206572726f72";
        let assertion =
            "0x4e487b710000000000000000000000000000000000000000000000000000000000000001";
        let rows = [
            (user_error, "execution reverted: user error"),
            (assertion, "execution reverted: assert(false)"),
            ("0x", "execution reverted"),
            ("0x77726f6e672d63616c6c6461746173697a65", "execution reverted"),
            // Cut off, and with an offset that points nowhere.
            (
                "0x08c379a0000000000000000000000000000000000000000000000000000000",
                "execution reverted",
            ),
            (
                "0x08c379a0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
                "execution reverted",
            ),
        ];
        for (output, message) in rows {
            check(output, json!({"code": 3, "message": message, "data": output}));
        }
    }
}
