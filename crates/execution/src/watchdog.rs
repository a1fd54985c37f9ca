//! Ends transactions that run for too long.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Ends transactions that run for too long, by a clock that the caller has: all clones are one.
///
/// A transaction during which [`Watchdog::tick`] was called more often than the limit ends at its next
/// jump or call: in a block that is built it is dropped as poison, in a given block it is the error.
#[derive(Clone, Debug)]
pub struct Watchdog {
    ticks: Arc<AtomicU32>,
    tick_count_max: u32,
}

impl Watchdog {
    /// One that lets a transaction run for `tick_count_max` full ticks.
    pub fn new(tick_count_max: u32) -> Self {
        Self { ticks: Arc::default(), tick_count_max }
    }

    /// Time passes. To be called at even intervals while blocks run.
    pub fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }
}

/// One thread's view of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    dog: Option<Watchdog>,
    started: u32,
}

impl Watch {
    /// One whose time begins now.
    pub(crate) fn new(dog: Option<Watchdog>) -> Self {
        let mut watch = Self { dog, started: 0 };
        watch.restart();
        watch
    }

    /// Whether there is anything to look at.
    pub(crate) fn is_set(&self) -> bool {
        self.dog.is_some()
    }

    /// A transaction starts, or goes on after it waited for something that is not its fault.
    pub(crate) fn restart(&mut self) {
        if let Some(dog) = &self.dog {
            self.started = dog.ticks.load(Ordering::Relaxed);
        }
    }

    /// Whether the transaction's time is up.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.dog.as_ref().is_some_and(|dog| {
            dog.ticks.load(Ordering::Relaxed).wrapping_sub(self.started) > dog.tick_count_max
        })
    }
}
