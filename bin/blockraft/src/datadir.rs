//! Data directories that another process has only just left.

use blockraft_storage::{StorageError, Store, StoreOptions};
use std::{path::Path, thread, time::Duration};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Attempts: five seconds' worth, as a node that starts waits.
const ATTEMPTS: u32 = 100;

/// Opens a directory, once nobody else uses it any more: a process that was killed holds it until the kernel has
/// taken it apart.
pub(crate) fn open(datadir: &Path, options: StoreOptions) -> Result<Store, StorageError> {
    for _ in 1..ATTEMPTS {
        match Store::open_with(datadir, options) {
            Err(StorageError::Locked { .. }) => thread::sleep(PAUSE),
            opened => return opened,
        }
    }
    Store::open_with(datadir, options)
}
