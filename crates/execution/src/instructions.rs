//! Instructions that are not revm's own: those that look whether a transaction's time is up, and PREVRANDAO
//! where it is known late.

use crate::{collision, database::DatabaseError, watchdog::Watch};
use alloy_evm::{EthEvm, EvmEnv, eth::EthEvmContext, precompiles::PrecompilesMap};
use alloy_primitives::B256;
use revm::{
    bytecode::opcode,
    context_interface::context::ContextError,
    database_interface::Database,
    inspector::NoOpInspector,
    interpreter::{
        Instruction, InstructionContext, InstructionExecResult, InstructionResult,
        instructions::{block_info, contract, control},
        interpreter::EthInterpreter,
    },
    primitives::hardfork::SpecId,
};
use std::fmt;

/// What an EVM that runs a block reads from, as far as these instructions need to know.
pub(crate) trait BlockDatabase: Database<Error = DatabaseError> {
    /// The transaction's time.
    fn watch(&self) -> &Watch;
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
    let database = &evm.ctx.journaled_state.database;
    let (watched, late) = (database.watch().is_set(), database.is_late() && merged);
    let table = evm.instruction.instruction_table_mut();
    if watched {
        for (code, instruction) in [
            (opcode::JUMP, Instruction::new(jump::<DB>)),
            (opcode::JUMPI, Instruction::new(jumpi::<DB>)),
            (opcode::CALL, Instruction::new(call::<{ opcode::CALL }, DB>)),
            (opcode::CALLCODE, Instruction::new(call::<{ opcode::CALLCODE }, DB>)),
            (opcode::DELEGATECALL, Instruction::new(call::<{ opcode::DELEGATECALL }, DB>)),
            (opcode::STATICCALL, Instruction::new(call::<{ opcode::STATICCALL }, DB>)),
        ] {
            table[usize::from(code)] = instruction;
        }
    }
    if late {
        table[usize::from(opcode::DIFFICULTY)] = Instruction::new(prev_randao::<DB>);
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
    contract::call::<KIND, _, _>(context)
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
            host.error = Err(error.into());
            return Err(InstructionResult::FatalExternalError);
        }
    }
    Ok(())
}
