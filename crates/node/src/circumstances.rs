//! Who leads, who else is there and how far this node is: what sharing work out depends on, told as it changes.

use crate::chain::Chain;
use blockraft_primitives::NodeId;
use blockraft_raft::RaftStatus;
use std::sync::Arc;
use tokio::sync::watch;

/// What sharing out depends on.
pub(crate) struct Circumstances {
    pub(crate) raft: watch::Receiver<RaftStatus>,
    /// Tells of every applied entry.
    pub(crate) progress: watch::Receiver<u64>,
    pub(crate) chain: Arc<Chain>,
}

/// What has changed about it.
pub(crate) enum News {
    Role { leading: Option<u64>, others: Vec<NodeId> },
    Applied { height: u64 },
}

impl Circumstances {
    /// Tells how things are and of every change, until the node no longer takes part.
    pub(crate) async fn follow(mut self, node_id: NodeId, tell: impl Fn(News)) {
        let (mut role, mut height) = (None, None);
        loop {
            let latest = Some(role_of(&self.raft.borrow_and_update(), node_id));
            if role != latest {
                role = latest;
                let (leading, others) = role.clone().unwrap_or_default();
                tell(News::Role { leading, others });
            }
            self.progress.mark_unchanged();
            let latest = Some(self.chain.store.head().number);
            if height != latest {
                height = latest;
                tell(News::Applied { height: height.unwrap_or_default() });
            }
            let changed = tokio::select! {
                changed = self.raft.changed() => changed,
                changed = self.progress.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// The term in which the node leads, and the other voters: learners are still catching up.
fn role_of(status: &RaftStatus, node_id: NodeId) -> (Option<u64>, Vec<NodeId>) {
    let others = status.members.iter().filter(|m| m.voter && m.id != node_id).map(|m| m.id);
    (status.is_leader().then_some(status.term), others.collect())
}
