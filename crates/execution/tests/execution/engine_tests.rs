//! The engine equals the oracle: on generated blocks, with any threads, executors and faults.

use crate::{
    chain::{Chain, call, cancun, from, osaka, shanghai, user},
    generator::{FAMILIES, Generator, attributes, deploy},
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, bytes, keccak256};
use blockraft_execution::{
    BlockAttributes, BlockInput, BuildInput, BuiltBlock, LateParent, LateValues, Means, Outcome,
    build, build_block, build_with, decode_outcomes, encode_outcomes, execute, execute_block,
    execute_share, execute_with, next_header,
};
use blockraft_primitives::{MemoryState, StateDiff, StateReader};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Blocks that the test builds; `BLOCKRAFT_CONFLICT_BLOCKS` asks for more.
fn block_count() -> usize {
    std::env::var("BLOCKRAFT_CONFLICT_BLOCKS").map_or(300, |count| count.parse().unwrap())
}

/// Shares of the block as `executors` would return them: some missing, some computed on a state that is
/// not the parent's, some twice.
pub(crate) fn shares(
    rng: &mut SmallRng,
    input: &BlockInput<'_>,
    parent: &MemoryState,
    executors: usize,
) -> Vec<(usize, Outcome)> {
    let mut plan = vec![Vec::new(); executors];
    let by_sender = rng.random_bool(0.5);
    for (index, tx) in input.transactions.iter().enumerate() {
        let anchor =
            if by_sender { usize::from(tx.signer()[7]) } else { rng.random_range(0..executors) };
        plan[anchor % executors].push(index);
    }
    let mut seeds = Vec::new();
    for share in plan {
        match rng.random_range(0..8) {
            0 => continue,
            1 => {
                let mut stale = parent.clone();
                for account in stale.accounts.values_mut().filter(|_| rng.random_bool(0.2)) {
                    account.balance /= alloy_primitives::U256::from(2);
                }
                seeds.extend(execute_share(input, &stale, &share).unwrap());
            }
            2 => {
                let half = &share[..share.len() / 2];
                seeds.extend(execute_share(input, parent, half).unwrap());
                seeds.extend(execute_share(input, parent, &share).unwrap());
            }
            _ => seeds.extend(execute_share(input, parent, &share).unwrap()),
        }
    }
    seeds
}

/// Holds the engine against the oracle in several set-ups; returns how many transactions ran again.
pub(crate) fn check(rng: &mut SmallRng, input: &BlockInput<'_>, parent: &MemoryState) -> usize {
    let BlockInput { spec, header, transactions, ommers, withdrawals } = *input;
    let expected = execute_block(spec, parent, header, transactions, ommers, withdrawals).unwrap();
    let mut again = 0;
    for threads in [1, 2, 4] {
        let result = execute(input, parent, Vec::new(), threads).unwrap();
        assert_eq!(result.block, expected, "{threads} threads");
        again += result.executed_again;
    }
    for executors in [1, 2, 4, 8] {
        let seeds = shares(rng, input, parent, executors);
        let threads = [1, 2, 4][rng.random_range(0..3)];
        let result = execute(input, parent, seeds, threads).unwrap();
        assert_eq!(result.block, expected, "{executors} executors, {threads} threads");
    }
    check_means(rng, input, parent, &expected.diff);
    again
}

/// Holds chunks and a late parent hash against the diff.
fn check_means(
    rng: &mut SmallRng,
    input: &BlockInput<'_>,
    parent: &MemoryState,
    expected: &StateDiff,
) {
    let seeds = shares(rng, input, parent, 2);
    for (seeds, threads) in [(vec![], 1), (vec![], 2), (vec![], 4), (seeds, 2)] {
        let header =
            Header { parent_hash: B256::ZERO, mix_hash: B256::ZERO, ..input.header.clone() };
        let values = LateValues {
            parent_hash: input.header.parent_hash,
            prev_randao: Some(input.header.mix_hash),
        };
        let late_input = BlockInput { header: &header, ..*input };
        let mut chunked = parent.clone();
        let mut sink = |chunk: StateDiff| {
            chunk.assert_sorted();
            chunked.apply(&chunk);
        };
        // Difficulty is not late.
        let merged = input.header.difficulty.is_zero();
        let block = with_late(values, |late| {
            let parent_of_it = merged.then_some(late);
            let input = if merged { &late_input } else { input };
            let sink: &mut (dyn FnMut(StateDiff) + Send) = &mut sink;
            let means =
                Means { threads, seeds, sink: Some(sink), parent: parent_of_it, watchdog: None };
            execute_with(input, parent, means).unwrap().block
        });
        assert_eq!(block.diff, *expected, "{threads} threads");
        assert_same_state(&chunked, parent, expected);
    }
}

/// Chunks may bring code along that is replaced later in the block; beyond that they are the diff.
fn assert_same_state(chunked: &MemoryState, parent: &MemoryState, diff: &StateDiff) {
    let mut whole = parent.clone();
    whole.apply(diff);
    assert_eq!((&chunked.accounts, &chunked.storage), (&whole.accounts, &whole.storage));
    assert!(whole.codes.iter().all(|(hash, code)| chunked.codes.get(hash) == Some(code)));
}

/// Runs something with a promise that another thread keeps meanwhile.
pub(crate) fn with_late<T>(values: LateValues, run: impl FnOnce(LateParent) -> T) -> T {
    let (promise, late) = LateParent::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..20 {
                std::thread::yield_now();
            }
            promise.keep(values);
        });
        run(late)
    })
}

#[test]
fn generated_conflict_blocks_equal_the_oracle() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let count = block_count();
    let (mut built, mut stats) = (0, Stats::default());
    for seed in 0.. {
        let mut rng = SmallRng::seed_from_u64(seed);
        let spec = [osaka, cancun, shanghai][seed as usize % 3]();
        let family = FAMILIES[(seed as usize / 3) % FAMILIES.len()];
        let mut chain = Chain::new(spec);
        deploy(&mut chain);
        for _ in 0..5 {
            let size = rng.random_range(1..120);
            let candidates = Generator::new(&mut rng, &chain).transactions(family, size);
            let attributes = attributes(&mut rng, &chain);
            let (parent, head) = (chain.state.clone(), chain.head.clone());
            let block = chain.build_with(&attributes, &candidates);
            let to_build = BuildInput {
                spec: &chain.spec,
                parent: &head,
                attributes: &attributes,
                candidates: &candidates,
            };
            let input = BlockInput {
                spec: &chain.spec,
                header: &block.header,
                transactions: &block.transactions,
                ommers: &[],
                withdrawals: &attributes.withdrawals,
            };
            stats.included += block.included.len();
            stats.candidates += candidates.len();
            stats.reverted += block.receipts.iter().filter(|r| !r.status.coerce_status()).count();
            let check = || {
                stats.again += check(&mut rng, &input, &parent);
                check_build(&mut rng, &to_build, &parent, &block);
            };
            let result =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.install(check)));
            assert!(result.is_ok(), "seed {seed}, {family:?}, block {}", block.header.number);
            built += 1;
        }
        if built >= count {
            break;
        }
    }
    println!("{built} blocks, {stats:?}");
    assert!(stats.again > 0 && stats.reverted > 0, "{stats:?}");
    assert!(stats.included * 10 > stats.candidates * 7, "{stats:?}");
}

/// What the generated blocks were like.
#[derive(Debug, Default)]
struct Stats {
    candidates: usize,
    included: usize,
    reverted: usize,
    again: usize,
}

/// Holds building by the engine against building serially.
fn check_build(
    rng: &mut SmallRng,
    input: &BuildInput<'_>,
    parent: &MemoryState,
    expected: &BuiltBlock,
) {
    let header = next_header(input.spec, input.parent, input.attributes);
    let block = BlockInput {
        spec: input.spec,
        header: &header,
        transactions: input.candidates,
        ommers: &[],
        withdrawals: &input.attributes.withdrawals,
    };
    for threads in [2, 4] {
        let result = build(input, parent, Vec::new(), threads).unwrap();
        assert_eq!(result.block, *expected, "{threads} threads");
    }
    for executors in [1, 3] {
        let seeds = shares(rng, &block, parent, executors);
        let seeds = decode_outcomes(&encode_outcomes(&seeds)).unwrap();
        let result = build(input, parent, seeds, 2).unwrap();
        assert_eq!(result.block, *expected, "{executors} executors");
    }
    let values = LateValues {
        parent_hash: input.parent.hash(),
        prev_randao: Some(input.attributes.prev_randao),
    };
    let attributes = BlockAttributes { prev_randao: B256::ZERO, ..input.attributes.clone() };
    let unsealed = Sealed::new_unchecked(input.parent.inner().clone(), B256::ZERO);
    let late_input = BuildInput { parent: &unsealed, attributes: &attributes, ..*input };
    for threads in [1, 2] {
        let mut chunked = parent.clone();
        let mut sink = |chunk: StateDiff| chunked.apply(&chunk);
        let result = with_late(values, |late| {
            let means =
                Means { sink: Some(&mut sink), parent: Some(late), ..Means::threads(threads) };
            build_with(&late_input, parent, means).unwrap()
        });
        assert_eq!(result.block, *expected, "late, {threads} threads");
        assert_same_state(&chunked, parent, &expected.diff);
    }
}

#[test]
fn refused_transaction_is_named_as_the_oracle_names_it() {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let candidates =
        Generator::new(&mut rng, &chain).transactions(crate::generator::Family::Everything, 60);
    let attributes = chain.attributes();
    let parent = chain.state.clone();
    let block = build_block(&chain.spec, &parent, &chain.head, &attributes, &candidates).unwrap();
    // The same block with one transaction taken out of the middle of its sender's.
    for missing in 0..block.transactions.len() {
        let mut transactions = block.transactions.clone();
        transactions.remove(missing);
        let input = BlockInput {
            spec: &chain.spec,
            header: &block.header,
            transactions: &transactions,
            ommers: &[],
            withdrawals: &[],
        };
        let expected = execute_block(&chain.spec, &parent, &block.header, &transactions, &[], &[])
            .unwrap_err()
            .to_string();
        let seeds = shares(&mut rng, &input, &parent, 2);
        for (seeds, threads) in [(vec![], 1), (vec![], 2), (seeds, 2)] {
            let got = execute(&input, &parent, seeds, threads).unwrap_err().to_string();
            assert_eq!(got, expected);
        }
    }
}

#[test]
fn shares_of_independent_transactions_are_kept() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut chain = Chain::new(osaka());
    deploy(&mut chain);
    let parent = chain.state.clone();
    let counter = alloy_primitives::address!("0000000000000000000000000000000000c00002");
    let candidates: Vec<_> = (1..90)
        .map(|n| crate::chain::from(crate::chain::user(n), crate::chain::call(0, counter, 0)))
        .collect();
    let block = chain.build(&candidates);
    let input = BlockInput {
        spec: &chain.spec,
        header: &block.header,
        transactions: &block.transactions,
        ommers: &[],
        withdrawals: &[],
    };
    let odd: Vec<usize> = (0..89).filter(|index| index % 2 == 1).collect();
    let even: Vec<usize> = (0..89).filter(|index| index % 2 == 0).collect();
    let mut seeds = execute_share(&input, &parent, &odd).unwrap();
    seeds.extend(execute_share(&input, &parent, &even).unwrap());
    let result = execute(&input, &parent, seeds, 2).unwrap();
    assert_eq!((result.seeds_kept, result.executed_again), (89, 0));
    assert!(parent.account(counter).is_ok());
    check(&mut rng, &input, &parent);
}

/// EIP-7610: an address with storage and nothing else. Called, asked for its code hash, and created at.
#[test]
fn nothing_is_created_where_storage_is() {
    // Creates an empty contract with salt 0 and notes its address in slot 0.
    let factory = bytes!("5f5f5f5ff55f55");
    // Notes the address's EXTCODEHASH in slot 0.
    let asks = |address: Address| {
        let mut code = bytes!("73").to_vec();
        code.extend(address.as_slice());
        code.extend(bytes!("3f5f5500"));
        code
    };
    let (creator, asker) = (user(50), user(51));
    let taken = creator.create2(B256::ZERO, keccak256([]));
    for (balance, taken_by_storage) in [(0, true), (7, true), (7, false)] {
        let mut chain = Chain::new(osaka());
        chain.deploy(creator, factory.clone());
        chain.deploy(asker, asks(taken));
        if balance > 0 {
            chain.fund(taken, balance);
        }
        if taken_by_storage {
            chain.state.accounts.entry(taken).or_default();
            chain.state.storage.entry(taken).or_default().insert(U256::from(1), U256::from(2));
        }
        let parent = chain.state.clone();
        let calls = [(1, asker), (2, creator), (3, asker)];
        let txs = calls.map(|(from_user, to)| from(user(from_user), call(0, to, 0)));
        let block = chain.build(&txs);
        let input = BlockInput {
            spec: &chain.spec,
            header: &block.header,
            transactions: &block.transactions,
            ommers: &[],
            withdrawals: &[],
        };
        assert_eq!(block.included.len(), 3);
        check(&mut SmallRng::seed_from_u64(1), &input, &parent);
        let stored = |of| chain.state.storage(of, U256::ZERO).unwrap();
        let created =
            if taken_by_storage { U256::ZERO } else { U256::from_be_bytes(taken.into_word().0) };
        assert_eq!(stored(creator), created);
        let hash = if balance > 0 || !taken_by_storage { KECCAK256_EMPTY } else { B256::ZERO };
        assert_eq!(stored(asker), U256::from_be_bytes(hash.0));
        let kept = U256::from(if taken_by_storage { 2 } else { 0 });
        assert_eq!(chain.state.storage(taken, U256::from(1)).unwrap(), kept);
    }
}
