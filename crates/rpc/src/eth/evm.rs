//! Running a call on a state, without changing it.

use crate::{
    api::Api,
    args::Args,
    errors::{INTERNAL, RpcError, RpcResult},
    workers::{Cancel, timed_out},
};
use alloy_eips::BlockId;
use alloy_evm::{
    Evm, EvmEnv, EvmFactory,
    eth::EthEvmFactory,
    overrides::{apply_block_overrides, apply_state_overrides},
    rpc::TryIntoTxEnv,
};
use alloy_primitives::U256;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, state::StateOverride};
use blockraft_execution::{DatabaseError, StateDatabase, evm_env};
use blockraft_primitives::limits::RPC_GAS_CAP;
use blockraft_storage::StateView;
use revm::{
    Inspector,
    context::{
        TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    },
    database::CacheDB,
    interpreter::{InstructionResult, Interpreter},
};

/// The state that calls run on, with what they read cached.
pub(crate) type CallState = CacheDB<StateDatabase<StateView>>;

/// A state, a block environment and the overrides of one request.
pub(crate) struct Simulation<'a> {
    pub(crate) state: CallState,
    pub(crate) env: EvmEnv,
    cancel: &'a Cancel,
}

/// What running a transaction can fail with before there is a result.
pub(crate) enum RunError {
    /// It cannot be included in any block.
    Invalid(InvalidTransaction),
    /// Anything else.
    Other(RpcError),
}

impl<'a> Simulation<'a> {
    /// The state at the block named by argument 1, with the overrides of arguments 2 and 3.
    pub(crate) fn prepare(api: &Api, args: &Args, cancel: &'a Cancel) -> RpcResult<Self> {
        let id = args.block(1)?;
        let state_overrides: Option<StateOverride> = args.optional(2)?;
        let block_overrides: Option<BlockOverrides> = args.optional(3)?;
        let at = api.state(id)?;
        let mut env = match id == BlockId::pending() {
            true => evm_env(api.spec(), &api.next_header()),
            false => evm_env(api.spec(), &at.header),
        };
        // A call is not a transaction that a block has to take: no nonce, any sender, any gas limit.
        env.cfg_env.disable_nonce_check = true;
        env.cfg_env.disable_eip3607 = true;
        env.cfg_env.disable_block_gas_limit = true;
        env.cfg_env.disable_base_fee = true;
        env.cfg_env.tx_gas_limit_cap = Some(u64::MAX);

        let mut state = CallState::new(StateDatabase(at.view));
        if let Some(overrides) = block_overrides {
            apply_block_overrides(overrides, &mut state, &mut env.block_env);
        }
        if let Some(overrides) = state_overrides {
            if overrides.values().any(|account| account.move_precompile_to.is_some()) {
                let text = "movePrecompileToAddress is not supported";
                return Err(RpcError::invalid_params(text));
            }
            apply_state_overrides(overrides, &mut state)
                .map_err(|error| RpcError::server(error.to_string()))?;
        }
        Ok(Self { state, env, cancel })
    }

    /// The request as the EVM takes it. Without a gas limit it gets the cap; without a price it pays
    /// nothing and sees a base fee of zero, as in geth.
    pub(crate) fn transaction(&mut self, request: TransactionRequest) -> RpcResult<TxEnv> {
        let gas = request.gas.unwrap_or(RPC_GAS_CAP).min(RPC_GAS_CAP);
        let request = TransactionRequest { gas: Some(gas), ..request };
        let tx: TxEnv = request
            .try_into_tx_env(&self.env)
            .map_err(|error| RpcError::server(error.to_string()))?;
        if tx.gas_price == 0 {
            self.env.block_env.basefee = 0;
        }
        Ok(tx)
    }

    /// Runs a transaction; nothing is kept.
    pub(crate) fn run(&mut self, tx: TxEnv) -> Result<ExecutionResult, RunError> {
        let mut stopper = self.stopper();
        self.run_with(tx, &mut stopper)
    }

    /// Runs a transaction under an inspector, which must stop at a cancel.
    pub(crate) fn run_with<I>(
        &mut self,
        tx: TxEnv,
        inspector: &mut I,
    ) -> Result<ExecutionResult, RunError>
    where
        I: for<'s> Inspector<<EthEvmFactory as EvmFactory>::Context<&'s mut CallState>>,
    {
        let env = self.env.clone();
        let factory = EthEvmFactory::default();
        let mut evm = factory.create_evm_with_inspector(&mut self.state, env, inspector);
        let outcome = evm.transact_raw(tx);
        if self.cancel.is_set() {
            return Err(RunError::Other(timed_out()));
        }
        match outcome {
            Ok(run) => Ok(run.result),
            Err(EVMError::Transaction(invalid)) => Err(RunError::Invalid(invalid)),
            Err(error) => Err(RunError::Other(evm_error(error))),
        }
    }

    /// An inspector that ends a run nobody waits for.
    pub(crate) fn stopper(&self) -> StopWhenCancelled {
        StopWhenCancelled { cancel: self.cancel.clone(), step_count: 0 }
    }
}

fn evm_error(error: EVMError<DatabaseError>) -> RpcError {
    RpcError::new(INTERNAL, error.to_string())
}

/// Ends a run whose client is gone or whose time is up.
#[derive(Clone, Debug)]
pub(crate) struct StopWhenCancelled {
    cancel: Cancel,
    step_count: u8,
}

impl<CTX> Inspector<CTX> for StopWhenCancelled {
    fn step(&mut self, interpreter: &mut Interpreter, _: &mut CTX) {
        // Every 256th instruction: a look costs more than most instructions do.
        self.step_count = self.step_count.wrapping_add(1);
        if self.step_count == 0 && self.cancel.is_set() {
            // Each frame up to the first ends in the same way; `run_with` names the real reason.
            interpreter.halt(InstructionResult::OutOfGas);
            // So that the caller's next step looks again.
            self.step_count = u8::MAX;
        }
    }
}

/// geth's words for a transaction that no block could include.
pub(crate) fn invalid_text(invalid: &InvalidTransaction, tx: &TxEnv) -> String {
    let from = tx.caller;
    match invalid {
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => format!(
            "insufficient funds for gas * price + value: address {from} have {balance} want {fee}"
        ),
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        InvalidTransaction::GasPriceLessThanBasefee => {
            let price = tx.gas_price;
            format!(
                "max fee per gas less than block base fee: address {from}, maxFeePerGas: {price}"
            )
        }
        InvalidTransaction::PriorityFeeGreaterThanMaxFee => {
            "max priority fee per gas higher than max fee per gas".to_owned()
        }
        InvalidTransaction::CreateInitCodeSizeLimit => "max initcode size exceeded".to_owned(),
        InvalidTransaction::NonceOverflowInTransaction => "nonce has max value".to_owned(),
        other => other.to_string(),
    }
}

/// geth's words for a run that used up its gas without reverting (`core/vm/errors.go`).
pub(crate) fn halt_text(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(_) => "out of gas",
        HaltReason::OpcodeNotFound | HaltReason::InvalidFEOpcode | HaltReason::NotActivated => {
            "invalid opcode: INVALID"
        }
        HaltReason::InvalidJump => "invalid jump destination",
        HaltReason::StackUnderflow => "stack underflow",
        HaltReason::StackOverflow => "stack limit reached 1024 (1023)",
        HaltReason::OutOfOffset => "return data out of bounds",
        HaltReason::CreateCollision => "contract address collision",
        HaltReason::NonceOverflow => "nonce uint64 overflow",
        HaltReason::CreateContractSizeLimit => "max code size exceeded",
        HaltReason::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded",
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => {
            "write protection"
        }
        HaltReason::OutOfFunds => "insufficient balance for transfer",
        HaltReason::CallTooDeep => "max call depth exceeded",
        HaltReason::OverflowPayment
        | HaltReason::PrecompileError
        | HaltReason::PrecompileErrorWithContext(_) => return reason.to_string(),
    }
    .to_owned()
}

/// The price per gas that the sender must be able to pay; zero for none.
pub(crate) fn fee_cap(request: &TransactionRequest) -> U256 {
    U256::from(request.max_fee_per_gas.or(request.gas_price).unwrap_or(0))
}
