//! openraft's conformance suite for stores, over the log on disk.

use super::{harness::open_log, memory::MemoryApplication};
use crate::{
    Spawner, log::LogStore, node::Failure, state_machine::StateMachine, types::TypeConfig,
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use std::sync::Arc;
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(open_log(dir.path()));
        let (spawner, failure) = (Spawner::default(), Failure::default());
        let store = LogStore::open(log, spawner.clone(), failure.clone()).unwrap();
        let machine =
            StateMachine::start(Arc::new(MemoryApplication::with_gaps()), spawner, failure);
        Ok((dir, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_suite_passes_over_the_log_on_disk() {
    Suite::test_all(Builder).await.unwrap();
}
