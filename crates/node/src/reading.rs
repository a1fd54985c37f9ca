//! Chains that are served for reading alone: imported, and none that a cluster may go on with.

use crate::chain::EXTRA_DATA_PREFIX;
use blockraft_rpc::{Submission, SubmitError};
use blockraft_storage::Store;
use tokio::sync::mpsc;

/// Whether the chain is not a cluster's: its genesis has no `config.blockraft`, and its last block, which is
/// not block 0, was made by somebody else.
pub fn is_read_only(store: &Store) -> bool {
    let head = store.head();
    let cluster = store.genesis().genesis.config.extra_fields.contains_key("blockraft");
    !cluster && head.number > 0 && !head.extra_data.starts_with(EXTRA_DATA_PREFIX)
}

/// Answers every transaction, until nobody can send any more.
pub(crate) async fn refuse(mut submitted: mpsc::Receiver<Submission>) {
    while let Some(submission) = submitted.recv().await {
        // The client may be gone; that changes nothing.
        let refusals = submission.raw.iter().map(|_| Err(SubmitError::ReadOnly));
        let _ = submission.reply.send(refusals.collect());
    }
}
