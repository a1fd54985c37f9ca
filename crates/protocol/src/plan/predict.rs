//! What a transaction will cost and write, by what earlier ones of its kind did.
//!
//! Where a call writes depends on its sender and its arguments. What was written is compared with what
//! Solidity makes of them (`balances[to]`, `allowance[from][spender]`) and with fixed slots; what fits
//! becomes a *place*, a rule that says where the next call of that kind will write.

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, U256, keccak256};
use blockraft_primitives::{Transaction, limits::PREDICTED_KIND_COUNT_MAX};
use std::collections::BTreeMap;

/// Nanoseconds for 1000 gas, until something has been measured.
const NS_PER_KILOGAS: u64 = 250;
/// Gas that an unknown call is thought to use at most.
const UNKNOWN_GAS_MAX: u64 = 150_000;
/// Arguments of a call that are looked at.
const ARGUMENT_COUNT_MAX: usize = 4;
/// Slots in which a mapping is looked for.
const MAPPING_SLOT_COUNT: u64 = 12;
/// Places of one kind.
const PLACE_COUNT_MAX: usize = 12;
/// Footprints of a kind that are looked at; later only one in [`SAMPLE_INTERVAL`].
const EAGER_SAMPLE_COUNT: u64 = 16;
/// See [`EAGER_SAMPLE_COUNT`].
const SAMPLE_INTERVAL: u64 = 64;
/// Confidence of a new place; it is forgotten at 0.
const CONFIDENCE_NEW: u8 = 2;
/// Confidence does not grow beyond it.
const CONFIDENCE_MAX: u8 = 6;
/// Transactions of a measurement whose kinds are corrected, about.
const CALIBRATED_COUNT: usize = 256;
/// How much a single measurement counts in the end: one part of this.
const SMOOTHING: u64 = 8;
/// No transaction is thought to cost more, nanoseconds.
const COST_NS_MAX: u64 = 20_000_000_000;

/// What a transaction wrote, credits not counted: those never conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// In any order.
    pub writes: Vec<WriteLocation>,
}

/// A place in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteLocation {
    /// Balance, nonce or code.
    Account(Address),
    /// A storage slot.
    Slot(Address, U256),
}

/// What transactions have in common that do the same with different arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Value without a call.
    Transfer,
    /// A contract is made.
    Create,
    /// Callee and the first four bytes of the input, padded with zeros.
    Call(Address, [u8; 4]),
}

impl Kind {
    /// The kind of a transaction.
    pub fn of(tx: &Transaction) -> Self {
        match tx.to() {
            None => Self::Create,
            Some(_) if tx.input().is_empty() => Self::Transfer,
            Some(to) => {
                let mut selector = [0; 4];
                let len = tx.input().len().min(4);
                selector[..len].copy_from_slice(&tx.input()[..len]);
                Self::Call(to, selector)
            }
        }
    }
}

/// A value that a place is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Sender,
    Argument(u8),
}

/// A rule of where calls of a kind write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Account(Address),
    AccountOf(Word),
    Slot(Address, U256),
    /// `keccak256(key . slot)` of a contract.
    Entry(Address, u64, Word),
    /// An entry of an entry: `keccak256(inner . keccak256(outer . slot))`.
    Nested(Address, u64, Word, Word),
}

/// A running mean of measurements. What stood there before the first one was a guess.
#[derive(Clone, Copy, Debug)]
struct Measured {
    value: u64,
    /// Up to [`SMOOTHING`].
    count: u64,
}

impl Measured {
    const fn guess(value: u64) -> Self {
        Self { value, count: 0 }
    }

    /// The first measurement counts for all, the next ones for their part. Later one bad measurement (a machine that
    /// paused) must not turn the plan upside down.
    fn add(&mut self, sample: u128) {
        self.count = (self.count + 1).min(SMOOTHING);
        let ceiling = match self.count {
            1 => COST_NS_MAX,
            _ => self.value.saturating_mul(4).min(COST_NS_MAX),
        };
        let sample = u64::try_from(sample).unwrap_or(u64::MAX).clamp(1, ceiling.max(1));
        self.value = (self.value * (self.count - 1) + sample).div_ceil(self.count);
    }
}

#[derive(Clone, Debug)]
struct Profile {
    /// What the latest one used.
    gas: u64,
    cost_ns: Measured,
    seen: u64,
    /// With confidence.
    places: Vec<(Place, u8)>,
    /// For whom is forgotten first.
    touched: u64,
}

impl Default for Profile {
    fn default() -> Self {
        let cost_ns = Measured::guess(0);
        Self { gas: 0, cost_ns, seen: 0, places: Vec::new(), touched: 0 }
    }
}

/// What is known of kinds.
#[derive(Clone, Debug)]
pub struct Predictor {
    profiles: BTreeMap<Kind, Profile>,
    /// Of calls, for kinds that this node has never run itself: their owners always have.
    ns_per_kilogas: Measured,
    clock: u64,
}

impl Default for Predictor {
    fn default() -> Self {
        let ns_per_kilogas = Measured::guess(NS_PER_KILOGAS);
        Self { profiles: BTreeMap::new(), ns_per_kilogas, clock: 0 }
    }
}

impl Predictor {
    /// Nanoseconds on the leader.
    pub fn cost_ns(&self, tx: &Transaction) -> u64 {
        self.guess(tx, Kind::of(tx)).0
    }

    /// Nanoseconds and gas.
    fn guess(&self, tx: &Transaction, kind: Kind) -> (u64, u64) {
        let gas_ns = |gas: u64| (gas / 1000 * self.ns_per_kilogas.value).clamp(1, COST_NS_MAX);
        match self.profiles.get(&kind) {
            Some(profile) if profile.cost_ns.count > 0 => (profile.cost_ns.value, profile.gas),
            Some(profile) => (gas_ns(profile.gas), profile.gas),
            None => {
                let gas = tx.gas_limit().min(UNKNOWN_GAS_MAX);
                (gas_ns(gas), gas)
            }
        }
    }

    /// Fingerprints of the spots that a transaction is thought to write, its sender's account first.
    pub fn spots(&self, tx: &Transaction) -> Vec<u64> {
        let mut spots = vec![spot(0, tx.signer(), &[])];
        if let Kind::Call(callee, _) = Kind::of(tx) {
            match self.profiles.get(&Kind::of(tx)).filter(|profile| profile.is_informed()) {
                Some(profile) => spots.extend(profile.spots(tx)),
                None => spots.extend(guessed(tx, callee)),
            }
        }
        spots
    }

    /// See [`super::Planner::learn`].
    pub fn learn(&mut self, tx: &Transaction, gas_used: u64, footprint: Option<&Footprint>) {
        self.clock += 1;
        let kind = Kind::of(tx);
        if !self.profiles.contains_key(&kind) {
            self.make_room();
            self.profiles.insert(kind, Profile::default());
        }
        let Some(profile) = self.profiles.get_mut(&kind) else { return };
        profile.touched = self.clock;
        profile.gas = gas_used;
        if let (Some(footprint), Kind::Call(..)) = (footprint, kind) {
            profile.seen += 1;
            if profile.seen <= EAGER_SAMPLE_COUNT || profile.seen.is_multiple_of(SAMPLE_INTERVAL) {
                profile.observe(tx, footprint);
            }
        }
    }

    /// See [`super::Planner::calibrate`].
    pub fn calibrate<'a>(
        &mut self,
        transactions: impl Iterator<Item = &'a Transaction> + Clone,
        actual_ns: u64,
    ) {
        let (mut predicted, mut predicted_calls, mut gas_of_calls) = (0, 0, 0);
        for tx in transactions.clone() {
            let kind = Kind::of(tx);
            let (cost_ns, gas) = self.guess(tx, kind);
            predicted += u128::from(cost_ns);
            if kind != Kind::Transfer {
                predicted_calls += u128::from(cost_ns);
                gas_of_calls += u128::from(gas);
            }
        }
        if predicted == 0 {
            return;
        }
        let actual_ns = u128::from(actual_ns.min(COST_NS_MAX));
        // What is rare among many has next to no part in the sum.
        let step = (transactions.clone().count() / CALIBRATED_COUNT).max(1);
        let sampled: BTreeMap<Kind, u64> =
            transactions.step_by(step).map(|tx| (Kind::of(tx), self.cost_ns(tx))).collect();
        for (kind, thought_ns) in sampled {
            if let Some(profile) = self.profiles.get_mut(&kind) {
                profile.cost_ns.add(u128::from(thought_ns) * actual_ns / predicted);
            }
        }
        let actual_of_calls = actual_ns * predicted_calls / predicted;
        if let Some(ns_per_kilogas) = (actual_of_calls * 1000).checked_div(gas_of_calls) {
            self.ns_per_kilogas.add(ns_per_kilogas);
        }
    }

    fn make_room(&mut self) {
        if self.profiles.len() < PREDICTED_KIND_COUNT_MAX {
            return;
        }
        // Rare, and half at once, so that it stays rare.
        let mut touched: Vec<u64> = self.profiles.values().map(|p| p.touched).collect();
        touched.sort_unstable();
        let median = touched[touched.len() / 2];
        self.profiles.retain(|_, profile| profile.touched > median);
    }
}

impl Profile {
    /// Whether anybody has looked at what such calls write.
    fn is_informed(&self) -> bool {
        self.seen > 0
    }

    fn spots(&self, tx: &Transaction) -> impl Iterator<Item = u64> {
        self.places.iter().filter_map(|(place, _)| place.spot(tx))
    }

    fn observe(&mut self, tx: &Transaction, footprint: &Footprint) {
        let mut found: Vec<Place> = Vec::new();
        let sender = WriteLocation::Account(tx.signer());
        for write in footprint.writes.iter().filter(|write| **write != sender) {
            let known = self.places.iter().map(|(place, _)| *place);
            let place = known
                .clone()
                .find(|place| place.location(tx) == Some(*write))
                .unwrap_or_else(|| explain(tx, write));
            found.push(place);
        }
        for (place, confidence) in &mut self.places {
            let hit = found.contains(place);
            *confidence = if hit { (*confidence + 1).min(CONFIDENCE_MAX) } else { *confidence - 1 };
        }
        self.places.retain(|(_, confidence)| *confidence > 0);
        for place in found {
            let known = self.places.iter().any(|(known, _)| *known == place);
            if !known && self.places.len() < PLACE_COUNT_MAX {
                self.places.push((place, CONFIDENCE_NEW));
            }
        }
    }
}

impl Word {
    fn of(self, tx: &Transaction) -> Option<B256> {
        match self {
            Self::Sender => Some(tx.signer().into_word()),
            Self::Argument(at) => {
                let from = 4 + 32 * usize::from(at);
                tx.input().get(from..from + 32).map(B256::from_slice)
            }
        }
    }

    /// All that a transaction has.
    fn all() -> impl Iterator<Item = Self> + Clone {
        let arguments = (0..ARGUMENT_COUNT_MAX as u8).map(Self::Argument);
        std::iter::once(Self::Sender).chain(arguments)
    }
}

impl Place {
    /// Where a transaction will write by this rule.
    fn location(self, tx: &Transaction) -> Option<WriteLocation> {
        Some(match self {
            Self::Account(address) => WriteLocation::Account(address),
            Self::AccountOf(word) => WriteLocation::Account(Address::from_word(word.of(tx)?)),
            Self::Slot(contract, slot) => WriteLocation::Slot(contract, slot),
            Self::Entry(contract, at, key) => {
                WriteLocation::Slot(contract, entry(key.of(tx)?, slot_word(at)).into())
            }
            Self::Nested(contract, at, outer, inner) => {
                let outer = entry(outer.of(tx)?, slot_word(at));
                WriteLocation::Slot(contract, entry(inner.of(tx)?, outer).into())
            }
        })
    }

    /// The same as a fingerprint, without hashing like Solidity: rules of one contract that lead to one
    /// slot are nearly always one rule.
    fn spot(self, tx: &Transaction) -> Option<u64> {
        Some(match self {
            Self::Account(address) => spot(0, address, &[]),
            Self::AccountOf(word) => spot(0, Address::from_word(word.of(tx)?), &[]),
            Self::Slot(contract, slot) => spot(1, contract, &[slot.into()]),
            Self::Entry(contract, at, key) => spot(2, contract, &[slot_word(at), key.of(tx)?]),
            Self::Nested(contract, at, outer, inner) => {
                spot(3, contract, &[slot_word(at), outer.of(tx)?, inner.of(tx)?])
            }
        })
    }
}

/// The rule behind a write.
fn explain(tx: &Transaction, write: &WriteLocation) -> Place {
    match *write {
        WriteLocation::Account(address) => Word::all()
            .find(|word| word.of(tx) == Some(address.into_word()))
            .map_or(Place::Account(address), Place::AccountOf),
        WriteLocation::Slot(contract, slot) => explain_slot(tx, contract, slot),
    }
}

fn explain_slot(tx: &Transaction, contract: Address, slot: U256) -> Place {
    let fixed = Place::Slot(contract, slot);
    if slot < U256::from(1 << 16) {
        return fixed;
    }
    let target = B256::from(slot);
    let words = Word::all().filter_map(|word| Some((word, word.of(tx)?)));
    let mut outers = Vec::new();
    for (word, value) in words.clone() {
        for at in 0..MAPPING_SLOT_COUNT {
            let hashed = entry(value, slot_word(at));
            if hashed == target {
                return Place::Entry(contract, at, word);
            }
            outers.push((at, word, hashed));
        }
    }
    for (at, outer, hashed) in outers {
        for (inner, value) in words.clone() {
            if inner != outer && entry(value, hashed) == target {
                return Place::Nested(contract, at, outer, inner);
            }
        }
    }
    fixed
}

/// Nobody has looked yet: the access list says it, or else all calls of a contract are taken to meet.
fn guessed(tx: &Transaction, callee: Address) -> Vec<u64> {
    let listed = tx.access_list().filter(|list| !list.is_empty());
    let Some(list) = listed else { return vec![spot(4, callee, &[])] };
    let slots = list
        .iter()
        .flat_map(|item| item.storage_keys.iter().map(|slot| spot(1, item.address, &[*slot])));
    slots.collect()
}

/// Where Solidity keeps `mapping[key]`.
fn entry(key: B256, mapping: B256) -> B256 {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(key.as_slice());
    bytes[32..].copy_from_slice(mapping.as_slice());
    keccak256(bytes)
}

fn slot_word(at: u64) -> B256 {
    U256::from(at).into()
}

/// A fingerprint; two spots with one fingerprint are placed together for nothing, and no more.
fn spot(tag: u64, address: Address, words: &[B256]) -> u64 {
    let mut mixed = tag;
    let mut mix = |bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mixed = (mixed.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    };
    mix(address.as_slice());
    for word in words {
        mix(word.as_slice());
    }
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{sender, unsigned};
    use alloy_consensus::TxEip1559;
    use alloy_eips::eip2930::{AccessList, AccessListItem};
    use alloy_primitives::{Bytes, TxKind, address};

    const TOKEN: Address = address!("5fbdb2315678afecb367f032d93f642f64180aa3");

    fn call(from: u64, selector: u8, arguments: &[B256]) -> Transaction {
        let mut input = vec![selector; 4];
        arguments.iter().for_each(|word| input.extend_from_slice(word.as_slice()));
        unsigned(
            from,
            TxEip1559 {
                gas_limit: 90_000,
                to: TxKind::Call(TOKEN),
                input: Bytes::from(input),
                ..TxEip1559::default()
            },
        )
    }

    fn balance(of: Address) -> WriteLocation {
        WriteLocation::Slot(TOKEN, entry(of.into_word(), slot_word(3)).into())
    }

    fn transfer_to(from: u64, to: u64) -> (Transaction, Footprint) {
        let tx = call(from, 0xa9, &[sender(to).into_word(), B256::with_last_byte(1)]);
        let account = WriteLocation::Account(sender(from));
        (tx, Footprint { writes: vec![account, balance(sender(from)), balance(sender(to))] })
    }

    #[test]
    fn a_token_transfer_is_predicted_to_write_both_balances() {
        let mut predictor = Predictor::default();
        let (tx, footprint) = transfer_to(1, 2);
        // Nobody has looked: all calls of the contract meet.
        let common = predictor.spots(&tx)[1];
        assert!(predictor.spots(&transfer_to(3, 4).0).contains(&common));
        predictor.learn(&tx, 50_000, Some(&footprint));

        let spots = |from, to| predictor.spots(&transfer_to(from, to).0);
        let meet = |a: Vec<u64>, b: Vec<u64>| a.iter().any(|spot| b.contains(spot));
        assert_eq!(spots(3, 4).len(), 3);
        assert!(!meet(spots(3, 4), spots(5, 6)));
        assert!(meet(spots(3, 4), spots(5, 4)), "one recipient");
        assert!(meet(spots(3, 4), spots(4, 6)), "recipient and sender");
    }

    #[test]
    fn nested_mappings_and_fixed_slots_are_found() {
        let owner = sender(8).into_word();
        let allowance = entry(sender(1).into_word(), entry(owner, slot_word(4)));
        let tx = call(1, 0x23, &[owner, sender(9).into_word()]);
        let slot = |slot: B256| WriteLocation::Slot(TOKEN, slot.into());
        assert_eq!(
            explain(&tx, &slot(allowance)),
            Place::Nested(TOKEN, 4, Word::Argument(0), Word::Sender)
        );
        assert_eq!(explain(&tx, &slot(slot_word(6))), Place::Slot(TOKEN, U256::from(6)));
        let other = slot(B256::repeat_byte(0xee));
        assert_eq!(explain(&tx, &other), Place::Slot(TOKEN, B256::repeat_byte(0xee).into()));
        for location in [slot(allowance), other, WriteLocation::Account(sender(9))] {
            assert_eq!(explain(&tx, &location).location(&tx), Some(location));
        }
    }

    #[test]
    fn what_is_not_written_again_is_forgotten() {
        let mut predictor = Predictor::default();
        let (tx, mut footprint) = transfer_to(1, 2);
        footprint.writes.push(WriteLocation::Slot(TOKEN, U256::MAX));
        predictor.learn(&tx, 50_000, Some(&footprint));
        assert_eq!(predictor.spots(&tx).len(), 4);
        for _ in 0..2 {
            let (tx, footprint) = transfer_to(3, 4);
            predictor.learn(&tx, 50_000, Some(&footprint));
        }
        assert_eq!(predictor.spots(&tx).len(), 3);
    }

    #[test]
    fn an_access_list_speaks_for_an_unknown_call() {
        let listed = |slot: u8| {
            let storage_keys = vec![B256::with_last_byte(slot)];
            unsigned(
                1,
                TxEip1559 {
                    to: TxKind::Call(TOKEN),
                    input: Bytes::from(vec![1, 2, 3, 4]),
                    access_list: AccessList(vec![AccessListItem { address: TOKEN, storage_keys }]),
                    ..TxEip1559::default()
                },
            )
        };
        let predictor = Predictor::default();
        assert_eq!(predictor.spots(&listed(1)).len(), 2);
        assert_ne!(predictor.spots(&listed(1))[1], predictor.spots(&listed(2))[1]);
    }

    #[test]
    fn costs_follow_what_is_measured() {
        let mut predictor = Predictor::default();
        let (tx, _) = transfer_to(1, 2);
        assert_eq!(predictor.cost_ns(&tx), 90 * NS_PER_KILOGAS);
        predictor.learn(&tx, 50_000, None);
        assert_eq!(predictor.cost_ns(&tx), 50 * NS_PER_KILOGAS);
        // The first measurement counts for all that gas has said.
        predictor.calibrate([&tx, &tx].into_iter(), 2_000_000);
        assert_eq!(predictor.cost_ns(&tx), 1_000_000);
        for _ in 0..100 {
            predictor.calibrate([&tx, &tx].into_iter(), 14_000);
        }
        assert!((6_900..=7_300).contains(&predictor.cost_ns(&tx)), "{}", predictor.cost_ns(&tx));
        let before = predictor.cost_ns(&tx);
        predictor.calibrate([&tx].into_iter(), u64::MAX);
        assert!(predictor.cost_ns(&tx) < before * 2);
    }

    #[test]
    fn what_was_never_run_here_costs_what_its_gas_costs_elsewhere() {
        let mut predictor = Predictor::default();
        let (known, _) = transfer_to(1, 2);
        let unknown = call(1, 0x17, &[]);
        predictor.learn(&known, 50_000, None);
        predictor.learn(&unknown, 80_000, None);
        let value = TxEip1559 { to: TxKind::Call(TOKEN), gas_limit: 21_000, ..Default::default() };
        let value = unsigned(3, value);
        predictor.learn(&value, 21_000, None);
        // Plain transfers take next to nothing of what was measured, and say nothing about calls.
        predictor.calibrate([&value].into_iter(), 1_000);
        assert_eq!(predictor.cost_ns(&unknown), 80 * NS_PER_KILOGAS);
        predictor.calibrate([&known, &value].into_iter(), 4 * 50 * NS_PER_KILOGAS + 4_000);
        assert_eq!(predictor.cost_ns(&unknown), 4 * 80 * NS_PER_KILOGAS);
        assert_eq!(predictor.cost_ns(&known), 4 * 50 * NS_PER_KILOGAS);
        // Once it has been run here, that counts.
        predictor.calibrate([&unknown].into_iter(), 7_000);
        assert_eq!(predictor.cost_ns(&unknown), 7_000);
    }

    #[test]
    fn kinds_are_bounded() {
        let mut predictor = Predictor::default();
        for number in 0..PREDICTED_KIND_COUNT_MAX as u64 + 10 {
            let to = TxKind::Call(sender(number));
            let input = Bytes::from(vec![1, 2, 3, 4]);
            predictor.learn(&unsigned(1, TxEip1559 { to, input, ..Default::default() }), 1, None);
        }
        assert!(predictor.profiles.len() <= PREDICTED_KIND_COUNT_MAX);
    }
}
