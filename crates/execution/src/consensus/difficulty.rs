//! The difficulty of proof-of-work blocks.

use alloy_consensus::Header;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks};
use alloy_primitives::U256;
use blockraft_primitives::ChainSpec;

/// No difficulty falls below it.
const DIFFICULTY_MIN: u64 = 131_072;
/// A step is the parent's difficulty divided by this, times a factor.
const STEP_DIVISOR: u64 = 2048;
/// Blocks in which the bomb's exponent grows by one.
const BOMB_PERIOD: u64 = 100_000;
/// The factor is never below this (EIP-2).
const FACTOR_MIN: i64 = -99;

/// Difficulty of the proof-of-work block at `timestamp` that follows `parent` (yellow paper, EIP-2,
/// EIP-100, and the delays of the bomb).
pub fn next_difficulty(spec: &ChainSpec, parent: &Header, timestamp: u64) -> U256 {
    let number = parent.number + 1;
    let elapsed = timestamp.saturating_sub(parent.timestamp);
    let step = parent.difficulty / U256::from(STEP_DIVISOR);
    let factor = factor(spec, parent, number, elapsed);
    let change = step.saturating_mul(U256::from(factor.unsigned_abs()));
    let moved = if factor < 0 {
        parent.difficulty.saturating_sub(change)
    } else {
        parent.difficulty.saturating_add(change)
    };
    let floor = moved.max(U256::from(DIFFICULTY_MIN));
    let bombed = floor.saturating_add(bomb(spec, number));
    bombed.max(U256::from(DIFFICULTY_MIN))
}

fn factor(spec: &ChainSpec, parent: &Header, number: u64, elapsed: u64) -> i64 {
    let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
    if spec.is_byzantium_active_at_block(number) {
        let base = if parent.ommers_hash_is_empty() { 1 } else { 2 };
        (base - elapsed / 9).max(FACTOR_MIN)
    } else if spec.is_homestead_active_at_block(number) {
        (1 - elapsed / 10).max(FACTOR_MIN)
    } else if elapsed < 13 {
        1
    } else {
        -1
    }
}

/// What the bomb adds: it doubles every 100,000 blocks, counted from a height that forks push back.
fn bomb(spec: &ChainSpec, number: u64) -> U256 {
    let delays = [
        (EthereumHardfork::GrayGlacier, 11_400_000),
        (EthereumHardfork::ArrowGlacier, 10_700_000),
        (EthereumHardfork::London, 9_700_000),
        (EthereumHardfork::MuirGlacier, 9_000_000),
        (EthereumHardfork::Constantinople, 5_000_000),
        (EthereumHardfork::Byzantium, 3_000_000),
    ];
    let active = |fork| spec.ethereum_fork_activation(fork).active_at_block(number);
    let delay = delays.iter().find(|(fork, _)| active(*fork)).map_or(0, |(_, delay)| *delay);
    let periods = number.saturating_sub(delay) / BOMB_PERIOD;
    match periods.checked_sub(2) {
        Some(exponent) => U256::ONE << usize::try_from(exponent.min(255)).expect("at most 255"),
        None => U256::ZERO,
    }
}
