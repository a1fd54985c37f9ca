use super::*;
use crate::units::UnitRefusal;
use RootCommand::{Alarm, Close, Discard, HashAlone, HashOwn, Keep, Send, Wake};
use blockraft_primitives::limits;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CLUSTER: B256 = B256::repeat_byte(1);

fn work(term: u64, height: u64, keys: u32) -> RootWork {
    let parent = B256::with_last_byte(height as u8);
    RootWork { term, height, parent, keys: vec![keys; PARTITION_COUNT] }
}

fn leading(term: u64, others: &[NodeId]) -> RootEvent {
    RootEvent::Role { leading: Some(term), others: others.to_vec() }
}

fn sharer(distribution: Distribution, others: &[NodeId]) -> RootSharer {
    let mut sharer = RootSharer::new(1, CLUSTER, 1, distribution);
    assert_eq!(sharer.step(Micros(0), leading(4, others)), []);
    assert_eq!(sharer.step(Micros(0), RootEvent::Applied { height: 20 }), []);
    sharer
}

type Units = BTreeMap<NodeId, (UnitId, PartitionSet)>;

/// Units by member, the leader's own partitions, and when the timer is to come.
fn opened(commands: Vec<RootCommand>) -> (Units, PartitionSet, Option<Micros>) {
    let (mut units, mut own, mut wake) = (Units::new(), PartitionSet::NONE, None);
    for command in commands {
        match command {
            Send { to, unit, partitions } => {
                assert_eq!(units.insert(to, (unit, partitions)), None);
            }
            Wake { at } => wake = Some(at),
            HashOwn { partitions, .. } => own = partitions,
            other => panic!("{other:?}"),
        }
    }
    (units, own, wake)
}

fn open(sharer: &mut RootSharer, now: Micros, height: u64) -> (Units, PartitionSet, Micros) {
    let (units, own, wake) = opened(sharer.step(now, RootEvent::Block(work(4, height, 100))));
    (units, own, wake.expect("a timer"))
}

fn answer(unit: UnitId, owner: NodeId, roots: &'static [u8]) -> RootEvent {
    let roots = Bytes::from_static(roots);
    RootEvent::Answered(RootAnswer { echo: unit, owner, run_us: 900, roots })
}

fn counted(sharer: &RootSharer, name: &str) -> u64 {
    sharer.counters().units.get(name).copied().unwrap_or(0)
}

#[test]
fn every_partition_is_hashed_by_its_owner_and_the_roots_are_gathered() {
    let mut sharer = sharer(Distribution::Auto, &[2, 3]);
    let (units, own, _) = open(&mut sharer, Micros(10), 9);
    let all = units.values().fold(own, |all, (_, partitions)| {
        assert!(all.and(partitions).is_empty(), "nothing is hashed twice");
        all.or(partitions)
    });
    assert_eq!(all, PartitionSet::ALL);
    let parent = B256::with_last_byte(9);
    let expected = Fence { cluster: CLUSTER, term: 4, leader: 1, height: 9, parent, epoch: 1 };
    assert_eq!(units[&2].0.fence, expected);

    let (two, three) = (units[&2], units[&3]);
    let first = sharer.step(Micros(2_000), answer(three.0, 3, b"x"));
    assert!(matches!(first[..], [Keep { partitions, .. }, Wake { .. }] if partitions == three.1));
    let second = sharer.step(Micros(2_500), answer(two.0, 2, b"y"));
    let [Keep { gather, partitions, roots, .. }, Close { gather: closed }] = &second[..] else {
        panic!("{second:?}")
    };
    assert_eq!((gather, *partitions, &roots[..]), (closed, two.1, &b"y"[..]));
}

#[test]
fn why_hashing_is_not_shared_out_is_counted() {
    let alone = |mut sharer: RootSharer, work: RootWork, reason: LocalReason| {
        let commands = sharer.step(Micros(0), RootEvent::Block(work));
        assert_eq!(commands, [HashAlone { reason }]);
        assert_eq!(sharer.counters().decisions[reason.name()], 1);
    };
    use Distribution::{Always, Auto, Off};
    alone(RootSharer::new(1, CLUSTER, 1, Off), work(4, 9, 100), LocalReason::Off);
    alone(sharer(Auto, &[]), work(4, 9, 100), LocalReason::Alone);
    alone(sharer(Auto, &[2]), work(5, 9, 100), LocalReason::Deposed);
    alone(sharer(Auto, &[2]), work(4, 9, 1), LocalReason::Light);
    // All of it in one partition, as of one contract: sharing it out would not make it shorter.
    let mut hot = work(4, 9, 0);
    hot.keys[255] = 10_000;
    alone(sharer(Auto, &[2]), hot, LocalReason::NoGain);
    let few = sharer(Always, &[2]).step(Micros(0), RootEvent::Block(work(4, 9, 1)));
    assert_eq!(opened(few).0.len(), 1);
}

#[test]
fn who_owns_nothing_that_changes_is_not_asked() {
    let mut sharer = sharer(Distribution::Always, &[2, 3]);
    let mut work = work(4, 9, 0);
    work.keys[255] = 5;
    let (units, own, _) = opened(sharer.step(Micros(0), RootEvent::Block(work)));
    assert_eq!(units.keys().copied().collect::<Vec<_>>(), [3]);
    assert!(units[&3].1.contains(255) && !own.contains(255));
}

#[test]
fn a_dead_owners_subtries_go_to_another_once_then_to_the_leader_and_stay_away() {
    let mut sharer = sharer(Distribution::Auto, &[2, 3]);
    let (before, own, _) = open(&mut sharer, Micros(0), 9);
    let (unit, partitions) = before[&2];
    sharer.step(Micros(100), answer(before[&3].0, 3, b"x"));
    let again = sharer.step(Micros(200), RootEvent::Lost { to: 2, unit });
    let [Send { to: 3, unit: second, partitions: same }, Wake { .. }] = &again[..] else {
        panic!("{again:?}")
    };
    assert_eq!((*same, second.attempt), (partitions, 2));
    let end = sharer.step(Micros(300), RootEvent::Lost { to: 3, unit: *second });
    assert_eq!(end, [Close { gather: unit.gather }]);
    assert_eq!((counted(&sharer, "hedged"), counted(&sharer, "given_up")), (1, 1));

    // Both are left alone for a while; after that the first is, which failed more often.
    let alone = sharer.step(Micros(400), RootEvent::Block(work(4, 10, 100)));
    assert_eq!(alone, [HashAlone { reason: LocalReason::Alone }]);
    let (after, _, _) = open(&mut sharer, Micros(300_000), 11);
    assert_eq!(after.keys().copied().collect::<Vec<_>>(), [2, 3]);
    // What need not move has not moved.
    assert_eq!(after[&2].1.or(&after[&3].1), before[&2].1.or(&before[&3].1));
    assert!(own.and(&after[&2].1).is_empty());
}

#[test]
fn partitions_of_who_leaves_move_and_the_others_stay() {
    let mut sharer = sharer(Distribution::Auto, &[2, 3]);
    let (before, own, _) = open(&mut sharer, Micros(0), 9);
    assert_eq!(sharer.step(Micros(1), leading(4, &[3])), []);
    let commands = sharer.step(Micros(2), RootEvent::Block(work(4, 10, 100)));
    let commands = commands.into_iter().filter(|c| !matches!(c, Close { .. })).collect();
    let (after, own_after, _) = opened(commands);
    assert!(after[&3].1.contains_all(&before[&3].1) && own_after.contains_all(&own));
    assert_eq!(after[&3].1.or(&own_after), PartitionSet::ALL);
    assert_eq!(after[&3].0.fence.epoch, 2);
}

#[test]
fn two_different_answers_are_kept_as_evidence_and_neither_is_used() {
    let mut sharer = sharer(Distribution::Auto, &[2, 3, 4]);
    let (units, _, _) = open(&mut sharer, Micros(0), 9);
    sharer.step(Micros(100), answer(units[&3].0, 3, b"three"));
    let lost = sharer.step(Micros(200), RootEvent::Lost { to: 2, unit: units[&2].0 });
    let again = lost.iter().find_map(|command| match command {
        Send { to: 3, unit, .. } if unit.share == units[&2].0.share => Some(*unit),
        _ => None,
    });
    let again = again.expect("it goes to who is idle");
    let kept = sharer.step(Micros(300), answer(again, 3, b"two"));
    assert!(matches!(kept[0], Keep { .. }), "{kept:?}");
    let differs = sharer.step(Micros(400), answer(units[&2].0, 2, b"TWO"));
    let expected = Discard { gather: again.gather, share: again.share };
    assert!(differs.contains(&expected), "{differs:?}");
    assert!(differs.iter().any(|command| matches!(command, Alarm(_))));
    let evidence: Vec<_> = sharer.evidence().map(|e| e.answers.clone()).collect();
    assert_eq!(evidence, [[(3, Bytes::from_static(b"two")), (2, Bytes::from_static(b"TWO"))]]);
}

#[test]
fn answers_to_a_deposed_leader_count_nothing() {
    let mut sharer = sharer(Distribution::Auto, &[2]);
    let (units, _, _) = open(&mut sharer, Micros(0), 9);
    let unit = units[&2].0;
    let deposed = sharer.step(Micros(1), RootEvent::Role { leading: None, others: vec![2] });
    assert_eq!(deposed, [Close { gather: unit.gather }]);
    assert_eq!(sharer.step(Micros(2), answer(unit, 2, b"x")), []);
    sharer.step(Micros(3), leading(6, &[2]));
    assert_eq!(sharer.step(Micros(4), answer(unit, 2, b"x")), []);
    assert_eq!(counted(&sharer, "stray"), 2);
}

/// No gathering is open longer.
const OPEN_US_MAX: u64 =
    2 * (limits::HEDGE_US_MAX + limits::UNIT_RUN_US_MAX + limits::UNIT_PARENT_WAIT_MS * 1000);

/// What a property test does next.
#[derive(Clone, Debug)]
enum Act {
    Block {
        always_same_parent: bool,
        keys: u32,
    },
    /// A unit that was sent, by age; answered rightly by whoever it went to, or by somebody else.
    Answer {
        back: usize,
        by_another: bool,
        wrong: bool,
    },
    /// The leader has hashed its own part, or says so again, or of a gathering that is over.
    Own {
        late: u64,
        took_us: u64,
    },
    /// The leader has applied blocks up to so many below the last one.
    Applied {
        below: u64,
    },
    Refuse {
        back: usize,
    },
    Lose {
        back: usize,
    },
    Timer,
    Depose,
    Elect {
        others: Vec<NodeId>,
    },
    Pass {
        us: u64,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let back = 0..6usize;
    let act = prop_oneof![
        3 => (any::<bool>(), 1..200u32)
            .prop_map(|(always_same_parent, keys)| Act::Block { always_same_parent, keys }),
        6 => (back.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(back, by_another, wrong)| Act::Answer { back, by_another, wrong }),
        2 => (0..3u64, 0..2_000_000u64).prop_map(|(late, took_us)| Act::Own { late, took_us }),
        2 => (0..3u64).prop_map(|below| Act::Applied { below }),
        1 => back.clone().prop_map(|back| Act::Refuse { back }),
        1 => back.prop_map(|back| Act::Lose { back }),
        3 => Just(Act::Timer),
        1 => Just(Act::Depose),
        2 => prop::collection::vec(2..7u64, 0..5).prop_map(|others| Act::Elect { others }),
        3 => (0..400_000u64).prop_map(|us| Act::Pass { us }),
    ];
    prop::collection::vec(act, 1..120)
}

/// What the shell of a sharer sees, held against what must be.
#[derive(Default)]
struct Shell {
    term: u64,
    leads: bool,
    sent: Vec<(NodeId, UnitId, PartitionSet)>,
    open: Option<Gathering>,
    wake: Option<Micros>,
}

struct Gathering {
    gather: u64,
    since: Micros,
    covered: PartitionSet,
    kept: BTreeSet<u32>,
}

impl Shell {
    fn carry_out(&mut self, now: Micros, term: u64, commands: Vec<RootCommand>) {
        for command in commands {
            match command {
                HashAlone { .. } => assert!(self.open.is_none(), "a gathering is closed first"),
                Send { to, unit, partitions } => {
                    assert_eq!((unit.fence.term, unit.fence.leader, self.leads), (term, 1, true));
                    assert_ne!(to, 1, "the leader sends itself nothing");
                    self.sent.push((to, unit, partitions));
                }
                HashOwn { gather, partitions } => {
                    let sent = self.sent.iter().filter(|(_, unit, _)| unit.gather == gather);
                    let covered = sent.fold(partitions, |all, (_, _, partitions)| {
                        assert!(all.and(partitions).is_empty(), "one owner a partition");
                        all.or(partitions)
                    });
                    assert_eq!(covered, PartitionSet::ALL, "all change in these blocks");
                    let kept = BTreeSet::new();
                    self.open = Some(Gathering { gather, since: now, covered, kept });
                }
                Keep { gather, share, partitions, .. } => {
                    let open = self.open.as_mut().expect("only while it is open");
                    assert_eq!(open.gather, gather);
                    assert!(open.kept.insert(share), "one answer a share");
                    assert!(open.covered.contains_all(&partitions));
                }
                Discard { gather, share } => {
                    let open = self.open.as_mut().expect("only while it is open");
                    assert_eq!(open.gather, gather);
                    assert!(open.kept.remove(&share), "what is discarded was kept");
                }
                Wake { at } => self.wake = Some(at),
                Close { gather } => {
                    let open = self.open.take().expect("one that is open");
                    assert_eq!(open.gather, gather);
                    self.wake = None;
                }
                Alarm(evidence) => assert_ne!(evidence.answers[0].1, evidence.answers[1].1),
            }
        }
        if let Some(open) = &self.open {
            let wake = self.wake.expect("an open gathering has a timer");
            let latest = open.since.after(OPEN_US_MAX);
            assert!(wake <= latest, "it would stay open beyond {latest:?}: {wake:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_when_the_leader_gets_roots_it_may_count_in_time(acts in acts()) {
        let mut sharer = RootSharer::new(1, CLUSTER, 2, Distribution::Always);
        let (mut shell, mut now, mut height) = (Shell::default(), Micros(0), 0);
        for act in acts {
            let sent = |back: usize| {
                let len = shell.sent.len();
                (back < len).then(|| shell.sent[len - 1 - back])
            };
            let event = match act {
                Act::Block { always_same_parent, keys } => {
                    height += u64::from(!always_same_parent);
                    Some(RootEvent::Block(work(shell.term, height, keys)))
                }
                Act::Answer { back, by_another, wrong } => sent(back).map(|(to, unit, _)| {
                    let owner = if by_another { to + 1 } else { to };
                    answer(unit, owner, if wrong { b"wrong" } else { b"right" })
                }),
                Act::Own { late, took_us } => shell.open.as_ref().map(|open| {
                    RootEvent::OwnHashed { gather: open.gather.saturating_sub(late), took_us }
                }),
                Act::Applied { below } => {
                    Some(RootEvent::Applied { height: height.saturating_sub(below) })
                }
                Act::Refuse { back } => sent(back).map(|(to, unit, _)| {
                    let refusal = UnitRefusal::Busy;
                    RootEvent::Refused(UnitRefused { echo: unit, executor: to, refusal })
                }),
                Act::Lose { back } => {
                    sent(back).map(|(to, unit, _)| RootEvent::Lost { to, unit })
                }
                Act::Timer => shell.wake.map(|at| {
                    now = now.max(at);
                    RootEvent::Timer
                }),
                Act::Depose => {
                    shell.leads = false;
                    Some(RootEvent::Role { leading: None, others: vec![2, 3] })
                }
                Act::Elect { others } => {
                    shell.term += 1;
                    shell.leads = true;
                    Some(RootEvent::Role { leading: Some(shell.term), others })
                }
                // The timer is kept to.
                Act::Pass { us } => {
                    let then = now.after(us);
                    now = shell.wake.map_or(then, |wake| then.min(wake));
                    None
                }
            };
            let answered = match &event {
                Some(RootEvent::Answered(answer)) => Some((answer.echo, answer.owner)),
                _ => None,
            };
            let Some(event) = event else { continue };
            let commands = sharer.step(now, event);
            if let Some(keep) = commands.iter().find(|command| matches!(command, Keep { .. })) {
                let (echo, owner) = answered.expect("roots are kept when they come");
                let right = shell.sent.iter().any(|(to, unit, _)| (*to, *unit) == (owner, echo));
                prop_assert!(right && echo.fence.term == shell.term && shell.leads, "{keep:?}");
            }
            let term = shell.term;
            shell.carry_out(now, term, commands);
        }
    }
}
