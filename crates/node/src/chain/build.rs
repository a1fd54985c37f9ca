//! How a leader makes the next block out of what the pool offers.

use super::{
    Chain,
    head_trie::TrieOut,
    shared_root::{RootPlace, Rooted},
    streamed::Streamed,
    unapplied::{Unapplied, above_head, state_after},
};
use crate::{
    clock::Stopwatch,
    distributor::{Distributor, Help, Learned},
    error::NodeError,
    timeline::BuildStages,
};
use alloy_consensus::{Header, Sealed, Transaction as _};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{B256, Bytes, keccak256};
use blockraft_execution::{
    Basis, BlockAttributes, BlockInput, BuildInput, BuildResult, BuiltBlock, Means, Outcome,
    build_with, execute_share_with, is_light, next_header,
};
use blockraft_primitives::{
    AdmissionId, BlockEntry, DropReason, DroppedTransaction, NodeId, PartitionSet, Receipt,
    StateReader, Transaction, limits::BLOCK_TX_COUNT_MAX, without_sidecar,
};
use blockraft_protocol::{BlockWork, CutBlock, InFlight, WorkSource};
use blockraft_rpc::Disagreement;
use rayon::ThreadPool;
use std::sync::Arc;

/// What the extra data of a cluster's own blocks begins with; term and proposer follow.
pub(crate) const EXTRA_DATA_PREFIX: &[u8] = b"blockraft";

/// What a leader is to make.
#[derive(Clone, Debug)]
pub(crate) struct BuildOrder {
    /// The head, or the last of `unapplied`.
    pub(crate) parent: B256,
    pub(crate) timestamp: u64,
    pub(crate) term: u64,
    pub(crate) proposer: NodeId,
    /// Blocks that are proposed and were not applied when this was ordered, oldest first.
    pub(crate) unapplied: Vec<Arc<Unapplied>>,
    /// What is in them.
    pub(crate) in_flight: Arc<InFlight>,
}

/// A block that this node built as leader, ready to be proposed.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) block: Arc<Unapplied>,
    /// The encoded log entry.
    pub(crate) entry: Bytes,
    /// What it says.
    pub(crate) content: Box<BlockEntry>,
    /// How it was made.
    pub(crate) stages: BuildStages,
}

/// A block that is decided upon but for what its transactions do.
struct Plan {
    parent: Sealed<Header>,
    attributes: BlockAttributes,
    ids: Vec<AdmissionId>,
    /// One an id, in the order in which they shall run.
    candidates: Vec<Transaction>,
    /// What the pool had seen when they were taken from it.
    pool_index: u64,
    stages: BuildStages,
}

/// The threads that make blocks.
pub(super) fn workers(threads: Option<usize>) -> Result<ThreadPool, NodeError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or_else(rayon::current_num_threads))
        .thread_name(|index| format!("block-{index}"))
        .build()
        .map_err(|error| NodeError::Thread(std::io::Error::other(error)))
}

impl Chain {
    /// Builds, executes and seals a block out of what the pool offers.
    pub(crate) fn build(&self, order: &BuildOrder) -> Result<Proposal, NodeError> {
        self.try_to_build(order).inspect_err(|error| self.look_into(error, None))
    }

    fn try_to_build(&self, order: &BuildOrder) -> Result<Proposal, NodeError> {
        let head = self.store.head();
        let unapplied = above_head(&order.unapplied, &head, order.parent)?;
        let parent = unapplied.last().map_or(&head, |block| &block.header);
        let plan = self.plan(parent.clone(), order);
        let state = state_after(self.store.view(head.number)?, unapplied);
        let help = self.help(&plan, &state, order.term);
        let (seeds, learned) = self.workers.install(|| help.split());
        let running = Stopwatch::start();
        let (built, trie) = self.execute(order, &plan, state, seeds)?;
        self.learn(&plan, &built, learned, running.elapsed_ns());
        let asked = built.transactions.iter().map(|tx| tx.gas_limit()).sum();
        self.gas_asked.learn(asked, built.gas_used);
        self.seal(order, plan, built, trie)
    }

    fn plan(&self, parent: Sealed<Header>, order: &BuildOrder) -> Plan {
        let BuildOrder { timestamp, term, proposer, ref in_flight, .. } = *order;
        let mut stages = BuildStages { begun: self.timelines.now(), ..BuildStages::default() };
        let attributes = self.attributes(&parent, timestamp, term, proposer);
        let base_fee = self.base_fee(&parent, &attributes);
        let (candidates, pool_index) = {
            let pool = self.pool.read();
            // Read under the pool's lock: never later than what the pool has seen.
            let index = self.store.applied().position.map_or(0, |p| p.index);
            let gas_max = self.gas_asked.for_use(attributes.gas_limit);
            (pool.candidates_after(in_flight, base_fee, BLOCK_TX_COUNT_MAX, gas_max), index)
        };
        let in_block = candidates.into_iter().map(|(id, tx)| (id, without_sidecar(&tx)));
        let (ids, candidates) = in_block.unzip();
        stages.cut = self.timelines.now();
        Plan { parent, attributes, ids, candidates, pool_index, stages }
    }

    /// Has other members run a part of the candidates, where that pays.
    fn help(&self, plan: &Plan, state: &impl StateReader, term: u64) -> Help {
        let Some(distributor) = self.distributor.get() else { return Help::default() };
        let Plan { parent, attributes, ids, candidates, pool_index, .. } = plan;
        let cut = || CutBlock {
            term,
            timestamp: attributes.timestamp,
            fee_recipient: attributes.fee_recipient,
            gas_limit: attributes.gas_limit,
            pool_index: *pool_index,
            ids: ids.clone(),
        };
        let work = || BlockWork {
            height: parent.number + 1,
            parent: parent.hash(),
            source: WorkSource::Cut(cut()),
            transactions: candidates.clone(),
        };
        let run_own = |indices: &[usize]| {
            let header = next_header(&self.spec, parent, attributes);
            let input = BlockInput {
                spec: &self.spec,
                header: &header,
                transactions: candidates,
                ommers: &[],
                withdrawals: &attributes.withdrawals,
            };
            execute_share_with(&input, state, indices, self.codes_alone())
        };
        distributor.gather(work, run_own)
    }

    fn learn(&self, plan: &Plan, built: &BuiltBlock, learned: Learned, took_ns: u64) {
        let Some(distributor) = self.distributor.get() else { return };
        let used: Vec<_> =
            built.included.iter().copied().zip(gas_used_of(&built.receipts)).collect();
        distributor.learn(&plan.candidates, &used, learned, took_ns);
    }

    /// Lets other members help from now on.
    pub(crate) fn set_distributor(&self, distributor: Distributor) {
        // Only ever called once, by the node that has just made it.
        let _ = self.distributor.set(distributor);
    }

    /// What other members contradicted each other about.
    pub(crate) fn evidence(&self) -> Vec<Disagreement> {
        self.distributor.get().map(|distributor| distributor.evidence()).unwrap_or_default()
    }

    /// For an executor.
    pub(super) fn codes_alone<'m>(&self) -> Means<'m> {
        Means { codes: Some(self.codes.clone()), ..Means::default() }
    }

    /// Threads that make blocks.
    pub(crate) fn threads(&self) -> usize {
        self.workers.current_num_threads()
    }

    /// Runs the candidates on the parent's state. `seeds` are outcomes of candidates by index. Where several
    /// threads run them, the trie has the changes afterwards.
    fn execute<'a>(
        &'a self,
        order: &'a BuildOrder,
        plan: &Plan,
        state: impl StateReader,
        seeds: Vec<(usize, Outcome)>,
    ) -> Result<(BuiltBlock, Option<TrieOut<'a>>), NodeError> {
        let Plan { parent, attributes, candidates, .. } = plan;
        let input = BuildInput { spec: &self.spec, parent, attributes, candidates };
        let means = Means {
            threads: self.threads(),
            seeds,
            basis: Basis::Parent,
            watchdog: Some(self.watchdog.clone()),
            codes: Some(self.codes.clone()),
            ..Means::default()
        };
        let streamed = Streamed::new(self, order);
        let result = if !self.is_streamed(candidates, &means) {
            self.workers.install(|| build_with(&input, state, means))
        } else {
            self.workers.scope(|scope| {
                let mut sink = |chunk| {
                    streamed.add(chunk);
                    scope.spawn(|_| streamed.write());
                };
                build_with(&input, state, Means { sink: Some(&mut sink), ..means })
            })
        };
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                streamed.abandon();
                return Err(error.into());
            }
        };
        let BuildResult { block, seeds_kept, executed_again } = result;
        count_run(seeds_kept, executed_again);
        report_dropped(&block, candidates);
        Ok((block, streamed.finish()?))
    }

    /// Whether what is final is written into the trie while others still run: not what owners may hash, nor
    /// what one thread runs.
    fn is_streamed(&self, candidates: &[Transaction], means: &Means<'_>) -> bool {
        means.threads > 1 && !is_light(candidates, means) && self.root_sharing().is_none()
    }

    /// Computes the state root: then the block has a hash, and can be proposed.
    fn seal(
        &self,
        order: &BuildOrder,
        plan: Plan,
        built: BuiltBlock,
        streamed: Option<TrieOut<'_>>,
    ) -> Result<Proposal, NodeError> {
        let Plan { ids, candidates, pool_index, mut stages, .. } = plan;
        stages.executed = self.timelines.now();
        let BuiltBlock { mut header, included, dropped, transactions, receipts, diff, .. } = built;
        let (trie, rooted) = match streamed {
            Some(mut trie) => {
                let (root, partitions) = (trie.root(), PartitionSet::ALL);
                (trie, Rooted { root, partitions, roots: None })
            }
            None => {
                let mut trie = self.take_trie_out(&order.unapplied, order.parent)?;
                let place =
                    RootPlace { term: order.term, height: header.number, parent: order.parent };
                let rooted = self.take_root(&mut trie, place, &diff)?;
                (trie, rooted)
            }
        };
        header.state_root = rooted.root;
        stages.rooted = self.timelines.now();
        let hash = header.hash_slow();
        let diff = Arc::new(diff);
        let content = Box::new(BlockEntry {
            header,
            transactions: included.iter().map(|i| ids[*i]).collect(),
            dropped: dropped
                .iter()
                .map(|(i, reason)| DroppedTransaction { id: ids[*i], reason: *reason })
                .collect(),
            receipts,
            diff: diff.clone(),
            pool_index,
            subtrie_roots: rooted.encoded_roots(),
        });
        let entry = content.encode_entry();
        stages.encoded = self.timelines.now();
        trie.keep(hash, rooted.written(diff.clone()));
        let header = Sealed::new_unchecked(content.header.clone(), hash);
        let dropped = dropped.iter().map(|(i, _)| candidates[*i].clone()).collect();
        let block = Arc::new(Unapplied::new(header, transactions, dropped, diff));
        Ok(Proposal { block, entry, content, stages })
    }

    /// DESIGN section 3: prevRandao is keccak256(parent hash, number); term and proposer are in the
    /// extra data.
    pub(super) fn attributes(
        &self,
        parent: &Sealed<Header>,
        timestamp: u64,
        term: u64,
        proposer: NodeId,
    ) -> BlockAttributes {
        let number = (parent.number + 1).to_be_bytes();
        let mut extra_data = Vec::with_capacity(32);
        extra_data.extend_from_slice(EXTRA_DATA_PREFIX);
        extra_data.extend_from_slice(&term.to_be_bytes());
        extra_data.extend_from_slice(&proposer.to_be_bytes());
        BlockAttributes {
            timestamp,
            fee_recipient: self.options.fee_recipient,
            gas_limit: self.options.gas_limit,
            prev_randao: keccak256([parent.hash().as_slice(), &number].concat()),
            extra_data: extra_data.into(),
            parent_beacon_block_root: self
                .spec
                .is_cancun_active_at_timestamp(timestamp)
                .then_some(B256::ZERO),
            withdrawals: Vec::new(),
            gasless: self.options.gasless,
        }
    }

    /// The base fee of a block on `parent`, whenever it comes.
    pub(super) fn next_base_fee(&self, parent: &Sealed<Header>) -> u128 {
        self.base_fee(parent, &self.attributes(parent, parent.timestamp, 0, 0))
    }

    fn base_fee(&self, parent: &Sealed<Header>, attributes: &BlockAttributes) -> u128 {
        let header = next_header(&self.spec, parent, attributes);
        header.base_fee_per_gas.map_or(0, u128::from)
    }
}

/// How hard a block was, for metrics.
pub(super) fn count_run(seeds_kept: usize, executed_again: usize) {
    metrics::counter!("blockraft_execution_seeds_kept_total").increment(seeds_kept as u64);
    metrics::counter!("blockraft_execution_executed_again_txs_total")
        .increment(executed_again as u64);
}

/// What each transaction of a block used.
pub(super) fn gas_used_of(receipts: &[Receipt]) -> impl Iterator<Item = u64> {
    let before = std::iter::once(0).chain(receipts.iter().map(|r| r.cumulative_gas_used));
    receipts.iter().zip(before).map(|(receipt, before)| receipt.cumulative_gas_used - before)
}

/// The node that built a block of this cluster, by its extra data.
pub(super) fn proposer_of(header: &Header) -> Option<NodeId> {
    let term_and_proposer = header.extra_data.strip_prefix(EXTRA_DATA_PREFIX)?;
    Some(NodeId::from_be_bytes(term_and_proposer.get(8..)?.try_into().ok()?))
}

/// Transactions that leave the pool unexecuted, by reason; what would have stopped the chain by name.
fn report_dropped(block: &BuiltBlock, candidates: &[Transaction]) {
    for (index, reason) in &block.dropped {
        let label = match reason {
            DropReason::Invalid => "invalid",
            DropReason::Poison => {
                let tx = &candidates[*index];
                tracing::error!(
                    hash = %tx.tx_hash(),
                    sender = %tx.signer(),
                    number = block.header.number,
                    "a transaction that the executor cannot run is quarantined: it leaves the pool"
                );
                "poison"
            }
        };
        metrics::counter!("blockraft_block_dropped_txs_total", "reason" => label).increment(1);
    }
}
