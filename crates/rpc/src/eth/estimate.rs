//! `eth_estimateGas`: geth's binary search for the lowest gas limit that a call succeeds with.

use crate::{
    api::Api,
    args::Args,
    errors::{RpcError, RpcResult},
    eth::{
        call::invalid_call,
        evm::{RunError, Simulation, fee_cap, halt_text},
    },
    registry::Registry,
    workers::Cancel,
};
use alloy_eips::eip7825::MAX_TX_GAS_LIMIT_OSAKA;
use alloy_primitives::{TxKind, U64, U256};
use alloy_rpc_types_eth::TransactionRequest;
use blockraft_primitives::limits::RPC_GAS_CAP;
use revm::{
    Database,
    context::{
        TxEnv,
        result::{ExecutionResult, HaltReason, InvalidTransaction},
    },
    primitives::hardfork::SpecId,
};

/// Gas of a plain transfer.
const TRANSFER_GAS: u64 = 21_000;
/// Gas that a call with value hands on for free (EIP-150).
const CALL_STIPEND: u64 = 2_300;

pub(crate) fn register(registry: &mut Registry) {
    registry.call("eth_estimateGas", 4, estimate_gas);
}

fn estimate_gas(api: &Api, args: &Args, cancel: &Cancel) -> RpcResult<U64> {
    let request: TransactionRequest = args.required(0)?;
    let mut simulation = Simulation::prepare(api, args, cancel)?;
    let mut high = match request.gas {
        Some(gas) if gas >= TRANSFER_GAS => gas,
        _ => simulation.env.block_env.gas_limit,
    };
    if simulation.env.cfg_env.spec >= SpecId::OSAKA {
        high = high.min(MAX_TX_GAS_LIMIT_OSAKA);
    }
    high = high.min(affordable(&mut simulation, &request)?).min(RPC_GAS_CAP);
    let tx = simulation.transaction(request)?;
    let mut search = Search { simulation, tx };

    if search.is_plain_transfer()? && matches!(search.attempt(TRANSFER_GAS)?, Attempt::Ok { .. }) {
        return Ok(U64::from(TRANSFER_GAS));
    }
    search.bisect(high).map(U64::from)
}

/// The most gas that the sender can pay for.
fn affordable(simulation: &mut Simulation<'_>, request: &TransactionRequest) -> RpcResult<u64> {
    let fee_cap = fee_cap(request);
    if fee_cap.is_zero() {
        return Ok(u64::MAX);
    }
    let sender = request.from.unwrap_or_default();
    let account = simulation.state.basic(sender).map_err(|e| RpcError::server(e.to_string()))?;
    let balance = account.unwrap_or_default().balance;
    let value = request.value.unwrap_or(U256::ZERO);
    let available = balance
        .checked_sub(value)
        .ok_or_else(|| RpcError::server("insufficient funds for transfer"))?;
    Ok((available / fee_cap).saturating_to())
}

/// What one gas limit comes to.
enum Attempt {
    /// It is enough; gas used after refunds, and at the highest.
    Ok { used: u64, peak: u64 },
    /// It is too little.
    OutOfGas,
    /// No gas limit helps.
    Failed(RpcError),
}

struct Search<'a> {
    simulation: Simulation<'a>,
    tx: TxEnv,
}

impl Search<'_> {
    fn attempt(&mut self, gas_limit: u64) -> RpcResult<Attempt> {
        let tx = TxEnv { gas_limit, ..self.tx.clone() };
        match self.simulation.run(tx.clone()) {
            Ok(result) => Ok(attempt(&result)),
            Err(RunError::Invalid(
                InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
                | InvalidTransaction::GasFloorMoreThanGasLimit { .. },
            )) => Ok(Attempt::OutOfGas),
            Err(RunError::Invalid(invalid)) => Ok(Attempt::Failed(invalid_call(&invalid, &tx))),
            Err(RunError::Other(error)) => Err(error),
        }
    }

    /// Nothing to run at the other end.
    fn is_plain_transfer(&mut self) -> RpcResult<bool> {
        let TxKind::Call(to) = self.tx.kind else { return Ok(false) };
        if !self.tx.data.is_empty() || !self.tx.authorization_list.is_empty() {
            return Ok(false);
        }
        let account =
            self.simulation.state.basic(to).map_err(|e| RpcError::server(e.to_string()))?;
        Ok(account.is_none_or(|account| account.is_empty_code_hash()))
    }

    fn bisect(&mut self, mut high: u64) -> RpcResult<u64> {
        let (used, peak) = match self.attempt(high)? {
            Attempt::Ok { used, peak } => (used, peak),
            Attempt::Failed(error) => return Err(error),
            Attempt::OutOfGas => {
                let text = format!("gas required exceeds allowance ({high})");
                return Err(RpcError::server(text));
            }
        };
        let mut low = used.saturating_sub(1);
        // What most calls come to: the peak, and the 1/64 that each call holds back (EIP-150).
        let likely = (peak + CALL_STIPEND) * 64 / 63;
        if likely < high {
            self.narrow(likely, &mut low, &mut high)?;
        }
        while low + 1 < high {
            // geth's error ratio of 1.5 %: the exact figure is not worth its runs.
            if (high - low) * 1_000 < high * 15 {
                break;
            }
            let middle = ((high + low) / 2).min(low.saturating_mul(2));
            self.narrow(middle, &mut low, &mut high)?;
        }
        Ok(high)
    }

    fn narrow(&mut self, gas: u64, low: &mut u64, high: &mut u64) -> RpcResult<()> {
        match self.attempt(gas)? {
            Attempt::Ok { .. } => *high = gas,
            Attempt::OutOfGas | Attempt::Failed(_) => *low = gas,
        }
        Ok(())
    }
}

fn attempt(result: &ExecutionResult) -> Attempt {
    match result {
        ExecutionResult::Success { gas, .. } => {
            Attempt::Ok { used: gas.tx_gas_used(), peak: gas.total_gas_spent() }
        }
        ExecutionResult::Revert { output, .. } => Attempt::Failed(RpcError::revert(output)),
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => Attempt::OutOfGas,
        ExecutionResult::Halt { reason, .. } => {
            Attempt::Failed(RpcError::server(halt_text(reason)))
        }
    }
}
