//! A small Raft, enough to be wrong in the ways that a real one is: terms and elections, commit on a
//! quorum, entries of a deposed leader that are lost or survive, a tail that is not synced yet, and
//! followers that are caught up by a snapshot.
//!
//! It stands in for openraft (DESIGN section 6) and is no part of what is tested; its own safety is
//! watched by the invariants `one_leader_per_term` and `pools_equal`.

use crate::{chain::Stored, rng::Rng};
use alloy_primitives::Bytes;
use blockraft_primitives::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

/// Entries in one append message.
const APPEND_ENTRY_COUNT_MAX: usize = 64;
const HEARTBEAT_MS: u64 = 40;
const ELECTION_MS: std::ops::RangeInclusive<u64> = 150..=300;

/// An entry; empty bytes are a leader's first one.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) payload: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Campaign {
        last_term: u64,
        last_index: u64,
    },
    Vote {
        granted: bool,
    },
    Append {
        prev_index: u64,
        prev_term: u64,
        entries: Vec<Entry>,
        commit: u64,
    },
    /// `index`: what is durable here, or where to go on from after a mismatch.
    Appended {
        matches: bool,
        index: u64,
    },
    Snapshot(Rc<Stored>),
    /// Leadership is handed over.
    TakeOver,
}

#[derive(Debug)]
pub(crate) enum Output {
    Send {
        to: NodeId,
        message: Message,
    },
    /// The log has grown: sync it.
    Sync,
    /// Role, term or known leader changed.
    Role,
    /// This follower needs entries that the log does not have any more.
    NeedSnapshot {
        to: NodeId,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Follower,
    Candidate,
    Leader,
}

#[derive(Debug)]
pub(crate) struct Raft {
    id: NodeId,
    members: u64,
    /// Mutant: what is not synced counts as durable.
    trusts_unsynced: bool,
    // Durable.
    term: u64,
    voted_for: Option<NodeId>,
    /// What lies before the first entry: index and term.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    synced: u64,
    // Volatile.
    role: Role,
    leader: Option<NodeId>,
    commit: u64,
    /// Up to here the log is known to be the leader's.
    verified: u64,
    votes: BTreeSet<NodeId>,
    next: BTreeMap<NodeId, u64>,
    matched: BTreeMap<NodeId, u64>,
    election_at: u64,
    heartbeat_at: u64,
    pub(crate) out: Vec<Output>,
}

impl Raft {
    pub(crate) fn new(id: NodeId, members: u64, trusts_unsynced: bool) -> Self {
        Self {
            id,
            members,
            trusts_unsynced,
            term: 0,
            voted_for: None,
            base: (0, 0),
            entries: VecDeque::new(),
            synced: 0,
            role: Role::Follower,
            leader: None,
            commit: 0,
            verified: 0,
            votes: BTreeSet::new(),
            next: BTreeMap::new(),
            matched: BTreeMap::new(),
            election_at: 0,
            heartbeat_at: 0,
            out: Vec::new(),
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    pub(crate) fn base_index(&self) -> u64 {
        self.base.0
    }

    /// What may be applied: committed, and durable here.
    pub(crate) fn appliable(&self) -> u64 {
        self.commit.min(self.durable())
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(index.checked_sub(self.base.0 + 1)? as usize)
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 { Some(self.base.1) } else { self.entry(index).map(|e| e.term) }
    }

    fn durable(&self) -> u64 {
        if self.trusts_unsynced { self.last_index() } else { self.synced }
    }

    fn peers(&self) -> impl Iterator<Item = NodeId> + use<> {
        let id = self.id;
        (0..self.members).filter(move |peer| *peer != id)
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.out.push(Output::Send { to, message });
    }

    /// The process died: an unsynced tail is lost from a random place on.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let kept = rng.within(self.synced..=self.last_index());
        self.entries.truncate((kept - self.base.0) as usize);
        self.synced = kept;
    }

    /// The process starts over a state machine that was stored at `stored`.
    pub(crate) fn restart(&mut self, stored: (u64, u64), now: u64, rng: &mut Rng) {
        if stored.0 > self.last_index() {
            self.base = stored;
            self.entries.clear();
            self.synced = stored.0;
        }
        self.role = Role::Follower;
        self.leader = None;
        self.commit = stored.0;
        self.verified = stored.0;
        self.out.clear();
        self.reset_election(now, rng);
    }

    /// Forgets entries up to `index`, which the stored state machine holds.
    pub(crate) fn compact(&mut self, index: u64) {
        let Some(term) = self.term_at(index) else { return };
        self.entries.drain(..(index - self.base.0) as usize);
        self.base = (index, term);
    }

    fn reset_election(&mut self, now: u64, rng: &mut Rng) {
        self.election_at = now + rng.within(ELECTION_MS);
    }

    fn follow(&mut self, term: u64, leader: Option<NodeId>) {
        if term > self.term {
            self.term = term;
            self.voted_for = None;
            self.verified = self.commit;
            self.leader = None;
        } else if self.role == Role::Follower && (leader.is_none() || self.leader == leader) {
            return;
        }
        self.role = Role::Follower;
        self.leader = leader.or_else(|| self.leader.filter(|leader| *leader != self.id));
        self.out.push(Output::Role);
    }

    pub(crate) fn tick(&mut self, now: u64, rng: &mut Rng) {
        if self.role == Role::Leader {
            if now >= self.heartbeat_at {
                self.heartbeat_at = now + HEARTBEAT_MS;
                self.replicate();
            }
        } else if now >= self.election_at {
            self.campaign(now, rng);
        }
    }

    fn campaign(&mut self, now: u64, rng: &mut Rng) {
        self.term += 1;
        self.role = Role::Candidate;
        self.leader = None;
        self.voted_for = Some(self.id);
        self.votes = BTreeSet::from([self.id]);
        self.reset_election(now, rng);
        self.out.push(Output::Role);
        let (last_index, last_term) = (self.last_index(), self.last_term());
        for peer in self.peers() {
            self.send(peer, Message::Campaign { last_term, last_index });
        }
    }

    fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.base.1, |entry| entry.term)
    }

    fn lead(&mut self, now: u64) {
        self.role = Role::Leader;
        self.leader = Some(self.id);
        let next = self.last_index() + 1;
        self.next = self.peers().map(|peer| (peer, next)).collect();
        self.matched = self.peers().map(|peer| (peer, 0)).collect();
        self.heartbeat_at = now + HEARTBEAT_MS;
        self.append(Bytes::new());
        self.out.push(Output::Role);
    }

    /// Puts an entry into the log of a leader, and answers its index.
    pub(crate) fn append(&mut self, payload: Bytes) -> u64 {
        self.entries.push_back(Entry { term: self.term, payload });
        self.out.push(Output::Sync);
        self.replicate();
        self.advance_commit();
        self.last_index()
    }

    fn replicate(&mut self) {
        for peer in self.peers() {
            self.replicate_to(peer);
        }
    }

    fn replicate_to(&mut self, peer: NodeId) {
        let prev_index = self.next[&peer] - 1;
        let Some(prev_term) = self.term_at(prev_index) else {
            self.out.push(Output::NeedSnapshot { to: peer });
            return;
        };
        let skip = (prev_index - self.base.0) as usize;
        let entries = self.entries.iter().skip(skip).take(APPEND_ENTRY_COUNT_MAX).cloned();
        let (entries, commit) = (entries.collect(), self.commit);
        self.send(peer, Message::Append { prev_index, prev_term, entries, commit });
    }

    /// The log is on disk.
    pub(crate) fn sync_done(&mut self) {
        self.synced = self.last_index();
        match (self.role, self.leader) {
            (Role::Leader, _) => self.advance_commit(),
            (Role::Follower, Some(leader)) => self.acknowledge(leader),
            _ => {}
        }
    }

    fn acknowledge(&mut self, leader: NodeId) {
        let index = self.verified.min(self.durable());
        self.send(leader, Message::Appended { matches: true, index });
    }

    fn advance_commit(&mut self) {
        let mut durable: Vec<u64> = self.matched.values().copied().collect();
        durable.push(self.durable());
        durable.sort_unstable();
        let quorum = durable[(durable.len() - 1) / 2];
        if quorum > self.commit && self.term_at(quorum) == Some(self.term) {
            self.commit = quorum;
        }
    }

    /// Hands leadership to whoever has most of the log.
    pub(crate) fn hand_over(&mut self) {
        let best = self.matched.iter().max_by_key(|(peer, index)| (**index, **peer));
        if let (Role::Leader, Some((&peer, _))) = (self.role, best) {
            self.send(peer, Message::TakeOver);
        }
    }

    /// A message that was sent in `term`.
    pub(crate) fn receive(
        &mut self,
        from: NodeId,
        term: u64,
        message: Message,
        now: u64,
        rng: &mut Rng,
    ) {
        if term > self.term {
            self.follow(term, None);
        }
        let current = term == self.term;
        match message {
            Message::Campaign { last_term, last_index } => {
                let granted = current
                    && self.voted_for.is_none_or(|voted| voted == from)
                    && (last_term, last_index) >= (self.last_term(), self.last_index());
                if granted {
                    self.voted_for = Some(from);
                    self.reset_election(now, rng);
                }
                self.send(from, Message::Vote { granted });
            }
            Message::Vote { granted } => {
                if current && granted && self.role == Role::Candidate {
                    self.votes.insert(from);
                    if self.votes.len() as u64 > self.members / 2 {
                        self.lead(now);
                    }
                }
            }
            Message::Append { prev_index, prev_term, entries, commit } => {
                if !current {
                    // Tells the sender of the newer term.
                    return self.send(from, Message::Appended { matches: false, index: 0 });
                }
                self.follow(term, Some(from));
                self.reset_election(now, rng);
                self.take_entries(from, (prev_index, prev_term), entries, commit);
            }
            Message::Appended { matches, index } => {
                if current && self.role == Role::Leader {
                    self.appended(from, matches, index);
                }
            }
            Message::Snapshot(_) => {
                if current {
                    self.follow(term, Some(from));
                    self.reset_election(now, rng);
                }
            }
            Message::TakeOver => {
                if current && self.role == Role::Follower {
                    self.campaign(now, rng);
                }
            }
        }
    }

    fn take_entries(
        &mut self,
        leader: NodeId,
        (prev_index, prev_term): (u64, u64),
        entries: Vec<Entry>,
        commit: u64,
    ) {
        // What lies before the base is committed, so it is the leader's too.
        if prev_index > self.base.0 && self.term_at(prev_index) != Some(prev_term) {
            let index = self.last_index().min(prev_index - 1);
            return self.send(leader, Message::Appended { matches: false, index });
        }
        let end = prev_index + entries.len() as u64;
        for (index, entry) in (prev_index + 1..).zip(entries) {
            match self.term_at(index) {
                _ if index <= self.base.0 => continue,
                Some(term) if term == entry.term => continue,
                Some(_) => {
                    self.entries.truncate((index - self.base.0 - 1) as usize);
                    self.synced = self.synced.min(index - 1);
                }
                None => {}
            }
            self.entries.push_back(entry);
            self.out.push(Output::Sync);
        }
        self.verified = self.verified.max(end.min(self.last_index()));
        self.commit = self.commit.max(commit.min(self.verified));
        self.acknowledge(leader);
    }

    fn appended(&mut self, from: NodeId, matches: bool, index: u64) {
        let matched = self.matched[&from];
        if matches {
            self.matched.insert(from, matched.max(index));
            let next = self.next[&from].max(index + 1);
            self.next.insert(from, next);
            self.advance_commit();
            if next <= self.last_index() && next > matched + 1 {
                self.replicate_to(from);
            }
        } else {
            self.next.insert(from, (index + 1).min(self.next[&from]).max(matched + 1));
            self.replicate_to(from);
        }
    }

    /// The state machine was replaced by a snapshot of `(index, term)`.
    pub(crate) fn installed(&mut self, (index, term): (u64, u64)) {
        if self.term_at(index) == Some(term) {
            self.compact(index);
        } else {
            self.entries.clear();
            self.base = (index, term);
        }
        self.synced = self.synced.min(self.last_index()).max(index);
    }

    /// All up to `index` is committed, and applied here.
    pub(crate) fn covered(&mut self, index: u64) {
        self.commit = self.commit.max(index);
        self.verified = self.verified.max(index);
        if let (Role::Follower, Some(leader)) = (self.role, self.leader) {
            self.acknowledge(leader);
        }
    }
}
