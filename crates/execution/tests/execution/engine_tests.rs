//! The engine equals the oracle: on generated blocks, with any threads, executors and faults.

use crate::{
    access_list_tests,
    chain::{Chain, call, from, osaka, rules_of, user},
    contracts::deploy,
    generator::{FAMILIES, Generator, attributes},
};
use alloy_consensus::{Header, Sealed};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, bytes, keccak256};
use blockraft_execution::{
    Basis, BlockAttributes, BlockInput, BuildInput, BuiltBlock, ExecutedBlock, LateParent,
    LateValues, Means, Outcome, build, build_block, build_with, decode_outcomes, encode_outcomes,
    execute, execute_block, execute_share, execute_with, next_header,
};
use blockraft_primitives::{MemoryState, StateDiff, StateReader};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks that the test builds; `BLOCKRAFT_CONFLICT_BLOCKS` asks for more.
fn block_count() -> usize {
    std::env::var("BLOCKRAFT_CONFLICT_BLOCKS").map_or(300, |count| count.parse().unwrap())
}

/// Seeds of the test; `BLOCKRAFT_CONFLICT_SEED` asks for one alone.
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("BLOCKRAFT_CONFLICT_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..(block_count() as u64).div_ceil(BLOCKS_PER_SEED),
    }
}

/// Blocks upon one another, from one seed.
const BLOCKS_PER_SEED: u64 = 5;

/// Forks whose rules blocks have: the later ones, for which the engine is made, more often. As many as
/// share no factor with the families, so that seeds in a row come to every pair.
const FORKS: [&str; 20] = [
    "Osaka",
    "Cancun",
    "Prague",
    "Shanghai",
    "Osaka",
    "Paris",
    "London",
    "Prague",
    "Berlin",
    "Osaka",
    "Istanbul",
    "ConstantinopleFix",
    "Cancun",
    "Byzantium",
    "Osaka",
    "EIP158",
    "EIP150",
    "Prague",
    "Homestead",
    "Frontier",
];

/// Shares of the block as `executors` would return them: some missing, some twice, and some computed on a
/// state that is not the parent's, unless somebody vouches for that.
pub(crate) fn shares(
    rng: &mut SmallRng,
    input: &BlockInput<'_>,
    parent: &MemoryState,
    (executors, basis): (usize, Basis),
) -> Vec<(usize, Outcome)> {
    let is_fenced = basis == Basis::Parent;
    let mut plan = vec![Vec::new(); executors];
    let by_sender = rng.random_bool(0.5);
    for (index, tx) in input.transactions.iter().enumerate() {
        let anchor =
            if by_sender { usize::from(tx.signer()[7]) } else { rng.random_range(0..executors) };
        plan[anchor % executors].push(index);
    }
    let mut seeds = Vec::new();
    for share in plan {
        match rng.random_range(0..10) {
            // Missing; a late one is no different.
            0 => continue,
            // Missing in part: some saw what outcomes wrote that nobody has.
            1 if is_fenced => {
                let mut outcomes = execute_share(input, parent, &share).unwrap();
                outcomes.retain(|_| rng.random_bool(0.6));
                seeds.extend(outcomes);
            }
            1 => seeds.extend(execute_share(input, stale(rng, parent), &share).unwrap()),
            // Part of it twice.
            2 => {
                let half = &share[..share.len() / 2];
                seeds.extend(execute_share(input, parent, half).unwrap());
                seeds.extend(execute_share(input, parent, &share).unwrap());
            }
            // Twice, the first time by one that lags.
            3 if !is_fenced => {
                seeds.extend(execute_share(input, stale(rng, parent), &share).unwrap());
                seeds.extend(execute_share(input, parent, &share).unwrap());
            }
            _ => seeds.extend(execute_share(input, parent, &share).unwrap()),
        }
    }
    // They come over a wire, in any order.
    let mut seeds = decode_outcomes(&encode_outcomes(&seeds)).unwrap();
    if rng.random_bool(0.5) {
        seeds.reverse();
    }
    seeds
}

/// Outcomes of a block whose transactions so many executors got in turn.
pub(crate) fn dealt(
    input: &BlockInput<'_>,
    parent: &MemoryState,
    executors: usize,
) -> Vec<(usize, Outcome)> {
    let share = |executor| (executor..input.transactions.len()).step_by(executors).collect();
    let shares = (0..executors).map(share);
    let outcomes = shares.map(|share: Vec<usize>| execute_share(input, parent, &share).unwrap());
    decode_outcomes(&encode_outcomes(&outcomes.flatten().collect::<Vec<_>>())).unwrap()
}

/// A state that is not the parent's: other balances, nonces and slots.
fn stale(rng: &mut SmallRng, parent: &MemoryState) -> MemoryState {
    let mut stale = parent.clone();
    for account in stale.accounts.values_mut() {
        match rng.random_range(0..8) {
            0 => account.balance /= U256::from(2),
            1 => account.nonce = account.nonce.saturating_sub(1),
            _ => {}
        }
    }
    for value in stale.storage.values_mut().flat_map(|slots| slots.values_mut()) {
        if rng.random_bool(0.2) {
            *value += U256::from(1);
        }
    }
    stale
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
        for basis in [Basis::Unknown, Basis::Parent] {
            let seeds = shares(rng, input, parent, (executors, basis));
            let threads = [1, 2, 4][rng.random_range(0..3)];
            let means = Means { seeds, basis, ..Means::threads(threads) };
            let result = execute_with(input, parent, means).unwrap();
            let name = format!("{executors} executors, {basis:?}, {threads} threads");
            assert_eq!(result.block, expected, "{name}");
        }
    }
    check_whole(input, parent, &expected);
    check_means(rng, input, parent, &expected.diff);
    again
}

/// Holds blocks of which executors ran everything, in turn, against the oracle.
fn check_whole(input: &BlockInput<'_>, parent: &MemoryState, expected: &ExecutedBlock) {
    for (executors, threads) in [(1, 1), (2, 1), (3, 2), (8, 4)] {
        let seeds = dealt(input, parent, executors);
        let means = Means { seeds, basis: Basis::Parent, ..Means::threads(threads) };
        let result = execute_with(input, parent, means).unwrap();
        assert_eq!(result.block, *expected, "dealt to {executors}, {threads} threads");
        if executors == 1 {
            let all = result.seeds_kept == input.transactions.len() || result.seeds_kept == 0;
            assert!(all && result.executed_again == 0, "one executor sees what the block sees");
        }
    }
}

/// Holds chunks and a late parent hash against the diff.
fn check_means(
    rng: &mut SmallRng,
    input: &BlockInput<'_>,
    parent: &MemoryState,
    expected: &StateDiff,
) {
    let basis = if rng.random_bool(0.5) { Basis::Parent } else { Basis::Unknown };
    let seeds = shares(rng, input, parent, (2, basis));
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
            let means = Means {
                threads,
                seeds,
                basis,
                sink: Some(sink),
                parent: parent_of_it,
                ..Means::default()
            };
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
    let seeds = seeds();
    let count = (seeds.end - seeds.start) * BLOCKS_PER_SEED;
    // Two at a time, each with a pool of its own: most checks leave threads waiting.
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let mut stats = Stats::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return stats;
            }
            chain_of(seed, &pool, &mut stats);
        }
    };
    let stats = std::thread::scope(|scope| {
        let workers = [(); 2].map(|()| scope.spawn(worker));
        workers.into_iter().fold(Stats::default(), |sum, worker| {
            let result = worker.join();
            sum + result.expect("a seed failed, see above; BLOCKRAFT_CONFLICT_SEED runs it alone")
        })
    });
    println!("{count} blocks, seeds {seeds:?}, {stats:?}");
    if count >= 300 {
        assert!(stats.again > 0 && stats.reverted > 0, "{stats:?}");
        assert!(stats.included * 10 > stats.candidates * 7, "{stats:?}");
        assert!(stats.included < stats.candidates, "{stats:?}");
    }
}

/// Checks the blocks of one seed.
fn chain_of(seed: u64, pool: &rayon::ThreadPool, stats: &mut Stats) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let fork = FORKS[seed as usize % FORKS.len()];
    let family = FAMILIES[seed as usize % FAMILIES.len()];
    let mut chain = Chain::new(rules_of(fork));
    deploy(&mut chain);
    for _ in 0..BLOCKS_PER_SEED {
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
        let withdrawals: &[_] =
            if block.withdrawals.is_some() { &attributes.withdrawals } else { &[] };
        let input = BlockInput {
            spec: &chain.spec,
            header: &block.header,
            transactions: &block.transactions,
            ommers: &[],
            withdrawals,
        };
        stats.included += block.included.len();
        stats.candidates += candidates.len();
        stats.reverted += block.receipts.iter().filter(|r| !r.status.coerce_status()).count();
        let check = || {
            stats.again += check(&mut rng, &input, &parent);
            check_build(&mut rng, &to_build, &parent, &block);
            if chain.spec.is_spurious_dragon_active_at_block(block.header.number) {
                access_list_tests::check(&mut rng, &input, &parent);
            }
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.install(check)));
        let number = block.header.number;
        assert!(result.is_ok(), "seed {seed}: {fork}, {family:?}, block {number}");
    }
}

/// What the generated blocks were like.
#[derive(Debug, Default)]
struct Stats {
    candidates: usize,
    included: usize,
    reverted: usize,
    again: usize,
}

impl std::ops::Add for Stats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            candidates: self.candidates + other.candidates,
            included: self.included + other.included,
            reverted: self.reverted + other.reverted,
            again: self.again + other.again,
        }
    }
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
    for threads in [1, 2, 4] {
        let result = build(input, parent, Vec::new(), threads).unwrap();
        assert_eq!(result.block, *expected, "{threads} threads");
    }
    for executors in [1, 2, 4, 8] {
        let basis = if rng.random_bool(0.5) { Basis::Parent } else { Basis::Unknown };
        let seeds = shares(rng, &block, parent, (executors, basis));
        let threads = [1, 2, 4][rng.random_range(0..3)];
        let means = Means { seeds, basis, ..Means::threads(threads) };
        let result = build_with(input, parent, means).unwrap();
        let name = format!("{executors} executors, {basis:?}, {threads} threads");
        assert_eq!(result.block, *expected, "{name}");
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
        let runs = [(None, 1), (None, 2), (Some(Basis::Unknown), 2), (Some(Basis::Parent), 2)];
        for (basis, threads) in runs {
            let seeds = basis.map(|basis| shares(&mut rng, &input, &parent, (2, basis)));
            let (seeds, basis) = (seeds.unwrap_or_default(), basis.unwrap_or_default());
            let means = Means { seeds, basis, ..Means::threads(threads) };
            let got = execute_with(&input, &parent, means).unwrap_err().to_string();
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
