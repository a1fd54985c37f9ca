//! One payload against everything that a block of its fork must be.

use super::BranchState;
use crate::{
    chain::{Chain, Parent},
    clock::Stopwatch,
    error::NodeError,
    import::ImportError,
};
use alloy_consensus::{Block, Header, Sealed, TxEnvelope};
use alloy_eips::{
    eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256};
use blockraft_execution::{
    ConsensusError, ExecutedBlock, ExecutionError, HeaderRules, check_body, check_header, recover,
};
use blockraft_primitives::{
    AccountChange, ChainSpec, DiffIndex, PayloadEntry, StateDiff, StateError, StateReader,
    Transaction,
};
use blockraft_protocol::{Branch, Candidate};
use rayon::prelude::*;
use std::sync::Arc;

/// The rules of the payloads of one chain.
#[derive(Clone, Debug)]
pub(super) struct PayloadRules {
    pub(super) spec: Arc<ChainSpec>,
    headers: HeaderRules,
    /// Whether blocks without the contracts that they call are invalid; a cluster's own chain may do without.
    system_contracts: bool,
}

/// What a payload is.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It may become the head.
    Valid(Box<Candidate>),
    /// It never may.
    Invalid(Box<ImportError>),
}

impl PayloadRules {
    pub(super) fn new(chain: &Chain) -> Self {
        let genesis = chain.store.genesis();
        let headers = HeaderRules { equal_timestamps: false, gasless: genesis.options.gasless };
        let system_contracts = !genesis.genesis.config.extra_fields.contains_key("blockraft");
        Self { spec: chain.given_spec.clone(), headers, system_contracts }
    }

    /// Whether blocks of this chain have no base fee.
    pub(super) fn gasless(&self) -> bool {
        self.headers.gasless
    }
}

/// Checks and executes `block`, whose hash is known, on the end of `branch`, whose header is `parent`. An
/// error says that this node could not find out.
pub(super) fn validate(
    chain: &Chain,
    rules: &PayloadRules,
    branch: &Branch,
    parent: &Sealed<Header>,
    (hash, block): (B256, &Block<TxEnvelope>),
) -> Result<Verdict, NodeError> {
    let state = BranchState::new(chain, branch)?;
    let checked = check(chain, rules, parent, block).and_then(|transactions| {
        let executed = run(chain, block, &transactions, (parent_of(branch), &state))?;
        Ok((transactions, executed))
    });
    let (transactions, executed) = match checked {
        Ok(checked) => checked,
        Err(ImportError::Execution(ExecutionError::State(error))) => {
            return Err(NodeError::Execution(ExecutionError::State(error)));
        }
        Err(error) => return Ok(Verdict::Invalid(Box::new(error))),
    };
    let header = &block.header;
    let prague = rules.spec.is_prague_active_at_timestamp(header.timestamp);
    if rules.system_contracts
        && prague
        && let Some(address) = missing_contract(&executed.diff, &state)?
    {
        let error = ConsensusError::SystemContract { address };
        return Ok(Verdict::Invalid(Box::new(error.into())));
    }
    let diff = Arc::new(executed.diff);
    let hashing = Stopwatch::start();
    let expected = chain.root_after(branch, &diff, |_| hash)?;
    hashing.record_stage("root");
    if header.state_root != expected {
        let error = ImportError::StateRoot { got: header.state_root, expected };
        return Ok(Verdict::Invalid(Box::new(error)));
    }
    let index = Arc::new(DiffIndex::new(&diff));
    let entry = PayloadEntry {
        header: header.clone(),
        transactions,
        withdrawals: block.body.withdrawals.clone().map(|list| list.into_inner()),
        receipts: executed.receipts,
        diff: (*diff).clone(),
    };
    let header = Sealed::new_unchecked(header.clone(), hash);
    Ok(Verdict::Valid(Box::new(Candidate { header, entry: Arc::new(entry), index })))
}

/// All that needs no execution. Returns the transactions with their senders.
fn check(
    chain: &Chain,
    rules: &PayloadRules,
    parent: &Sealed<Header>,
    block: &Block<TxEnvelope>,
) -> Result<Vec<Transaction>, ImportError> {
    check_header(&rules.spec, rules.headers, parent, &block.header)?;
    check_body(&rules.spec, block)?;
    let number = block.header.number;
    // What came through the pool needs no second recovery.
    let pooled: Vec<Option<Transaction>> = {
        let pool = chain.pool.read();
        let by_hash = |tx: &TxEnvelope| pool.by_hash(tx.tx_hash()).map(|(_, tx)| tx.clone());
        block.body.transactions.iter().map(by_hash).collect()
    };
    let transactions = block.body.transactions.par_iter().zip(pooled).enumerate();
    let with_senders = transactions.map(|(index, (tx, pooled))| match pooled {
        // A pooled blob transaction carries its blobs, one of a block does not.
        Some(pooled) if pooled.inner() == tx => Ok(pooled),
        _ => recover(&rules.spec, number, index, tx.clone()),
    });
    Ok(with_senders.collect::<Result<_, ConsensusError>>()?)
}

fn run(
    chain: &Chain,
    block: &Block<TxEnvelope>,
    transactions: &[Transaction],
    on: (Parent, &BranchState<'_>),
) -> Result<ExecutedBlock, ImportError> {
    let withdrawals = block.body.withdrawals.as_ref().map_or(&[][..], |list| list.as_slice());
    let execution = Stopwatch::start();
    let executed = chain.execute_given(&block.header, transactions, withdrawals, on)?;
    execution.record_stage("execute");
    Ok(executed)
}

/// Who else has the state at the end of a branch.
pub(super) fn parent_of(branch: &Branch) -> Parent {
    if branch.payloads.is_empty() { Parent::Committed } else { Parent::Uncommitted }
}

/// EIP-7002 and EIP-7251: the contracts must be there when the block ends.
fn missing_contract(
    diff: &StateDiff,
    before: &BranchState<'_>,
) -> Result<Option<Address>, StateError> {
    for address in [WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS] {
        let change = diff.accounts.iter().find(|account| account.address == address);
        let account = match change.map(|account| account.change) {
            Some(AccountChange::Set(account)) => Some(account),
            Some(AccountChange::Deleted) => None,
            Some(AccountChange::Unchanged) | None => before.account(address)?,
        };
        if !account.is_some_and(|account| account.has_code()) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}
