//! EIP-7610: nothing is created at an address that has storage.
//!
//! revm refuses a creation where it finds a nonce or code, and does not ask about storage. An account that
//! has storage and neither of these is therefore shown to it with the code hash [`TAKEN`]: zero, which revm
//! takes for "no code" wherever it asks whether an account is empty, and for code where it creates. Only
//! EXTCODEHASH would tell the difference, so that instruction is ours. What revm hands back is turned into
//! an account without code again.
//!
//! Such accounts are from before EIP-161 (a constructor that stored something and returned no code), or
//! from a genesis file.

use crate::constantinople;
use alloy_evm::{Database, EthEvm, EvmEnv, eth::EthEvmBuilder, precompiles::PrecompilesMap};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY};
use blockraft_primitives::Account;
use revm::{
    bytecode::opcode,
    inspector::NoOpInspector,
    interpreter::{
        Host, Instruction, InstructionContext, InstructionExecResult, InterpreterTypes,
        instructions::host, interpreter_types::StackTr,
    },
    state::AccountInfo,
};

/// The code hash under which an account with storage and nothing else goes.
pub(crate) const TAKEN: B256 = B256::ZERO;

/// Whether only storage could keep a contract from being created at this account's address.
pub(crate) fn is_open(account: &Account) -> bool {
    account.nonce == 0 && !account.has_code()
}

/// The code hash that revm's account really has.
pub(crate) fn code_hash(info: &AccountInfo) -> B256 {
    if info.code_hash == TAKEN { KECCAK256_EMPTY } else { info.code_hash }
}

/// An EVM that does not show [`TAKEN`] to contracts, and meters stores as its fork does.
pub(crate) fn new_evm<DB: Database>(
    db: DB,
    env: EvmEnv,
) -> EthEvm<DB, NoOpInspector, PrecompilesMap> {
    let net_metering = constantinople::has_prices(&env.cfg_env);
    let mut evm = EthEvmBuilder::new(db, env).build().into_inner();
    let table = evm.instruction.instruction_table_mut();
    table[usize::from(opcode::EXTCODEHASH)] = Instruction::new(extcodehash);
    if net_metering {
        table[usize::from(opcode::SSTORE)] = Instruction::new(constantinople::sstore);
    }
    EthEvm::new(evm, false)
}

/// EXTCODEHASH, which says zero of empty accounts alone.
fn extcodehash<W: InterpreterTypes, H: Host + ?Sized>(
    context: InstructionContext<'_, H, W>,
) -> InstructionExecResult {
    let InstructionContext { interpreter, host } = context;
    let address = interpreter.stack.top().map(|top| Address::from_word(B256::from(*top)));
    host::extcodehash(InstructionContext { interpreter: &mut *interpreter, host: &mut *host })?;
    if let (Some(address), Some(top)) = (address, interpreter.stack.top())
        && top.is_zero()
        && host
            .load_account_info_skip_cold_load(address, false, false)
            .is_ok_and(|account| !account.is_empty())
    {
        *top = KECCAK256_EMPTY.into();
    }
    Ok(())
}
