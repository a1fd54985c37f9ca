//! From any node into the log.

use crate::{chain::Chain, data_plane::Peers};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{NodeId, limits::LEADER_WAIT_MS};
use blockraft_protocol::Refusal;
use blockraft_raft::{ApplyResponse, ProposeError, RaftNode, RaftStatus};
use blockraft_rpc::EngineError;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Pause before an entry is proposed again after a leader was lost.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// Pause between two looks at the head, while the leader is ahead of this node.
const FOLLOW_PAUSE: Duration = Duration::from_millis(2);

/// Puts entries into the log, over whichever node leads.
pub(crate) struct Proposer {
    pub(crate) chain: Arc<Chain>,
    pub(crate) node_id: NodeId,
    pub(crate) raft: RaftNode,
    pub(crate) peers: Peers,
}

impl Proposer {
    /// Proposes an entry until it was applied on the leader, and waits until this node's head is `expected`
    /// too, unless the entry did not fit the chain. Proposing twice does no harm: an entry counts only on
    /// the head that it names.
    pub(super) async fn propose(&self, entry: Bytes, expected: B256) -> Result<(), EngineError> {
        let deadline = Instant::now() + Duration::from_millis(LEADER_WAIT_MS);
        let attempts = self.until_applied(entry);
        let accepted = match tokio::time::timeout_at(deadline, attempts).await {
            Ok(accepted) => accepted,
            Err(_) => return Err(self.unavailable()),
        };
        // An earlier attempt may have been the one that fitted.
        let follow = async {
            while self.chain.store.head().hash() != expected {
                tokio::time::sleep(FOLLOW_PAUSE).await;
            }
        };
        if accepted && tokio::time::timeout_at(deadline, follow).await.is_err() {
            return Err(self.unavailable());
        }
        Ok(())
    }

    async fn until_applied(&self, entry: Bytes) -> bool {
        let mut status: watch::Receiver<RaftStatus> = self.raft.status();
        loop {
            let leader = status.borrow_and_update().leader;
            let answer = match leader {
                None => Err(Refusal::NotLeader { leader: None }),
                Some(id) if id == self.node_id => {
                    answer_of(self.raft.propose(entry.clone().into()).await)
                }
                Some(id) => self.peers.propose(id, entry.clone()).await,
            };
            match answer {
                Ok(accepted) => return accepted,
                Err(refusal) => tracing::debug!(%refusal, "an entry is proposed again"),
            }
            // A change of Raft's state is worth another attempt at once.
            let _ = tokio::time::timeout(RETRY_PAUSE, status.changed()).await;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn unavailable(&self) -> EngineError {
        let status = self.raft.status();
        let status = status.borrow();
        let leader =
            status.leader.map_or_else(|| "no leader".to_owned(), |id| format!("leader {id}"));
        let term = status.term;
        EngineError::Unavailable(format!(
            "the cluster did not commit in time ({leader}, term {term})"
        ))
    }
}

/// What became of an entry that this node proposed as leader: whether it fitted the chain.
pub(crate) fn answer_of(applied: Result<ApplyResponse, ProposeError>) -> Result<bool, Refusal> {
    match applied {
        Ok(ApplyResponse::Block { accepted }) => Ok(accepted),
        Ok(ApplyResponse::None | ApplyResponse::Admit(_)) => Ok(false),
        Err(ProposeError::NotLeader { leader }) => Err(Refusal::NotLeader { leader }),
        Err(ProposeError::Unknown | ProposeError::Fatal) => Err(Refusal::OutcomeUnknown),
    }
}
