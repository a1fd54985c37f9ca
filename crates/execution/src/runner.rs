//! One block in progress: system calls, transactions, rewards and withdrawals, in the order that
//! Ethereum prescribes. Building and given blocks share it.

use crate::{
    ExecutionError,
    block_state::BlockState,
    codes::CodeCache,
    database::DatabaseError,
    instructions::{OVERDUE, new_evm},
    late::{LateParent, Parent},
    system::{after_transactions, before_transactions},
    transfer::{TRANSFER_GAS, TransferRules},
    watchdog::{Watch, Watchdog},
};
use alloy_consensus::{Eip658Value, Header, Transaction as _, TxEnvelope};
use alloy_eips::{eip4895::Withdrawal, eip7685::Requests};
use alloy_evm::{
    EthEvm, Evm, EvmEnv, ToTxEnv, block::BlockExecutionError, precompiles::PrecompilesMap,
};
use alloy_primitives::B256;
use blockraft_primitives::{ChainSpec, Receipt, StateDiff, StateReader, Transaction};
use revm::{
    context_interface::result::{EVMError, InvalidTransaction, ResultAndState},
    inspector::NoOpInspector,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

type BlockEvm<S> = EthEvm<BlockState<S>, NoOpInspector, PrecompilesMap>;

/// A block between its pre-execution system calls and its end.
pub(crate) struct Runner<'a, S: StateReader> {
    evm: BlockEvm<S>,
    spec: &'a ChainSpec,
    transfers: Option<TransferRules>,
    progress: Progress,
}

/// Whether plain transfers go round the EVM. The oracle never does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfers {
    /// Only the EVM.
    InEvm,
    /// Directly where it is plain.
    Direct,
}

/// What a block may be run with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aids {
    /// Stands for the parent hash of the header.
    pub(crate) parent: Option<LateParent>,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) codes: Option<CodeCache>,
}

/// How a serial run goes.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) transfers: Transfers,
    /// A guess.
    pub(crate) tx_count: usize,
    pub(crate) aids: Aids,
}

impl Course {
    /// Nothing but revm.
    pub(crate) fn oracle(tx_count: usize) -> Self {
        Self { transfers: Transfers::InEvm, tx_count, aids: Aids::default() }
    }
}

/// What the transactions so far came to.
#[derive(Debug, Default)]
struct Progress {
    receipts: Vec<Receipt>,
    gas_used: u64,
    blob_gas_used: u64,
}

/// What a block came to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) requests: Requests,
    pub(crate) gas_used: u64,
    pub(crate) blob_gas_used: u64,
    pub(crate) diff: StateDiff,
}

/// Why a transaction left no trace in the block.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// It asks for more gas than is left.
    Gas { available: u64 },
    /// A rule about transactions.
    Invalid(InvalidTransaction),
    /// The EVM gave an error that is none of the above.
    Failed(String),
    /// Its time was up.
    Overdue,
    /// The EVM panicked: call [`Runner::recover`] before anything else.
    Panicked,
    /// The parent state could not be read: the block cannot go on.
    State(DatabaseError),
}

impl<'a, S: StateReader> Runner<'a, S> {
    /// Starts a block: irregular changes (DAO) and the system calls before the transactions (EIP-2935,
    /// EIP-4788). `header` needs only the fields that are known before execution.
    pub(crate) fn begin(
        spec: &'a ChainSpec,
        env: EvmEnv,
        state: S,
        header: &Header,
        course: Course,
    ) -> Result<Self, ExecutionError> {
        let mut runner = Self::bare(spec, env, state, header, course);
        let before = runner.evm.db_mut();
        let header = before.parent().header_for_calls(header, before.reader())?;
        let result = before_transactions(spec, &mut runner.evm, &header);
        runner.check(result)?;
        Ok(runner)
    }

    /// As [`Self::begin`], without changes and calls before the transactions.
    pub(crate) fn bare(
        spec: &'a ChainSpec,
        env: EvmEnv,
        state: S,
        header: &Header,
        Course { transfers, tx_count, aids }: Course,
    ) -> Self {
        let parent = Parent::of(header, aids.parent);
        // A transaction brings one or two accounts that were not there yet.
        let accounts = tx_count + tx_count / 2;
        let watch = Watch::new(aids.watchdog);
        let state = BlockState::new(state, parent, watch, aids.codes, accounts);
        let transfers = (transfers == Transfers::Direct)
            .then(|| TransferRules::new(&env.cfg_env, &env.block_env));
        Self {
            evm: new_evm(state, env),
            spec,
            transfers,
            progress: Progress { receipts: Vec::with_capacity(tx_count), ..Progress::default() },
        }
    }

    /// Every account and slot looked at so far, as it is now.
    pub(crate) fn touched(&mut self) -> Result<StateDiff, DatabaseError> {
        self.evm.db_mut().touched()
    }

    /// Gives the last receipt a state root in place of a status (before EIP-658).
    pub(crate) fn set_post_state(&mut self, root: B256) {
        let receipt = self.progress.receipts.last_mut().expect("a transaction ran before");
        receipt.status = Eip658Value::PostState(root);
    }

    /// Receipts and net change, without what a block does after its transactions.
    pub(crate) fn into_parts(self) -> Result<(Vec<Receipt>, StateDiff), DatabaseError> {
        let (state, _) = self.evm.finish();
        Ok((self.progress.receipts, state.into_diff()?))
    }

    /// Gas that is left for transactions.
    pub(crate) fn gas_left(&self) -> u64 {
        self.evm.block().gas_limit - self.progress.gas_used
    }

    /// Blob gas used so far.
    pub(crate) fn blob_gas_used(&self) -> u64 {
        self.progress.blob_gas_used
    }

    /// Runs a transaction on top of those before it. A refused one leaves the state as it was.
    pub(crate) fn run(&mut self, tx: &Transaction) -> Result<(), Refusal> {
        let available = self.gas_left();
        if tx.gas_limit() > available {
            return Err(Refusal::Gas { available });
        }
        self.evm.db_mut().restart_watch();
        // The panic can only leave the EVM half way; the block's state is written after success.
        let result = catch_unwind(AssertUnwindSafe(|| self.transact(tx)));
        match result {
            Ok(Ok(Some(result))) => {
                self.include(tx, result);
                Ok(())
            }
            Ok(Ok(None)) => {
                self.include_transfer();
                Ok(())
            }
            Ok(Err(error)) => Err(Refusal::from(error)),
            Err(_) => Err(Refusal::Panicked),
        }
    }

    /// After a panic: the same block with a fresh EVM, without the transaction that panicked.
    pub(crate) fn recover(self) -> Self {
        let (state, env) = self.evm.finish();
        Self { evm: new_evm(state, env), ..self }
    }

    /// Ends the block: requests (EIP-6110, 7002, 7251), rewards, withdrawals. `touched` gets what
    /// [`Self::touched`] says then.
    pub(crate) fn finish(
        mut self,
        ommers: &[Header],
        withdrawals: &[Withdrawal],
        touched: Option<&mut StateDiff>,
    ) -> Result<Finished, ExecutionError> {
        self.evm.db_mut().restart_watch();
        let receipts = &self.progress.receipts;
        let result = after_transactions(self.spec, &mut self.evm, receipts, ommers, withdrawals);
        let requests = self.check(result)?;
        if let Some(touched) = touched {
            *touched = self.touched()?;
        }
        let Progress { receipts, gas_used, blob_gas_used } = self.progress;
        let (state, _) = self.evm.finish();
        Ok(Finished { receipts, requests, gas_used, blob_gas_used, diff: state.into_diff()? })
    }

    /// The transaction's outcome, not yet written; `None` of a plain transfer, which is.
    fn transact(
        &mut self,
        tx: &Transaction,
    ) -> Result<Option<ResultAndState>, EVMError<DatabaseError>> {
        if let Some(rules) = &self.transfers
            && self.evm.db_mut().transfer(rules, tx).map_err(EVMError::Database)?.is_some()
        {
            return Ok(None);
        }
        self.evm.transact_raw(ToTxEnv::to_tx_env(tx.as_ref())).map(Some)
    }

    fn include_transfer(&mut self) {
        self.progress.gas_used += TRANSFER_GAS;
        self.progress.receipts.push(Receipt {
            status: Eip658Value::Eip658(true),
            cumulative_gas_used: self.progress.gas_used,
            logs: Vec::new(),
        });
    }

    fn include(&mut self, tx: &TxEnvelope, ResultAndState { result, state }: ResultAndState) {
        self.progress.gas_used += result.gas().tx_gas_used();
        self.progress.blob_gas_used += tx.blob_gas_used().unwrap_or_default();
        self.progress.receipts.push(Receipt {
            status: Eip658Value::Eip658(result.is_success()),
            cumulative_gas_used: self.progress.gas_used,
            logs: result.into_logs(),
        });
        revm::DatabaseCommit::commit(self.evm.db_mut(), state);
    }

    /// A failure to read the state is told from a block that breaks a rule.
    fn check<T>(&mut self, result: Result<T, BlockExecutionError>) -> Result<T, ExecutionError> {
        match (self.evm.db_mut().take_failure(), result) {
            (Some(failure), _) => Err(ExecutionError::State(failure)),
            (None, Ok(value)) => Ok(value),
            (None, Err(error)) => Err(ExecutionError::System(error)),
        }
    }
}

impl From<EVMError<DatabaseError>> for Refusal {
    fn from(error: EVMError<DatabaseError>) -> Self {
        match error {
            EVMError::Transaction(error) => Self::Invalid(error),
            EVMError::Database(error) => Self::State(error),
            EVMError::Custom(reason) if reason == OVERDUE => Self::Overdue,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Refusal {
    /// As the error of a given block, where nothing may be refused.
    pub(crate) fn of_given(self, index: usize, tx: &Transaction) -> ExecutionError {
        let hash: B256 = *tx.tx_hash();
        match self {
            Self::Gas { available } => {
                ExecutionError::GasLimit { index, hash, gas_limit: tx.gas_limit(), available }
            }
            Self::Invalid(error) => ExecutionError::Transaction { index, hash, error },
            Self::Failed(reason) => ExecutionError::Poison { index, hash, reason },
            Self::Overdue => ExecutionError::Poison { index, hash, reason: OVERDUE.to_owned() },
            Self::Panicked => ExecutionError::Poison { index, hash, reason: "panic".to_owned() },
            Self::State(error) => ExecutionError::State(error),
        }
    }
}
