//! The parent block's hash, which may be known later than its state.
//!
//! A block can run as soon as its parent's state is there; the parent's hash takes the state root, which
//! takes longer. Three things of a block depend on it: BLOCKHASH of the parent, the slot in which EIP-2935
//! notes it, and PREVRANDAO where that is derived from it. They are looked up when a transaction asks for
//! them, and at the end of the block.

use crate::database::DatabaseError;
use alloy_consensus::Header;
use alloy_eips::eip2935::{HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE};
use alloy_primitives::{Address, B256, U256, b256, keccak256};
use blockraft_primitives::{AccountDiff, StateDiff, StateReader};
use std::{
    borrow::Cow,
    sync::{Arc, Condvar, Mutex, OnceLock},
    time::Duration,
};

/// Stands where EIP-2935's contract notes a hash that is not known yet. Only hashes are ever written
/// there, and nobody finds a block with this one.
const PLACEHOLDER: B256 = b256!("5f0ae9e6c1d34b7c9a1d64d7f4a5c3be21a8806f3b57e6fd0c2e94d118ab7f93");

/// How long a thread of a pool sleeps before it looks for other work of the pool again: the promise may
/// depend on that work.
const NAP: Duration = Duration::from_micros(200);

/// What the parent's hash decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateValues {
    /// The parent's hash.
    pub parent_hash: B256,
    /// PREVRANDAO of the block; `None` where its header or attributes say it.
    pub prev_randao: Option<B256>,
}

/// The parent's hash, once it is there; all clones are one.
#[derive(Clone, Debug)]
pub struct LateParent(Arc<Shared>);

/// The other end of a [`LateParent`]: to be kept, or whoever waits is told that nothing will come.
#[derive(Debug)]
pub struct LatePromise(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    values: OnceLock<Option<LateValues>>,
    lock: Mutex<()>,
    filled: Condvar,
}

impl LateParent {
    /// A hash to come, and the promise of it.
    pub fn new() -> (LatePromise, Self) {
        let shared = Arc::new(Shared::default());
        (LatePromise(shared.clone()), Self(shared))
    }

    /// Waits for the promise; `None` where it was dropped. A thread of a rayon pool does other work of
    /// its pool meanwhile, so the hash may be computed there.
    pub fn wait(&self) -> Option<LateValues> {
        let pooled = rayon::current_thread_index().is_some();
        loop {
            if let Some(values) = self.0.values.get() {
                return *values;
            }
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                continue;
            }
            let guard = self.0.lock.lock().expect(UNPOISONED);
            if self.0.values.get().is_some() {
                continue;
            }
            if pooled {
                drop(self.0.filled.wait_timeout(guard, NAP).expect(UNPOISONED));
            } else {
                drop(self.0.filled.wait(guard).expect(UNPOISONED));
            }
        }
    }

    /// Whether the promise was kept or dropped.
    pub fn is_settled(&self) -> bool {
        self.0.values.get().is_some()
    }
}

impl LatePromise {
    /// Keeps the promise.
    pub fn keep(self, values: LateValues) {
        self.0.settle(Some(values));
    }
}

impl Drop for LatePromise {
    fn drop(&mut self) {
        self.0.settle(None);
    }
}

impl Shared {
    /// The first one counts.
    fn settle(&self, values: Option<LateValues>) {
        let _guard = self.lock.lock().expect(UNPOISONED);
        if self.values.set(values).is_ok() {
            self.filled.notify_all();
        }
    }
}

const UNPOISONED: &str = "nothing panics under this lock";

/// The parent as a running block sees it.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    number: u64,
    hash: B256,
    late: Option<LateParent>,
}

/// What to do about a hash that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Fail with [`DatabaseError::ParentHash`].
    Try,
    /// Wait for it.
    Wait,
}

impl Parent {
    /// The parent of the block with this header, whose parent hash does not count if there is a late one.
    pub(crate) fn of(header: &Header, late: Option<LateParent>) -> Self {
        Self { number: header.number.saturating_sub(1), hash: header.parent_hash, late }
    }

    /// Whether its hash is looked up when it is asked for.
    pub(crate) fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// Whether nobody has to wait for its hash.
    pub(crate) fn is_settled(&self) -> bool {
        self.late.as_ref().is_none_or(LateParent::is_settled)
    }

    /// The hash of a block, if it is this one.
    pub(crate) fn hash_of(
        &self,
        number: u64,
        patience: Patience,
    ) -> Option<Result<B256, DatabaseError>> {
        (number == self.number).then(|| self.hash(patience))
    }

    /// Its hash.
    pub(crate) fn hash(&self, patience: Patience) -> Result<B256, DatabaseError> {
        Ok(self.values(patience)?.map_or(self.hash, |values| values.parent_hash))
    }

    /// PREVRANDAO of its child, where the hash decides it.
    pub(crate) fn prev_randao(&self, patience: Patience) -> Result<Option<B256>, DatabaseError> {
        Ok(self.values(patience)?.and_then(|values| values.prev_randao))
    }

    /// What a slot holds, if `value` stands in the memory for it.
    pub(crate) fn resolve(
        &self,
        address: Address,
        value: U256,
        patience: Patience,
    ) -> Result<U256, DatabaseError> {
        if self.late.is_some() && is_placeholder(address, value) {
            return Ok(self.hash(patience)?.into());
        }
        Ok(value)
    }

    /// The header for the system calls before the transactions: with a placeholder that the contract of
    /// EIP-2935 stores. A contract of another kind at that address gets the real hash, whatever it takes.
    pub(crate) fn header_for_calls<'h>(
        &self,
        header: &'h Header,
        state: &impl StateReader,
    ) -> Result<Cow<'h, Header>, DatabaseError> {
        if self.late.is_none() {
            return Ok(Cow::Borrowed(header));
        }
        let account = state.account(HISTORY_STORAGE_ADDRESS)?;
        let foreign = account.is_some_and(|account| {
            account.has_code() && account.code_hash != keccak256(&HISTORY_STORAGE_CODE)
        });
        let parent_hash = if foreign { self.hash(Patience::Wait)? } else { PLACEHOLDER };
        Ok(Cow::Owned(Header { parent_hash, ..header.clone() }))
    }

    /// Puts the hash where a placeholder stands.
    pub(crate) fn complete(&self, diff: &mut StateDiff) -> Result<(), DatabaseError> {
        if self.late.is_none() {
            return Ok(());
        }
        let history = |account: &AccountDiff| account.address.cmp(&HISTORY_STORAGE_ADDRESS);
        let Ok(at) = diff.accounts.binary_search_by(history) else { return Ok(()) };
        for slot in &mut diff.accounts[at].storage {
            slot.value = self.resolve(HISTORY_STORAGE_ADDRESS, slot.value, Patience::Wait)?;
        }
        Ok(())
    }

    fn values(&self, patience: Patience) -> Result<Option<LateValues>, DatabaseError> {
        let Some(late) = &self.late else { return Ok(None) };
        if patience == Patience::Try && !late.is_settled() {
            return Err(DatabaseError::ParentHash);
        }
        late.wait().map(Some).ok_or(DatabaseError::ParentHash)
    }
}

/// Whether a slot's value stands for the hash.
pub(crate) fn is_placeholder(address: Address, value: U256) -> bool {
    address == HISTORY_STORAGE_ADDRESS && value == U256::from_be_bytes(PLACEHOLDER.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: LateValues = LateValues { parent_hash: B256::repeat_byte(7), prev_randao: None };

    #[test]
    fn who_waits_gets_what_is_promised() {
        let (promise, late) = LateParent::new();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| late.wait())).collect();
            assert!(!late.is_settled());
            promise.keep(VALUES);
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap() == Some(VALUES)));
        });
    }

    #[test]
    fn dropped_promise_ends_the_wait() {
        let (promise, late) = LateParent::new();
        drop(promise);
        assert_eq!(late.wait(), None);
    }

    #[test]
    fn hash_may_be_computed_on_the_pool_that_waits_for_it() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (promise, late) = LateParent::new();
        let waited = pool.scope(|scope| {
            scope.spawn(move |_| promise.keep(VALUES));
            late.wait()
        });
        assert_eq!(waited, Some(VALUES));
    }
}
