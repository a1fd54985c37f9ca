//! Takes raw transactions from clients and gets them to the leader, as `node/src/gateway.rs` does.

use crate::{
    node::{ClientAnswer, Context, Effect, Local, Node, Packet},
    producer::{Submitter, Verdicts},
};
use alloy_primitives::{B256, Bytes};
use blockraft_primitives::{AdmitBatch, Transaction, limits::LEADER_WAIT_MS};
use blockraft_protocol::{PoolError, Refusal, Request, Response, decode};
use std::collections::BTreeMap;

/// How long a forwarded batch waits for an answer.
const ATTEMPT_MS: u64 = 800;

#[derive(Debug, Default)]
pub(crate) struct Gateway {
    parts: BTreeMap<u64, Part>,
    /// Which part an attempt is about.
    attempts: BTreeMap<u64, u64>,
    next_part: u64,
    /// Never reused, so that an answer to an earlier process is told apart.
    next_attempt: u64,
}

impl Gateway {
    /// That of the process that follows on this one.
    pub(crate) fn of_next_process(&self) -> Self {
        Self { next_attempt: self.next_attempt, ..Self::default() }
    }
}

#[derive(Debug)]
struct Part {
    transactions: Vec<Transaction>,
    deadline: u64,
}

impl Node {
    /// Raw transactions from a client.
    pub(crate) fn take_raw(&mut self, raws: &[Bytes], ctx: &mut Context<'_>) {
        let rules = self.chain.rules();
        let mut transactions = Vec::new();
        for raw in raws {
            match decode(raw, &rules) {
                Ok(tx) if self.chain.is_known(tx.tx_hash()) => {
                    answer(*tx.tx_hash(), ClientAnswer::Taken, ctx);
                }
                Ok(tx) => transactions.push(tx),
                Err(error) => ctx.watch.fail("workload", error.to_string()),
            }
        }
        if !transactions.is_empty() {
            let part = self.gateway.next_part;
            self.gateway.next_part += 1;
            let deadline = ctx.now + LEADER_WAIT_MS;
            self.gateway.parts.insert(part, Part { transactions, deadline });
            self.offer(part, ctx);
        }
        self.flush(ctx);
    }

    /// One attempt with the leader that this node knows of.
    pub(crate) fn offer(&mut self, part: u64, ctx: &mut Context<'_>) {
        let Some(Part { transactions, .. }) = self.gateway.parts.get(&part) else { return };
        let transactions = transactions.clone();
        let attempt = self.gateway.next_attempt;
        self.gateway.next_attempt += 1;
        self.gateway.attempts.insert(attempt, part);
        match self.raft.leader() {
            None => self.finish(attempt, Err(Refusal::NotLeader { leader: None }), ctx),
            Some(id) if id == self.id => {
                self.submitted(transactions, Submitter::Own { attempt }, ctx);
            }
            Some(to) => {
                let request = Request::Submit(AdmitBatch { transactions }).encode();
                ctx.out.push(Effect::Send { to, packet: Packet::Submit { attempt, request } });
                ctx.later(ATTEMPT_MS..=ATTEMPT_MS, Local::AttemptTimeout { attempt });
            }
        }
    }

    pub(crate) fn attempt_timeout(&mut self, attempt: u64, ctx: &mut Context<'_>) {
        self.finish(attempt, Err(Refusal::OutcomeUnknown), ctx);
    }

    pub(crate) fn answered(&mut self, attempt: u64, response: &[u8], ctx: &mut Context<'_>) {
        match Response::decode(response) {
            Ok(Response::Verdicts(verdicts)) => self.finish(attempt, Ok(verdicts), ctx),
            Ok(Response::Refused(refusal)) => self.finish(attempt, Err(refusal), ctx),
            other => ctx.watch.fail("wire", format!("verdicts arrived as {other:?}")),
        }
    }

    pub(crate) fn finish(&mut self, attempt: u64, verdicts: Verdicts, ctx: &mut Context<'_>) {
        let Some(id) = self.gateway.attempts.remove(&attempt) else { return };
        let Some(part) = self.gateway.parts.get(&id) else { return };
        match verdicts {
            Ok(verdicts) => {
                let part = self.gateway.parts.remove(&id).expect("it was just there");
                self.answer_all(&part.transactions, verdicts, ctx);
            }
            Err(Refusal::NotLeader { .. } | Refusal::OutcomeUnknown) if ctx.now < part.deadline => {
                ctx.later(25..=50, Local::Offer { part: id });
            }
            Err(_) => {
                let part = self.gateway.parts.remove(&id).expect("it was just there");
                for hash in part.transactions.iter().map(|tx| *tx.tx_hash()) {
                    let known = self.chain.is_known(&hash);
                    let told = if known { ClientAnswer::Taken } else { ClientAnswer::TryAgain };
                    answer(hash, told, ctx);
                }
            }
        }
    }

    fn answer_all(
        &self,
        transactions: &[Transaction],
        verdicts: Vec<Result<(), PoolError>>,
        ctx: &mut Context<'_>,
    ) {
        for (tx, verdict) in transactions.iter().zip(verdicts) {
            let hash = *tx.tx_hash();
            let told = match verdict {
                Ok(()) | Err(PoolError::AlreadyKnown) => ClientAnswer::Taken,
                Err(PoolError::NonceTooLow { .. }) if self.chain.is_known(&hash) => {
                    ClientAnswer::Taken
                }
                Err(error) => ClientAnswer::Refused(error),
            };
            answer(hash, told, ctx);
        }
    }
}

fn answer(hash: B256, answer: ClientAnswer, ctx: &mut Context<'_>) {
    ctx.out.push(Effect::Answer { hash, answer });
}
