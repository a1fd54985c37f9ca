//! Instructions that are not revm's own: those that look whether a transaction's time is up, those that
//! note what is asked of balances, and PREVRANDAO where it is known late.

use crate::{collision, database::DatabaseError, engine::Balances, watchdog::Watch};
use alloy_evm::{EthEvm, EvmEnv, eth::EthEvmContext, precompiles::PrecompilesMap};
use alloy_primitives::{Address, B256, U256};
use revm::{
    bytecode::opcode,
    context::Journal,
    context_interface::context::ContextError,
    database_interface::Database,
    inspector::NoOpInspector,
    interpreter::{
        Instruction, InstructionContext, InstructionExecResult, InstructionResult,
        instructions::{block_info, contract, control, host},
        interpreter::EthInterpreter,
        interpreter_types::InputsTr,
    },
    primitives::hardfork::SpecId,
};
use std::fmt;

/// What an EVM that runs a block reads from, as far as these instructions need to know.
pub(crate) trait BlockDatabase: Database<Error = DatabaseError> {
    /// The transaction's time.
    fn watch(&self) -> &Watch;
    /// Where to note what is asked of balances, if anybody wants to know.
    fn balances(&mut self) -> Option<&mut Balances>;
    /// Whether the parent's hash is looked up when it is asked for.
    fn is_late(&self) -> bool;
    /// PREVRANDAO, where the parent's hash decides it.
    fn prev_randao(&mut self) -> Result<Option<B256>, DatabaseError>;
}

/// What the EVM says of a transaction whose time is up.
pub(crate) const OVERDUE: &str = "ran past its time";

type Context<'a, DB> = InstructionContext<'a, EthEvmContext<DB>, EthInterpreter>;

/// An EVM to run blocks with.
pub(crate) fn new_evm<DB: BlockDatabase + fmt::Debug>(
    db: DB,
    env: EvmEnv,
) -> EthEvm<DB, NoOpInspector, PrecompilesMap> {
    let mut evm = collision::new_evm(db, env).into_inner();
    let merged = evm.ctx.cfg.spec >= SpecId::MERGE;
    let database = &mut evm.ctx.journaled_state.database;
    let (watched, late) = (database.watch().is_set(), database.is_late() && merged);
    let noted = database.balances().is_some();
    let table = evm.instruction.instruction_table_mut();
    let mut put = |code: u8, instruction| table[usize::from(code)] = instruction;
    if watched {
        put(opcode::JUMP, Instruction::new(jump::<DB>));
        put(opcode::JUMPI, Instruction::new(jumpi::<DB>));
        put(opcode::DELEGATECALL, Instruction::new(call::<{ opcode::DELEGATECALL }, DB>));
        put(opcode::STATICCALL, Instruction::new(call::<{ opcode::STATICCALL }, DB>));
    }
    if watched || noted {
        put(opcode::CALL, Instruction::new(call::<{ opcode::CALL }, DB>));
        put(opcode::CALLCODE, Instruction::new(call::<{ opcode::CALLCODE }, DB>));
    }
    if noted {
        put(opcode::BALANCE, Instruction::new(balance::<DB>));
        put(opcode::SELFBALANCE, Instruction::new(self_balance::<DB>));
        put(opcode::CREATE, Instruction::new(create::<false, DB>));
        put(opcode::CREATE2, Instruction::new(create::<true, DB>));
        put(opcode::SELFDESTRUCT, Instruction::new(self_destruct::<DB>));
    }
    if late {
        put(opcode::DIFFICULTY, Instruction::new(prev_randao::<DB>));
    }
    EthEvm::new(evm, false)
}

fn jump<DB: BlockDatabase>(context: Context<'_, DB>) -> InstructionExecResult {
    check(context.host)?;
    control::jump(context)
}

fn jumpi<DB: BlockDatabase>(context: Context<'_, DB>) -> InstructionExecResult {
    check(context.host)?;
    control::jumpi(context)
}

fn call<const KIND: u8, DB: BlockDatabase>(context: Context<'_, DB>) -> InstructionExecResult {
    check(context.host)?;
    if matches!(KIND, opcode::CALL | opcode::CALLCODE)
        && let Ok(wei) = context.interpreter.stack.peek(2)
        && !wei.is_zero()
    {
        spend(context.host, context.interpreter.input.target_address(), wei);
    }
    contract::call::<KIND, _, _>(context)
}

/// Notes that the running contract sends ether along.
fn spend<DB: BlockDatabase>(host: &mut EthEvmContext<DB>, from: Address, wei: U256) {
    let Journal { database, inner } = &mut host.journaled_state;
    if let Some(balances) = database.balances() {
        match inner.state.get(&from) {
            Some(account) => balances.spend(from, wei, account.info.balance),
            None => balances.look_at(from),
        }
    }
}

fn look_at<DB: BlockDatabase>(context: &mut Context<'_, DB>, address: Address) {
    if let Some(balances) = context.host.journaled_state.database.balances() {
        balances.look_at(address);
    }
}

fn balance<DB: BlockDatabase>(mut context: Context<'_, DB>) -> InstructionExecResult {
    if let Ok(top) = context.interpreter.stack.peek(0) {
        look_at(&mut context, Address::from_word(top.into()));
    }
    host::balance(context)
}

fn self_balance<DB: BlockDatabase>(mut context: Context<'_, DB>) -> InstructionExecResult {
    let address = context.interpreter.input.target_address();
    look_at(&mut context, address);
    host::selfbalance(context)
}

/// A creation moves ether, if there is enough, and the creator's nonce.
fn create<const SALTED: bool, DB: BlockDatabase>(
    mut context: Context<'_, DB>,
) -> InstructionExecResult {
    let address = context.interpreter.input.target_address();
    look_at(&mut context, address);
    contract::create::<SALTED, _, _>(context)
}

fn self_destruct<DB: BlockDatabase>(mut context: Context<'_, DB>) -> InstructionExecResult {
    let address = context.interpreter.input.target_address();
    look_at(&mut context, address);
    host::selfdestruct(context)
}

#[inline(always)]
fn check<DB: BlockDatabase>(host: &mut EthEvmContext<DB>) -> InstructionExecResult {
    if host.journaled_state.database.watch().is_over() {
        return Err(overdue(host));
    }
    Ok(())
}

/// Ends the whole transaction, however deep the call.
#[cold]
fn overdue<DB: BlockDatabase>(host: &mut EthEvmContext<DB>) -> InstructionResult {
    host.error = Err(ContextError::Custom(OVERDUE.to_owned()));
    InstructionResult::FatalExternalError
}

fn prev_randao<DB: BlockDatabase>(context: Context<'_, DB>) -> InstructionExecResult {
    let InstructionContext { interpreter, host } = context;
    block_info::difficulty(InstructionContext {
        interpreter: &mut *interpreter,
        host: &mut *host,
    })?;
    match host.journaled_state.database.prev_randao() {
        Ok(None) => {}
        Ok(Some(value)) => {
            *interpreter.stack.top().expect("it was pushed above") = value.into();
        }
        Err(error) => {
            host.error = Err(ContextError::Db(error));
            return Err(InstructionResult::FatalExternalError);
        }
    }
    Ok(())
}
