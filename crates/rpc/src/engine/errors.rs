//! The Engine API's errors: codes and messages of execution-apis, details as geth gives them.

use crate::errors::{INTERNAL, INVALID_PARAMS, RpcError, SERVER};
use serde_json::json;

/// Why a call of the Engine API has no answer. Invalid payloads are an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// No build process has this id.
    #[error("Unknown payload")]
    UnknownPayload,
    /// Safe or final blocks that are not on the head's branch.
    #[error("Invalid forkchoice state")]
    InvalidForkchoice(String),
    /// Attributes that no block on the head can have.
    #[error("Invalid payload attributes")]
    InvalidAttributes(String),
    /// More bodies than one call may ask for.
    #[error("Too large request")]
    TooLarge(String),
    /// The method is not for blocks of this fork.
    #[error("Unsupported fork")]
    UnsupportedFork(String),
    /// The branch forks off too far below the head.
    #[error("Too deep reorg")]
    TooDeepReorg(String),
    /// Arguments that do not have the shape that this version of the method has.
    #[error("Invalid parameters")]
    InvalidParams(String),
    /// The cluster has no leader now, or lost it: the call may be sent again.
    #[error("Server error")]
    Unavailable(String),
    /// The node's own fault.
    #[error("Internal error")]
    Internal(String),
}

impl From<EngineError> for RpcError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        let (code, detail) = match error {
            EngineError::UnknownPayload => return Self::new(-38001, message),
            EngineError::InvalidForkchoice(detail) => (-38002, detail),
            EngineError::InvalidAttributes(detail) => (-38003, detail),
            EngineError::TooLarge(detail) => (-38004, detail),
            EngineError::UnsupportedFork(detail) => (-38005, detail),
            EngineError::TooDeepReorg(detail) => (-38006, detail),
            EngineError::InvalidParams(detail) => (INVALID_PARAMS, detail),
            EngineError::Unavailable(detail) => (SERVER, detail),
            EngineError::Internal(detail) => (INTERNAL, detail),
        };
        Self::new(code, message).with_data(&json!({ "err": detail }))
    }
}
