use super::*;
use crate::{
    PoolError,
    testing::{BLOCK_GAS, CHAIN_ID, account, rules, sender, transfer, unsigned},
};
use alloy_consensus::{
    Header, SignableTransaction, TxEip1559, TxEip4844, TxEnvelope, transaction::Recovered,
};
use alloy_primitives::U256;
use blockraft_primitives::{
    AccountChange, AccountDiff, AdmitBatch, BlockEntry, DropReason, DroppedTransaction, StateDiff,
    limits,
};

mod model;

const RICH: u64 = 1_000_000_000_000;

fn id(id: u64) -> AdmissionId {
    AdmissionId(id)
}

/// A pool under test, with the state below it and the log index of the last entry.
#[derive(Clone, Debug, Default)]
struct Bench {
    pool: Pool,
    accounts: BTreeMap<Address, Account>,
    index: u64,
}

impl Bench {
    fn new(balances: &[(u64, u64)]) -> Self {
        let accounts = balances.iter().map(|(s, b)| (sender(*s), account(0, *b))).collect();
        Self { accounts, ..Self::default() }
    }

    fn admit(&mut self, transactions: &[Transaction]) -> Vec<Result<AdmissionId, PoolError>> {
        self.index += 1;
        let batch = AdmitBatch { transactions: transactions.to_vec() };
        let accounts = &self.accounts;
        let account_of = |a| accounts.get(&a).copied().unwrap_or_default();
        self.pool.admit(self.index, &batch, account_of, &rules()).verdicts
    }

    fn admit_one(&mut self, tx: &Transaction) -> Result<AdmissionId, PoolError> {
        self.admit(std::slice::from_ref(tx)).remove(0)
    }

    /// A block of these transactions; each sender's nonce rises, and `balances` are what they then have.
    fn entry(&self, ids: &[u64], dropped: &[u64], balances: &[(u64, u64)]) -> BlockEntry {
        let mut accounts = BTreeMap::new();
        for (s, balance) in balances {
            let nonce = self.accounts.get(&sender(*s)).map_or(0, |a| a.nonce);
            accounts.insert(sender(*s), account(nonce, *balance));
        }
        for &i in ids {
            let tx = self.pool.by_id(id(i)).expect("the block names what the pool holds");
            let before = self.accounts.get(&tx.signer()).copied().unwrap_or_default();
            let entry = accounts.entry(tx.signer()).or_insert(before);
            entry.nonce = entry.nonce.max(tx.nonce() + 1);
        }
        let dropped = dropped
            .iter()
            .map(|i| DroppedTransaction { id: id(*i), reason: DropReason::Poison })
            .collect();
        BlockEntry {
            header: Header::default(),
            transactions: ids.iter().copied().map(id).collect(),
            dropped,
            receipts: Vec::new(),
            diff: diff_of(&accounts).into(),
            pool_index: self.index,
            subtrie_roots: Default::default(),
        }
    }

    fn include(&mut self, entry: &BlockEntry) -> Result<Included, IncludeError> {
        let included = self.pool.include(self.index + 1, entry)?;
        self.index += 1;
        for change in &entry.diff.accounts {
            if let AccountChange::Set(account) = change.change {
                self.accounts.insert(change.address, account);
            }
        }
        Ok(included)
    }

    fn offered(&self, base_fee: u128, count: usize) -> Vec<u64> {
        ids_of(&self.pool.candidates(base_fee, count, BLOCK_GAS))
    }
}

fn diff_of(accounts: &BTreeMap<Address, Account>) -> StateDiff {
    let set = |(address, account): (&Address, &Account)| AccountDiff {
        address: *address,
        change: AccountChange::Set(*account),
        storage_wiped: false,
        storage: Vec::new(),
    };
    StateDiff { accounts: accounts.iter().map(set).collect(), codes: Vec::new() }
}

fn ids_of(candidates: &[(AdmissionId, Transaction)]) -> Vec<u64> {
    candidates.iter().map(|(id, _)| id.0).collect()
}

#[test]
fn an_admitted_transaction_is_found_and_offered() {
    let mut bench = Bench::new(&[(0, RICH)]);
    let tx = transfer(0, 0, 10);
    assert_eq!(bench.admit_one(&tx), Ok(id(0)));
    assert_eq!(bench.pool.by_hash(tx.tx_hash()), Some((id(0), &tx)));
    assert_eq!(bench.pool.by_id(id(0)), Some(&tx));
    assert_eq!(bench.pool.next_nonce(sender(0)), Some(1));
    assert_eq!(bench.pool.next_nonce(sender(1)), None);
    assert_eq!(bench.pool.status(), (1, 0));
    assert_eq!((bench.pool.len(), bench.pool.bytes()), (1, tx.encode_2718_len()));
    assert_eq!(bench.pool.candidates(10, 9, BLOCK_GAS), [(id(0), tx)]);
    assert!(bench.pool.has_executable(10));
    assert!(!bench.pool.has_executable(11));
    assert_eq!(bench.offered(11, 9), [0u64; 0]);
}

#[test]
fn refusals_name_what_is_wrong() {
    let cost = U256::from(210_000);
    let mut bench = Bench::new(&[(0, 210_000 * 3), (1, 210_000 - 1)]);
    bench.accounts.insert(sender(2), account(5, RICH));
    let gas = TxEip1559 { chain_id: CHAIN_ID, gas_limit: BLOCK_GAS + 1, ..TxEip1559::default() };
    let verdicts = bench.admit(&[
        transfer(0, 0, 10),
        transfer(0, 0, 10),
        transfer(0, 0, 9),
        transfer(0, 65, 1),
        transfer(0, 66, 1),
        transfer(0, 1, 30),
        transfer(0, 0, 30),
        transfer(1, 0, 10),
        transfer(2, 4, 10),
        unsigned(2, gas),
    ]);
    let queued = U256::from(231_000);
    let balance = cost * U256::from(3);
    let expected = [
        Ok(id(0)),
        Err(PoolError::AlreadyKnown),
        Err(PoolError::ReplacementUnderpriced),
        Ok(id(1)),
        Err(PoolError::NonceTooHigh { nonce: 66, gapped: 1 }),
        Err(PoolError::QueuedFunds { balance, queued, cost: balance }),
        Err(PoolError::BumpedFunds { balance, queued, bump: cost * U256::from(2) }),
        Err(PoolError::Funds { balance: cost - U256::from(1), cost }),
        Err(PoolError::NonceTooLow { next: 5, nonce: 4 }),
        Err(PoolError::BlockGasLimit),
    ];
    assert_eq!(verdicts, expected);
    assert_eq!(
        expected[5].as_ref().unwrap_err().to_string(),
        "insufficient funds for gas * price + value: balance 630000, queued cost 231000, tx cost 630000, overshot 231000"
    );
    assert_eq!(
        expected[6].as_ref().unwrap_err().to_string(),
        "insufficient funds for gas * price + value: balance 630000, queued cost 231000, tx bumped 420000, overshot 21000"
    );
    assert_eq!(
        expected[7].as_ref().unwrap_err().to_string(),
        "insufficient funds for gas * price + value: balance 209999, tx cost 210000, overshot 1"
    );
}

#[test]
fn the_early_check_leaves_to_the_log_what_entries_on_their_way_may_change() {
    let bench = Bench::new(&[]);
    let early = |in_flight: &InFlight, tx: &Transaction, account| {
        bench.pool.check_early(in_flight, tx, account, &rules())
    };
    let rich = account(3, RICH);
    let none = InFlight::new();
    assert_eq!(early(&none, &transfer(0, 500, 10), rich), Ok(()));
    assert_eq!(
        early(&none, &transfer(0, 2, 10), rich),
        Err(PoolError::NonceTooLow { next: 3, nonce: 2 })
    );
    let mut in_flight = InFlight::new();
    in_flight.add(&[transfer(0, 3, 10), transfer(0, 4, 10)]);
    assert_eq!(
        early(&in_flight, &transfer(0, 4, 99), rich),
        Err(PoolError::NonceTooLow { next: 5, nonce: 4 })
    );
    assert_eq!(early(&in_flight, &transfer(0, 5, 10), rich), Ok(()));
    assert_eq!(early(&in_flight, &transfer(1, 3, 10), rich), Ok(()));
}

#[test]
fn a_sifted_batch_gets_its_verdicts_in_order() {
    let bench = Bench::new(&[(0, RICH)]);
    let account_of = |a| bench.accounts.get(&a).copied().unwrap_or_default();
    let batch = vec![transfer(1, 0, 10), transfer(0, 0, 10), transfer(1, 1, 10), transfer(0, 1, 1)];
    let sifted = bench.pool.sift(&InFlight::new(), batch.clone(), account_of, |_| false, &rules());
    assert_eq!(sifted.passed, [batch[1].clone(), batch[3].clone()]);
    let funds = || Err(PoolError::Funds { balance: U256::ZERO, cost: U256::from(210_000) });
    assert_eq!(
        sifted.merge(vec![Ok(()), Err(PoolError::PoolFull)]),
        [funds(), Ok(()), funds(), Err(PoolError::PoolFull)]
    );
}

/// A blob transaction with these fee caps, of gas and of blob gas.
fn blob(from: u64, nonce: u64, fee: u128, blob_fee: u128) -> Transaction {
    let tx = TxEip4844 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: fee,
        max_fee_per_blob_gas: blob_fee,
        blob_versioned_hashes: vec![alloy_primitives::B256::ZERO],
        ..TxEip4844::default()
    };
    let signature = alloy_primitives::Signature::new(U256::from(from + 1), U256::from(1), false);
    let envelope = TxEnvelope::from(tx.into_signed(signature));
    std::sync::Arc::new(Recovered::new_unchecked(envelope, sender(from)))
}

#[test]
fn a_sender_has_blobs_in_the_pool_or_none() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH)]);
    bench.admit_one(&blob(0, 0, 10, 1)).unwrap();
    assert_eq!(bench.admit_one(&transfer(0, 1, 10)), Err(PoolError::AddressReserved));
    bench.admit_one(&transfer(1, 0, 10)).unwrap();
    assert_eq!(bench.admit_one(&blob(1, 1, 10, 1)), Err(PoolError::AddressReserved));
}

#[test]
fn blobs_wait_behind_no_gap_and_are_few() {
    let mut bench = Bench::new(&[(0, RICH)]);
    let gap = PoolError::NonceTooHigh { nonce: 1, gapped: 0 };
    assert_eq!(bench.admit_one(&blob(0, 1, 10, 1)), Err(gap));
    for nonce in 0..16 {
        bench.admit_one(&blob(0, nonce, 10, 1)).unwrap();
    }
    let full = PoolError::AccountLimit { pooled: 16 };
    assert_eq!(bench.admit_one(&blob(0, 16, 10, 1)), Err(full));
}

#[test]
fn blobs_cost_what_they_may_cost_at_most() {
    let cost = 21_000 * 10 + 131_072 * 3;
    let mut bench = Bench::new(&[(0, cost - 1), (1, cost)]);
    let funds = PoolError::Funds { balance: U256::from(cost - 1), cost: U256::from(cost) };
    assert_eq!(bench.admit_one(&blob(0, 0, 10, 3)), Err(funds));
    assert_eq!(bench.admit_one(&blob(1, 0, 10, 3)), Ok(id(0)));
}

#[test]
fn a_replacement_with_blobs_must_pay_twice_in_every_fee() {
    let check = |fee, blob_fee, expected| {
        let mut bench = Bench::new(&[(0, RICH)]);
        bench.admit_one(&blob(0, 0, 10, 10)).unwrap();
        assert_eq!(bench.admit_one(&blob(0, 0, fee, blob_fee)), expected, "{fee} {blob_fee}");
    };
    check(20, 20, Ok(id(1)));
    check(19, 20, Err(PoolError::ReplacementUnderpriced));
    check(20, 19, Err(PoolError::ReplacementUnderpriced));
}

#[test]
fn a_contract_sends_nothing() {
    let bench = Bench::new(&[]);
    let code_hash = alloy_primitives::B256::repeat_byte(1);
    let account_of = |_| Account { code_hash, ..account(0, RICH) };
    let sift = |is_contract: bool| {
        let batch = vec![transfer(0, 0, 10)];
        let is_contract = move |_: &Account| is_contract;
        bench.pool.sift(&InFlight::new(), batch, account_of, is_contract, &rules())
    };
    // A delegation (EIP-7702) is code too.
    assert_eq!(sift(false).passed.len(), 1);
    let refused = sift(true).merge(Vec::new()).remove(0).unwrap_err().to_string();
    assert_eq!(refused, format!("sender not an eoa: address {}, codehash: {code_hash}", sender(0)));
}

#[test]
fn a_replacement_must_pay_a_tenth_more_in_both_fees() {
    let fees = |fee_cap, tip| {
        let (max_fee_per_gas, max_priority_fee_per_gas) = (fee_cap, tip);
        unsigned(
            0,
            TxEip1559 {
                chain_id: CHAIN_ID,
                gas_limit: 21_000,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                ..TxEip1559::default()
            },
        )
    };
    let check = |fee_cap, tip, expected| {
        let mut bench = Bench::new(&[(0, RICH)]);
        bench.admit_one(&fees(100, 50)).unwrap();
        assert_eq!(bench.admit_one(&fees(fee_cap, tip)), expected, "{fee_cap} {tip}");
    };
    check(110, 55, Ok(id(1)));
    check(109, 55, Err(PoolError::ReplacementUnderpriced));
    check(110, 54, Err(PoolError::ReplacementUnderpriced));
    check(200, 50, Err(PoolError::ReplacementUnderpriced));
}

#[test]
fn a_replaced_transaction_is_kept_by_id_until_no_block_can_name_it() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH)]);
    let (old, new, other) = (transfer(0, 0, 10), transfer(0, 0, 11), transfer(1, 0, 10));
    bench.admit(&[old.clone(), other]);
    let cut_before = bench.entry(&[1], &[], &[]);
    assert_eq!(bench.admit_one(&new), Ok(id(2)));
    assert_eq!(bench.pool.by_hash(old.tx_hash()), None);
    assert_eq!(bench.pool.by_id(id(0)), Some(&old));
    assert_eq!(bench.offered(1, 9), [1, 2]);
    assert_eq!(bench.pool.status(), (2, 0));

    let included = bench.include(&cut_before).unwrap();
    assert_eq!(included.changes, [PoolChange::Remove(id(1))]);
    assert_eq!(bench.pool.by_id(id(0)), Some(&old));

    let cut_after = bench.entry(&[], &[], &[]);
    let included = bench.include(&cut_after).unwrap();
    assert_eq!(included.changes, [PoolChange::Remove(id(0))]);
    assert_eq!(bench.pool.by_id(id(0)), None);
    assert_eq!(bench.offered(1, 9), [2]);
}

#[test]
fn a_block_that_was_cut_before_the_replacement_includes_the_replaced() {
    let mut bench = Bench::new(&[(0, RICH)]);
    let old = transfer(0, 0, 10);
    bench.admit_one(&old).unwrap();
    let cut_before = bench.entry(&[0], &[], &[]);
    bench.admit_one(&transfer(0, 0, 11)).unwrap();
    let included = bench.include(&cut_before).unwrap();
    assert_eq!(included.transactions, [old]);
    assert_eq!(included.changes, [PoolChange::Remove(id(0)), PoolChange::Remove(id(1))]);
    assert!(bench.pool.is_empty());
    assert_eq!(bench.pool.bytes(), 0);
}

#[test]
fn changes_tell_storage_of_every_record() {
    let mut bench = Bench::new(&[(0, RICH)]);
    let batch = AdmitBatch { transactions: vec![transfer(0, 0, 10), transfer(0, 0, 20)] };
    let admitted = bench.pool.admit(7, &batch, |_| account(0, RICH), &rules());
    let record = |i: u64, replaced_at| PoolRecord {
        id: id(i),
        admitted_at: 7,
        replaced_at,
        transaction: batch.transactions[i as usize].clone(),
    };
    let expected = [
        PoolChange::Put(record(0, None)),
        PoolChange::Put(record(0, Some(7))),
        PoolChange::Put(record(1, None)),
    ];
    assert_eq!(admitted.changes, expected);
    assert_eq!(admitted.verdicts, [Ok(id(0)), Ok(id(1))]);
}

#[test]
fn offers_come_by_admission_and_by_nonce() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH)]);
    bench.admit(&[
        transfer(0, 1, 10), // 0: behind a gap, which 2 closes
        transfer(1, 0, 10), // 1
        transfer(0, 0, 10), // 2
        transfer(1, 1, 10), // 3
        transfer(0, 3, 10), // 4: behind a gap
    ]);
    assert_eq!(bench.pool.status(), (4, 1));
    assert_eq!(bench.offered(1, 9), [1, 2, 0, 3]);
    assert_eq!(bench.offered(1, 2), [1, 2]);
    assert_eq!(bench.pool.next_nonce(sender(0)), Some(2));
    let content = bench.pool.content();
    let expected = SenderContent {
        executable: vec![transfer(0, 0, 10), transfer(0, 1, 10)],
        queued: vec![transfer(0, 3, 10)],
    };
    assert_eq!(content[&sender(0)], expected);
    assert_eq!(bench.pool.content_from(sender(0)), expected);
    assert_eq!(content.keys().copied().collect::<Vec<_>>(), [sender(0), sender(1)]);
}

#[test]
fn a_sender_that_pays_too_little_is_passed_over_with_all_that_follows() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH)]);
    bench.admit(&[transfer(0, 0, 5), transfer(0, 1, 50), transfer(1, 0, 50), transfer(1, 1, 5)]);
    assert_eq!(bench.offered(6, 9), [2]);
    assert_eq!(bench.offered(5, 9), [0, 1, 2, 3]);
}

#[test]
fn offers_stay_within_the_gas_and_pass_over_what_does_not_fit() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH), (2, RICH)]);
    let big = |from, gas_limit| {
        unsigned(from, TxEip1559 { chain_id: CHAIN_ID, gas_limit, ..TxEip1559::default() })
    };
    bench.admit(&[big(0, 60_000), big(1, 50_000), big(2, 21_000)]);
    let offered = |gas| ids_of(&bench.pool.candidates(0, 9, gas));
    assert_eq!(offered(131_000), [0, 1, 2]);
    assert_eq!(offered(100_000), [0, 2]);
    assert_eq!(offered(20_999), [0u64; 0]);
    // More than a whole block: offered, so that the engine refuses it on record.
    assert_eq!(offered(55_000), [0, 1]);
}

#[test]
fn what_is_in_flight_is_not_offered_again() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH)]);
    let batch: Vec<_> = (0..4).flat_map(|n| [transfer(0, n, 10), transfer(1, n, 10)]).collect();
    bench.admit(&batch);
    let first = bench.pool.candidates(1, 3, BLOCK_GAS);
    assert_eq!(ids_of(&first), [0, 1, 2]);
    let mut in_flight = InFlight::new();
    in_flight.add(first.iter().map(|(_, tx)| tx));
    let second = bench.pool.candidates_after(&in_flight, 1, 3, BLOCK_GAS);
    assert_eq!(ids_of(&second), [3, 4, 5]);
    in_flight.add(second.iter().map(|(_, tx)| tx));
    let third = bench.pool.candidates_after(&in_flight, 1, 9, BLOCK_GAS);
    assert_eq!(ids_of(&third), [6, 7]);

    for ids in [&[0, 1, 2][..], &[3, 4, 5], &[6, 7]] {
        let entry = bench.entry(ids, &[], &[]);
        bench.include(&entry).unwrap();
    }
    assert!(bench.pool.is_empty());
}

#[test]
fn a_nonce_used_elsewhere_makes_transactions_stale() {
    let mut bench = Bench::new(&[(0, RICH)]);
    bench.admit(&[transfer(0, 0, 10), transfer(0, 1, 10), transfer(0, 2, 10)]);
    // An EIP-7702 authorization raises the nonce without a transaction of the account's own.
    let mut entry = bench.entry(&[], &[], &[]);
    entry.diff = diff_of(&BTreeMap::from([(sender(0), account(2, RICH))])).into();
    let included = bench.include(&entry).unwrap();
    assert_eq!(included.changes, [PoolChange::Remove(id(0)), PoolChange::Remove(id(1))]);
    assert_eq!(bench.offered(1, 9), [2]);
    assert_eq!(bench.pool.status(), (1, 0));
}

#[test]
fn what_a_sender_cannot_pay_for_any_more_is_retired() {
    let mut bench = Bench::new(&[(0, 21_000 * 30)]);
    bench.admit(&[transfer(0, 0, 10), transfer(0, 1, 5), transfer(0, 2, 10), transfer(0, 3, 1)]);
    let cut_before = bench.entry(&[1, 2], &[], &[]);
    let entry = bench.entry(&[0], &[], &[(0, 21_000 * 5)]);
    let included = bench.include(&entry).unwrap();
    let retired = PoolRecord {
        id: id(2),
        admitted_at: 1,
        replaced_at: Some(2),
        transaction: transfer(0, 2, 10),
    };
    assert_eq!(included.changes, [PoolChange::Remove(id(0)), PoolChange::Put(retired)]);
    assert_eq!(bench.offered(1, 9), [1]);
    assert_eq!(bench.pool.status(), (1, 1));
    assert_eq!(bench.pool.by_hash(transfer(0, 2, 10).tx_hash()), None);

    // The block on its way funds the sender and runs it all the same.
    let included = bench.include(&cut_before).unwrap();
    assert_eq!(included.transactions, [transfer(0, 1, 5), transfer(0, 2, 10)]);
    assert_eq!(bench.offered(1, 9), [3]);
}

#[test]
fn a_dropped_transaction_leaves_a_gap() {
    let mut bench = Bench::new(&[(0, RICH)]);
    bench.admit(&[transfer(0, 0, 10), transfer(0, 1, 10)]);
    let entry = bench.entry(&[], &[0, 77], &[]);
    let included = bench.include(&entry).unwrap();
    assert_eq!(included.changes, [PoolChange::Remove(id(0))]);
    assert_eq!(bench.offered(1, 9), [0u64; 0]);
    assert_eq!(bench.pool.status(), (0, 1));
    assert_eq!(bench.admit_one(&transfer(0, 0, 20)), Ok(id(2)));
    assert_eq!(bench.offered(1, 9), [2, 1]);
}

#[test]
fn a_block_that_does_not_fit_changes_nothing() {
    let mut bench = Bench::new(&[(0, RICH), (1, RICH)]);
    bench.admit(&[transfer(0, 0, 10), transfer(1, 0, 10)]);
    let before = bench.pool.clone();
    let mut unknown = bench.entry(&[0, 1], &[], &[]);
    unknown.transactions[1] = id(9);
    assert_eq!(bench.include(&unknown), Err(IncludeError::Unknown { number: 0, id: id(9) }));
    let mut unused = bench.entry(&[0, 1], &[], &[]);
    std::sync::Arc::make_mut(&mut unused.diff).accounts.retain(|a| a.address != sender(1));
    assert_eq!(bench.include(&unused), Err(IncludeError::NonceUnused { number: 0, id: id(1) }));
    assert_eq!(bench.pool, before);
}

#[test]
fn limits_hold() {
    let mut bench = Bench::new(&[(0, u64::MAX)]);
    let most = limits::POOL_TX_PER_SENDER_MAX as u64;
    let batch: Vec<_> = (0..most).map(|n| transfer(0, n, 10)).collect();
    assert!(bench.admit(&batch).iter().all(Result::is_ok));
    assert_eq!(
        bench.admit_one(&transfer(0, most, 10)),
        Err(PoolError::AccountLimit { pooled: most })
    );
    assert_eq!(bench.admit_one(&transfer(0, 5, 20)), Ok(id(most)));

    let left = limits::POOL_TX_COUNT_MAX as u64 - most - 1;
    bench.accounts.extend((1..=left + 1).map(|s| (sender(s), account(0, RICH))));
    let batch: Vec<_> = (1..=left).map(|s| transfer(s, 0, 10)).collect();
    assert!(bench.admit(&batch).iter().all(Result::is_ok));
    assert_eq!(bench.pool.len(), limits::POOL_TX_COUNT_MAX);
    assert_eq!(bench.admit_one(&transfer(left + 1, 0, 10)), Err(PoolError::PoolFull));
    assert_eq!(bench.admit_one(&transfer(0, 6, 20)), Err(PoolError::PoolFull));
    assert_eq!(bench.pool.candidates(1, 20_000, u64::MAX).len(), 20_000);
}

#[test]
fn the_byte_limit_holds() {
    let mut bench = Bench::new(&[(0, u64::MAX)]);
    let big = |nonce| {
        let input = vec![0; 120_000].into();
        unsigned(
            0,
            TxEip1559 { chain_id: CHAIN_ID, nonce, gas_limit: 1, input, ..TxEip1559::default() },
        )
    };
    let fits = (limits::POOL_BYTES_MAX / big(1000).encode_2718_len()) as u64;
    let refused = (0..fits + 10).find(|n| bench.admit_one(&big(*n)).is_err());
    assert_eq!(refused, Some(fits));
    assert!(bench.pool.bytes() <= limits::POOL_BYTES_MAX);
    assert_eq!(bench.admit_one(&big(fits)), Err(PoolError::PoolFull));
}
