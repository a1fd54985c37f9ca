//! What a block does before and after its transactions: system calls, irregular changes, requests,
//! rewards, withdrawals.

use alloy_consensus::Header;
use alloy_eips::{eip4895::Withdrawal, eip7685::Requests};
use alloy_evm::{
    Evm,
    block::{
        BlockExecutionError, BlockValidationError, SystemCaller,
        state_changes::post_block_balance_increments,
    },
    eth::{dao_fork, eip6110},
};
use alloy_hardforks::{EthereumHardfork, EthereumHardforks};
use blockraft_primitives::{ChainSpec, Receipt};
use revm::{
    DatabaseCommit,
    context::BlockEnv,
    database_interface::{Database, DatabaseCommitExt},
};

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
        let deposits = eip6110::parse_deposits_from_receipts(spec, receipts)?;
        if !deposits.is_empty() {
            requests.push_request_with_type(eip6110::DEPOSIT_REQUEST_TYPE, deposits);
        }
        SystemCaller::new(spec).append_post_execution_changes(evm, &mut requests)?;
    }
    let credits = post_block_balance_increments(spec, evm.block(), ommers, Some(withdrawals));
    evm.db_mut()
        .increment_balances(credits)
        .map_err(|_| BlockValidationError::IncrementBalanceFailed)?;
    Ok(requests)
}

fn move_dao_balances<D: Database + DatabaseCommit>(state: &mut D) -> Result<(), D::Error> {
    let drained = state.drain_balances(dao_fork::DAO_HARDFORK_ACCOUNTS)?;
    let refund = (dao_fork::DAO_HARDFORK_BENEFICIARY, drained.into_iter().sum());
    state.increment_balances([refund])
}
