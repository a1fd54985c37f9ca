//! Balances, nonces, code and storage at a block.

use crate::{
    api::Api,
    args::Args,
    errors::{RpcError, RpcResult},
    registry::Registry,
};
use alloy_eips::BlockId;
use alloy_primitives::{Address, B256, Bytes, U64, U256, hex};
use blockraft_primitives::StateReader;
use std::collections::BTreeMap;

/// Slots of one `eth_getStorageValues` (geth: 1024).
const STORAGE_VALUE_COUNT_MAX: usize = 1024;

pub(crate) fn register(registry: &mut Registry) {
    registry.read("eth_getBalance", 2, get_balance);
    registry.read("eth_getTransactionCount", 2, get_transaction_count);
    registry.read("eth_getCode", 2, get_code);
    registry.read("eth_getStorageAt", 3, get_storage_at);
    registry.read("eth_getStorageValues", 2, get_storage_values);
}

fn get_balance(api: &Api, args: &Args) -> RpcResult<U256> {
    let address: Address = args.required(0)?;
    let state = api.state(args.block(1)?)?;
    Ok(state.view.account(address)?.unwrap_or_default().balance)
}

/// `pending` counts what is in the replicated pool, which every node has.
fn get_transaction_count(api: &Api, args: &Args) -> RpcResult<U64> {
    let address: Address = args.required(0)?;
    let block = args.block(1)?;
    // The pool is read first: a transaction leaves it only after its block is visible, so the larger of
    // the two nonces never goes back.
    let pooled = match block == BlockId::pending() {
        true => api.pool.read().next_nonce(address).unwrap_or(0),
        false => 0,
    };
    let state = api.state(block)?;
    let nonce = state.view.account(address)?.unwrap_or_default().nonce;
    Ok(U64::from(nonce.max(pooled)))
}

fn get_code(api: &Api, args: &Args) -> RpcResult<Bytes> {
    let address: Address = args.required(0)?;
    let state = api.state(args.block(1)?)?;
    match state.view.account(address)? {
        Some(account) if account.has_code() => Ok(state.view.code(account.code_hash)?),
        _ => Ok(Bytes::new()),
    }
}

fn get_storage_at(api: &Api, args: &Args) -> RpcResult<B256> {
    let address: Address = args.required(0)?;
    let slot = parse_slot(&args.required::<String>(1)?)?;
    let state = api.state(args.block(2)?)?;
    Ok(state.view.storage(address, slot)?.into())
}

fn get_storage_values(api: &Api, args: &Args) -> RpcResult<BTreeMap<Address, Vec<B256>>> {
    let request: BTreeMap<Address, Vec<String>> = args.required(0)?;
    let slot_count: usize = request.values().map(Vec::len).sum();
    if slot_count == 0 {
        return Err(RpcError::invalid_params("empty request"));
    }
    if slot_count > STORAGE_VALUE_COUNT_MAX {
        let text = format!("too many slots (max {STORAGE_VALUE_COUNT_MAX})");
        return Err(RpcError::invalid_params(text));
    }
    let state = api.state(args.block(1)?)?;
    let mut values = BTreeMap::new();
    for (address, slots) in request {
        let read = |slot: &String| Ok(state.view.storage(address, parse_slot(slot)?)?.into());
        values.insert(address, slots.iter().map(read).collect::<RpcResult<Vec<B256>>>()?);
    }
    Ok(values)
}

/// A storage slot as geth reads it: hex of up to 32 bytes, with or without `0x`.
pub(crate) fn parse_slot(text: &str) -> RpcResult<U256> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() > 64 {
        let message = format!("storage key too long (want at most 32 bytes): {text:?}");
        return Err(RpcError::invalid_params(message));
    }
    let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
    let bytes = hex::decode(even)
        .map_err(|_| RpcError::invalid_params(format!("invalid hex in storage key: {text:?}")))?;
    Ok(U256::from_be_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonrpsee::types::ErrorObjectOwned;

    #[test]
    fn slots_are_read_as_geth_reads_them() {
        let rows = [("0x0", 0), ("0x00", 0), ("1f", 31), ("0x", 0), ("0x123", 0x123)];
        for (text, slot) in rows {
            assert_eq!(parse_slot(text).expect(text), U256::from(slot));
        }
        let long = format!("0x{}", "0".repeat(65));
        let error = ErrorObjectOwned::from(parse_slot(&long).expect_err("33 bytes"));
        let message = format!("storage key too long (want at most 32 bytes): {long:?}");
        assert_eq!((error.code(), error.message()), (-32602, message.as_str()));
        assert!(parse_slot("0xzz").is_err());
    }
}
