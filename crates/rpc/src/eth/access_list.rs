//! `eth_createAccessList`.

use crate::{
    api::Api,
    args::Args,
    errors::RpcResult,
    eth::{
        call::invalid_call,
        evm::{RunError, Simulation, halt_text},
    },
    registry::Registry,
    workers::Cancel,
};
use alloy_primitives::U256;
use alloy_rpc_types_eth::{AccessList, AccessListResult, TransactionRequest};
use blockraft_primitives::StateReader;
use revm::context::result::ExecutionResult;
use revm_inspectors::access_list::AccessListInspector;

/// Runs that a list may take to settle; each adds what the one before made cheaper to reach.
const ROUND_COUNT_MAX: usize = 16;

pub(crate) fn register(registry: &mut Registry) {
    registry.call("eth_createAccessList", 4, create_access_list);
}

/// Runs the call with the list that the last run came to, until the list stays the same. A call that fails
/// has a list too; the failure is named beside it.
fn create_access_list(api: &Api, args: &Args, cancel: &Cancel) -> RpcResult<AccessListResult> {
    let request: TransactionRequest = args.required(0)?;
    let mut simulation = Simulation::prepare(api, args, cancel)?;
    let mut tx = simulation.transaction(request.clone())?;
    if request.nonce.is_none() {
        // The address of a contract to be created follows from it.
        let sender = simulation.state.db.0.account(tx.caller)?;
        tx.nonce = sender.unwrap_or_default().nonce;
    }
    let mut rounds = 0;
    loop {
        let seed = AccessListInspector::new(tx.access_list.clone());
        let mut inspector = (seed, simulation.stopper());
        let result = match simulation.run_with(tx.clone(), &mut inspector) {
            Ok(result) => result,
            Err(RunError::Invalid(invalid)) => return Err(invalid_call(&invalid, &tx)),
            Err(RunError::Other(error)) => return Err(error),
        };
        let list = inspector.0.into_access_list();
        rounds += 1;
        if list == tx.access_list || rounds == ROUND_COUNT_MAX {
            return Ok(answer(list, &result));
        }
        tx.access_list = list;
        if tx.tx_type == 0 {
            // EIP-2930: a list makes a legacy call a typed one, and its entries cost gas.
            tx.tx_type = 1;
        }
    }
}

fn answer(access_list: AccessList, result: &ExecutionResult) -> AccessListResult {
    let error = match result {
        ExecutionResult::Success { .. } => None,
        ExecutionResult::Revert { .. } => Some("execution reverted".to_owned()),
        ExecutionResult::Halt { reason, .. } => Some(halt_text(reason)),
    };
    AccessListResult { access_list, gas_used: U256::from(result.tx_gas_used()), error }
}
