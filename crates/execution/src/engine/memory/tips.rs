//! What transactions give to the fee recipient, by place.
//!
//! Nearly every transaction tips: one account that all of them write to would be the one lock that all
//! threads wait for.

use super::Place;
use crate::engine::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use alloy_primitives::{Address, U256};

/// See the module.
#[derive(Debug)]
pub(super) struct Tips {
    pub(super) recipient: Address,
    /// Low and high word of each.
    by_place: Box<[[AtomicU64; 2]]>,
}

impl Tips {
    pub(super) fn new(recipient: Address, places: usize) -> Self {
        Self { recipient, by_place: (0..places).map(|_| Default::default()).collect() }
    }

    /// Adds to what `place` gives; `false` where that is not for this list.
    #[inline]
    pub(super) fn add(&self, place: Place, wei: U256) -> bool {
        let Some(words) = self.by_place.get(place as usize) else { return false };
        let sum = u128::try_from(wei).ok().and_then(|wei| read(words).checked_add(wei));
        sum.is_some_and(|sum| {
            write(words, sum);
            true
        })
    }

    /// Takes back what `place` gave.
    pub(super) fn clear(&self, place: Place) {
        if let Some(words) = self.by_place.get(place as usize) {
            write(words, 0);
        }
    }

    /// What came from one place to before another.
    pub(super) fn sum(&self, from: Place, to: Place) -> U256 {
        let [from, to] = [from, to].map(|place| self.by_place.len().min(place as usize));
        let places = &self.by_place[from..to.max(from)];
        places.iter().fold(U256::ZERO, |sum, words| sum.wrapping_add(U256::from(read(words))))
    }

    /// The last place before `place` that gave something.
    pub(super) fn last_before(&self, place: Place) -> Option<Place> {
        let end = self.by_place.len().min(place as usize);
        let last = self.by_place[..end].iter().rposition(|words| read(words) > 0);
        last.map(|last| last as Place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_place.iter().all(|words| read(words) == 0)
    }
}

/// Whoever reads while another thread writes may see half of it, as it may see nothing of it: it looks
/// again when all before it is final.
fn read([low, high]: &[AtomicU64; 2]) -> u128 {
    u128::from(high.load(Acquire)) << 64 | u128::from(low.load(Acquire))
}

fn write([low, high]: &[AtomicU64; 2], wei: u128) {
    low.store(wei as u64, Release);
    high.store((wei >> 64) as u64, Release);
}
