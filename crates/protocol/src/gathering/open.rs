//! One gathering: which units are out, and what has come back.

use super::{Answer, Micros, Work};
use crate::units::{Fence, UnitId};
use alloy_primitives::Bytes;
use blockraft_primitives::{
    NodeId,
    limits::{HEDGE_US_MAX, UNIT_PARENT_WAIT_MS, UNIT_RUN_US_MAX},
};

/// Attempts at a share: the first and one repetition.
const ATTEMPT_COUNT_MAX: usize = 2;
/// How long nobody is late because the block's parent is not applied here, microseconds.
const PARENT_US_MAX: u64 = UNIT_PARENT_WAIT_MS * 1000;
/// Longest patience with an attempt, microseconds.
const PATIENCE_US_MAX: u64 = UNIT_RUN_US_MAX + HEDGE_US_MAX;

/// A gathering.
#[derive(Debug)]
pub(super) struct Open<W: Work> {
    gather: u64,
    fence: Fence,
    work: W,
    shares: Vec<OpenShare<W::Part>>,
    /// It is awaited by nobody.
    pub(super) is_probe: bool,
    /// When it was opened, while nobody can begin with it because this node itself has not applied its parent.
    parent_awaited: Option<Micros>,
    /// The leader has done its own part; until then it could do nothing about who is late.
    own_done: bool,
}

#[derive(Debug)]
struct OpenShare<P> {
    part: P,
    cost_us: u64,
    attempts: Vec<Attempt>,
    /// The first answer.
    answer: Option<(NodeId, Bytes)>,
    /// Another answer was not the same.
    disputed: bool,
    /// It falls to the leader.
    given_up: bool,
}

#[derive(Debug)]
struct Attempt {
    to: NodeId,
    /// When it could be begun.
    sent_at: Micros,
    patience_us: u64,
    /// Answered, refused or lost.
    ended: bool,
}

/// The attempt that an answer belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) sent_at: Micros,
    pub(super) cost_us: u64,
    /// Nothing was heard of it before.
    pub(super) first_time: bool,
    pub(super) is_probe: bool,
}

/// What an answer is worth.
#[derive(Debug)]
pub(super) enum Verdict<W: Work> {
    /// The first for its share.
    First { part: W::Part },
    /// Known already.
    Same,
    /// Not what was said before.
    Differs {
        evidence: W::Evidence,
        /// Until now the first answer was believed.
        was_believed: bool,
    },
}

impl<W: Work> Open<W> {
    pub(super) const fn new(gather: u64, fence: Fence, work: W) -> Self {
        let shares = Vec::new();
        let (is_probe, parent_awaited, own_done) = (false, None, false);
        Self { gather, fence, work, shares, is_probe, parent_awaited, own_done }
    }

    /// What is sent to see how quick members are, and is nobody's share.
    pub(super) fn probe(gather: u64, fence: Fence, work: W) -> Self {
        Self { is_probe: true, ..Self::new(gather, fence, work) }
    }

    pub(super) const fn gather(&self) -> u64 {
        self.gather
    }

    pub(super) fn cost_us(&self, share: u32) -> u64 {
        self.shares[share as usize].cost_us
    }

    /// Whether a unit is of this gathering: every word of its name but share and attempt.
    pub(super) fn is_of(&self, unit: &UnitId) -> bool {
        unit.gather == self.gather && unit.fence == self.fence
    }

    /// Its parent is not applied here yet.
    pub(super) const fn hold_for_parent(&mut self, now: Micros) {
        self.parent_awaited = Some(now);
    }

    /// This node has applied blocks up to `height`. How long its parent was awaited, if it is among them: from now on
    /// members may be late.
    pub(super) fn parent_applied(&mut self, now: Micros, height: u64) -> Option<u64> {
        let since = self.parent_awaited.take_if(|_| height + 1 >= self.fence.height)?;
        for attempt in self.shares.iter_mut().flat_map(|share| &mut share.attempts) {
            attempt.sent_at = now.min(attempt.sent_at.after(PARENT_US_MAX));
        }
        Some(now.since(since))
    }

    /// Opens a share and makes its first unit.
    pub(super) fn add(
        &mut self,
        to: NodeId,
        part: W::Part,
        cost_us: u64,
        now: Micros,
        patience_us: u64,
    ) -> W::Unit {
        self.shares.push(OpenShare {
            part,
            cost_us,
            attempts: Vec::new(),
            answer: None,
            disputed: false,
            given_up: false,
        });
        self.repeat(self.shares.len() as u32 - 1, to, now, patience_us)
    }

    /// The next unit of a share.
    pub(super) fn repeat(
        &mut self,
        share: u32,
        to: NodeId,
        now: Micros,
        patience_us: u64,
    ) -> W::Unit {
        let open = &mut self.shares[share as usize];
        open.attempts.push(Attempt { to, sent_at: now, patience_us, ended: false });
        let attempt = open.attempts.len() as u32;
        let id = UnitId { fence: self.fence, gather: self.gather, share, attempt };
        self.work.unit(id, &open.part)
    }

    /// Whether a share may go out again, and to this member: it has not failed at it, and is not busy with
    /// another one.
    pub(super) fn may_repeat_at(&self, share: u32, member: NodeId) -> bool {
        let open = &self.shares[share as usize];
        let busy = self.shares.iter().flat_map(|share| &share.attempts);
        open.attempts.len() < ATTEMPT_COUNT_MAX
            && open.attempts.iter().all(|attempt| attempt.to != member)
            && busy.filter(|attempt| attempt.to == member).all(|attempt| attempt.ended)
    }

    pub(super) fn give_up(&mut self, share: u32) {
        self.shares[share as usize].given_up = true;
    }

    /// The attempt that a member answers to; `None` if nothing like it was sent to it.
    pub(super) fn find(&self, unit: &UnitId, member: NodeId) -> Option<Found> {
        let share = self.shares.get(unit.share as usize)?;
        let attempt = share.attempts.get((unit.attempt as usize).checked_sub(1)?)?;
        (attempt.to == member).then_some(Found {
            sent_at: attempt.sent_at,
            cost_us: share.cost_us,
            first_time: !attempt.ended,
            is_probe: self.is_probe,
        })
    }

    /// Takes an answer that was found to belong here. A share about which two members disagree falls to
    /// the leader.
    pub(super) fn take_answer(&mut self, answer: &Answer) -> Verdict<W> {
        let unit = &answer.echo;
        let share = &mut self.shares[unit.share as usize];
        share.attempts[unit.attempt as usize - 1].ended = true;
        let Some((who, before)) = &share.answer else {
            share.answer = Some((answer.from, answer.bytes.clone()));
            return Verdict::First { part: share.part.clone() };
        };
        if *before == answer.bytes {
            return Verdict::Same;
        }
        let answers = [(*who, before.clone()), (answer.from, answer.bytes.clone())];
        let was_believed = !std::mem::replace(&mut share.disputed, true);
        let evidence = self.work.evidence(self.fence, &share.part, answers);
        Verdict::Differs { evidence, was_believed }
    }

    /// Nothing will come of an attempt. Whether its share now has nobody working on it.
    pub(super) fn end_attempt(&mut self, unit: &UnitId) -> bool {
        let share = &mut self.shares[unit.share as usize];
        share.attempts[unit.attempt as usize - 1].ended = true;
        share.is_awaited() && share.attempts.iter().all(|attempt| attempt.ended)
    }

    /// Shares whose latest attempt has had its time, and whose it was.
    pub(super) fn overdue(&self, now: Micros) -> Vec<(u32, NodeId)> {
        let shares = (0..).zip(&self.shares).filter(|(_, share)| share.is_awaited());
        let latest = shares.filter_map(|(at, share)| Some((at, share.attempts.last()?)));
        latest
            .filter(|(_, attempt)| self.until(attempt) <= now)
            .map(|(at, attempt)| (at, attempt.to))
            .collect()
    }

    /// The leader has done its own part: from now on members may be late. They have so much patience, by member and
    /// cost, if they had less; and as long as the leader would take for all that is missing, by cost: to wait so long
    /// costs at most as much again as to do it.
    pub(super) fn own_done(
        &mut self,
        now: Micros,
        patience_us: impl Fn(NodeId, u64) -> u64,
        alone_us: impl Fn(u64) -> u64,
    ) {
        self.own_done = true;
        let missing = self.shares.iter().filter(|share| share.is_awaited());
        let alone_us = alone_us(missing.map(|share| share.cost_us).fold(0, u64::saturating_add));
        for share in self.shares.iter_mut().filter(|share| share.is_awaited()) {
            let cost_us = share.cost_us;
            if let Some(attempt) = share.attempts.last_mut() {
                let rest_us =
                    now.since(attempt.sent_at).saturating_add(alone_us).min(PATIENCE_US_MAX);
                let patience_us = patience_us(attempt.to, cost_us).max(rest_us);
                attempt.patience_us = attempt.patience_us.max(patience_us);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Micros> {
        let awaited = self.shares.iter().filter(|share| share.is_awaited());
        awaited.filter_map(|share| share.attempts.last()).map(|attempt| self.until(attempt)).min()
    }

    /// When an attempt has had its time.
    fn until(&self, attempt: &Attempt) -> Micros {
        let parent_us = self.parent_awaited.map_or(0, |_| PARENT_US_MAX);
        let run_us = if self.own_done { 0 } else { UNIT_RUN_US_MAX };
        attempt.sent_at.after(parent_us.saturating_add(attempt.patience_us.max(run_us)))
    }

    /// Whether no share is awaited any more.
    pub(super) fn is_complete(&self) -> bool {
        !self.shares.iter().any(OpenShare::is_awaited)
    }

    /// Whether somebody may still answer.
    pub(super) fn expects_answers(&self) -> bool {
        self.shares.iter().flat_map(|share| &share.attempts).any(|attempt| !attempt.ended)
    }
}

impl<P> OpenShare<P> {
    fn is_awaited(&self) -> bool {
        self.answer.is_none() && !self.given_up
    }
}
