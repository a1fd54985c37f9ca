//! The task that does what a consensus client asks for: it validates payloads, moves the head through the
//! log, and builds blocks. One call after the other, in the order in which they came.
//!
//! Payloads are executed here, on whatever node the client talks to; only the log entries go to the leader.
//! What is valid waits in memory, as diffs over the committed head, until forkchoice picks it.

mod branch;
mod build;
mod propose;
mod terminal;
mod validate;

pub(crate) use propose::{Proposer, answer_of};

use self::{
    branch::{BranchState, tip_header},
    build::Builds,
    terminal::Terminal,
    validate::{PayloadRules, Verdict},
};
use crate::{chain::Chain, error::NodeError};
use alloy_consensus::{Block, Header, Sealed, TxEnvelope};
use alloy_primitives::B256;
use blockraft_primitives::{
    ForkchoiceEntry, LogEntry, StateError, limits::ENGINE_REORG_BLOCK_COUNT_MAX,
};
use blockraft_protocol::{Branch, HeadGoal, HeadPlan, InvalidPayload, Payloads, plan_head};
use blockraft_rpc::{
    BuiltPayload, EngineCall, EngineError, Finality, ForkchoiceState, ForkchoiceUpdated, PayloadId,
    PayloadRequest, PayloadStatus, PayloadStatusEnum,
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// How often a change of the head is planned anew when another one came in between.
const PLAN_ATTEMPTS_MAX: usize = 5;

/// The task's state.
pub(crate) struct Engine {
    chain: Arc<Chain>,
    proposer: Proposer,
    rules: PayloadRules,
    terminal: Terminal,
    payloads: Payloads,
    builds: Builds,
}

impl Engine {
    pub(crate) fn new(chain: Arc<Chain>, proposer: Proposer) -> Self {
        let terminal = chain.store.genesis().spec.terminal_total_difficulty();
        Self {
            rules: PayloadRules::new(&chain),
            terminal: Terminal::new(terminal),
            chain,
            proposer,
            payloads: Payloads::default(),
            builds: Builds::default(),
        }
    }

    /// Runs until every sender of calls is gone. Whoever asked may be gone when the answer comes.
    pub(crate) async fn run(mut self, mut calls: mpsc::Receiver<EngineCall>) {
        while let Some(call) = calls.recv().await {
            match call {
                EngineCall::NewPayload { hash, block, reply } => {
                    // Execution takes as long as a block takes.
                    let status = tokio::task::block_in_place(|| self.new_payload(hash, &block));
                    let _ = reply.send(status);
                }
                EngineCall::Forkchoice { state, build, reply } => {
                    let _ = reply.send(self.forkchoice(state, build).await);
                }
                EngineCall::GetPayload { id, reply } => {
                    let built = tokio::task::block_in_place(|| self.get_payload(id));
                    let _ = reply.send(built);
                }
            }
        }
    }

    fn new_payload(
        &mut self,
        hash: B256,
        block: &Block<TxEnvelope>,
    ) -> Result<PayloadStatus, EngineError> {
        if self.payloads.get(&hash).is_some() || self.committed(&hash)?.is_some() {
            return Ok(valid(hash));
        }
        if let Some(known) = self.payloads.invalid(&hash) {
            return Ok(invalid(known));
        }
        let parent = block.header.parent_hash;
        if let Some(known) = self.payloads.invalid(&parent) {
            let reason = format!("links to the rejected block {parent}: {}", known.reason);
            let latest_valid = known.latest_valid;
            return Ok(self.reject(hash, InvalidPayload { latest_valid, reason }));
        }
        let Some(branch) = self.branch(parent)? else {
            return Ok(PayloadStatus::from_status(PayloadStatusEnum::Syncing));
        };
        let depth = self.chain.store.head().number.saturating_sub(branch.ancestor.0);
        if depth > ENGINE_REORG_BLOCK_COUNT_MAX {
            return Ok(PayloadStatus::from_status(PayloadStatusEnum::Accepted));
        }
        let header = tip_header(&self.chain, &branch).map_err(internal)?;
        if branch.payloads.is_empty() && !self.admits(&header)? {
            return Ok(not_terminal(&header));
        }
        // What a proof-of-work block carries is not the consensus client's to name.
        let latest_valid = if header.difficulty.is_zero() { parent } else { B256::ZERO };
        match validate::validate(&self.chain, &self.rules, &branch, &header, (hash, block)) {
            Ok(Verdict::Valid(candidate)) => {
                self.payloads.insert(*candidate);
                Ok(valid(hash))
            }
            Ok(Verdict::Invalid(error)) => {
                let reason = error.to_string();
                tracing::warn!(number = block.header.number, %hash, %reason, "invalid payload");
                Ok(self.reject(hash, InvalidPayload { latest_valid, reason }))
            }
            Err(NodeError::State(StateError::Pruned { .. })) => {
                Ok(PayloadStatus::from_status(PayloadStatusEnum::Accepted))
            }
            Err(error) => Err(internal(error)),
        }
    }

    fn reject(&mut self, hash: B256, known: InvalidPayload) -> PayloadStatus {
        let status = invalid(&known);
        self.payloads.reject(hash, known);
        status
    }

    async fn forkchoice(
        &mut self,
        state: ForkchoiceState,
        build: Option<Box<PayloadRequest>>,
    ) -> Result<ForkchoiceUpdated, EngineError> {
        let head = state.head_block_hash;
        if head.is_zero() {
            let reason = "no block has the hash zero".to_owned();
            let status = PayloadStatusEnum::Invalid { validation_error: reason };
            return Ok(ForkchoiceUpdated::from_status(status));
        }
        if let Some(known) = self.payloads.invalid(&head) {
            return Ok(ForkchoiceUpdated::new(invalid(known)));
        }
        if let Some(number) = self.committed(&head)?
            && let Some(header) = self.chain.store.header(number).map_err(|e| internal(e.into()))?
            && !self.admits(&header)?
        {
            return Ok(ForkchoiceUpdated::new(not_terminal(&header)));
        }
        let updated = ForkchoiceUpdated::new(valid(head));
        for _ in 0..PLAN_ATTEMPTS_MAX {
            match self.plan(&state)? {
                HeadPlan::Unknown => {
                    return Ok(ForkchoiceUpdated::from_status(PayloadStatusEnum::Syncing));
                }
                HeadPlan::Behind => return Ok(updated),
                HeadPlan::TooDeep { depth } => {
                    let problem = format!(
                        "{depth} blocks would be taken back, at most {ENGINE_REORG_BLOCK_COUNT_MAX} are"
                    );
                    return Err(EngineError::TooDeepReorg(problem));
                }
                HeadPlan::Inconsistent { which, hash } => {
                    let problem = format!("{which} block {hash} is not on the head's branch");
                    return Err(EngineError::InvalidForkchoice(problem));
                }
                HeadPlan::Move(branch) => self.carry_out(&branch, &state).await?,
            }
            let now = self.chain.store.head();
            if now.hash() == head {
                self.payloads.prune(now.number);
                return match build {
                    None => Ok(updated),
                    Some(request) => self.begin_build(head, now.timestamp, *request, updated),
                };
            }
        }
        Err(EngineError::Unavailable("the head moved while it was to be moved".to_owned()))
    }

    fn plan(&self, state: &ForkchoiceState) -> Result<HeadPlan, EngineError> {
        let finality = *self.chain.finality.borrow();
        let goal = HeadGoal {
            head: state.head_block_hash,
            safe: state.safe_block_hash,
            finalized: state.finalized_block_hash,
            head_now: self.chain.store.head().number,
            finalized_now: self.committed(&finality.finalized)?.unwrap_or(0),
        };
        plan_head(&self.payloads, &goal, |hash| self.committed(hash))
    }

    /// Proposes what leads to the end of `branch`. Entries that do not fit the chain any more are left out
    /// when they are applied: whether the head is where it should be is for the caller to look at.
    async fn carry_out(&self, branch: &Branch, state: &ForkchoiceState) -> Result<(), EngineError> {
        let head = self.chain.store.head();
        let finality =
            Finality { safe: state.safe_block_hash, finalized: state.finalized_block_hash };
        let forkchoice = |from: B256, (number, hash): (u64, B256)| {
            let Finality { safe, finalized } = finality;
            LogEntry::Forkchoice(ForkchoiceEntry { from, number, hash, safe, finalized })
        };
        let (mut at, mut hash) = branch.ancestor;
        if hash != head.hash() {
            self.proposer.propose(forkchoice(head.hash(), branch.ancestor).encode(), hash).await?;
        }
        for payload in &branch.payloads {
            (at, hash) = (payload.header.number, payload.header.hash());
            let entry = LogEntry::Payload(Box::new((*payload.entry).clone()));
            self.proposer.propose(entry.encode(), hash).await?;
        }
        if *self.chain.finality.borrow() != finality {
            self.proposer.propose(forkchoice(hash, (at, hash)).encode(), hash).await?;
        }
        Ok(())
    }

    fn begin_build(
        &mut self,
        parent: B256,
        parent_timestamp: u64,
        request: PayloadRequest,
        updated: ForkchoiceUpdated,
    ) -> Result<ForkchoiceUpdated, EngineError> {
        if request.timestamp <= parent_timestamp {
            let problem = format!(
                "timestamp {} is not above the head's {parent_timestamp}",
                request.timestamp
            );
            return Err(EngineError::InvalidAttributes(problem));
        }
        Ok(updated.with_payload_id(self.builds.begin(parent, request)))
    }

    /// The block is made when it is asked for, and then stays the same: nothing that was admitted before
    /// is missing in it.
    fn get_payload(&mut self, id: PayloadId) -> Result<Arc<BuiltPayload>, EngineError> {
        let (parent, request) = match self.builds.get(id) {
            None => return Err(EngineError::UnknownPayload),
            Some(build::Build { built: Some(built), .. }) => return Ok(built.clone()),
            Some(build::Build { parent, request, .. }) => (*parent, request.clone()),
        };
        let branch = self.branch(parent)?.ok_or(EngineError::UnknownPayload)?;
        let (candidate, built) =
            build::build(&self.chain, &self.rules, &branch, &request).map_err(internal)?;
        let built = Arc::new(built);
        self.payloads.insert(candidate);
        self.builds.finish(id, built.clone());
        Ok(built)
    }

    fn admits(&mut self, header: &Sealed<Header>) -> Result<bool, EngineError> {
        let (terminal, store) = (&mut self.terminal, &self.chain.store);
        // A long chain is read once, to where proof of work ended.
        tokio::task::block_in_place(|| terminal.admits(store, header)).map_err(internal)
    }

    fn branch(&self, tip: B256) -> Result<Option<Branch>, EngineError> {
        self.payloads.branch(tip, |hash| self.committed(hash))
    }

    fn committed(&self, hash: &B256) -> Result<Option<u64>, EngineError> {
        self.chain.store.number_of(hash).map_err(|error| internal(error.into()))
    }
}

fn valid(hash: B256) -> PayloadStatus {
    PayloadStatus::new(PayloadStatusEnum::Valid, Some(hash))
}

fn invalid(known: &InvalidPayload) -> PayloadStatus {
    let status = PayloadStatusEnum::Invalid { validation_error: known.reason.clone() };
    PayloadStatus::new(status, Some(known.latest_valid))
}

/// The Paris specification's answer to a block of proof of work that is not the last one.
fn not_terminal(header: &Header) -> PayloadStatus {
    let number = header.number;
    let reason =
        format!("block {number} is not the one that reached the terminal total difficulty");
    invalid(&InvalidPayload { latest_valid: B256::ZERO, reason })
}

fn internal(error: NodeError) -> EngineError {
    tracing::error!(%error, "a call of the engine API failed");
    EngineError::Internal(error.to_string())
}
