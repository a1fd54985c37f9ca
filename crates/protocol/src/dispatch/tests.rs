use super::*;
use crate::{
    testing::{sender, unsigned},
    units::{GivenWork, PooledWork, UnitRefusal, UnitWork},
};
use DispatchCommand::{Alarm, Close, Discard, Keep, RunAlone, RunOwn, Send, Wake};
use alloy_consensus::TxEip1559;
use alloy_primitives::TxKind;
use blockraft_primitives::limits;

const CLUSTER: B256 = B256::repeat_byte(1);

/// Calls to as many contracts, heavy enough to be shared out.
pub(super) fn work(term: u64, height: u64, count: u64) -> BlockWork {
    let call = |from: u64| {
        let tx = TxEip1559 {
            gas_limit: 20_000_000,
            to: TxKind::Call(sender(1_000 + from)),
            input: Bytes::from(vec![1, 2, 3, 4]),
            ..TxEip1559::default()
        };
        unsigned(from, tx)
    };
    let source = WorkSource::Cut(CutBlock {
        term,
        timestamp: 7,
        fee_recipient: Address::ZERO,
        gas_limit: 30_000_000,
        pool_index: 3,
        ids: (0..count).map(|id| AdmissionId(100 + id)).collect(),
    });
    BlockWork {
        height,
        parent: B256::with_last_byte(height as u8),
        source,
        transactions: (0..count).map(call).collect(),
    }
}

/// The same transactions in a block that a consensus client named.
fn given(height: u64, count: u64) -> BlockWork {
    let header = Header { number: height, ..Header::default() };
    BlockWork { source: WorkSource::Given(Arc::new(header)), ..work(0, height, count) }
}

fn pooled(unit: &Unit) -> &PooledWork {
    match &unit.work {
        UnitWork::Pooled(work) => work,
        UnitWork::Given(_) => panic!("a given block: {unit:?}"),
    }
}

pub(super) fn leading(term: u64, others: &[NodeId]) -> DispatchEvent {
    DispatchEvent::Role { leading: Some(term), others: others.to_vec() }
}

fn dispatcher(others: &[NodeId]) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(1, CLUSTER, 1, Distribution::Auto);
    assert_eq!(dispatcher.step(Micros(0), leading(4, others)), []);
    assert_eq!(dispatcher.step(Micros(0), DispatchEvent::Applied { height: 8 }), []);
    dispatcher
}

/// No gathering is open longer.
pub(super) const OPEN_US_MAX: u64 =
    2 * (limits::HEDGE_US_MAX + limits::UNIT_RUN_US_MAX + limits::UNIT_PARENT_WAIT_MS * 1000);

/// Opens a gathering: units by member, and when the timer is to come.
fn open(dispatcher: &mut Dispatcher, now: Micros) -> (BTreeMap<NodeId, Unit>, Micros) {
    let commands = dispatcher.step(now, DispatchEvent::Block(work(4, 9, 600)));
    let mut units = BTreeMap::new();
    let mut wake = None;
    for command in commands {
        match command {
            Send { to, unit } => assert_eq!(units.insert(to, unit), None),
            Wake { at } => wake = Some(at),
            RunOwn { indices, .. } => assert!(!indices.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    (units, wake.expect("a timer"))
}

fn answer(unit: &Unit, executor: NodeId, outcomes: &'static [u8]) -> DispatchEvent {
    let outcomes = Bytes::from_static(outcomes);
    DispatchEvent::Answered(UnitAnswer { echo: unit.id, executor, run_us: 900, outcomes })
}

fn units_counted(dispatcher: &Dispatcher, name: &str) -> u64 {
    dispatcher.counters().units.get(name).copied().unwrap_or(0)
}

fn keeps(commands: &[DispatchCommand]) -> Vec<u32> {
    let keep = |command: &DispatchCommand| match command {
        Keep { share, .. } => Some(*share),
        _ => None,
    };
    commands.iter().filter_map(keep).collect()
}

fn closes(commands: &[DispatchCommand]) -> bool {
    commands.iter().any(|command| matches!(command, Close { .. }))
}

#[test]
fn a_block_is_shared_out_gathered_and_closed() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, _) = open(&mut dispatcher, Micros(10));
    assert_eq!(units.keys().copied().collect::<Vec<_>>(), [2, 3]);
    let fence = units[&2].id.fence;
    let parent = B256::with_last_byte(9);
    let expected = Fence { cluster: CLUSTER, term: 4, leader: 1, height: 9, parent, epoch: 1 };
    assert_eq!(fence, expected);

    let first = dispatcher.step(Micros(2_000), answer(&units[&3], 3, b"x"));
    assert_eq!((keeps(&first), closes(&first)), (vec![units[&3].id.share], false));
    let second = dispatcher.step(Micros(2_500), answer(&units[&2], 2, b"y"));
    let [Keep { gather, share, indices, outcomes }, Close { gather: closed }] = &second[..] else {
        panic!("{second:?}")
    };
    assert_eq!((gather, *share, &outcomes[..]), (closed, units[&2].id.share, &b"y"[..]));
    let ids: Vec<_> = indices.iter().map(|index| AdmissionId(100 + *index as u64)).collect();
    assert_eq!(ids, pooled(&units[&2]).transactions);
}

#[test]
fn why_a_block_is_not_shared_out_is_counted() {
    let alone = |dispatcher: &mut Dispatcher, work: BlockWork, reason: LocalReason| {
        let commands = dispatcher.step(Micros(0), DispatchEvent::Block(work));
        assert_eq!(commands, [RunAlone { reason }]);
        assert_eq!(dispatcher.counters().decisions[reason.name()], 1);
    };
    alone(
        &mut Dispatcher::new(1, CLUSTER, 1, Distribution::Off),
        work(4, 9, 600),
        LocalReason::Off,
    );
    alone(&mut dispatcher(&[]), work(4, 9, 600), LocalReason::Alone);
    alone(&mut dispatcher(&[2]), work(5, 9, 600), LocalReason::Deposed);
    alone(&mut dispatcher(&[2]), work(4, 9, 3), LocalReason::Light);
}

#[test]
fn a_node_that_never_shares_says_so_before_the_block_is_cut() {
    assert_eq!(
        Dispatcher::new(1, CLUSTER, 1, Distribution::Off).declines(),
        Some(LocalReason::Off)
    );
    assert_eq!(dispatcher(&[]).declines(), Some(LocalReason::Alone));
    assert_eq!(dispatcher(&[2]).declines(), None);
}

#[test]
fn an_answer_counts_only_if_it_repeats_the_whole_name_and_comes_from_whom_was_asked() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, _) = open(&mut dispatcher, Micros(0));
    let changes: [fn(&mut UnitId); 9] = [
        |id| id.fence.cluster = B256::ZERO,
        |id| id.fence.term = 3,
        |id| id.fence.leader = 2,
        |id| id.fence.height = 8,
        |id| id.fence.parent = B256::ZERO,
        |id| id.fence.epoch = 2,
        |id| id.gather += 1,
        |id| id.attempt = 2,
        |id| id.share = 9,
    ];
    for change in changes {
        let mut stranger = units[&2].clone();
        change(&mut stranger.id);
        assert_eq!(dispatcher.step(Micros(1_000), answer(&stranger, 2, b"x")), []);
    }
    assert_eq!(dispatcher.step(Micros(1_000), answer(&units[&2], 3, b"x")), []);
    assert_eq!(units_counted(&dispatcher, "stray"), 10);
    assert_eq!(keeps(&dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"))).len(), 1);
}

#[test]
fn a_late_unit_goes_to_an_idle_member_once_and_then_to_the_leader() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, wake) = open(&mut dispatcher, Micros(0));
    dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"));
    let commands = dispatcher.step(wake, DispatchEvent::Timer);
    let [Send { to: 2, unit: again }, Wake { at }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((again.id.share, again.id.attempt), (units[&3].id.share, 2));
    assert_eq!(again.work, units[&3].work);
    let commands = dispatcher.step(*at, DispatchEvent::Timer);
    assert!(closes(&commands) && keeps(&commands).is_empty());
    assert!(at.0 <= OPEN_US_MAX);
    assert_eq!(units_counted(&dispatcher, "hedged"), 1);
    // Neither is given any more work. The first one is tried with a little; it is long ago that it was asked.
    let commands = dispatcher.step(*at, DispatchEvent::Block(work(4, 10, 600)));
    let [Send { to: 3, unit: probe }, RunAlone { reason: LocalReason::Alone }] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert!(probe.work.transaction_count() <= PROBE_TX_COUNT_MAX);
    assert_eq!(units_counted(&dispatcher, "probed"), 1);
}

#[test]
fn with_nobody_idle_the_leader_runs_what_is_late() {
    let mut dispatcher = dispatcher(&[2]);
    let (_, wake) = open(&mut dispatcher, Micros(0));
    assert_eq!(dispatcher.step(wake, DispatchEvent::Timer), [Close { gather: 0 }]);
    assert_eq!(units_counted(&dispatcher, "given_up"), 1);
}

#[test]
fn a_timer_that_comes_early_changes_nothing() {
    let mut dispatcher = dispatcher(&[2]);
    let (_, wake) = open(&mut dispatcher, Micros(0));
    assert_eq!(dispatcher.step(Micros(1), DispatchEvent::Timer), [Wake { at: wake }]);
}

#[test]
fn a_refusal_sends_the_unit_elsewhere_at_once() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, _) = open(&mut dispatcher, Micros(0));
    dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"));
    let refusal = UnitRefusal::Lagging { height: 7, applied: 1 };
    let refused = UnitRefused { echo: units[&3].id, executor: 3, refusal };
    let commands = dispatcher.step(Micros(1_500), DispatchEvent::Refused(refused.clone()));
    let [Send { to: 2, unit }, Wake { .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(dispatcher.counters().refusals["lagging"], 1);
    // Once.
    assert_eq!(dispatcher.step(Micros(1_600), DispatchEvent::Refused(refused)), []);
    let lost = DispatchEvent::Lost { to: 2, unit: unit.id };
    assert_eq!(dispatcher.step(Micros(1_700), lost), [Close { gather: 0 }]);
}

#[test]
fn two_different_answers_raise_an_alarm_and_both_are_kept() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, wake) = open(&mut dispatcher, Micros(0));
    dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"));
    let commands = dispatcher.step(wake, DispatchEvent::Timer);
    let [Send { unit: again, .. }, Wake { .. }] = &commands[..] else { panic!("{commands:?}") };
    // The repetition is answered first; the original comes when the block is on its way.
    assert_eq!(keeps(&dispatcher.step(wake, answer(again, 2, b"one"))).len(), 1);
    let commands = dispatcher.step(wake, answer(&units[&3], 3, b"two"));
    let transactions = work(4, 9, 600).transactions;
    let hash = |id: &AdmissionId| *transactions[(id.0 - 100) as usize].tx_hash();
    let evidence = Evidence {
        fence: units[&3].id.fence,
        transactions: pooled(&units[&3]).transactions.iter().map(hash).collect(),
        answers: [(2, Bytes::from_static(b"one")), (3, Bytes::from_static(b"two"))],
    };
    assert_eq!(commands, [Alarm(Box::new(evidence.clone()))]);
    assert_eq!(dispatcher.evidence().collect::<Vec<_>>(), [&evidence]);
}

#[test]
fn a_member_that_contradicts_itself_loses_its_seeds() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, _) = open(&mut dispatcher, Micros(0));
    dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"));
    assert_eq!(dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x")), []);
    let commands = dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"z"));
    let share = units[&2].id.share;
    assert!(matches!(&commands[..], [Discard { share: s, .. }, Alarm(_)] if *s == share));
    // There is nothing left to forget.
    let commands = dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"y"));
    assert!(matches!(&commands[..], [Alarm(_)]), "{commands:?}");
}

#[test]
fn evidence_is_bounded() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, _) = open(&mut dispatcher, Micros(0));
    dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"));
    for _ in 0..limits::UNIT_EVIDENCE_COUNT_MAX + 3 {
        dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"z"));
    }
    assert_eq!(dispatcher.evidence().count(), limits::UNIT_EVIDENCE_COUNT_MAX);
}

#[test]
fn who_is_deposed_waits_for_nothing_and_believes_nothing_old() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, _) = open(&mut dispatcher, Micros(0));
    let deposed = DispatchEvent::Role { leading: None, others: vec![2, 3] };
    assert_eq!(dispatcher.step(Micros(500), deposed), [Close { gather: 0 }]);
    assert_eq!(dispatcher.step(Micros(600), answer(&units[&2], 2, b"x")), []);
    // Nor when it leads again.
    dispatcher.step(Micros(700), leading(6, &[2, 3]));
    assert_eq!(dispatcher.step(Micros(800), answer(&units[&3], 3, b"x")), []);
    assert_eq!(units_counted(&dispatcher, "stray"), 2);
}

#[test]
fn a_given_block_is_shared_out_by_who_does_not_lead() {
    let mut dispatcher = Dispatcher::new(1, CLUSTER, 1, Distribution::Auto);
    let role = DispatchEvent::Role { leading: None, others: vec![2, 3] };
    assert_eq!(dispatcher.step(Micros(0), role), []);
    let own = work(4, 9, 600);
    let commands = dispatcher.step(Micros(0), DispatchEvent::Block(own));
    assert_eq!(commands, [RunAlone { reason: LocalReason::Deposed }]);

    let block = given(9, 600);
    let mut seen = std::collections::BTreeSet::new();
    for command in dispatcher.step(Micros(0), DispatchEvent::Block(block.clone())) {
        match command {
            Send { unit, .. } => {
                assert_eq!((unit.id.fence.term, unit.id.fence.leader), (0, 1));
                let UnitWork::Given(GivenWork { header, transactions }) = unit.work else {
                    panic!("of the pool")
                };
                assert_eq!(WorkSource::Given(header), block.source);
                for tx in transactions {
                    let index = block.transactions.iter().position(|other| *other == tx);
                    assert!(seen.insert(index.expect("one of the block's")));
                }
            }
            RunOwn { indices, .. } => assert!(indices.into_iter().all(|index| seen.insert(index))),
            Wake { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen.len(), 600);
}

/// A first guess from gas may be far off. That shows in the leader's own part, and makes nobody slow.
#[test]
fn who_is_as_quick_as_the_leader_is_not_slow_whatever_the_prediction_was() {
    for factor in [1, 20] {
        let mut dispatcher = dispatcher(&[2, 3]);
        let work = work(4, 9, 600);
        let cost_us = factor * dispatcher.planner.cost_ns(&work.transactions[0]) / 1000;
        let commands = dispatcher.step(Micros(0), DispatchEvent::Block(work));
        let mut own = Vec::new();
        for command in commands {
            match command {
                RunOwn { indices, .. } => own = indices,
                Send { to, unit } => {
                    let run_us = cost_us * unit.work.transaction_count() as u64;
                    let outcomes = Bytes::from_static(b"x");
                    let answer = UnitAnswer { echo: unit.id, executor: to, run_us, outcomes };
                    dispatcher.step(Micros(run_us + 900), DispatchEvent::Answered(answer));
                }
                _ => {}
            }
        }
        let took_us = cost_us * own.len() as u64;
        dispatcher.step(Micros(900), DispatchEvent::OwnRun { gather: 0, took_us });
        for lane in dispatcher.gatherer.lanes(Micros(0), Some(4), 9).unwrap() {
            assert!((900..1_100).contains(&lane.slowness_permille), "{factor}: {lane:?}");
        }
    }
}

#[test]
fn nobody_is_late_where_the_leader_took_longer_than_was_thought() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (_, latest) = open(&mut dispatcher, Micros(0));
    assert!(latest >= Micros(limits::UNIT_RUN_US_MAX), "it is busy itself until then");
    let thought_us = 200 * dispatcher.planner.cost_ns(&work(4, 9, 1).transactions[0]) / 1000;
    let own_run = |gather, took_us| DispatchEvent::OwnRun { gather, took_us };
    let now = Micros(1_000);
    assert_eq!(dispatcher.step(now, own_run(7, 20 * thought_us)), [], "of another gathering");
    let usual = dispatcher.step(now, own_run(0, thought_us / 2));
    let [Wake { at: usual }] = usual[..] else { panic!("{usual:?}") };
    assert!(usual < Micros(100_000), "{usual:?}");
    let later = dispatcher.step(now, own_run(0, 10 * thought_us));
    let [Wake { at }] = later[..] else { panic!("{later:?}") };
    assert!(at > usual.after(5 * thought_us), "{at:?} after {usual:?}, {thought_us}");
    assert_eq!(dispatcher.step(usual, DispatchEvent::Timer), later);
    assert_eq!(units_counted(&dispatcher, "given_up"), 0);
}

/// To wait as long as doing it would take costs at most as much again.
#[test]
fn nobody_is_late_while_the_leader_would_be_busy_with_what_is_missing() {
    let mut dispatcher = dispatcher(&[2, 3]);
    open(&mut dispatcher, Micros(0));
    let cost_us = dispatcher.planner.cost_ns(&work(4, 9, 1).transactions[0]) / 1000;
    let now = Micros(400_000);
    let took_us = 200 * cost_us;
    let commands = dispatcher.step(now, DispatchEvent::OwnRun { gather: 0, took_us });
    let [Wake { at }] = commands[..] else { panic!("{commands:?}") };
    // A third of the block took it so long; the others have the rest, and a little more than a third each.
    assert!((2 * took_us..3 * took_us).contains(&at.since(now)), "{at:?}, {took_us}");
    dispatcher.step(at, DispatchEvent::Timer);
    assert_eq!(units_counted(&dispatcher, "given_up"), 2);
}

/// A block may be begun before its parent is applied; until then no member can begin, so none is late.
#[test]
fn nobody_is_late_before_the_leader_itself_has_applied_the_parent() {
    let mut dispatcher = dispatcher(&[2]);
    let (_, usual) = open(&mut dispatcher, Micros(0));
    let patience = usual.0;
    dispatcher.step(Micros(0), DispatchEvent::Role { leading: None, others: vec![2] });
    dispatcher.step(Micros(0), leading(4, &[2]));
    dispatcher.step(Micros(0), DispatchEvent::Applied { height: 7 });

    let (_, latest) = open(&mut dispatcher, Micros(0));
    assert_eq!(latest, Micros(limits::UNIT_PARENT_WAIT_MS * 1000 + patience));
    let other = dispatcher.step(Micros(600_000), DispatchEvent::Applied { height: 7 });
    assert_eq!(other, []);
    let at = Micros(700_000);
    let applied = dispatcher.step(at, DispatchEvent::Applied { height: 8 });
    assert_eq!(applied, [Wake { at: at.after(patience) }]);
    assert_eq!(dispatcher.step(at.after(patience), DispatchEvent::Timer), [Close { gather: 1 }]);
    // The next time it is known that members begin later, and the leader does more meanwhile.
    let lanes = |d: &mut Dispatcher, height| d.gatherer.lanes(Micros(9_000_000), Some(4), height);
    let probes = dispatcher.step(Micros(9_000_000), DispatchEvent::Block(work(4, 9, 600)));
    let [Send { unit: probe, .. }, ..] = &probes[..] else { panic!("{probes:?}") };
    dispatcher.step(Micros(9_001_900), answer(probe, 2, b"x"));
    let [on_head, ahead] = [9, 10].map(|height| lanes(&mut dispatcher, height).unwrap()[1]);
    assert_eq!(ahead.overhead_ns - on_head.overhead_ns, 350_000_000);
}

/// Whoever was stopped or slow is given work again when it has answered what nobody waited for.
#[test]
fn who_was_late_comes_back_by_a_probe() {
    let mut dispatcher = dispatcher(&[2]);
    let (_, wake) = open(&mut dispatcher, Micros(0));
    assert_eq!(dispatcher.step(wake, DispatchEvent::Timer), [Close { gather: 0 }]);
    let alone = |reason| RunAlone { reason };
    let block = |d: &mut Dispatcher, at| d.step(at, DispatchEvent::Block(work(4, 9, 600)));
    assert_eq!(block(&mut dispatcher, wake), [alone(LocalReason::Alone)]);

    let later = wake.after(2_000_000);
    let commands = block(&mut dispatcher, later);
    let [Send { to: 2, unit: probe }, RunAlone { reason: LocalReason::Alone }] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert!((1..=64).contains(&probe.work.transaction_count()));
    // It does not answer: it is asked again, and nobody waits.
    assert_eq!(block(&mut dispatcher, later.after(1_000)), [alone(LocalReason::Alone)]);
    let again = block(&mut dispatcher, later.after(1_000_000));
    let [Send { to: 2, unit: again }, RunAlone { .. }] = &again[..] else { panic!("{again:?}") };
    assert_ne!(again.id, probe.id);
    // Nothing is kept of what it answers, but it is back.
    let now = later.after(1_001_900);
    assert_eq!(dispatcher.step(now, answer(again, 2, b"x")), []);
    let (units, _) = open(&mut dispatcher, now);
    assert_eq!(units.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(units_counted(&dispatcher, "probed"), 2);
    assert_eq!(units_counted(&dispatcher, "probe_answered"), 1);
}

#[test]
fn who_is_twenty_times_slower_costs_one_wait() {
    let mut dispatcher = dispatcher(&[2, 3]);
    let (units, wake) = open(&mut dispatcher, Micros(0));
    dispatcher.step(Micros(1_000), answer(&units[&2], 2, b"x"));
    let commands = dispatcher.step(wake, DispatchEvent::Timer);
    let [Send { to: 2, unit: again }, ..] = &commands[..] else { panic!("{commands:?}") };
    assert!(closes(&dispatcher.step(wake, answer(again, 2, b"y"))));
    // Every answer takes twenty times as long as it should; blocks go on for two minutes.
    let slow = |unit: &Unit, cost_us: u64| {
        let (echo, run_us) = (unit.id, 20 * cost_us);
        UnitAnswer { echo, executor: 3, run_us, outcomes: Bytes::from_static(b"y") }
    };
    let cost_us = dispatcher.planner.cost_ns(&work(4, 9, 1).transactions[0]) / 1000;
    let cost_of = |unit: &Unit| unit.work.transaction_count() as u64 * cost_us;
    let late = slow(&units[&3], cost_of(&units[&3]));
    dispatcher.step(wake.after(late.run_us), DispatchEvent::Answered(late));
    for second in 4..120 {
        let now = Micros(second * 1_000_000);
        for command in dispatcher.step(now, DispatchEvent::Block(work(4, 9, 600))) {
            let Send { to, unit } = command else { continue };
            let answer = match to {
                2 => answer(&unit, 2, b"x"),
                _ => DispatchEvent::Answered(slow(&unit, cost_of(&unit))),
            };
            dispatcher.step(now.after(300_000), answer);
        }
    }
    assert_eq!(units_counted(&dispatcher, "hedged"), 1);
    assert_eq!(units_counted(&dispatcher, "given_up"), 0);
    assert!(units_counted(&dispatcher, "probe_answered") > 50);
}

mod property;
