//! How much gas transactions ask for beside what they use. A block is full by what they use, and its candidates
//! are taken from the pool by what they ask for: where that is twice as much, half a block would be cut.

use std::sync::atomic::{AtomicU64, Ordering};

/// The ratio is kept in parts of so many.
const UNIT: u64 = 1024;
/// More is not believed: candidates that do not fit in the end may have run for nothing.
const RATIO_MAX: u64 = 2;

/// What the last block of some size asked for by what it used. Placement only: what fits is found out when it runs.
#[derive(Debug)]
pub(super) struct GasAsked {
    ratio: AtomicU64,
}

impl Default for GasAsked {
    fn default() -> Self {
        Self { ratio: AtomicU64::new(UNIT) }
    }
}

impl GasAsked {
    /// Gas limits of the candidates that are likely to use `gas`.
    pub(super) fn for_use(&self, gas: u64) -> u64 {
        let asked = u128::from(gas) * u128::from(self.ratio.load(Ordering::Relaxed));
        u64::try_from(asked / u128::from(UNIT)).unwrap_or(u64::MAX)
    }

    /// A block's transactions asked for one and used the other.
    pub(super) fn learn(&self, asked: u64, used: u64) {
        if used == 0 {
            return;
        }
        let ratio = u128::from(asked) * u128::from(UNIT) / u128::from(used);
        let ratio = ratio.clamp(u128::from(UNIT), u128::from(UNIT * RATIO_MAX));
        self.ratio.store(ratio as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_as_many_as_will_fit() {
        let gas = GasAsked::default();
        assert_eq!(gas.for_use(30_000_000), 30_000_000);
        gas.learn(60_000 * 3, 40_000 * 3);
        assert_eq!(gas.for_use(30_000_000), 45_000_000);
        gas.learn(0, 0);
        assert_eq!(gas.for_use(30_000_000), 45_000_000, "an empty block tells nothing");
        gas.learn(u64::MAX, 1);
        assert_eq!(gas.for_use(1_000), 2_000);
        assert_eq!(gas.for_use(u64::MAX), u64::MAX);
        gas.learn(21_000, 21_000);
        assert_eq!(gas.for_use(1_000), 1_000);
    }
}
