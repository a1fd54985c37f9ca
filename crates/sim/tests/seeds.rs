//! Seeds that must pass. `BLOCKRAFT_SIM_SEEDS=10000` runs as many instead of the fixed ones, from
//! `BLOCKRAFT_SIM_FIRST` on; `BLOCKRAFT_SIM_SEED=N` replays one and prints its trace.

use blockraft_sim::{Options, Outcome, run};

const FIXED_COUNT: u64 = 32;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn check(seed: u64, outcome: &Outcome) {
    if let Some((invariant, problem)) = &outcome.violation {
        panic!(
            "seed {seed} violates {invariant}: {problem}\n{}\nreplay: BLOCKRAFT_SIM_SEED={seed} \
             cargo test --release -p blockraft-sim --test seeds -- --nocapture",
            outcome.trace.join("\n"),
        );
    }
}

#[test]
fn every_invariant_holds_for_every_seed() {
    if let Some(seed) = number("BLOCKRAFT_SIM_SEED") {
        let outcome = run(seed, &Options { whole_trace: true, ..Options::default() });
        eprintln!("{}\n{:?}", outcome.trace.join("\n"), outcome.summary);
        return check(seed, &outcome);
    }
    let first = number("BLOCKRAFT_SIM_FIRST").unwrap_or(0);
    let count = number("BLOCKRAFT_SIM_SEEDS").unwrap_or(FIXED_COUNT);
    let (mut blocks, mut pipelined, mut transactions, mut terms) = (0, 0, 0, 0);
    for seed in first..first + count {
        let outcome = run(seed, &Options::default());
        check(seed, &outcome);
        blocks += outcome.summary.blocks;
        pipelined += outcome.summary.pipelined;
        transactions += outcome.summary.transactions;
        terms += outcome.summary.terms;
    }
    eprintln!(
        "{count} seeds: {blocks} blocks, {pipelined} begun on one that was not applied, \
         {transactions} transactions, {terms} terms"
    );
    // A simulator in which nothing happens proves nothing.
    assert!(pipelined > count);
    assert!(blocks > 10 * count && transactions as u64 > 50 * count && terms > 3 * count);
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 14] {
        let options = Options { whole_trace: true, ..Options::default() };
        assert_eq!(run(seed, &options), run(seed, &options));
    }
}
