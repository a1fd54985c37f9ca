//! What readers see of what writers wrote, by place.

use super::*;
use crate::engine::{outcome::Read, sync::alone};
use alloy_consensus::Header;
use blockraft_primitives::{MemoryState, StateDiff};

mod orders;

const ALICE: Address = Address::repeat_byte(0xa1);
const BOB: Address = Address::repeat_byte(0xb0);
const CAROL: Address = Address::repeat_byte(0xca);

fn with(nonce: u64, balance: u64) -> Account {
    Account { nonce, balance: U256::from(balance), ..Default::default() }
}

/// Alice has nonce 1 and 100 wei, and 7 in slot 7; Bob is not there.
fn memory() -> Memory<MemoryState> {
    let mut state = MemoryState::default();
    state.accounts.insert(ALICE, with(1, 100));
    state.storage.entry(ALICE).or_default().insert(U256::from(7), U256::from(7));
    over(state)
}

/// Of a block that pays CAROL.
fn over(state: MemoryState) -> Memory<MemoryState> {
    let expected = Expected { places: 20, ..Expected::default() };
    Memory::new(state, Parent::of(&Header::default(), None), CAROL, expected)
}

fn set(account: Account, slots: &[(u64, u64)]) -> Writes {
    write(AccountChange::Set(account), false, slots)
}

fn write(change: AccountChange, storage_wiped: bool, slots: &[(u64, u64)]) -> Writes {
    let slot = |&(slot, value)| SlotChange { slot: U256::from(slot), value: U256::from(value) };
    let storage = slots.iter().map(slot).collect();
    let accounts = vec![AccountDiff { address: ALICE, change, storage_wiped, storage }];
    Writes { accounts, ..Writes::default() }
}

fn credit(address: Address, wei: u64) -> Writes {
    Writes { differences: vec![Difference { address, wei: U256::from(wei) }], ..Writes::default() }
}

fn slot(memory: &Memory<MemoryState>, slot: u64, place: Place) -> u64 {
    memory.slot(ALICE, U256::from(slot), place).unwrap().to()
}

#[test]
fn reader_sees_the_last_version_before_its_place() {
    alone(|| {
        let memory = memory();
        memory.publish(5, &set(with(3, 50), &[(7, 50)]));
        memory.publish(3, &set(with(2, 30), &[(7, 30)]));
        let seen: Vec<_> = [0, 3, 4, 5, 6]
            .map(|place| {
                (memory.account(ALICE, place).unwrap().unwrap().nonce, slot(&memory, 7, place))
            })
            .to_vec();
        assert_eq!(seen, [(1, 7), (1, 7), (2, 30), (2, 30), (3, 50)]);
    });
}

#[test]
fn retracted_version_was_never_there() {
    alone(|| {
        let memory = memory();
        let writes = set(with(2, 30), &[(7, 30), (8, 30)]);
        memory.publish(3, &writes);
        memory.retract(3, &writes);
        assert_eq!(memory.account(ALICE, 9).unwrap(), Some(with(1, 100)));
        assert_eq!((slot(&memory, 7, 9), slot(&memory, 8, 9)), (7, 0));
        assert_eq!(memory.into_diff().unwrap(), StateDiff::default());
    });
}

#[test]
fn differences_add_up_from_the_last_version_on() {
    alone(|| {
        let memory = memory();
        memory.publish(2, &credit(ALICE, 1));
        memory.publish(4, &credit(ALICE, 10));
        memory.publish(4, &set(with(2, 50), &[]));
        memory.publish(6, &credit(ALICE, 100));
        let balance = |place| memory.account(ALICE, place).unwrap().unwrap().balance.to::<u64>();
        assert_eq!([2, 3, 4, 5, 6, 7].map(balance), [100, 101, 101, 60, 60, 160]);
    });
}

#[test]
fn unmoved_mark_says_that_nothing_changed() {
    alone(|| {
        let memory = memory();
        let marks = |memory: &Memory<MemoryState>| {
            (memory.account_mark(ALICE), memory.slot_mark(ALICE, U256::from(7)))
        };
        let (account, slot) = marks(&memory);
        memory.account(ALICE, 9).unwrap();
        assert_eq!(marks(&memory), (account, slot), "reading is no change");
        memory.publish(2, &credit(ALICE, 1));
        let (credited, _) = marks(&memory);
        assert_eq!(credited.shape, account.shape);
        assert_ne!(credited.value, account.value);
        memory.publish(3, &set(with(2, 5), &[(7, 5)]));
        let (written, slot_written) = marks(&memory);
        assert_ne!((written.shape, slot_written), (credited.shape, slot));
        memory.retract(3, &set(with(2, 5), &[(7, 5)]));
        assert_ne!(marks(&memory), (written, slot_written));
    });
}

#[test]
fn balance_goes_down_by_a_difference() {
    alone(|| {
        let memory = memory();
        let minus = Difference { address: ALICE, wei: U256::from(30).wrapping_neg() };
        memory.publish(2, &Writes { differences: vec![minus], ..Writes::default() });
        memory.publish(3, &credit(ALICE, 7));
        let balance = |place| memory.account(ALICE, place).unwrap().unwrap().balance.to::<u64>();
        assert_eq!([2, 3, 4].map(balance), [100, 70, 77]);
        assert_eq!(memory.account_writer(ALICE, 4), Some(3));
        assert_eq!(memory.into_diff().unwrap().accounts[0].change, AccountChange::Set(with(1, 77)));
    });
}

#[test]
fn credit_creates_an_account_that_nobody_read() {
    alone(|| {
        let memory = memory();
        memory.publish(2, &credit(BOB, 5));
        let expected = AccountDiff {
            address: BOB,
            change: AccountChange::Set(with(0, 5)),
            storage_wiped: false,
            storage: vec![],
        };
        assert_eq!(memory.into_diff().unwrap().accounts, [expected]);
    });
}

#[test]
fn wipe_hides_older_slots_and_not_those_written_with_it() {
    alone(|| {
        let memory = memory();
        memory.publish(2, &set(with(1, 100), &[(8, 8)]));
        memory.publish(4, &write(AccountChange::Set(with(1, 0)), true, &[(9, 9)]));
        let seen = |place| [7, 8, 9].map(|number| slot(&memory, number, place));
        assert_eq!((seen(4), seen(5)), ([7, 8, 0], [0, 0, 9]));
        memory.publish(6, &set(with(1, 0), &[(7, 1)]));
        assert_eq!(seen(7), [1, 0, 9]);
    });
}

#[test]
fn value_that_comes_back_is_no_change() {
    alone(|| {
        let memory = memory();
        assert_eq!(slot(&memory, 7, 1), 7);
        memory.account(ALICE, 1).unwrap();
        memory.publish(1, &set(with(2, 1), &[(7, 0)]));
        memory.publish(2, &set(with(1, 100), &[(7, 7)]));
        assert_eq!(memory.into_diff().unwrap(), StateDiff::default());
    });
}

#[test]
fn deleted_account_is_gone_with_its_slots() {
    alone(|| {
        let memory = memory();
        memory.publish(2, &write(AccountChange::Deleted, true, &[]));
        assert_eq!((memory.account(ALICE, 3).unwrap(), slot(&memory, 7, 3)), (None, 0));
        let diff = memory.into_diff().unwrap();
        assert_eq!(diff.accounts[0].change, AccountChange::Deleted);
    });
}

#[test]
fn empty_account_in_the_parent_state_is_irregular() {
    alone(|| {
        let mut state = MemoryState::default();
        state.accounts.insert(BOB, Account::default());
        let memory = over(state);
        memory.account(ALICE, 1).unwrap();
        assert!(!memory.is_irregular());
        memory.account(BOB, 1).unwrap();
        assert!(memory.is_irregular());
    });
}

#[test]
fn tips_add_up_like_other_differences() {
    alone(|| {
        let memory = memory();
        let huge = Difference { address: CAROL, wei: U256::from(1) << 130 };
        memory.publish(2, &credit(CAROL, 5));
        memory.publish(2, &credit(CAROL, 6));
        memory.publish(4, &Writes { differences: vec![huge], ..Writes::default() });
        memory.publish(5, &credit(CAROL, 1));
        let balance = |place| memory.account(CAROL, place).unwrap().map(|carol| carol.balance);
        let expected = [None, Some(U256::from(11)), Some(huge.wei + U256::from(11))];
        assert_eq!([2, 4, 5].map(balance), expected);
        assert_eq!(
            [2, 3, 5, 6].map(|p| memory.account_writer(CAROL, p)),
            [None, Some(2), Some(4), Some(5)]
        );
        memory.retract(4, &Writes { differences: vec![huge], ..Writes::default() });
        memory.retract(2, &credit(CAROL, 11));
        assert_eq!(balance(9), Some(U256::from(1)));
        let seen = memory.seen_value(CAROL, memory.account_mark(CAROL));
        assert!(!memory.is_unmoved(seen), "tips leave no marks, so nothing says that none came");
        let diff = memory.into_diff().unwrap();
        assert_eq!(diff.accounts[0].change, AccountChange::Set(with(0, 1)));
    });
}

#[test]
fn account_is_still_until_somebody_writes_to_it() {
    alone(|| {
        let memory = memory();
        let still = |place| memory.account_and_stillness(ALICE, place).unwrap();
        assert_eq!(still(9), (Some(with(1, 100)), true));
        memory.publish(5, &set(with(2, 50), &[]));
        assert_eq!(still(3), (Some(with(1, 100)), false));
        assert_eq!(still(9), (Some(with(2, 50)), false));
    });
}

#[test]
fn parent_is_read_anew_only_where_somebody_before_has_written() {
    alone(|| {
        let memory = memory();
        let contract = Read::Shape(ALICE, B256::repeat_byte(1), U256::ZERO);
        let payer = Read::Shape(ALICE, B256::repeat_byte(1), U256::from(1));
        let whole = Read::Account(ALICE, Some(with(1, 100)));
        let slots = [7, 8].map(|slot| Read::Slot(ALICE, U256::from(slot), U256::ZERO));
        let reads = [contract, Read::Codeless(ALICE), payer, whole, slots[0], slots[1]];
        let holds = |place| reads.map(|read| memory.is_as_in_parent(&read, place));
        assert_eq!(holds(9), [true; 6]);
        memory.publish(3, &credit(ALICE, 1));
        assert_eq!((holds(3), holds(4)), ([true; 6], [true, true, false, false, true, true]));
        memory.publish(5, &set(with(2, 50), &[(7, 50)]));
        assert_eq!(holds(5), holds(4));
        assert_eq!(holds(6), [false, false, false, false, false, true]);
        memory.publish(7, &write(AccountChange::Set(with(1, 0)), true, &[]));
        assert_eq!(holds(8), [false; 6]);
        assert!(!memory.is_as_in_parent(&Read::Account(CAROL, None), 1), "tips leave no marks");
        assert!(memory.is_as_in_parent(&Read::Codeless(CAROL), 1));
    });
}

#[test]
fn irregular_account_that_somebody_else_read_is_found() {
    alone(|| {
        let memory = memory();
        memory.is_as_in_parent(&Read::Account(BOB, Some(with(1, 0))), 1);
        assert!(!memory.is_irregular());
        memory.is_as_in_parent(&Read::Account(BOB, Some(Account::default())), 1);
        assert!(memory.is_irregular());
    });
}

#[test]
fn location_that_was_written_once_has_changed() {
    alone(|| {
        let memory = memory();
        // Nobody here has read any of it. One slot was written twice, and is as it was.
        let bob = AccountDiff {
            address: BOB,
            change: AccountChange::Set(with(4, 4)),
            storage_wiped: false,
            storage: vec![],
        };
        let writes = Writes { accounts: vec![bob.clone()], ..Writes::default() };
        memory.publish(2, &writes);
        memory.publish(3, &write(AccountChange::Unchanged, false, &[(7, 1), (9, 2), (8, 3)]));
        memory.publish(4, &write(AccountChange::Unchanged, false, &[(7, 7)]));
        let change = |slot, value| SlotChange { slot: U256::from(slot), value: U256::from(value) };
        let alice = AccountDiff {
            address: ALICE,
            change: AccountChange::Unchanged,
            storage_wiped: false,
            storage: vec![change(8, 3), change(9, 2)],
        };
        let expected = StateDiff { accounts: vec![alice, bob], codes: vec![] };
        assert_eq!(memory.into_diff().unwrap(), expected);
    });
}
