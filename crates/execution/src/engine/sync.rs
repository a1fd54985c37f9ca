//! Locks and counters of what threads share: the standard library's. In unit tests those of shuttle, which
//! runs threads one step at a time, in orders that it draws from a seed.

#[cfg(test)]
pub(super) use shuttle::sync::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic,
};
#[cfg(not(test))]
pub(super) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic};

/// Runs a unit test in many orders of its threads, the same ones each time.
#[cfg(test)]
pub(super) fn in_any_order(orders: usize, test: impl Fn() + Send + Sync + 'static) {
    use shuttle::{Config, Runner, scheduler::RandomScheduler};
    const SEED: u64 = 20_260_722;
    let mut config = Config::new();
    // The EVM needs more than a thread of shuttle has.
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    Runner::new(RandomScheduler::new_from_seed(SEED, orders), config).run(test);
}

/// Runs a unit test that has one thread.
#[cfg(test)]
pub(super) fn alone(test: impl Fn() + Send + Sync + 'static) {
    in_any_order(1, test);
}
