//! What holds of the memory in any order of its threads' steps.

use super::*;
use crate::engine::sync::in_any_order;
use shuttle::thread;

const SLOT: U256 = U256::from_limbs([7, 0, 0, 0]);

/// A counter that has not moved since before a read says that the read holds, whatever others did
/// meanwhile, in the middle of it too.
#[test]
fn unmoved_counter_never_hides_a_change() {
    in_any_order(20_000, || {
        let memory = memory();
        let (seen, read) = thread::scope(|scope| {
            scope.spawn(|| {
                memory.publish(2, &set(with(2, 20), &[(7, 20)]));
                memory.retract(2, &set(with(2, 20), &[(7, 20)]));
                memory.publish(2, &set(with(3, 30), &[(8, 30)]));
            });
            scope.spawn(|| memory.publish(3, &credit(ALICE, 5)));
            scope.spawn(|| memory.publish(4, &set(with(4, 40), &[(7, 40)])));
            let account = memory.seen_value(ALICE, memory.account_mark(ALICE));
            let slot = memory.slot_mark(ALICE, SLOT).shape();
            ([account, slot], reads(&memory))
        });
        let [account, slot] = seen.map(|seen| memory.is_unmoved(seen));
        let now = reads(&memory);
        assert!(!account || read.0 == now.0, "{read:?} became {now:?}");
        assert!(!slot || read.1 == now.1, "{read:?} became {now:?}");
    });
}

/// Whatever readers saw on the way, at the end everybody sees what was published, and the diff is that.
#[test]
fn what_is_published_is_there_for_all() {
    in_any_order(10_000, || {
        let memory = memory();
        thread::scope(|scope| {
            for place in 1..4 {
                let memory = &memory;
                scope.spawn(move || {
                    let number = u64::from(place);
                    reads(memory);
                    memory.publish(place, &set(with(number, 10), &[(7, number), (8, number)]));
                    memory.publish(place, &credit(BOB, number));
                    memory.publish(place, &credit(CAROL, number));
                });
            }
        });
        let seen = |place| (memory.account(BOB, place).unwrap(), slot(&memory, 7, place));
        assert_eq!(seen(1), (None, 7));
        assert_eq!(seen(3), (Some(with(0, 3)), 2));
        assert_eq!(seen(9), (Some(with(0, 6)), 3));
        let diff = memory.into_diff().unwrap();
        let balances: Vec<_> = diff.accounts.iter().map(|account| account.change).collect();
        let [alice, bob, carol] = [with(3, 10), with(0, 6), with(0, 6)].map(AccountChange::Set);
        assert_eq!(balances, [alice, bob, carol]);
    });
}

/// What a transaction at the end of the block reads.
fn reads(memory: &Memory<MemoryState>) -> (Option<Account>, U256) {
    (memory.account(ALICE, 9).unwrap(), memory.slot(ALICE, SLOT, 9).unwrap())
}
