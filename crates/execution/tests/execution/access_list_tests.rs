//! Block access lists (EIP-7928) equal those of revm's own builder.

use crate::{
    chain::{Chain, call, from, osaka, user},
    contracts::{CONTRACTS, COUNTER, deploy},
    engine_tests::{dealt, shares, with_late},
};
use alloy_consensus::Header;
use alloy_eips::eip7928::{BlockAccessIndex, BlockAccessList, validate_block_access_list};
use alloy_evm::{
    Evm, EvmFactory,
    block::BlockExecutor,
    eth::{
        EthBlockExecutionCtx, EthBlockExecutor, EthEvmFactory, receipt_builder::AlloyReceiptBuilder,
    },
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, U256};
use blockraft_execution::{
    Basis, BlockInput, LateValues, Means, StateDatabase, evm_env, execute_with,
};
use blockraft_primitives::MemoryState;
use rand::{Rng, rngs::SmallRng};
use revm::database::{State, WrapDatabaseRef};
use std::borrow::Cow;

/// The list by alloy's executor and revm's builder.
fn oracle(input: &BlockInput<'_>, parent: &MemoryState) -> BlockAccessList {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    // BLOCKHASH of the parent is the header's for us, and the state's for revm.
    let mut parent = parent.clone();
    parent.block_hashes.insert(header.number - 1, header.parent_hash);
    let database = WrapDatabaseRef(StateDatabase(&parent));
    let state = State::builder().with_database(database).with_bal_builder().build();
    let evm = EthEvmFactory::default().create_evm(state, evm_env(spec, header));
    let shanghai = spec.is_shanghai_active_at_timestamp(header.timestamp);
    let context = EthBlockExecutionCtx {
        parent_hash: header.parent_hash,
        parent_beacon_block_root: header.parent_beacon_block_root,
        ommers,
        withdrawals: shanghai.then_some(Cow::Borrowed(withdrawals)),
        extra_data: header.extra_data.clone(),
        tx_count_hint: None,
        slot_number: None,
    };
    let mut executor =
        EthBlockExecutor::new(evm, context, spec.clone(), AlloyReceiptBuilder::default());
    executor.apply_pre_execution_changes().unwrap();
    for (index, tx) in transactions.iter().enumerate() {
        executor.execute_transaction_with_index(tx.as_ref(), index).unwrap();
    }
    let last = transactions.len() as u64 + 1;
    executor.evm_mut().db_mut().set_bal_index(BlockAccessIndex::new(last));
    let (evm, _) = executor.finish().unwrap();
    evm.into_db().take_built_alloy_bal().unwrap()
}

/// Holds the engine's list against the oracle's, with threads, executors and a late parent hash.
pub(crate) fn check(rng: &mut SmallRng, input: &BlockInput<'_>, parent: &MemoryState) {
    let expected = oracle(input, parent);
    validate_block_access_list(&expected, input.transactions.len()).unwrap();
    let on = |rng: &mut SmallRng, basis| shares(rng, input, parent, (4, basis));
    let runs = [
        (vec![], Basis::Unknown, 1),
        (vec![], Basis::Unknown, 2),
        (vec![], Basis::Unknown, 4),
        (on(rng, Basis::Unknown), Basis::Unknown, rng.random_range(1..=4)),
        (on(rng, Basis::Parent), Basis::Parent, rng.random_range(1..=4)),
        (dealt(input, parent, 3), Basis::Parent, 1),
    ];
    for (seeds, basis, threads) in runs {
        let mut list = BlockAccessList::new();
        let list_of = Some(&mut list);
        let means = Means { seeds, basis, access_list: list_of, ..Means::threads(threads) };
        execute_with(input, parent, means).unwrap();
        same(&list, &expected);
    }
    if input.header.difficulty.is_zero() {
        let mut list = BlockAccessList::new();
        let header = Header { parent_hash: B256::ZERO, ..input.header.clone() };
        let values = LateValues { parent_hash: input.header.parent_hash, prev_randao: None };
        with_late(values, |late| {
            let means =
                Means { parent: Some(late), access_list: Some(&mut list), ..Means::threads(2) };
            execute_with(&BlockInput { header: &header, ..*input }, parent, means).unwrap();
        });
        same(&list, &expected);
    }
}

/// Names the account where lists differ.
fn same(got: &BlockAccessList, expected: &BlockAccessList) {
    let addresses = |list: &BlockAccessList| -> Vec<Address> {
        list.iter().map(|account| account.address).collect()
    };
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got, expected, "account {}", expected.address);
    }
    assert_eq!(addresses(got), addresses(expected));
}

#[test]
fn credits_are_listed_where_they_were_given() {
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let parent = chain.state.clone();
    let counter = CONTRACTS[COUNTER].0;
    let payments = (1..40)
        .flat_map(|n| [from(user(n), call(0, user(50), 7)), from(user(n), call(1, counter, 0))]);
    let block = chain.build(&payments.collect::<Vec<_>>());
    let input = BlockInput {
        spec: &chain.spec,
        header: &block.header,
        transactions: &block.transactions,
        ommers: &[],
        withdrawals: &[],
    };
    let mut list = BlockAccessList::new();
    let means = Means { access_list: Some(&mut list), ..Means::threads(2) };
    execute_with(&input, &parent, means).unwrap();
    let of = |address| list.iter().find(|account| account.address == address).unwrap();
    let paid = &of(user(50)).balance_changes;
    let before = parent.accounts[&user(50)].balance;
    assert_eq!(paid.len(), 39);
    for (n, change) in paid.iter().enumerate() {
        assert_eq!(change.block_access_index.get(), 2 * n as u64 + 1);
        assert_eq!(change.post_balance, before + U256::from(7 * (n + 1)));
    }
    assert_eq!(of(chain.head.beneficiary).balance_changes.len(), 78, "each transaction tips");
    let slot = &of(counter).storage_changes[0];
    let counts: Vec<u64> = slot.changes.iter().map(|change| change.new_value.to()).collect();
    assert_eq!(counts, (1..40).collect::<Vec<_>>());
    same(&list, &oracle(&input, &parent));
}
