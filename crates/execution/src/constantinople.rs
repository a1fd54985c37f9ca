//! Constantinople, which Petersburg replaced at the block at which it was to begin: Petersburg's rules, and
//! net gas metering of SSTORE (EIP-1283). revm knows only Petersburg. The later metering of Istanbul
//! (EIP-2200) differs in its prices and in its stipend rule, so the same formulas serve with prices of their
//! own.

use alloy_hardforks::EthereumHardforks;
use blockraft_primitives::ChainSpec;
use revm::{
    context::CfgEnv,
    context_interface::{cfg::GasId, context::SStoreResult, journaled_state::StateLoad},
    interpreter::{
        Host, InstructionContext, InstructionExecResult, InstructionResult, InterpreterTypes,
        instructions::host,
    },
    primitives::{Address, hardfork::SpecId},
};

/// A store that changes nothing for good costs as much as a load (EIP-1283).
const NO_CHANGE_GAS: u64 = 200;
/// Less what every store costs.
const SET_GAS: u64 = 20_000 - NO_CHANGE_GAS;
/// Less what every store costs.
const RESET_GAS: u64 = 5_000 - NO_CHANGE_GAS;

/// Whether the rules of block `number` are Constantinople's.
pub(crate) fn is_in_force(spec: &ChainSpec, number: u64) -> bool {
    spec.is_constantinople_active_at_block(number) && !spec.is_petersburg_active_at_block(number)
}

/// Sets the prices of Constantinople.
pub(crate) fn set_prices(cfg: &mut CfgEnv) {
    cfg.set_spec_and_mainnet_gas_params(SpecId::PETERSBURG);
    cfg.gas_params.override_gas([
        (GasId::sstore_static(), NO_CHANGE_GAS),
        (GasId::sstore_set_without_load_cost(), SET_GAS),
        (GasId::sstore_reset_without_cold_load_cost(), RESET_GAS),
        (GasId::sstore_set_refund(), SET_GAS),
        (GasId::sstore_reset_refund(), RESET_GAS),
    ]);
}

/// Whether the prices are those of [`set_prices`], and [`sstore`] therefore the instruction.
pub(crate) fn has_prices(cfg: &CfgEnv) -> bool {
    cfg.spec == SpecId::PETERSBURG && cfg.gas_params.sstore_static_gas() == NO_CHANGE_GAS
}

/// SSTORE, paid by what it changes of the value before the transaction.
pub(crate) fn sstore<W: InterpreterTypes, H: Host + ?Sized>(
    context: InstructionContext<'_, H, W>,
) -> InstructionExecResult {
    host::sstore_with_gas_accounting(context, net_metering)
}

fn net_metering<W: InterpreterTypes, H: Host + ?Sized>(
    context: &mut InstructionContext<'_, H, W>,
    _contract: Address,
    store: &StateLoad<SStoreResult>,
) -> InstructionExecResult {
    let InstructionContext { interpreter, host } = context;
    let prices = host.gas_params();
    if !interpreter.gas.record_regular_cost(prices.sstore_dynamic_gas(true, &store.data, false)) {
        return Err(InstructionResult::OutOfGas);
    }
    interpreter.gas.record_refund(prices.sstore_refund(true, &store.data));
    Ok(())
}
