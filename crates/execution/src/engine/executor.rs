//! One thread's means of running transactions against the memory.

use super::{
    memory::Place,
    outcome::{Content, Difference, Outcome, Ran, Read, Verdict, Writes},
    source::Source,
    view::View,
};
use crate::{
    database::DatabaseError,
    instructions,
    late::Patience,
    runner::Refusal,
    transfer::{TRANSFER_GAS, Transfer, TransferRules},
    watchdog::{Watch, Watchdog},
};
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_evm::{EvmEnv, ToTxEnv, eth::EthEvmContext, precompiles::PrecompilesMap};
use alloy_primitives::{Address, U256};
use blockraft_primitives::{Account, AccountChange, AccountDiff, Transaction};
use revm::{
    ExecuteEvm,
    context::{ContextSetters, ContextTr, Evm as RevmEvm, TxEnv},
    context_interface::{
        JournalTr,
        result::{EVMError, ExecutionResult, HaltReason},
    },
    handler::{EthFrame, FrameResult, Handler, instructions::EthInstructions},
    inspector::NoOpInspector,
    interpreter::interpreter::EthInterpreter,
    primitives::hardfork::SpecId,
    state::EvmState,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

type EngineEvm<'a, M> = RevmEvm<
    EthEvmContext<View<'a, M>>,
    NoOpInspector,
    EthInstructions<EthInterpreter, EthEvmContext<View<'a, M>>>,
    PrecompilesMap,
    EthFrame,
>;

/// Accounts for which a map is kept from one transaction to the next: clearing it costs as much as it is large.
const STATE_CAPACITY_KEPT: usize = 112;

/// How a transaction is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On what may still change: reads are noted, and what is not there yet is not waited for.
    Ahead,
    /// For others: reads are noted.
    Share,
    /// On what is final: nothing is noted.
    Final,
}

/// Ethereum's rules but for the fee recipient's share, which becomes a credit: or every transaction of a
/// block would read what the one before it wrote.
struct WithoutReward<'a, M>(std::marker::PhantomData<&'a M>);

impl<'a, M: Source> Handler for WithoutReward<'a, M> {
    type Evm = EngineEvm<'a, M>;
    type Error = EVMError<DatabaseError>;
    type HaltReason = HaltReason;

    fn reward_beneficiary(
        &self,
        _evm: &mut Self::Evm,
        _exec_result: &mut FrameResult,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Runs transactions of one block, one at a time, at any place.
pub(crate) struct Executor<'a, M: Source> {
    memory: &'a M,
    env: EvmEnv,
    watchdog: Option<Watchdog>,
    rules: TransferRules,
    evm: EngineEvm<'a, M>,
}

impl<'a, M: Source> Executor<'a, M> {
    pub(crate) fn new(memory: &'a M, env: EvmEnv, watchdog: Option<Watchdog>) -> Self {
        let rules = TransferRules::new(&env.cfg_env, &env.block_env);
        let evm = new_evm(memory, &env, watchdog.clone());
        Self { memory, watchdog, rules, evm, env }
    }

    /// Runs a transaction on what is visible at `place`; publishes nothing.
    pub(crate) fn run(&mut self, tx: &Transaction, place: Place, way: Way) -> Outcome {
        let traced = way != Way::Final;
        let wipe_count = self.memory.wipe_count();
        let view = self.view();
        view.place = place;
        view.traced = traced;
        view.patience = if way == Way::Ahead { Patience::Try } else { Patience::Wait };
        view.watch.restart();
        view.balances.clear(traced);
        view.sender = Some(tx.signer());
        view.reads.clear();
        view.marks.clear();
        view.inner.clear();
        let result = catch_unwind(AssertUnwindSafe(|| self.transact(tx)));
        let (verdict, writes) = match result {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => (Verdict::Refused(Refusal::from(error)), Writes::default()),
            Err(_) => {
                // The panic left the EVM half way.
                self.evm = new_evm(self.memory, &self.env, self.watchdog.clone());
                (Verdict::Refused(Refusal::Panicked), Writes::default())
            }
        };
        let view = self.view();
        // Copies that are as long as they must be: the next transaction writes over the originals.
        let (reads, inner, seen) = (view.reads.clone(), view.inner.clone(), view.seen());
        Content { verdict, reads, inner, seen, wipe_count, is_final: !traced, writes }.into()
    }

    fn view(&mut self) -> &mut View<'a, M> {
        self.evm.ctx.journal_mut().db_mut()
    }

    fn transact(&mut self, tx: &Transaction) -> Result<(Verdict, Writes), EVMError<DatabaseError>> {
        if let Some(done) = self.transfer(tx)? {
            return Ok(done);
        }
        self.evm.ctx.set_tx(ToTxEnv::<TxEnv>::to_tx_env(tx.as_ref()));
        let result = WithoutReward::<M>(std::marker::PhantomData).run(&mut self.evm);
        let mut state = self.evm.finalize();
        let done = result.map(|result| self.outcome(tx, result, &mut state));
        // The map's memory serves the next transaction, unless this one was a giant.
        if state.capacity() <= STATE_CAPACITY_KEPT {
            state.clear();
            self.evm.ctx.journaled_state.inner.state = state;
        }
        done
    }

    fn outcome(
        &mut self,
        tx: &Transaction,
        result: ExecutionResult<HaltReason>,
        state: &mut EvmState,
    ) -> (Verdict, Writes) {
        let mut differences = Vec::new();
        // An authorization looks at a nonce and may leave no trace of that.
        if !tx.is_eip7702() {
            let View { balances, reads, .. } = self.view();
            differences = balances.release(tx.signer(), reads, state);
        }
        let gas_used = result.gas().tx_gas_used();
        let fee_recipient = self.rules.fee_recipient();
        // Who self-destructs in the transaction that tips it takes the tip along.
        let gone = state.get(&fee_recipient).is_some_and(|a| a.is_selfdestructed());
        self.note_unasked(state);
        let mut writes = Writes::from_evm(state);
        writes.differences = differences;
        let tip = self.tip(tx, gas_used);
        if !tip.is_zero() && !gone {
            writes.differences.reserve_exact(1);
            writes.differences.push(Difference { address: fee_recipient, wei: tip });
        }
        let success = result.is_success();
        let mut logs = result.into_logs();
        logs.shrink_to_fit();
        (Verdict::Ran(Ran { success, gas_used, logs }), writes)
    }

    /// revm does not ask for the slots of a contract that it creates, or tries to: nothing is created where
    /// storage is. They are noted here.
    fn note_unasked(&mut self, state: &EvmState) {
        let view = self.view();
        if !view.traced {
            return;
        }
        let asked = view.reads.iter().filter(|read| matches!(read, Read::Slot(..))).count();
        if asked == state.values().map(|account| account.storage.len()).sum::<usize>() {
            return;
        }
        let is_asked = |address, slot| {
            let mut reads = view.reads.iter();
            reads.any(|read| matches!(read, Read::Slot(a, s, _) if *a == address && *s == slot))
        };
        let mut unasked: Vec<(Address, U256)> = Vec::new();
        for (address, account) in state {
            let slots = account.storage.keys().filter(|slot| !is_asked(*address, **slot));
            unasked.extend(slots.map(|slot| (*address, *slot)));
        }
        // Executors that agree say the same bytes.
        unasked.sort_unstable();
        for (address, slot) in unasked {
            view.note_unasked(Read::Slot(address, slot, U256::ZERO));
        }
    }

    fn transfer(
        &mut self,
        tx: &Transaction,
    ) -> Result<Option<(Verdict, Writes)>, EVMError<DatabaseError>> {
        let rules = self.rules;
        let Some(receiver) = rules.receiver_of(tx).filter(|_| !tx.value().is_zero()) else {
            return Ok(None);
        };
        let view = self.view();
        let Some(sender) = view.account(tx.signer())? else { return Ok(None) };
        if !view.is_codeless(receiver)? {
            return Ok(None);
        }
        let Some(Transfer { value, fee, tip }) = rules.resolve(tx, &sender) else {
            return Ok(None);
        };
        let balance = sender.balance - value - fee;
        let sender = Account { nonce: sender.nonce + 1, balance, ..sender };
        let mut differences = Vec::with_capacity(2);
        differences.push(Difference { address: receiver, wei: value });
        if !tip.is_zero() {
            differences.push(Difference { address: rules.fee_recipient(), wei: tip });
        }
        let writes = Writes {
            accounts: vec![AccountDiff {
                address: tx.signer(),
                change: AccountChange::Set(sender),
                storage_wiped: false,
                storage: Vec::new(),
            }],
            differences,
            codes: Vec::new(),
        };
        let ran = Ran { success: true, gas_used: TRANSFER_GAS, logs: Vec::new() };
        Ok(Some((Verdict::Ran(ran), writes)))
    }

    /// The fee recipient's share: from London on, what exceeds the base fee.
    fn tip(&self, tx: &TxEnvelope, gas_used: u64) -> U256 {
        let base_fee = self.env.block_env.basefee;
        let price = tx.effective_gas_price(Some(base_fee));
        let burnt = if self.env.cfg_env.spec >= SpecId::LONDON { u128::from(base_fee) } else { 0 };
        U256::from(price.saturating_sub(burnt)) * U256::from(gas_used)
    }
}

fn new_evm<'a, M: Source>(
    memory: &'a M,
    env: &EvmEnv,
    watchdog: Option<Watchdog>,
) -> EngineEvm<'a, M> {
    let view = View::new(memory, 0, Watch::new(watchdog));
    instructions::new_evm(view, env.clone()).into_inner()
}
