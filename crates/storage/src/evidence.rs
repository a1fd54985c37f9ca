//! What a node keeps of a disagreement with the chain, for its operator to look at.

use crate::{StorageError, Store};
use blockraft_primitives::limits::EVIDENCE_FILE_COUNT_MAX;
use std::{fs, path::PathBuf};

impl Store {
    /// Keeps a text under a name in the directory `evidence`, and says where. `None` when there is much
    /// already: the first of it tells the most.
    pub fn keep_evidence(&self, name: &str, text: &str) -> Result<Option<PathBuf>, StorageError> {
        let dir = self.dir().evidence();
        let failed = |error| StorageError::io(&dir, error);
        fs::create_dir_all(&dir).map_err(failed)?;
        if fs::read_dir(&dir).map_err(failed)?.count() >= EVIDENCE_FILE_COUNT_MAX {
            return Ok(None);
        }
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| StorageError::io(&path, error))?;
        Ok(Some(path))
    }
}
