//! The methods of the `engine` namespace.

use super::{
    EngineCall, EngineConfig, EngineError, PayloadRequest, blobs, bodies,
    payload::PayloadParam,
    rules::{Beside, Fork, check_attributes, check_get_payload, check_new_payload},
};
use crate::{
    api::Api,
    args::Args,
    errors::{INTERNAL, RpcError, RpcResult},
    registry::add,
};
use alloy_primitives::B256;
use alloy_rpc_types_engine::{
    ForkchoiceState, ForkchoiceUpdated, PayloadAttributes, PayloadId, PayloadStatus,
    PayloadStatusEnum,
};
use jsonrpsee::RpcModule;
use serde_json::{json, value::RawValue};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What `engine_exchangeCapabilities` answers.
const CAPABILITIES: [&str; 17] = [
    "engine_forkchoiceUpdatedV1",
    "engine_forkchoiceUpdatedV2",
    "engine_forkchoiceUpdatedV3",
    "engine_getBlobsV1",
    "engine_getBlobsV2",
    "engine_getClientVersionV1",
    "engine_getPayloadBodiesByHashV1",
    "engine_getPayloadBodiesByRangeV1",
    "engine_getPayloadV1",
    "engine_getPayloadV2",
    "engine_getPayloadV3",
    "engine_getPayloadV4",
    "engine_getPayloadV5",
    "engine_newPayloadV1",
    "engine_newPayloadV2",
    "engine_newPayloadV3",
    "engine_newPayloadV4",
];

/// What the methods reach.
pub(crate) struct EngineApi {
    api: Arc<Api>,
    calls: mpsc::Sender<EngineCall>,
}

/// The methods of the namespace.
pub(crate) fn register(api: Arc<Api>, config: &EngineConfig) -> RpcModule<EngineApi> {
    let mut module = RpcModule::new(EngineApi { api, calls: config.calls.clone() });
    add(&mut module, "engine_exchangeCapabilities", 1, |_, args| async move {
        args.required::<Vec<String>>(0)?;
        Ok(CAPABILITIES)
    });
    add(&mut module, "engine_getClientVersionV1", 1, |_, _| async move {
        // The specification asks for two letters that no other client has.
        Ok(json!([{
            "code": "BR",
            "name": "BlockRaFT",
            "version": concat!("v", env!("CARGO_PKG_VERSION")),
            "commit": "0x00000000",
        }]))
    });
    for (version, name) in numbered([
        "engine_newPayloadV1",
        "engine_newPayloadV2",
        "engine_newPayloadV3",
        "engine_newPayloadV4",
    ]) {
        add(&mut module, name, 4, move |engine, args| new_payload(engine, args, version));
    }
    for (version, name) in numbered([
        "engine_forkchoiceUpdatedV1",
        "engine_forkchoiceUpdatedV2",
        "engine_forkchoiceUpdatedV3",
    ]) {
        add(&mut module, name, 2, move |engine, args| forkchoice_updated(engine, args, version));
    }
    for (version, name) in numbered([
        "engine_getPayloadV1",
        "engine_getPayloadV2",
        "engine_getPayloadV3",
        "engine_getPayloadV4",
        "engine_getPayloadV5",
    ]) {
        add(&mut module, name, 1, move |engine, args| get_payload(engine, args, version));
    }
    add(&mut module, "engine_getBlobsV1", 1, |engine, args| async move {
        let hashes: Vec<B256> = args.required(0)?;
        let api = engine.api.clone();
        engine.api.workers.read(move || blobs::v1(&api, &hashes)).await
    });
    add(&mut module, "engine_getBlobsV2", 1, |engine, args| async move {
        let hashes: Vec<B256> = args.required(0)?;
        let api = engine.api.clone();
        engine.api.workers.read(move || blobs::v2(&api, &hashes)).await
    });
    add(&mut module, "engine_getPayloadBodiesByHashV1", 1, |engine, args| async move {
        let hashes: Vec<B256> = args.required(0)?;
        let api = engine.api.clone();
        engine.api.workers.read(move || bodies::by_hash(&api, &hashes)).await
    });
    add(&mut module, "engine_getPayloadBodiesByRangeV1", 2, |engine, args| async move {
        let (start, count) = (args.quantity(0)?, args.quantity(1)?);
        let api = engine.api.clone();
        engine.api.workers.read(move || bodies::by_range(&api, start, count)).await
    });
    module
}

/// Method names with their versions, counted from 1.
fn numbered<const N: usize>(names: [&'static str; N]) -> impl Iterator<Item = (u8, &'static str)> {
    (1..).zip(names)
}

async fn new_payload(engine: Arc<EngineApi>, args: Args, version: u8) -> RpcResult<PayloadStatus> {
    let api = engine.api.clone();
    // Megabytes of transactions are decoded and hashed: not on the async threads.
    let decoded = engine.api.workers.read(move || {
        let payload: PayloadParam = args.required(0)?;
        let beside = Beside {
            versioned_hashes: args.optional(1)?,
            beacon_root: args.optional(2)?,
            requests: args.optional(3)?,
        };
        let fork = Fork::at(api.spec(), payload.timestamp);
        check_new_payload(version, fork, &payload, &beside)?;
        Ok(payload.into_block(beside))
    });
    let (hash, block) = match decoded.await? {
        Ok((hash, block)) => (hash, Box::new(block)),
        Err(error) => {
            let validation_error = error.to_string();
            let status = PayloadStatusEnum::Invalid { validation_error };
            return Ok(PayloadStatus::from_status(status));
        }
    };
    engine.ask(|reply| EngineCall::NewPayload { hash, block, reply }).await
}

/// The head moves first: attributes that are wrong do not take that back.
async fn forkchoice_updated(
    engine: Arc<EngineApi>,
    args: Args,
    version: u8,
) -> RpcResult<ForkchoiceUpdated> {
    let state: ForkchoiceState = args.required(0)?;
    let attributes: Option<PayloadAttributes> = args.optional(1)?;
    let spec = engine.api.spec();
    let checked = attributes.as_ref().map_or(Ok(()), |attributes| {
        check_attributes(version, Fork::at(spec, attributes.timestamp), attributes)
    });
    let build = attributes.filter(|_| checked.is_ok()).map(|a| {
        Box::new(PayloadRequest {
            timestamp: a.timestamp,
            prev_randao: a.prev_randao,
            fee_recipient: a.suggested_fee_recipient,
            withdrawals: a.withdrawals,
            parent_beacon_block_root: a.parent_beacon_block_root,
        })
    });
    let updated = engine.ask(|reply| EngineCall::Forkchoice { state, build, reply }).await?;
    if updated.is_valid() {
        checked?;
    }
    Ok(updated)
}

async fn get_payload(engine: Arc<EngineApi>, args: Args, version: u8) -> RpcResult<Box<RawValue>> {
    let id: PayloadId = args.required(0)?;
    let built = engine.ask(|reply| EngineCall::GetPayload { id, reply }).await?;
    let fork = Fork::at(engine.api.spec(), built.block.header.timestamp);
    check_get_payload(version, fork)?;
    built.answer(version, fork).map_err(|error| RpcError::new(INTERNAL, error.to_string()))
}

impl EngineApi {
    /// Hands a call to the node and waits for its answer.
    async fn ask<T>(&self, call: impl FnOnce(super::EngineReply<T>) -> EngineCall) -> RpcResult<T> {
        let stopping = || EngineError::Unavailable("the node is shutting down".to_owned());
        let (reply, answer) = oneshot::channel();
        self.calls.send(call(reply)).await.map_err(|_| stopping())?;
        Ok(answer.await.map_err(|_| stopping())??)
    }
}
