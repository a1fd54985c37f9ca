//! The one failure that ends Raft.

use crate::RaftError;
use std::sync::Arc;
use tokio::sync::watch;

/// Keeps the first failure and wakes those who wait for one.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    first: Arc<watch::Sender<Option<Arc<RaftError>>>>,
}

impl Default for Failure {
    fn default() -> Self {
        Self { first: Arc::new(watch::Sender::new(None)) }
    }
}

impl Failure {
    /// Later failures are consequences of the first.
    pub(crate) fn report(&self, error: RaftError) {
        self.first.send_if_modified(|first| {
            let news = first.is_none();
            if news {
                *first = Some(Arc::new(error));
            }
            news
        });
    }

    pub(crate) fn first(&self) -> Option<Arc<RaftError>> {
        self.first.borrow().clone()
    }

    pub(super) async fn reported(&self) -> Arc<RaftError> {
        let mut first = self.first.subscribe();
        let reported = first.wait_for(Option::is_some).await;
        let reported = reported.expect("the sender is part of self");
        Arc::clone(reported.as_ref().expect("that was waited for"))
    }
}
