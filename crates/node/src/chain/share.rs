//! Blocks that members run together: what this one runs for another, on its own state and pool, and what it
//! has others run of a block that a consensus client names.

use super::Chain;
use crate::{
    clock::Stopwatch,
    distributor::{Help, Learned},
    error::NodeError,
};
use alloy_consensus::{Header, Sealed};
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::U256;
use blockraft_execution::{
    Basis, BlockAttributes, BlockInput, BuildInput, BuiltBlock, ExecutedBlock, ExecutionError,
    Means, Outcome, build_with, encode_outcomes, execute_share_with, execute_with, next_header,
};
use blockraft_primitives::{ChainSpec, ClusterGenesis, StateReader, Transaction};
use blockraft_protocol::{
    BlockWork, Fence, PooledWork, Standing, Unit, UnitRefusal, UnitWork, WorkSource,
};
use blockraft_raft::RaftStatus;
use std::sync::Arc;

/// The rules of blocks that a consensus client names: all of them are after the merge, wherever in the chain
/// that was.
pub(super) fn given_spec(genesis: &ClusterGenesis) -> Result<ChainSpec, NodeError> {
    let mut config = genesis.spec.config().clone();
    config.terminal_total_difficulty.get_or_insert(U256::ZERO);
    config.merge_netsplit_block.get_or_insert(1);
    config.terminal_total_difficulty_passed = false;
    Ok(ChainSpec::new(&config)?)
}

/// Who else has the parent of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent {
    /// In the chain: every member has its state, or will.
    Committed,
    /// A payload that only this node has heard of.
    Uncommitted,
}

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
        let parent = self.store.header(fence.height.saturating_sub(1)).map_err(|e| failed(&e))?;
        let Some(parent) = parent.filter(|parent| parent.hash() == fence.parent) else {
            return Err(UnitRefusal::Parent { got: self.store.head().hash() });
        };
        let view = self.store.view(parent.number).map_err(|e| failed(&e))?;
        let run = |spec: &ChainSpec, header: &Header, transactions: &[Transaction]| {
            let input = BlockInput { spec, header, transactions, ommers: &[], withdrawals: &[] };
            let all: Vec<usize> = (0..transactions.len()).collect();
            let outcomes = execute_share_with(&input, view, &all, self.codes_alone());
            let outcomes = outcomes.map_err(|e| failed(&e))?;
            Ok(encode_outcomes(&outcomes))
        };
        match &unit.work {
            UnitWork::Pooled(work) => {
                let transactions = self.resolve(work)?;
                let attributes = self.attributes_of(fence, work, &parent);
                run(&self.spec, &next_header(&self.spec, &parent, &attributes), &transactions)
            }
            UnitWork::Given(work) => run(&self.given_spec, &work.header, &work.transactions),
        }
    }

    /// The block's attributes as its leader has them: what the members may be configured differently for
    /// comes with the unit.
    fn attributes_of(
        &self,
        fence: &Fence,
        work: &PooledWork,
        parent: &Sealed<Header>,
    ) -> BlockAttributes {
        BlockAttributes {
            fee_recipient: work.fee_recipient,
            gas_limit: work.gas_limit,
            ..self.attributes(parent, work.timestamp, fence.term, fence.leader)
        }
    }

    fn resolve(&self, work: &PooledWork) -> Result<Vec<Transaction>, UnitRefusal> {
        let pool = self.pool.read();
        let resolve = |&id| pool.by_id(id).cloned().ok_or(UnitRefusal::Transaction { id });
        work.transactions.iter().map(resolve).collect()
    }

    /// Executes a block that a consensus client named on its parent's state, and checks its header. Others run
    /// a part of it where that pays; what they say is judged as the engine judges everything.
    pub(crate) fn execute_given(
        &self,
        header: &Header,
        transactions: &[Transaction],
        withdrawals: &[Withdrawal],
        (parent, state): (Parent, &impl StateReader),
    ) -> Result<ExecutedBlock, ExecutionError> {
        let (seeds, learned) = self.help_with_given(header, transactions, (parent, state));
        let spec = &*self.given_spec;
        let input = BlockInput { spec, header, transactions, ommers: &[], withdrawals };
        let basis = Basis::Parent;
        let means = Means { threads: self.threads(), seeds, basis, ..self.codes_alone() };
        let running = Stopwatch::start();
        let result = self.workers.install(|| execute_with(&input, state, means))?;
        super::build::count_run(result.seeds_kept, result.executed_again);
        let used = super::build::gas_used_of(&result.block.receipts).enumerate().collect();
        self.learn_of_given(transactions, used, learned, running.elapsed_ns());
        Ok(result.block)
    }

    /// Builds a block for a consensus client, in the same way.
    pub(crate) fn build_given(
        &self,
        parent: &Sealed<Header>,
        attributes: &BlockAttributes,
        candidates: &[Transaction],
        (kind, state): (Parent, &impl StateReader),
    ) -> Result<BuiltBlock, ExecutionError> {
        let spec = &*self.given_spec;
        let header = next_header(spec, parent, attributes);
        let (seeds, learned) = self.help_with_given(&header, candidates, (kind, state));
        let input = BuildInput { spec, parent, attributes, candidates };
        let watchdog = Some(self.watchdog.clone());
        let (threads, basis) = (self.threads(), Basis::Parent);
        let means = Means { threads, seeds, basis, watchdog, ..self.codes_alone() };
        let running = Stopwatch::start();
        let result = self.workers.install(|| build_with(&input, state, means))?;
        super::build::count_run(result.seeds_kept, result.executed_again);
        let block = result.block;
        let used = super::build::gas_used_of(&block.receipts);
        let used = block.included.iter().copied().zip(used).collect();
        self.learn_of_given(candidates, used, learned, running.elapsed_ns());
        Ok(block)
    }

    fn help_with_given(
        &self,
        header: &Header,
        transactions: &[Transaction],
        (parent, state): (Parent, &impl StateReader),
    ) -> (Vec<(usize, Outcome)>, Learned) {
        let distributor = self.distributor.get().filter(|_| parent == Parent::Committed);
        let help = distributor.map_or_else(Help::default, |distributor| {
            let work = || BlockWork {
                height: header.number,
                parent: header.parent_hash,
                source: WorkSource::Given(Arc::new(header.clone())),
                transactions: transactions.to_vec(),
            };
            let run_own = |indices: &[usize]| {
                let spec = &*self.given_spec;
                let input =
                    BlockInput { spec, header, transactions, ommers: &[], withdrawals: &[] };
                execute_share_with(&input, state, indices, self.codes_alone())
            };
            distributor.gather(work, run_own)
        });
        self.workers.install(|| help.split())
    }

    fn learn_of_given(
        &self,
        transactions: &[Transaction],
        gas_used: Vec<(usize, u64)>,
        learned: Learned,
        took_ns: u64,
    ) {
        if let Some(distributor) = self.distributor.get() {
            distributor.learn(transactions, &gas_used, learned, took_ns);
        }
    }
}
