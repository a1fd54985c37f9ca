//! Handing leadership over.

use super::RaftNode;
use crate::{RaftStatus, TransferError};
use blockraft_primitives::NodeId;
use std::time::Duration;
use tokio::time::timeout;

impl RaftNode {
    /// Hands leadership to `to`, or to the voter whose log is longest, and waits until this node
    /// sees another leader. Meanwhile proposals are refused. When the target does not take over, the
    /// cluster elects as it would without this call.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let status = self.status.borrow().clone();
        let target = choose_target(&status, to)?;
        let fatal = |_| TransferError::Fatal;
        self.raft.trigger().transfer_leader(target).await.map_err(fatal)?;
        let mut changes = self.status.clone();
        let changed = changes.wait_for(|now| {
            now.stopped.is_some() || now.leader.is_some_and(|leader| leader != status.id)
        });
        match timeout(self.transfer_timeout(), changed).await {
            Ok(Ok(now)) => now.leader.filter(|_| now.stopped.is_none()).ok_or(TransferError::Fatal),
            Ok(Err(_)) => Err(TransferError::Fatal),
            Err(_) => Err(TransferError::Timeout(target)),
        }
    }

    /// The target votes at once; a lost message costs an ordinary election.
    fn transfer_timeout(&self) -> Duration {
        Duration::from_millis(4 * self.config.election_max_ms)
    }
}

fn choose_target(status: &RaftStatus, to: Option<NodeId>) -> Result<NodeId, TransferError> {
    if !status.is_leader() {
        return Err(TransferError::NotLeader { leader: status.leader });
    }
    let mut others = status.members.iter().filter(|m| m.voter && m.id != status.id);
    match to {
        Some(id) => others.find(|m| m.id == id).map(|m| m.id).ok_or(TransferError::NotVoter(id)),
        None => others.max_by_key(|m| m.matched_index).map(|m| m.id).ok_or(TransferError::NoTarget),
    }
}
