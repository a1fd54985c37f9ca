//! Transactions that wait at a leader: first to be proposed, then for the verdict.

use super::{AdmitId, Command, InLog, ProposalFailure, Ticket, Waiting, encoded_len, fits_entry};
use crate::{PoolError, Refusal};
use blockraft_primitives::{AdmitBatch, Transaction, limits};

/// `Admit` entries on their way at a time: one is being made durable while the next one fills.
const ADMIT_IN_FLIGHT_MAX: usize = 2;

#[derive(Clone, Debug, Default)]
pub(super) struct Submissions {
    /// Not proposed yet: ticket, transactions, bytes.
    queue: Waiting,
    /// Proposed: which tickets a batch answers, and with how many verdicts each.
    in_log: InLog,
    /// Transactions in both.
    waiting: usize,
    seq: u64,
}

impl Submissions {
    pub(super) fn add(
        &mut self,
        ticket: Ticket,
        transactions: Vec<Transaction>,
        out: &mut Vec<Command>,
    ) {
        let bytes = encoded_len(&transactions);
        if transactions.is_empty() {
            out.push(Command::Reply { ticket, verdicts: Vec::new() });
        } else if !fits_entry(transactions.len(), bytes) {
            refuse(vec![ticket], Refusal::BatchTooLarge, out);
        } else if self.waiting + transactions.len() > limits::SUBMISSION_QUEUE_LEN_MAX {
            refuse(vec![ticket], Refusal::QueueFull, out);
        } else {
            self.waiting += transactions.len();
            self.queue.push_back((ticket, transactions, bytes));
        }
    }

    /// Group commit: whatever has come in by the time that there is room for an entry goes into it.
    /// Entries of earlier terms take no room: they may hang until their fate is known.
    pub(super) fn propose(&mut self, term: u64, out: &mut Vec<Command>) {
        let of_term = AdmitId { term, seq: 0 }..=AdmitId { term, seq: u64::MAX };
        let mut in_flight = self.in_log.range(of_term).count();
        while in_flight < ADMIT_IN_FLIGHT_MAX && !self.queue.is_empty() {
            let admit = AdmitId { term, seq: self.seq };
            self.seq += 1;
            in_flight += 1;
            let (tickets, transactions) = self.cut();
            self.in_log.insert(admit, tickets);
            out.push(Command::ProposeAdmit { admit, batch: AdmitBatch { transactions } });
        }
    }

    /// Whole tickets from the front, as many as fit; the first one always does.
    fn cut(&mut self) -> (Vec<(Ticket, usize)>, Vec<Transaction>) {
        let (mut tickets, mut batch, mut batch_bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((_, transactions, bytes)) = self.queue.front()
            && fits_entry(batch.len() + transactions.len(), batch_bytes + bytes)
            && let Some((ticket, transactions, bytes)) = self.queue.pop_front()
        {
            batch_bytes += bytes;
            tickets.push((ticket, transactions.len()));
            batch.extend(transactions);
        }
        (tickets, batch)
    }

    pub(super) fn applied(
        &mut self,
        admit: AdmitId,
        verdicts: Vec<Result<(), PoolError>>,
        out: &mut Vec<Command>,
    ) {
        let Some(tickets) = self.in_log.remove(&admit) else { return };
        let expected: usize = tickets.iter().map(|(_, count)| count).sum();
        assert_eq!(verdicts.len(), expected, "a verdict on each transaction of the batch");
        self.waiting -= expected;
        let mut verdicts = verdicts.into_iter();
        for (ticket, count) in tickets {
            let verdicts = verdicts.by_ref().take(count).collect();
            out.push(Command::Reply { ticket, verdicts });
        }
    }

    pub(super) fn failed(
        &mut self,
        admit: AdmitId,
        failure: ProposalFailure,
        out: &mut Vec<Command>,
    ) {
        let Some(tickets) = self.in_log.remove(&admit) else { return };
        self.waiting -= tickets.iter().map(|(_, count)| count).sum::<usize>();
        let refusal = match failure {
            ProposalFailure::NotProposed { leader } => Refusal::NotLeader { leader },
            ProposalFailure::Unknown => Refusal::OutcomeUnknown,
        };
        refuse(tickets.into_iter().map(|(ticket, _)| ticket).collect(), refusal, out);
    }

    /// What is queued goes; what is in the log waits for its fate.
    pub(super) fn turn_away(&mut self, refusal: Refusal, out: &mut Vec<Command>) {
        let queue = std::mem::take(&mut self.queue);
        self.waiting -= queue.iter().map(|(_, transactions, _)| transactions.len()).sum::<usize>();
        if !queue.is_empty() {
            refuse(queue.into_iter().map(|(ticket, ..)| ticket).collect(), refusal, out);
        }
    }
}

fn refuse(tickets: Vec<Ticket>, refusal: Refusal, out: &mut Vec<Command>) {
    out.push(Command::Refuse { tickets, refusal });
}
