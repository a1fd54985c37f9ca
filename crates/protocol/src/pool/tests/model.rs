//! Random histories of a pool, with blocks on their way.

use super::*;
use proptest::prelude::*;

const SENDERS: u64 = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Sender, nonce relative to the state's (it may be low), fee.
    Admit(Vec<(u64, u64, u128)>),
    /// Cut a block of so many transactions and send it on its way; the first may be dropped instead.
    Cut { count: usize, drop_first: bool },
    /// The oldest block on its way is applied, and leaves a sender with so many transfers' worth.
    Apply { sender: u64, worth: u64, extra_nonces: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let tx = (0..SENDERS, 0..9u64, prop::sample::select(vec![5u128, 10, 11, 20]));
    prop_oneof![
        4 => prop::collection::vec(tx, 0..8).prop_map(Step::Admit),
        2 => (0..6usize, any::<bool>())
            .prop_map(|(count, drop_first)| Step::Cut { count, drop_first }),
        2 => (0..SENDERS, 0..60u64, prop_oneof![4 => Just(0), 1 => 1..3u64]).prop_map(
            |(sender, worth, extra_nonces)| Step::Apply { sender, worth, extra_nonces }
        ),
    ]
}

struct Cut {
    chosen: Vec<(AdmissionId, Transaction)>,
    dropped: Vec<(AdmissionId, Transaction)>,
    pool_index: u64,
}

/// The cluster: two nodes that apply the same log, one of which also leads.
struct Model {
    leader: Bench,
    follower: Pool,
    on_their_way: std::collections::VecDeque<Cut>,
}

impl Model {
    fn new() -> Self {
        let balances: Vec<_> = (0..SENDERS).map(|s| (s, 21_000 * 100)).collect();
        Self {
            leader: Bench::new(&balances),
            follower: Pool::new(),
            on_their_way: Default::default(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Admit(offers) => self.admit(&offers),
            Step::Cut { count, drop_first } => self.cut(count, drop_first),
            Step::Apply { sender, worth, extra_nonces } => self.apply(sender, worth, extra_nonces),
        }
    }

    fn admit(&mut self, offers: &[(u64, u64, u128)]) {
        let tx = |(s, ahead, fee): &(u64, u64, u128)| {
            let nonce = self.leader.accounts[&sender(*s)].nonce + ahead;
            transfer(*s, nonce.saturating_sub(1), *fee)
        };
        let transactions: Vec<_> = offers.iter().map(tx).collect();
        let accounts = self.leader.accounts.clone();
        self.leader.admit(&transactions);
        self.follower.admit(
            self.leader.index,
            &AdmitBatch { transactions },
            |a| accounts[&a],
            &rules(),
        );
    }

    fn cut(&mut self, count: usize, drop_first: bool) {
        let mut in_flight = InFlight::new();
        for cut in &self.on_their_way {
            in_flight.add(cut.chosen.iter().map(|(_, tx)| tx));
            in_flight.add_dropped(cut.dropped.iter().map(|(_, tx)| tx));
        }
        let mut chosen = self.leader.pool.candidates_after(&in_flight, 6, count, u64::MAX);
        let mut next: BTreeMap<Address, u64> = BTreeMap::new();
        for (_, tx) in &chosen {
            let state = self.leader.accounts[&tx.signer()].nonce;
            let from = in_flight.next_nonce(tx.signer()).unwrap_or(0).max(state);
            let expected = next.entry(tx.signer()).or_insert(from);
            assert_eq!(tx.nonce(), *expected, "a gap is offered");
            assert!(tx.max_fee_per_gas() >= 6);
            *expected += 1;
        }
        let mut dropped = Vec::new();
        if drop_first && !chosen.is_empty() {
            let (id, first) = chosen.remove(0);
            chosen.retain(|(_, tx)| tx.signer() != first.signer());
            dropped.push((id, first));
        }
        self.on_their_way.push_back(Cut { chosen, dropped, pool_index: self.leader.index });
    }

    fn apply(&mut self, touched: u64, worth: u64, extra_nonces: u64) {
        let Some(cut) = self.on_their_way.pop_front() else { return };
        let mut accounts = BTreeMap::new();
        let runnable: Vec<_> = cut
            .chosen
            .into_iter()
            .filter(|(_, tx)| {
                // The engine skips what an earlier block made stale, and all that follows.
                let state = self.leader.accounts[&tx.signer()];
                let account = accounts.entry(tx.signer()).or_insert(state);
                let runs = account.nonce == tx.nonce();
                account.nonce += u64::from(runs);
                runs
            })
            .map(|(id, _)| id)
            .collect();
        let state = self.leader.accounts[&sender(touched)];
        let account = accounts.entry(sender(touched)).or_insert(state);
        account.balance = U256::from(worth * 21_000);
        account.nonce += extra_nonces;
        let dropped = cut.dropped.into_iter();
        let entry = BlockEntry {
            header: Header::default(),
            transactions: runnable,
            dropped: dropped
                .map(|(id, _)| DroppedTransaction { id, reason: DropReason::Invalid })
                .collect(),
            receipts: Vec::new(),
            diff: diff_of(&accounts).into(),
            pool_index: cut.pool_index,
            subtrie_roots: Default::default(),
        };
        let included = self.leader.include(&entry).expect("what is on its way can be resolved");
        let index = self.leader.index;
        assert_eq!(self.follower.include(index, &entry), Ok(included));
    }

    fn check(&self) {
        let Bench { pool, accounts, .. } = &self.leader;
        assert_eq!(pool, &self.follower, "same entries, same pool");
        let records = pool.records().cloned().collect();
        let restored = Pool::restore(records, pool.next_id(), |a| accounts[&a]);
        assert_eq!(pool, &restored, "same records, same pool");
        assert_eq!(pool.status(), restored.status());
        assert_eq!(pool.bytes(), restored.bytes());
        assert_eq!(
            pool.candidates(6, usize::MAX, u64::MAX),
            restored.candidates(6, usize::MAX, u64::MAX)
        );
        assert_eq!(pool.has_executable(6), !pool.candidates(6, 1, u64::MAX).is_empty());
        for (address, live) in pool.content() {
            let nonce = accounts[&address].nonce;
            let nonces: Vec<_> = live.executable.iter().map(|tx| tx.nonce()).collect();
            let next = pool.next_nonce(address).expect("a sender with content");
            assert_eq!(nonces, (nonce..next).collect::<Vec<_>>());
            assert!(live.queued.iter().all(|tx| tx.nonce() > next));
            for tx in live.executable.iter().chain(&live.queued) {
                assert!(super::super::sender::cost_of(tx) <= accounts[&address].balance);
                assert_eq!(pool.by_hash(tx.tx_hash()).map(|(_, found)| found), Some(tx));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn histories_keep_the_pool_whole(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in steps {
            model.run(step);
            model.check();
        }
    }
}
