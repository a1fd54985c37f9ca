//! Bugs planted into the simulated shell are found within fifty seeds.

use blockraft_sim::{Mutant, Options, run};

const SEED_COUNT: u64 = 50;

fn check(mutant: Mutant, expected: &[&str]) {
    let options = Options { mutant: Some(mutant), whole_trace: false };
    let found = (0..SEED_COUNT).find_map(|seed| Some((seed, run(seed, &options).violation?)));
    let (seed, (invariant, problem)) =
        found.unwrap_or_else(|| panic!("{mutant:?} is not found in {SEED_COUNT} seeds"));
    eprintln!("{mutant:?}: seed {seed}, {invariant}: {problem}");
    assert!(expected.contains(&invariant), "{mutant:?} is found by {invariant}: {problem}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    check(Mutant::AckBeforeCommit, &["no_acked_tx_lost"]);
}

#[test]
fn a_leader_that_ignores_the_barrier_is_found() {
    check(Mutant::NoBarrier, &["one_block_at_a_height"]);
}

#[test]
fn a_second_block_after_an_unknown_outcome_is_found() {
    check(Mutant::SecondBlock, &["one_block_at_a_height"]);
}

#[test]
fn a_block_that_is_executed_on_a_state_too_old_is_found() {
    check(Mutant::StateOfTheHead, &["applies", "nonces_contiguous", "serial_equivalence"]);
}

#[test]
fn a_block_that_is_proposed_before_its_parent_is_found() {
    check(Mutant::ChildBeforeParent, &["one_block_at_a_height"]);
}

#[test]
fn a_pool_that_is_not_restored_is_found() {
    check(Mutant::PoolNotRestored, &["pools_equal"]);
}

#[test]
fn a_log_that_is_not_synced_is_found() {
    check(
        Mutant::TailLostAfterAck,
        &["no_acked_tx_lost", "one_block_at_a_height", "pools_equal", "applies"],
    );
}
