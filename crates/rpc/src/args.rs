//! Positional arguments, with geth's texts for those that do not fit.

use crate::errors::{RpcError, RpcResult};
use alloy_eips::BlockId;
use jsonrpsee::types::Params;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The arguments of one call, not yet decoded.
#[derive(Debug)]
pub(crate) struct Args(Vec<Box<RawValue>>);

impl Args {
    /// Takes the call's `params` apart; more than `count_max` are refused.
    pub(crate) fn parse(params: &Params<'_>, count_max: usize) -> RpcResult<Self> {
        let text = match params.as_str().map(str::trim) {
            None | Some("" | "null") => return Ok(Self(Vec::new())),
            Some(text) => text,
        };
        let values: Vec<Box<RawValue>> =
            serde_json::from_str(text).map_err(|_| RpcError::invalid_params("non-array args"))?;
        if values.len() > count_max {
            let message = format!("too many arguments, want at most {count_max}");
            return Err(RpcError::invalid_params(message));
        }
        Ok(Self(values))
    }

    /// The argument at `index`, which must be there.
    pub(crate) fn required<T: DeserializeOwned>(&self, index: usize) -> RpcResult<T> {
        self.optional(index)?.ok_or_else(|| RpcError::missing_argument(index))
    }

    /// The argument at `index`, unless it is absent or `null`.
    pub(crate) fn optional<T: DeserializeOwned>(&self, index: usize) -> RpcResult<Option<T>> {
        match self.0.get(index).map(|value| value.get()) {
            None | Some("null") => Ok(None),
            Some(text) => serde_json::from_str(text)
                .map(Some)
                .map_err(|error| RpcError::invalid_argument(index, plain(&error))),
        }
    }

    /// A block number, tag or hash (EIP-1898); the latest block where it is absent.
    pub(crate) fn block(&self, index: usize) -> RpcResult<BlockId> {
        Ok(self.optional(index)?.unwrap_or_else(BlockId::latest))
    }

    /// A count or index: a hex quantity, or a plain number, which geth takes too.
    pub(crate) fn quantity(&self, index: usize) -> RpcResult<u64> {
        self.optional_quantity(index)?.ok_or_else(|| RpcError::missing_argument(index))
    }

    /// Likewise, unless it is absent.
    pub(crate) fn optional_quantity(&self, index: usize) -> RpcResult<Option<u64>> {
        let Some(value) = self.optional::<serde_json::Value>(index)? else { return Ok(None) };
        let number = match &value {
            serde_json::Value::Number(number) => number.as_u64(),
            serde_json::Value::String(text) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            },
            _ => None,
        };
        let invalid = || RpcError::invalid_argument(index, "not a 64-bit quantity");
        number.map(Some).ok_or_else(invalid)
    }
}

/// serde_json's text without the place, which speaks of a fragment that the client never saw alone.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Address;
    use jsonrpsee::types::ErrorObjectOwned;

    fn message(error: RpcError) -> (i32, String) {
        let error = ErrorObjectOwned::from(error);
        (error.code(), error.message().to_owned())
    }

    fn parse(text: &'static str) -> RpcResult<Args> {
        Args::parse(&Params::new(Some(text)), 2)
    }

    #[test]
    fn arguments_that_do_not_fit_are_named_as_geth_names_them() {
        let too_many = parse("[1,2,3]").expect_err("three");
        assert_eq!(message(too_many), (-32602, "too many arguments, want at most 2".to_owned()));
        let object = parse(r#"{"a":1}"#).expect_err("object");
        assert_eq!(message(object), (-32602, "non-array args".to_owned()));

        let args = parse(r#"["0x12",null]"#).expect("two");
        let short = args.required::<Address>(0).expect_err("too short");
        assert_eq!(message(short).0, -32602);
        let short = message(args.required::<Address>(0).expect_err("too short")).1;
        assert!(short.starts_with("invalid argument 0: ") && !short.contains("line"), "{short}");
        let missing = args.required::<Address>(1).expect_err("null");
        let text = "missing value for required argument 1".to_owned();
        assert_eq!(message(missing), (-32602, text));
        assert_eq!(args.optional::<Address>(1).expect("null is absent"), None);
    }

    #[test]
    fn quantities_are_hex_or_plain() {
        let args = parse(r#"["0x1f",31]"#).expect("two");
        assert_eq!((args.quantity(0).ok(), args.quantity(1).ok()), (Some(31), Some(31)));
        let args = parse(r#"["0xzz",-1]"#).expect("two");
        assert!(args.quantity(0).is_err() && args.quantity(1).is_err());
    }
}
