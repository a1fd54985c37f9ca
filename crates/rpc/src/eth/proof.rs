//! `eth_getProof` (EIP-1186).

use crate::{
    api::Api,
    args::Args,
    errors::{RpcError, RpcResult},
    eth::state::parse_slot,
    registry::Registry,
};
use alloy_primitives::{Address, U256};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use alloy_serde::JsonStorageKey;
use blockraft_primitives::limits::RPC_PROOF_KEY_COUNT_MAX;

pub(crate) fn register(registry: &mut Registry) {
    registry.call("eth_getProof", 3, |api, args, _| get_proof(api, args));
}

fn get_proof(api: &Api, args: &Args) -> RpcResult<EIP1186AccountProofResponse> {
    let address: Address = args.required(0)?;
    let texts: Vec<String> = args.required(1)?;
    if texts.len() > RPC_PROOF_KEY_COUNT_MAX {
        let text = format!("too many slots (max {RPC_PROOF_KEY_COUNT_MAX})");
        return Err(RpcError::invalid_params(text));
    }
    let slots: Vec<U256> = texts.iter().map(|text| parse_slot(text)).collect::<RpcResult<_>>()?;
    let block = api.header(args.block(2)?)?.ok_or_else(RpcError::header_not_found)?.number;
    let proof = (api.proofs)(block, address, slots)?;
    let storage_proof = proof
        .slots
        .into_iter()
        .zip(&texts)
        .map(|(slot, text)| EIP1186StorageProof {
            key: echoed(text, slot.slot),
            value: slot.value,
            proof: slot.nodes,
        })
        .collect();
    Ok(EIP1186AccountProofResponse {
        address,
        balance: proof.balance,
        code_hash: proof.code_hash,
        nonce: proof.nonce,
        storage_hash: proof.storage_root,
        account_proof: proof.nodes,
        storage_proof,
    })
}

/// geth gives a key of full width back as it is, a shorter one as a number.
fn echoed(text: &str, slot: U256) -> JsonStorageKey {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() == 64 {
        JsonStorageKey::Hash(slot.into())
    } else {
        JsonStorageKey::Number(slot)
    }
}
