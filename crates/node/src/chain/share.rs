//! An executor's part: running what another member leads, on this member's own state and pool.

use super::Chain;
use alloy_consensus::{Header, Sealed};
use blockraft_execution::{
    BlockAttributes, BlockInput, encode_outcomes, execute_share, next_header,
};
use blockraft_primitives::Transaction;
use blockraft_protocol::{Standing, Unit, UnitRefusal};
use blockraft_raft::RaftStatus;

impl Chain {
    /// Where this member stands, for the gate.
    pub(crate) fn standing(&self, raft: &RaftStatus) -> Standing {
        let applied = self.store.applied().position.map_or(0, |p| p.index);
        // The head is read last: with what the pool has seen it is never older than `applied` says.
        let head = self.store.head();
        Standing {
            cluster: self.store.identity().cluster_id,
            term: raft.term,
            leader: raft.leader,
            height: head.number,
            head: head.hash(),
            applied,
        }
    }

    /// Runs a unit that the gate has let in. The outcomes, encoded, by place in the unit.
    pub(crate) fn run_unit(&self, unit: &Unit) -> Result<Vec<u8>, UnitRefusal> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, height = unit.id.fence.height, "a unit of work could not be run");
            UnitRefusal::Failed
        };
        let fence = &unit.id.fence;
        let parent = self.store.header(fence.height - 1).map_err(|e| failed(&e))?;
        let Some(parent) = parent.filter(|parent| parent.hash() == fence.parent) else {
            return Err(UnitRefusal::Parent { got: self.store.head().hash() });
        };
        let transactions = self.resolve(unit)?;
        let attributes = self.attributes_of(unit, &parent);
        let header = next_header(&self.spec, &parent, &attributes);
        let view = self.store.view(parent.number).map_err(|e| failed(&e))?;
        let input = BlockInput {
            spec: &self.spec,
            header: &header,
            transactions: &transactions,
            ommers: &[],
            withdrawals: &[],
        };
        let all: Vec<usize> = (0..transactions.len()).collect();
        let outcomes = execute_share(&input, view, &all).map_err(|e| failed(&e))?;
        Ok(encode_outcomes(&outcomes))
    }

    /// The block's attributes as its leader has them: what the members may be configured differently for
    /// comes with the unit.
    fn attributes_of(&self, unit: &Unit, parent: &Sealed<Header>) -> BlockAttributes {
        let fence = &unit.id.fence;
        BlockAttributes {
            fee_recipient: unit.fee_recipient,
            gas_limit: unit.gas_limit,
            ..self.attributes(parent, unit.timestamp, fence.term, fence.leader)
        }
    }

    fn resolve(&self, unit: &Unit) -> Result<Vec<Transaction>, UnitRefusal> {
        let pool = self.pool.read();
        let resolve = |&id| pool.by_id(id).cloned().ok_or(UnitRefusal::Transaction { id });
        unit.transactions.iter().map(resolve).collect()
    }
}
