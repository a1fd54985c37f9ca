//! What the log holds for a transaction: as much as its raw bytes and little more, and the same when it is
//! read back.

use alloy_consensus::{Eip658Value, Header, Signed, TxEip1559, TxEnvelope, transaction::Recovered};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Log, LogData, Signature, TxKind, U256, keccak256};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, AdmissionId, AdmitBatch, BlockEntry, DropReason,
    DroppedTransaction, LogEntry, Receipt, SlotChange, StateDiff, Transaction,
};
use std::sync::Arc;

const COUNT: u64 = 1_000;

fn word(of: &str, index: u64) -> B256 {
    keccak256([of.as_bytes(), &index.to_be_bytes()].concat())
}

fn address(of: &str, index: u64) -> Address {
    Address::from_word(word(of, index))
}

/// As wallets sign them: realistic lengths of every field.
fn transaction(index: u64, sender: Address, to: Address, input: Vec<u8>) -> Transaction {
    let tx = TxEip1559 {
        chain_id: 1337,
        nonce: 1_000 + index,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(to),
        value: U256::from(1),
        access_list: Default::default(),
        input: input.into(),
    };
    let [r, s] = [word("r", index), word("s", index)].map(|w| U256::from_be_bytes(w.0));
    let envelope = TxEnvelope::from(Signed::new_unhashed(tx, Signature::new(r, s, true)));
    Arc::new(Recovered::new_unchecked(envelope, sender))
}

fn set(
    address: Address,
    nonce: u64,
    balance: u128,
    code: bool,
    slots: Vec<SlotChange>,
) -> AccountDiff {
    let mut account = Account { nonce, balance: U256::from(balance), ..Account::default() };
    if code {
        account.code_hash = B256::repeat_byte(9);
    }
    let change = AccountChange::Set(account);
    AccountDiff { address, change, storage_wiped: false, storage: slots }
}

fn log(address: Address, topics: Vec<B256>, data: Vec<u8>) -> Log {
    Log { address, data: LogData::new_unchecked(topics, data.into()) }
}

fn small(value: u128) -> Vec<u8> {
    U256::from(value).to_be_bytes_vec()
}

struct Workload {
    transactions: Vec<Transaction>,
    accounts: Vec<AccountDiff>,
    logs: Vec<Vec<Log>>,
}

impl Workload {
    fn new(calls: impl Iterator<Item = (Transaction, Vec<AccountDiff>, Vec<Log>)>) -> Self {
        let (mut transactions, mut accounts, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        for (tx, changed, logged) in calls {
            accounts.push(set(tx.signer(), 1_001, 5_000_000_000_000_000_000, false, Vec::new()));
            accounts.extend(changed);
            transactions.push(tx);
            logs.push(logged);
        }
        accounts.sort_by_key(|a| a.address);
        accounts.dedup_by(|later, first| {
            let same = later.address == first.address;
            if same {
                first.storage.append(&mut later.storage);
            }
            same
        });
        for account in &mut accounts {
            account.storage.sort_by_key(|change| change.slot);
            account.storage.dedup_by_key(|change| change.slot);
        }
        Self { transactions, accounts, logs }
    }

    fn raw_bytes(&self) -> usize {
        self.transactions.iter().map(|tx| tx.encode_2718_len()).sum()
    }

    fn entries(&self) -> [LogEntry; 2] {
        let mut cumulative_gas_used = 0;
        let receipts = self.logs.iter().enumerate().map(|(index, logs)| {
            cumulative_gas_used += 21_000 + 12 * (index as u64 % 2);
            let status = Eip658Value::Eip658(true);
            Receipt { status, cumulative_gas_used, logs: logs.clone() }
        });
        let block = BlockEntry {
            header: Header { number: 7, ..Header::default() },
            transactions: (0..COUNT).map(|i| AdmissionId(10_000 + i)).collect(),
            dropped: Vec::new(),
            receipts: receipts.collect(),
            diff: StateDiff { accounts: self.accounts.clone(), codes: Vec::new() }.into(),
            pool_index: 88,
            subtrie_roots: Bytes::new(),
        };
        let batch = AdmitBatch { transactions: self.transactions.clone() };
        [LogEntry::Admit(batch), LogEntry::Block(Box::new(block))]
    }
}

fn transfers(senders: u64) -> Workload {
    Workload::new((0..COUNT).map(|i| {
        let (from, to) = (address("sender", i % senders), address("receiver", i));
        (transaction(i, from, to, Vec::new()), vec![set(to, 0, 1, false, Vec::new())], Vec::new())
    }))
}

fn token_transfers(senders: u64) -> Workload {
    let token = address("token", 0);
    Workload::new((0..COUNT).map(|i| {
        let (from, to) = (address("sender", i % senders), address("receiver", i));
        let input = [&word("selector", 0)[..4], &to.into_word()[..], &small(1_000)].concat();
        let slots = [("from", i % senders), ("to", i)].map(|(of, holder)| SlotChange {
            slot: word(of, holder).into(),
            value: U256::from(1_000_000_000_000_000_000u128),
        });
        let topics = vec![word("Transfer", 0), from.into_word(), to.into_word()];
        let logs = vec![log(token, topics, small(1_000))];
        (transaction(i, from, token, input), vec![set(token, 1, 0, true, slots.to_vec())], logs)
    }))
}

/// Two tokens move and a pool of its own answers, as a swap of Uniswap V3 does.
fn swaps(senders: u64) -> Workload {
    Workload::new((0..COUNT).map(|i| {
        let (from, pool) = (address("sender", i % senders), address("pool", i));
        let router = address("router", 0);
        let amounts = [1_000_000_000_000_000_000, 999_000_000_000_000_000];
        let mut input = word("selector", 0)[..4].to_vec();
        for word in [address("token", 0), address("token", 1), from].map(|a| a.into_word()) {
            input.extend_from_slice(word.as_slice());
        }
        for value in [3_000, 1_700_000_000, amounts[0], 1, 0] {
            input.extend(small(value));
        }
        let mut logs = Vec::new();
        let mut changed = Vec::new();
        for (n, amount) in amounts.into_iter().enumerate() {
            let token = address("token", n as u64);
            let pair = [from.into_word(), pool.into_word()];
            let topics = vec![word("Transfer", 0), pair[n], pair[1 - n]];
            logs.push(log(token, topics, small(amount)));
            let slots = ["from", "to"].map(|of| SlotChange {
                slot: word(of, 2 * i + n as u64).into(),
                value: U256::from(amount),
            });
            changed.push(set(token, 1, 0, true, slots.to_vec()));
        }
        let price: U256 = U256::from_be_bytes(word("price", i).0) >> 96;
        let mut data = [amounts[0], amounts[1]].map(small).concat();
        data.extend(price.to_be_bytes_vec());
        data.extend([5_000_000_000_000_000_000, 0].map(small).concat());
        let topics = vec![word("Swap", 0), router.into_word(), from.into_word()];
        logs.push(log(pool, topics, data));
        let slots = (0..4).map(|slot| SlotChange { slot: U256::from(slot), value: price });
        changed.push(set(pool, 1, 0, true, slots.collect()));
        (transaction(i, from, router, input), changed, logs)
    }))
}

#[test]
fn the_log_holds_little_more_than_the_transactions() {
    // The dearest case, a sender for every transaction, and one that is common under load.
    for (name, workload, limit) in [
        ("transfer", transfers(COUNT), 1.8),
        ("ERC-20 transfer", token_transfers(COUNT), 2.8),
        ("swap", swaps(COUNT), 3.8),
        ("transfer of few", transfers(20), 1.5),
        ("ERC-20 transfer of few", token_transfers(20), 2.2),
        ("swap of few", swaps(20), 3.0),
    ] {
        let entries = workload.entries();
        let bytes: Vec<usize> = entries.iter().map(|entry| entry.encode().len()).collect();
        let ratio = bytes.iter().sum::<usize>() as f64 / workload.raw_bytes() as f64;
        println!("{name}: {bytes:?} of {}, {ratio:.2}", workload.raw_bytes());
        assert!(ratio <= limit, "{name}: {ratio:.2} times the raw bytes, at most {limit}");
        for entry in entries {
            assert_eq!(LogEntry::decode(&entry.encode()), Ok(entry), "{name}");
        }
    }
}

/// What no block of today has, but a reader must not stumble over.
#[test]
fn unusual_blocks_read_back() {
    let receipt = |status, cumulative_gas_used, logs| Receipt { status, cumulative_gas_used, logs };
    let root = Eip658Value::PostState(B256::ZERO);
    let odd = log(Address::ZERO, vec![B256::ZERO; 4], vec![0; 33]);
    let long = log(Address::repeat_byte(1), Vec::new(), vec![7; 64]);
    let deleted = AccountDiff {
        address: Address::ZERO,
        change: AccountChange::Deleted,
        storage_wiped: true,
        storage: Vec::new(),
    };
    let block = BlockEntry {
        header: Header::default(),
        transactions: [9, 3, 4, 5, u64::MAX, 0].map(AdmissionId).to_vec(),
        dropped: vec![DroppedTransaction { id: AdmissionId(8), reason: DropReason::Invalid }],
        receipts: vec![
            receipt(root, 0, Vec::new()),
            receipt(root, 0, vec![odd.clone(); 31]),
            receipt(Eip658Value::Eip658(false), 7, vec![long; 32]),
            receipt(Eip658Value::Eip658(true), u64::MAX, vec![odd; 30]),
            receipt(Eip658Value::Eip658(true), 5, Vec::new()),
        ],
        diff: StateDiff { accounts: vec![deleted], codes: vec![Bytes::new(), vec![0; 3].into()] }
            .into(),
        pool_index: u64::MAX,
        subtrie_roots: Bytes::from_static(&[1, 2, 3]),
    };
    let entry = LogEntry::Block(Box::new(block));
    let bytes = entry.encode();
    assert_eq!(LogEntry::decode(&bytes).unwrap(), entry);
    for length in 0..bytes.len() {
        assert!(LogEntry::decode(&bytes[..length]).is_err(), "cut to {length}");
    }
}
