use super::*;
use crate::testing::{sender, unsigned};
use alloy_consensus::TxEip1559;
use alloy_primitives::{B256, Bytes, TxKind, U256, address};

const POOL: Address = address!("5fbdb2315678afecb367f032d93f642f64180aa3");

fn lanes(count: u64, overhead_ns: u64) -> Vec<Lane> {
    let lane = |node| Lane {
        node,
        slowness_permille: 1000,
        overhead_ns: if node == 1 { 0 } else { overhead_ns },
    };
    (1..=count).map(lane).collect()
}

fn call(from: u64, to: Address, argument: u64) -> Transaction {
    let mut input = vec![7; 4];
    input.extend_from_slice(B256::from(U256::from(argument)).as_slice());
    unsigned(
        from,
        TxEip1559 {
            gas_limit: 150_000,
            to: TxKind::Call(to),
            input: Bytes::from(input),
            ..TxEip1559::default()
        },
    )
}

fn calls(count: u64) -> Vec<Transaction> {
    (0..count).map(|from| call(from, POOL, from)).collect()
}

/// A planner that knows calls of the pool to take 100 microseconds and to write one slot by argument,
/// or one slot for all.
fn informed(hot: bool) -> Planner {
    let mut planner = Planner::default();
    let tx = call(1, POOL, 1);
    let mut bytes = [0; 64];
    bytes[31] = 1;
    let slot = if hot { U256::from(3) } else { alloy_primitives::keccak256(bytes).into() };
    let footprint = Footprint {
        writes: vec![WriteLocation::Account(sender(1)), WriteLocation::Slot(POOL, slot)],
    };
    planner.learn(&tx, 400_000, Some(&footprint));
    planner
}

fn plan(planner: &Planner, transactions: &[Transaction], lanes: &[Lane]) -> Plan {
    let members: Vec<NodeId> = (1..=lanes.len().max(1) as u64).collect();
    planner.plan(transactions, &PartitionMap::even(&members), lanes, (Distribution::Auto, 1))
}

#[test]
fn heavy_independent_calls_are_shared_out_evenly() {
    let planner = informed(false);
    let transactions = calls(300);
    let Plan::Shares(shares) = plan(&planner, &transactions, &lanes(3, 500_000)) else {
        panic!("not shared")
    };
    assert_eq!(shares.len(), 3);
    let mut all: Vec<usize> = shares.iter().flat_map(|share| share.indices.clone()).collect();
    assert!(shares.iter().all(|share| share.indices.is_sorted()));
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>());
    for share in &shares {
        assert!((80..=120).contains(&share.indices.len()), "{:?}", share.indices.len());
    }
}

#[test]
fn one_hot_contract_is_not_torn_apart() {
    let planner = informed(true);
    match plan(&planner, &calls(300), &lanes(3, 500_000)) {
        Plan::Local(LocalReason::NoGain) => {}
        Plan::Shares(shares) => assert_eq!(shares.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_pay_stays_with_the_leader() {
    let planner = informed(false);
    let transfers: Vec<Transaction> = (0..2_000)
        .map(|from| {
            let to = TxKind::Call(Address::repeat_byte(from as u8));
            unsigned(from, TxEip1559 { to, gas_limit: 21_000, ..TxEip1559::default() })
        })
        .collect();
    let mut learned = planner.clone();
    learned.learn(&transfers[0], 21_000, None);
    for _ in 0..100 {
        learned.calibrate(transfers.iter(), transfers.len() as u64 * 1_500);
    }
    let rows: [(&Planner, &[Transaction], Vec<Lane>, LocalReason); 4] = [
        (&planner, &calls(300), lanes(1, 0), LocalReason::Alone),
        (&planner, &calls(5), lanes(3, 0), LocalReason::Light),
        (&planner, &calls(300), lanes(3, 60_000_000), LocalReason::NoGain),
        (&learned, &transfers, lanes(3, 500_000), LocalReason::NoGain),
    ];
    for (planner, transactions, lanes, reason) in rows {
        assert_eq!(plan(planner, transactions, &lanes), Plan::Local(reason));
    }
}

#[test]
fn on_demand_everything_is_shared_out() {
    let members = [1, 2, 3];
    let (map, lanes) = (PartitionMap::even(&members), lanes(3, 60_000_000));
    let planner = Planner::default();
    let always = |transactions: &[Transaction], lanes: &[Lane]| {
        planner.plan(transactions, &map, lanes, (Distribution::Always, 1))
    };
    let transfers: Vec<Transaction> = (0..6)
        .map(|from| {
            let to = TxKind::Call(POOL);
            unsigned(from, TxEip1559 { to, gas_limit: 21_000, ..TxEip1559::default() })
        })
        .collect();
    let Plan::Shares(shares) = always(&transfers, &lanes) else { panic!("not shared") };
    assert_eq!(shares.iter().map(|share| share.indices.len()).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(always(&transfers, &lanes[..1]), Plan::Local(LocalReason::Alone));
    assert_eq!(always(&[], &lanes), Plan::Local(LocalReason::Light));
}

#[test]
fn planning_is_deterministic() {
    let planner = informed(false);
    let transactions: Vec<Transaction> =
        (0..400).map(|i| call(i % 37, POOL, i * 7919 % 101)).collect();
    let first = plan(&planner, &transactions, &lanes(4, 1_000));
    for _ in 0..3 {
        assert_eq!(plan(&planner, &transactions, &lanes(4, 1_000)), first);
    }
}

#[test]
fn anchors_are_contracts_or_senders() {
    assert_eq!(anchor(&call(3, POOL, 0)), POOL);
    let to = TxKind::Call(POOL);
    assert_eq!(anchor(&unsigned(3, TxEip1559 { to, ..Default::default() })), sender(3));
    let to = TxKind::Create;
    assert_eq!(anchor(&unsigned(3, TxEip1559 { to, ..Default::default() })), sender(3));
}

#[test]
fn partitions_are_charged_for_their_work_and_forget_it() {
    let mut planner = informed(false);
    planner.charge(&calls(10));
    let at = usize::from(PartitionId::of(POOL).0);
    assert_eq!(planner.partition_costs()[at], 10 * planner.cost_ns(&call(1, POOL, 1)));
    (0..200).for_each(|_| planner.charge(&[]));
    assert!(planner.partition_costs()[at] <= COST_MEMORY);
}
