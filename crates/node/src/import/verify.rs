//! One block against everything that it must be.

use super::{
    ImportError,
    prepare::Prepared,
    rules::{ChainRules, Tip},
    shares::{self, Workers},
};
use alloy_consensus::{Header, Sealed};
use alloy_eips::{
    eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
};
use alloy_hardforks::EthereumHardforks;
use blockraft_execution::{
    BlockInput, ConsensusError, ExecutedBlock, check_header, check_ommers, execute_block_with_roots,
};
use blockraft_primitives::{AccountChange, ChainSpec, StateDiff, StateReader, Transaction};
use blockraft_trie::StateTrie;

/// A block that is valid on its parent.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) header: Sealed<Header>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) executed: ExecutedBlock,
}

/// Checks and executes a block on `tip`, whose state is `state` and `trie`. A valid block's changes are in
/// the trie afterwards; after an error the trie may hold some of them.
pub(super) fn verify<S: StateReader>(
    rules: &ChainRules,
    tip: &Tip,
    block: &mut Prepared,
    state: S,
    trie: &mut StateTrie,
    workers: Workers,
) -> Result<Verified, ImportError> {
    let spec = rules.spec_after(tip)?;
    let header = &block.header;
    let body = &block.block.body;
    check_header(&spec, rules.headers, &tip.header, header)?;
    std::mem::replace(&mut block.body, Ok(()))?;
    check_ommers(&spec, header, &body.ommers, &tip.ancestors)?;
    let transactions = std::mem::replace(&mut block.transactions, Ok(Vec::new()))?;
    let withdrawals = body.withdrawals.as_ref().map_or(&[][..], |list| list.as_slice());
    let input = BlockInput {
        spec: &spec,
        header,
        transactions: &transactions,
        ommers: &body.ommers,
        withdrawals,
    };
    let executed = run(&spec, &input, state, trie, workers)?;
    if rules.system_contracts && spec.is_prague_active_at_timestamp(header.timestamp) {
        check_system_contracts(&executed.diff, trie)?;
    }
    trie.update(&executed.diff);
    let expected = trie.root();
    if header.state_root != expected {
        return Err(ImportError::StateRoot { got: header.state_root, expected });
    }
    Ok(Verified { header: header.clone(), transactions, executed })
}

fn run<S: StateReader>(
    spec: &ChainSpec,
    input: &BlockInput<'_>,
    state: S,
    trie: &mut StateTrie,
    workers: Workers,
) -> Result<ExecutedBlock, ImportError> {
    // Receipts before Byzantium carry the root after their transaction, so there is an order to keep. Each
    // diff covers those before it, so the trie of the block may go through them.
    if !spec.is_byzantium_active_at_block(input.header.number) && !input.transactions.is_empty() {
        let executed = execute_block_with_roots(input, state, &mut |diff| {
            trie.update(diff);
            trie.root()
        })?;
        return Ok(executed);
    }
    Ok(shares::execute(input, state, workers)?)
}

/// EIP-7002 and EIP-7251: the contracts must be there when the block ends. `trie` is of the parent.
fn check_system_contracts(diff: &StateDiff, trie: &StateTrie) -> Result<(), ConsensusError> {
    for address in [WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS] {
        let change = diff.accounts.iter().find(|account| account.address == address);
        let account = match change.map(|account| account.change) {
            Some(AccountChange::Set(account)) => Some(account),
            Some(AccountChange::Deleted) => None,
            Some(AccountChange::Unchanged) | None => trie.account(address),
        };
        if !account.is_some_and(|account| account.has_code()) {
            return Err(ConsensusError::SystemContract { address });
        }
    }
    Ok(())
}
