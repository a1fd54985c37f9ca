//! What a block does before and after its transactions: system calls, irregular changes, requests,
//! rewards, withdrawals.

use crate::consensus::check_deposit_logs;
use alloy_consensus::Header;
use alloy_eips::{
    eip4895::Withdrawal,
    eip7002::{SYSTEM_ADDRESS, WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, WITHDRAWAL_REQUEST_TYPE},
    eip7251::{CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, CONSOLIDATION_REQUEST_TYPE},
    eip7685::Requests,
};
use alloy_evm::{
    Evm,
    block::{
        BlockExecutionError, BlockValidationError, SystemCaller,
        state_changes::post_block_balance_increments,
    },
    eth::{dao_fork, eip6110},
};
use alloy_hardforks::{EthereumHardfork, EthereumHardforks};
use alloy_primitives::{Address, Bytes, map::AddressMap};
use blockraft_primitives::{ChainSpec, Receipt};
use revm::{
    DatabaseCommit,
    context::BlockEnv,
    context_interface::result::{ExecutionResult, ResultAndState},
    database_interface::{Database, DatabaseCommitExt},
    state::Account as EvmAccount,
};

/// Gas of a system call (EIP-7002, EIP-7251).
const SYSTEM_CALL_GAS_MAX: u64 = 30_000_000;

/// The DAO fork's move of balances, and the calls of EIP-2935 and EIP-4788.
pub(crate) fn before_transactions<E>(
    spec: &ChainSpec,
    evm: &mut E,
    header: &Header,
) -> Result<(), BlockExecutionError>
where
    E: Evm<DB: Database + DatabaseCommit>,
{
    let dao = spec.ethereum_fork_activation(EthereumHardfork::Dao);
    if dao.transitions_at_block(header.number) {
        move_dao_balances(evm.db_mut())
            .map_err(|_| BlockValidationError::IncrementBalanceFailed)?;
    }
    SystemCaller::new(spec).apply_pre_execution_changes(header, evm)
}

/// Requests (EIP-6110, EIP-7002, EIP-7251), then rewards and withdrawals.
pub(crate) fn after_transactions<E>(
    spec: &ChainSpec,
    evm: &mut E,
    receipts: &[Receipt],
    ommers: &[Header],
    withdrawals: &[Withdrawal],
) -> Result<Requests, BlockExecutionError>
where
    E: Evm<DB: Database + DatabaseCommit, BlockEnv = BlockEnv>,
{
    let mut requests = Requests::default();
    if spec.is_prague_active_at_timestamp(evm.block().timestamp.saturating_to()) {
        check_deposit_logs(spec, receipts)?;
        let deposits = eip6110::parse_deposits_from_receipts(spec, receipts)?;
        if !deposits.is_empty() {
            requests.push_request_with_type(eip6110::DEPOSIT_REQUEST_TYPE, deposits);
        }
        let withdrawals = call_for_requests(evm, WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS)
            .map_err(|message| BlockValidationError::WithdrawalRequestsContractCall { message })?;
        let consolidations = call_for_requests(evm, CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS)
            .map_err(|message| BlockValidationError::ConsolidationRequestsContractCall {
                message,
            })?;
        for (kind, data) in
            [(WITHDRAWAL_REQUEST_TYPE, withdrawals), (CONSOLIDATION_REQUEST_TYPE, consolidations)]
        {
            if !data.is_empty() {
                requests.push_request_with_type(kind, data);
            }
        }
    }
    let credits = post_block_balance_increments(spec, evm.block(), ommers, Some(withdrawals));
    evm.db_mut()
        .increment_balances(credits)
        .map_err(|_| BlockValidationError::IncrementBalanceFailed)?;
    Ok(requests)
}

/// EIP-779. All of these accounts exist afterwards: emptied ones were not cleared before EIP-158.
fn move_dao_balances<D: Database + DatabaseCommit>(state: &mut D) -> Result<(), D::Error> {
    let mut refund: u128 = 0;
    for address in dao_fork::DAO_HARDFORK_ACCOUNTS {
        let mut info = state.basic(address)?.unwrap_or_default();
        let balance = std::mem::take(&mut info.balance);
        refund = refund.saturating_add(balance.saturating_to());
        let mut account = EvmAccount::from(info);
        account.mark_touch();
        if account.is_empty() {
            account.mark_created();
        }
        state.commit(AddressMap::from_iter([(address, account)]));
    }
    state.increment_balances([(dao_fork::DAO_HARDFORK_BENEFICIARY, refund)])
}

/// Calls the contract of EIP-7002 or EIP-7251, which must not fail, and returns the requests that it gives
/// out; none where there is no contract. The limit is checked here because revm's leaves room for what a later fork
/// charges.
fn call_for_requests<E>(evm: &mut E, contract: Address) -> Result<Bytes, String>
where
    E: Evm<DB: Database + DatabaseCommit>,
{
    let ResultAndState { result, state } = evm
        .transact_system_call(SYSTEM_ADDRESS, contract, Bytes::new())
        .map_err(|error| format!("execution failed: {error}"))?;
    if result.gas().total_gas_spent() > SYSTEM_CALL_GAS_MAX {
        return Err("execution halted: out of gas".to_owned());
    }
    match result {
        ExecutionResult::Success { output, .. } => {
            evm.db_mut().commit(state);
            Ok(output.into_data())
        }
        ExecutionResult::Revert { output, .. } => Err(format!("execution reverted: {output}")),
        ExecutionResult::Halt { reason, .. } => Err(format!("execution halted: {reason:?}")),
    }
}
