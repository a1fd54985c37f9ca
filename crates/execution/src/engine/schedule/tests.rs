//! In any order of its threads' steps, a block comes to what it comes to serially.

use super::*;
use crate::{
    engine::{FIRST, execute_share, memory::Expected, merge::Start, sync::in_any_order},
    env::evm_env,
    late::Parent,
    runner::{Course, Runner},
};
use alloy_consensus::{Header, SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, bytes, keccak256};
use blockraft_primitives::{Account, ChainSpec, MemoryState, StateDiff};
use shuttle::thread;
use std::sync::Arc;

const COINBASE: Address = Address::repeat_byte(0xfe);
/// Adds one to its slot zero.
const COUNTER: Address = Address::repeat_byte(0xc1);
/// Notes the balances of the fee recipient and of its caller.
const ONLOOKER: Address = Address::repeat_byte(0xc2);

fn user(number: u8) -> Address {
    Address::repeat_byte(number)
}

/// A block in which everybody meets: a counter, balances that are looked at, senders who were paid.
struct Block {
    env: EvmEnv,
    state: MemoryState,
    transactions: Vec<Transaction>,
    receipts: Vec<Receipt>,
    diff: StateDiff,
    seeds: Vec<(usize, Outcome)>,
    /// Of all transactions.
    all_seeds: Vec<(usize, Outcome)>,
}

impl Block {
    fn new() -> Self {
        let spec = spec();
        let header = Header {
            number: 1,
            beneficiary: COINBASE,
            gas_limit: 30_000_000,
            base_fee_per_gas: Some(0),
            ..Default::default()
        };
        let state = state();
        let env = evm_env(&spec, &header);
        let mut transactions = Vec::new();
        let mut nonces = [0; 5];
        for (sender, to, wei) in [
            (1, COUNTER, 0),
            (2, user(3), 700_000),
            (3, COUNTER, 0),
            (1, ONLOOKER, 9),
            (3, user(4), 1),
            (4, COUNTER, 0),
            (2, ONLOOKER, 0),
        ] {
            let nonce = &mut nonces[usize::from(sender)];
            transactions.push(tx(user(sender), *nonce, to, wei));
            *nonce += 1;
        }
        let course = Course::oracle(transactions.len());
        let mut runner = Runner::bare(&spec, env.clone(), &state, &header, course);
        for tx in &transactions {
            runner.run(tx).unwrap();
        }
        let (receipts, diff) = runner.into_parts().unwrap();
        // The first three by one executor; of the others, two by one that knows nothing of these.
        let input = crate::BlockInput {
            spec: &spec,
            header: &header,
            transactions: &transactions,
            ommers: &[],
            withdrawals: &[],
        };
        let mut seeds = execute_share(&input, &state, &[0, 1, 2]).unwrap();
        seeds.extend(execute_share(&input, &state, &[5, 6]).unwrap());
        let mut all_seeds = execute_share(&input, &state, &[0, 1, 2, 4]).unwrap();
        all_seeds.extend(execute_share(&input, &state, &[3, 5, 6]).unwrap());
        Self { env, state, transactions, receipts, diff, seeds, all_seeds }
    }

    /// Runs it on so many threads of shuttle, and compares.
    fn check(&self, threads: usize, seeds: Vec<(usize, Outcome)>, basis: Basis) {
        let expected = Expected { places: 20, ..Expected::default() };
        let parent = Parent::of(&Header::default(), None);
        let mut memory = Memory::new(&self.state, parent, COINBASE, expected);
        let start = Start { seeds, basis, threads, ..Start::default() };
        let gas_limit = self.env.block_env.gas_limit;
        let merged = start.merge(&mut memory, gas_limit, &self.transactions, FIRST);
        let schedule = Schedule::new(&memory, &self.env, &self.transactions, FIRST, merged);
        thread::scope(|scope| work(&schedule, scope));
        let frontier = schedule.into_frontier();
        assert_eq!(frontier.receipts, self.receipts);
        assert_eq!(memory.into_diff().unwrap(), self.diff);
    }
}

/// [`Schedule::work`], whose helpers are threads of shuttle.
fn work<'scope>(
    schedule: &'scope Schedule<'_, '_, &MemoryState>,
    scope: &'scope thread::Scope<'scope, '_>,
) {
    schedule.work_calling(&|| {
        scope.spawn(move || work(schedule, scope));
    });
}

fn spec() -> ChainSpec {
    ChainSpec::new(&ChainConfig {
        chain_id: 1,
        homestead_block: Some(0),
        eip150_block: Some(0),
        eip155_block: Some(0),
        eip158_block: Some(0),
        byzantium_block: Some(0),
        constantinople_block: Some(0),
        petersburg_block: Some(0),
        istanbul_block: Some(0),
        berlin_block: Some(0),
        london_block: Some(0),
        terminal_total_difficulty: Some(U256::ZERO),
        terminal_total_difficulty_passed: true,
        shanghai_time: Some(0),
        ..Genesis::default().config
    })
    .unwrap()
}

fn state() -> MemoryState {
    let mut state = MemoryState::default();
    let codes =
        [(COUNTER, bytes!("5f546001015f5500")), (ONLOOKER, bytes!("41315f5533316001550000"))];
    for (address, code) in codes {
        let code_hash = keccak256(&code);
        state.codes.insert(code_hash, code);
        state.accounts.insert(address, Account { nonce: 1, code_hash, ..Default::default() });
    }
    // The third can pay for nothing before the second has paid it.
    for (number, balance) in [(1, 1_000_000_000), (2, 1_000_000_000), (4, 1_000_000_000)] {
        let account = Account { balance: U256::from(balance), ..Default::default() };
        state.accounts.insert(user(number), account);
    }
    state
}

fn tx(sender: Address, nonce: u64, to: Address, wei: u64) -> Transaction {
    let plain = to != COUNTER && to != ONLOOKER;
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: if plain { 21_000 } else { 100_000 },
        max_fee_per_gas: 2,
        max_priority_fee_per_gas: 2,
        to: TxKind::Call(to),
        value: U256::from(wei),
        input: Bytes::new(),
        ..Default::default()
    };
    let signed = TxEnvelope::from(tx.into_signed(Signature::test_signature()));
    Arc::new(Recovered::new_unchecked(signed, sender))
}

#[test]
fn threads_in_any_order_give_the_serial_result() {
    let block = Block::new();
    in_any_order(5_000, move || block.check(3, Vec::new(), Basis::Unknown));
}

#[test]
fn seeds_and_threads_in_any_order_give_the_serial_result() {
    let block = Block::new();
    in_any_order(5_000, move || {
        block.check(2, block.seeds.clone(), Basis::Unknown);
        block.check(2, block.seeds.clone(), Basis::Parent);
    });
}

#[test]
fn seeds_of_everything_give_the_serial_result() {
    let block = Block::new();
    in_any_order(100, move || {
        block.check(1, block.all_seeds.clone(), Basis::Unknown);
        block.check(2, block.all_seeds.clone(), Basis::Parent);
    });
}
