//! Which transaction a thread runs next.
//!
//! Running ahead pays where transactions do not meet. Two kinds meet for sure: those of one sender, and a
//! sender that an earlier transaction pays; the later one is not handed out before the earlier one has run.
//! For the rest, transactions are put into groups by the account that they call. A group whose members were
//! seen to meet is hot: of it one runs at a time. Groups that meet one another become one.
//!
//! Nothing here decides what comes out, only how often something runs twice.

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, map::AddressMap};
use blockraft_primitives::Transaction;

/// How far past the first transaction that nobody has taken a thread looks for one that it may run.
const LOOKAHEAD: usize = 64;

/// Hand-outs between two looks for work for another thread, after one that found none.
const LOOK_INTERVAL: usize = 4;

/// Who runs what.
#[derive(Debug)]
pub(crate) struct Claims {
    /// By transaction, those before it that it certainly reads from: the last one of its sender, and the
    /// last one that pays its sender.
    prior: Vec<[Option<u32>; 2]>,
    /// By transaction.
    groups: Vec<u32>,
    heat: Vec<Heat>,
    progress: Vec<Progress>,
    running: Vec<usize>,
    /// Everything before it is taken.
    next: usize,
    /// Threads at work, and how many there may be.
    active: usize,
    threads: usize,
    /// Hand-outs until the next look for work for another thread.
    pause: usize,
    /// Groups of what runs and of what was passed over; kept for its memory.
    busy: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Waiting,
    Running,
    Done,
}

/// What is known of a group.
#[derive(Clone, Copy, Debug)]
struct Heat {
    /// The group that this one became part of; itself otherwise.
    part_of: u32,
    /// Members that ran while an earlier one was running or waiting.
    runs: u32,
    /// Members that read something stale.
    conflicts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    /// Members do not meet, as far as is known.
    Cold,
    /// Some do: other work comes first.
    Warm,
    /// Most do: one at a time.
    Hot,
}

/// A transaction that may run now.
#[derive(Clone, Copy, Debug)]
struct Choice {
    index: usize,
    group: u32,
    /// Whether an earlier member of its group runs or waits.
    is_contended: bool,
}

/// What a thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) index: usize,
    /// Whether there is work for one more thread. It counts as active already.
    pub(crate) calls_help: bool,
}

impl Claims {
    /// One thread is at work. `done` says of each transaction whether its outcome is there already.
    pub(crate) fn new(transactions: &[Transaction], done: &[bool], threads: usize) -> Self {
        let count = transactions.len();
        if threads < 2 || done.iter().all(|done| *done) {
            // In block order, and nobody beside it: there is nothing to choose.
            return Self::of(vec![[None; 2]; count], vec![0; count], 1, done, threads);
        }
        let (mut prior, mut groups) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut sent: AddressMap<u32> = AddressMap::default();
        let mut paid: AddressMap<u32> = AddressMap::default();
        let mut numbers: AddressMap<u32> = AddressMap::default();
        for (index, tx) in (0..).zip(transactions) {
            let sender = tx.signer();
            prior.push([sent.insert(sender, index), paid.get(&sender).copied()]);
            let to = tx.to().unwrap_or(Address::ZERO);
            if !tx.value().is_zero() {
                paid.insert(to, index);
            }
            let number = numbers.len() as u32;
            groups.push(*numbers.entry(to).or_insert(number));
        }
        Self::of(prior, groups, numbers.len() as u32, done, threads)
    }

    fn of(
        prior: Vec<[Option<u32>; 2]>,
        groups: Vec<u32>,
        group_count: u32,
        done: &[bool],
        threads: usize,
    ) -> Self {
        let heat = |number| Heat { part_of: number, runs: 0, conflicts: 0 };
        let progress = |done: &bool| if *done { Progress::Done } else { Progress::Waiting };
        Self {
            prior,
            groups,
            heat: (0..group_count).map(heat).collect(),
            progress: done.iter().map(progress).collect(),
            running: Vec::with_capacity(threads),
            next: 0,
            active: 1,
            threads,
            pause: 0,
            busy: Vec::new(),
        }
    }

    /// Work for a thread that has none. `None`: it goes, and is called when there is some again.
    pub(crate) fn claim(&mut self) -> Option<Claim> {
        let Some(Choice { index, group, is_contended }) = self.choose() else {
            self.active -= 1;
            return None;
        };
        self.start(index);
        self.heat[group as usize].runs += u32::from(is_contended);
        Some(Claim { index, calls_help: self.calls_help() })
    }

    /// A transaction is run; again, if it was before.
    pub(crate) fn start(&mut self, index: usize) {
        self.progress[index] = Progress::Running;
        self.running.push(index);
    }

    /// It has run.
    pub(crate) fn finish(&mut self, index: usize) {
        self.progress[index] = Progress::Done;
        self.running.retain(|running| *running != index);
    }

    /// It ran ahead and read what `writer` changed since, if that is known.
    pub(crate) fn conflict(&mut self, index: usize, writer: Option<usize>) {
        let group = self.find(self.groups[index]);
        self.heat[group as usize].conflicts += 1;
        let Some(writer) = writer else { return };
        let other = self.find(self.groups[writer]);
        if other != group {
            let Heat { runs, conflicts, .. } = self.heat[group as usize];
            self.heat[group as usize].part_of = other;
            let other = &mut self.heat[other as usize];
            other.runs += runs;
            other.conflicts += conflicts;
        }
    }

    fn calls_help(&mut self) -> bool {
        if self.active >= self.threads {
            return false;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let calls = self.choose().is_some();
        if calls {
            self.active += 1;
        } else {
            self.pause = LOOK_INTERVAL;
        }
        calls
    }

    /// The first transaction that may run now; one that may meet another only if there is no other.
    fn choose(&mut self) -> Option<Choice> {
        while self.progress.get(self.next).is_some_and(|p| *p != Progress::Waiting) {
            self.next += 1;
        }
        let mut busy = std::mem::take(&mut self.busy);
        busy.clear();
        busy.extend(self.running.iter().map(|index| self.find(self.groups[*index])));
        let end = self.progress.len().min(self.next + LOOKAHEAD);
        let mut second = None;
        let mut first = None;
        for index in self.next..end {
            if self.progress[index] != Progress::Waiting {
                continue;
            }
            let group = self.find(self.groups[index]);
            let is_contended = busy.contains(&group);
            let is_free = self.prior[index]
                .iter()
                .flatten()
                .all(|prior| self.progress[*prior as usize] == Progress::Done);
            if is_free {
                let choice = Choice { index, group, is_contended };
                match self.heat[group as usize].temper() {
                    temper if temper == Temper::Cold || !is_contended => {
                        first = Some(choice);
                        break;
                    }
                    Temper::Warm if second.is_none() => second = Some(choice),
                    _ => {}
                }
            } else if !is_contended {
                busy.push(group);
            }
        }
        self.busy = busy;
        first.or(second)
    }

    fn find(&self, mut group: u32) -> u32 {
        while self.heat[group as usize].part_of != group {
            group = self.heat[group as usize].part_of;
        }
        group
    }
}

impl Heat {
    fn temper(&self) -> Temper {
        if self.conflicts * 16 <= self.runs {
            Temper::Cold
        } else if self.conflicts >= 2 && self.conflicts * 3 >= self.runs {
            Temper::Hot
        } else {
            Temper::Warm
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope, transaction::Recovered};
    use alloy_primitives::{Signature, TxKind, U256};
    use std::sync::Arc;

    fn tx((sender, to, value): (u8, u8, u64)) -> Transaction {
        let tx = TxEip1559 {
            to: TxKind::Call(Address::repeat_byte(to)),
            value: U256::from(value),
            ..Default::default()
        };
        let signed = TxEnvelope::from(tx.into_signed(Signature::test_signature()));
        Arc::new(Recovered::new_unchecked(signed, Address::repeat_byte(sender)))
    }

    /// Transactions of (sender, receiver, value), for this many threads, all of them at work.
    fn claims(txs: &[(u8, u8, u64)], threads: usize) -> Claims {
        let txs: Vec<_> = txs.iter().copied().map(tx).collect();
        let mut claims = Claims::new(&txs, &vec![false; txs.len()], threads);
        claims.active = threads;
        claims
    }

    /// What threads that come now get.
    fn handed_out(claims: &mut Claims) -> Vec<usize> {
        std::iter::from_fn(|| claims.claim().map(|claim| claim.index)).collect()
    }

    #[test]
    fn later_ones_of_a_sender_wait_for_it() {
        let mut claims = claims(&[(1, 9, 0), (1, 9, 0), (2, 9, 0), (1, 9, 0)], 9);
        assert_eq!(handed_out(&mut claims), [0, 2]);
        claims.active = 9;
        claims.finish(0);
        assert_eq!(handed_out(&mut claims), [1]);
    }

    #[test]
    fn sender_waits_for_who_pays_it() {
        let mut claims = claims(&[(1, 2, 5), (2, 9, 0), (3, 4, 0), (4, 9, 0)], 9);
        assert_eq!(handed_out(&mut claims), [0, 2, 3]);
        claims.active = 9;
        claims.finish(0);
        assert_eq!(handed_out(&mut claims), [1]);
    }

    #[test]
    fn hot_group_runs_one_at_a_time_and_others_beside_it() {
        let txs = [(1, 9, 0), (2, 9, 0), (3, 9, 0), (4, 9, 0), (5, 8, 0), (6, 9, 0), (7, 8, 0)];
        let mut claims = claims(&txs, 9);
        for _ in 0..2 {
            claims.conflict(1, Some(0));
        }
        assert_eq!(handed_out(&mut claims), [0, 4, 6]);
        claims.active = 9;
        claims.finish(4);
        assert!(handed_out(&mut claims).is_empty());
        claims.active = 9;
        claims.finish(0);
        assert_eq!(handed_out(&mut claims), [1]);
    }

    #[test]
    fn groups_that_meet_are_one() {
        let txs = [(1, 9, 0), (2, 8, 0), (3, 9, 0), (4, 8, 0)];
        let mut claims = claims(&txs, 9);
        for _ in 0..2 {
            claims.conflict(1, Some(0));
        }
        assert_eq!(handed_out(&mut claims), [0]);
    }

    #[test]
    fn thread_without_work_goes_and_is_called_back() {
        let mut claims = claims(&[(1, 9, 0), (1, 9, 0), (1, 8, 0), (2, 9, 0), (3, 9, 0)], 2);
        claims.active = 1;
        let first = claims.claim().unwrap();
        assert_eq!(first, Claim { index: 0, calls_help: true });
        assert_eq!(claims.claim().unwrap(), Claim { index: 3, calls_help: false });
        claims.finish(3);
        assert_eq!(claims.claim().unwrap().index, 4);
        claims.finish(4);
        assert_eq!(claims.claim(), None, "the rest waits for the first");
        claims.finish(0);
        assert_eq!(claims.claim().unwrap(), Claim { index: 1, calls_help: false });
    }

    #[test]
    fn what_came_from_elsewhere_is_not_handed_out() {
        let txs: Vec<_> = [(1, 9, 0), (1, 9, 0), (2, 9, 0)].map(tx).to_vec();
        let mut claims = Claims::new(&txs, &[true, false, true], 4);
        claims.active = 4;
        assert_eq!(handed_out(&mut claims), [1]);
    }
}
