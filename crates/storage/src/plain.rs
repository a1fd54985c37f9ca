//! A bare table, against which the cost of keeping state is measured.

use crate::{StorageError, env::Env, tables::Table};
use signet_libmdbx::SyncMode;
use std::path::Path;

const ACCOUNTS: Table = Table { name: "accounts", slot: 0 };
const STORAGE: Table = Table { name: "storage", slot: 1 };

/// Two tables in one environment that is opened as a state shard is: no history, no markers, no chain.
#[derive(Debug)]
pub struct PlainTables {
    env: Env,
}

impl PlainTables {
    /// Opens or makes an environment of its own.
    pub fn open(path: &Path, map_bytes_max: usize) -> Result<Self, StorageError> {
        let env = Env::open(path, &[ACCOUNTS, STORAGE], SyncMode::SafeNoSync, map_bytes_max)?;
        Ok(Self { env })
    }

    /// Puts records, each list in the order of its keys, in one MDBX transaction, and syncs.
    pub fn upsert<K: AsRef<[u8]>, L: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        accounts: &[(K, V)],
        slots: &[(L, V)],
    ) -> Result<(), StorageError> {
        let tx = self.env.write()?;
        {
            let mut table = tx.cursor(ACCOUNTS)?;
            accounts.iter().try_for_each(|(key, value)| table.put(key.as_ref(), value.as_ref()))?;
            let mut table = tx.cursor(STORAGE)?;
            slots.iter().try_for_each(|(key, value)| table.put(key.as_ref(), value.as_ref()))?;
        }
        tx.commit()?;
        self.env.sync()
    }

    /// The value of a key of the first table.
    pub fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let tx = self.env.read()?;
        Ok(tx.get(ACCOUNTS, key)?.map(|value| value.to_vec()))
    }
}
