//! `eth_call`.

use crate::{
    api::Api,
    args::Args,
    errors::{RpcError, RpcResult},
    eth::evm::{RunError, Simulation, halt_text, invalid_text},
    registry::Registry,
    workers::Cancel,
};
use alloy_primitives::Bytes;
use alloy_rpc_types_eth::TransactionRequest;
use revm::context::{
    TxEnv,
    result::{ExecutionResult, InvalidTransaction},
};

pub(crate) fn register(registry: &mut Registry) {
    registry.call("eth_call", 4, call);
}

fn call(api: &Api, args: &Args, cancel: &Cancel) -> RpcResult<Bytes> {
    let request: TransactionRequest = args.required(0)?;
    let mut simulation = Simulation::prepare(api, args, cancel)?;
    let tx = simulation.transaction(request)?;
    match simulation.run(tx.clone()) {
        Ok(ExecutionResult::Success { output, .. }) => Ok(output.into_data()),
        Ok(ExecutionResult::Revert { output, .. }) => Err(RpcError::revert(&output)),
        Ok(ExecutionResult::Halt { reason, .. }) => Err(RpcError::server(halt_text(&reason))),
        Err(RunError::Invalid(invalid)) => Err(invalid_call(&invalid, &tx)),
        Err(RunError::Other(error)) => Err(error),
    }
}

/// geth's text for a call that fails before it runs.
pub(crate) fn invalid_call(invalid: &InvalidTransaction, tx: &TxEnv) -> RpcError {
    let text = invalid_text(invalid, tx);
    RpcError::server(format!("err: {text} (supplied gas {})", tx.gas_limit))
}
