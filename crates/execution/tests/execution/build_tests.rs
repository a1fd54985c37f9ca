//! Building blocks: what goes in, what stays out, what the header says.

use crate::chain::{
    CHAIN_ID, Chain, ETHER, FEE_RECIPIENT, GWEI, call, cancun, from, osaka, shanghai, user,
};
use alloy_consensus::{EMPTY_ROOT_HASH, TxEip1559, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2935::HISTORY_STORAGE_ADDRESS, eip4895::Withdrawal, eip7685::EMPTY_REQUESTS_HASH,
    eip7702::Authorization,
};
use alloy_primitives::{
    Address, B256, Bloom, Bytes, KECCAK256_EMPTY, TxKind, U256, address, bytes, keccak256,
};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use blockraft_execution::{BlockAttributes, ExecutionError, build_block, execute_block};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, DropReason, MemoryState, SlotChange, StateError,
    StateReader, Transaction, bloom_of, receipts_root, transactions_root,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

const CONTRACT: Address = address!("00000000000000000000000000000000000c0de0");

/// Adds one to slot 0.
const COUNTER: Bytes = bytes!("5f546001015f5500");
/// Sets slot 0, then reverts.
const REVERTER: Bytes = bytes!("60015f555f5ffd");
/// Self-destructs in favour of the caller.
const DESTRUCTOR: Bytes = bytes!("33ff");
/// Deploys `COUNTER`.
const DEPLOY_COUNTER: Bytes = bytes!("675f546001015f55005f5260086018f3");
/// Stores the hash of the parent block in slot 0.
const BLOCKHASH_READER: Bytes = bytes!("60014303405f5500");
/// Emits an empty log with topic 7.
const LOGGER: Bytes = bytes!("60075f5fa100");

fn create(nonce: u64, code: Bytes) -> TxEip1559 {
    TxEip1559 { to: TxKind::Create, input: code, ..call(nonce, Address::ZERO, 0) }
}

fn slot(diff: &AccountDiff, slot: u64) -> Option<U256> {
    diff.storage.iter().find(|change| change.slot == U256::from(slot)).map(|change| change.value)
}

fn diff_of(built: &blockraft_execution::BuiltBlock, address: Address) -> Option<&AccountDiff> {
    built.diff.accounts.iter().find(|account| account.address == address)
}

#[test]
fn transfers_move_value_and_pay_the_fee_recipient() {
    let mut chain = Chain::new(osaka());
    let before = chain.account(user(1)).balance;
    let receiver = address!("00000000000000000000000000000000000000aa");
    let txs = [from(user(1), call(0, receiver, 5)), from(user(1), call(1, receiver, 6))];
    let built = chain.build(&txs);
    assert_eq!((built.included.as_slice(), built.gas_used), (&[0, 1][..], 42_000));
    assert_eq!(chain.account(receiver).balance, U256::from(11));
    let base_fee = u128::from(built.header.base_fee_per_gas.unwrap());
    let fee = U256::from(42_000 * (base_fee + GWEI));
    let sender = chain.account(user(1));
    assert_eq!((sender.nonce, sender.balance), (2, before - U256::from(11) - fee));
    assert_eq!(chain.account(FEE_RECIPIENT).balance, U256::from(42_000 * GWEI));
}

#[test]
fn header_commits_to_the_body() {
    let mut chain = Chain::new(osaka());
    chain.deploy(CONTRACT, LOGGER);
    let parent = chain.head.clone();
    let attributes = BlockAttributes {
        extra_data: bytes!("0102"),
        parent_beacon_block_root: Some(B256::repeat_byte(7)),
        withdrawals: vec![Withdrawal { address: user(50), amount: 3, ..Default::default() }],
        ..chain.attributes()
    };
    let built = chain.build_with(&attributes, &[from(user(1), call(0, CONTRACT, 0))]);
    let header = &built.header;
    assert_eq!(header.parent_hash, parent.hash());
    assert_eq!((header.number, header.timestamp), (1, parent.timestamp + 1));
    assert_eq!(header.beneficiary, FEE_RECIPIENT);
    assert_eq!(header.mix_hash, attributes.prev_randao);
    assert_eq!(header.difficulty, U256::ZERO);
    assert_eq!(header.extra_data, attributes.extra_data);
    assert_eq!(header.transactions_root, transactions_root(&built.transactions));
    assert_eq!(header.receipts_root, receipts_root(&built.transactions, &built.receipts));
    assert_ne!(header.logs_bloom, Bloom::ZERO);
    assert_eq!(header.logs_bloom, bloom_of(&built.receipts));
    assert_eq!(header.gas_used, built.gas_used);
    assert_eq!(header.parent_beacon_block_root, attributes.parent_beacon_block_root);
    assert_eq!((header.blob_gas_used, header.excess_blob_gas), (Some(0), Some(0)));
    assert_eq!(header.requests_hash, Some(EMPTY_REQUESTS_HASH));
    assert!(header.withdrawals_root.is_some_and(|root| root != EMPTY_ROOT_HASH));
    let funds = U256::from(1_000 * ETHER + 3 * GWEI);
    assert_eq!(chain.account(user(50)).balance, funds);
}

#[test]
fn fields_that_a_fork_does_not_have_are_absent() {
    let header = Chain::new(cancun()).build(&[]).header;
    assert_eq!((header.requests_hash, header.blob_gas_used), (None, Some(0)));
    let header = Chain::new(shanghai()).build(&[]).header;
    assert_eq!((header.blob_gas_used, header.excess_blob_gas), (None, None));
    assert_eq!(header.parent_beacon_block_root, None);
    assert_eq!(header.withdrawals_root, Some(EMPTY_ROOT_HASH));
}

#[test]
fn empty_block_writes_the_parent_hash_into_the_history_contract() {
    let mut chain = Chain::new(osaka());
    let parent = chain.head.hash();
    let built = chain.build(&[]);
    assert_eq!((built.gas_used, built.transactions.len()), (0, 0));
    let history = diff_of(&built, HISTORY_STORAGE_ADDRESS).unwrap();
    let expected = AccountDiff {
        address: HISTORY_STORAGE_ADDRESS,
        change: AccountChange::Unchanged,
        storage_wiped: false,
        storage: vec![SlotChange { slot: U256::ZERO, value: parent.into() }],
    };
    assert_eq!(history, &expected);
}

#[test]
fn parent_hash_is_known_before_the_state_below_knows_it() {
    let mut chain = Chain::new(osaka());
    chain.deploy(CONTRACT, BLOCKHASH_READER);
    let parent = chain.head.hash();
    chain.state.block_hashes.clear();
    let built = chain.build(&[from(user(1), call(0, CONTRACT, 0))]);
    assert_eq!(slot(diff_of(&built, CONTRACT).unwrap(), 0), Some(parent.into()));
}

#[test]
fn contract_is_created_called_and_kept() {
    let mut chain = Chain::new(osaka());
    let created = user(1).create(0);
    let txs = [
        from(user(1), create(0, DEPLOY_COUNTER)),
        from(user(2), call(0, created, 0)),
        from(user(3), call(0, created, 0)),
    ];
    let built = chain.build(&txs);
    assert!(built.receipts.iter().all(|receipt| receipt.status.coerce_status()));
    assert_eq!(built.diff.codes, vec![COUNTER]);
    let expected = AccountDiff {
        address: created,
        change: AccountChange::Set(Account {
            nonce: 1,
            balance: U256::ZERO,
            code_hash: keccak256(COUNTER),
        }),
        storage_wiped: false,
        storage: vec![SlotChange { slot: U256::ZERO, value: U256::from(2) }],
    };
    assert_eq!(diff_of(&built, created), Some(&expected));
    let built = chain.build(&[from(user(2), call(1, created, 0))]);
    assert_eq!(slot(diff_of(&built, created).unwrap(), 0), Some(U256::from(3)));
    assert_eq!(built.diff.codes, Vec::<Bytes>::new());
}

#[test]
fn revert_is_a_receipt_that_costs_gas_and_changes_nothing_else() {
    let mut chain = Chain::new(osaka());
    chain.deploy(CONTRACT, REVERTER);
    let built =
        chain.build(&[from(user(1), call(0, CONTRACT, 7)), from(user(1), call(1, user(2), 1))]);
    let statuses: Vec<bool> = built.receipts.iter().map(|r| r.status.coerce_status()).collect();
    assert_eq!(statuses, [false, true]);
    assert_eq!(diff_of(&built, CONTRACT), None);
    assert_eq!(chain.account(user(1)).nonce, 2);
}

#[test]
fn old_contract_self_destructs_before_cancun_with_its_storage() {
    let mut chain = Chain::new(shanghai());
    chain.deploy(CONTRACT, DESTRUCTOR);
    chain.state.storage.entry(CONTRACT).or_default().insert(U256::from(9), U256::from(9));
    let built = chain.build(&[from(user(1), call(0, CONTRACT, 0))]);
    let expected = AccountDiff {
        address: CONTRACT,
        change: AccountChange::Deleted,
        storage_wiped: true,
        storage: vec![],
    };
    assert_eq!(diff_of(&built, CONTRACT), Some(&expected));
    assert!(!chain.state.storage.contains_key(&CONTRACT));
    let mut chain = Chain::new(cancun());
    chain.deploy(CONTRACT, DESTRUCTOR);
    let built = chain.build(&[from(user(1), call(0, CONTRACT, 0))]);
    assert_eq!(diff_of(&built, CONTRACT), None);
}

#[test]
fn account_that_comes_and_goes_within_a_block_is_no_change() {
    let mut chain = Chain::new(osaka());
    // The init code self-destructs: created and gone in one transaction.
    let built = chain.build(&[from(user(1), create(0, DESTRUCTOR))]);
    assert!(built.receipts[0].status.coerce_status());
    assert_eq!(diff_of(&built, user(1).create(0)), None);
}

#[test]
fn touching_an_empty_account_leaves_none() {
    let mut chain = Chain::new(osaka());
    let nobody = address!("00000000000000000000000000000000000000bb");
    let built = chain.build(&[from(user(1), call(0, nobody, 0))]);
    assert_eq!(diff_of(&built, nobody), None);
}

#[test]
fn candidates_that_cannot_run_now_are_skipped_with_their_senders_later_ones() {
    let mut chain = Chain::new(osaka());
    chain.fund(user(4), 1);
    let pays_too_little =
        TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 0, ..call(0, user(9), 1) };
    let txs = [
        from(user(1), call(0, user(9), 1)),
        from(user(2), pays_too_little),
        from(user(2), call(1, user(9), 1)),
        from(user(3), call(5, user(9), 1)),
        from(user(4), call(0, user(9), 1)),
        from(user(1), call(1, user(9), 1)),
    ];
    let built = chain.build(&txs);
    assert_eq!(built.included, [0, 5]);
    assert_eq!(built.skipped, [1, 2, 3, 4]);
    assert_eq!(built.dropped, []);
}

#[test]
fn candidates_that_can_never_run_are_dropped() {
    let mut chain = Chain::new(osaka());
    chain.deploy(user(5), COUNTER);
    let no_intrinsic_gas = TxEip1559 { gas_limit: 21_000 - 1, ..call(0, user(9), 1) };
    let over_the_cap = TxEip1559 { gas_limit: (1 << 24) + 1, ..call(0, user(9), 1) };
    let over_any_block = TxEip1559 { gas_limit: 30_000_001, ..call(0, user(9), 1) };
    let foreign = TxEip1559 { chain_id: 5, ..call(0, user(9), 1) };
    let txs = [
        from(user(1), no_intrinsic_gas),
        from(user(2), over_the_cap),
        from(user(3), over_any_block),
        from(user(4), foreign),
        from(user(5), call(0, user(9), 1)),
        from(user(6), call(0, user(9), 1)),
        from(user(6), call(0, user(9), 1)),
    ];
    let built = chain.build(&txs);
    assert_eq!(built.included, [5]);
    let invalid = |index| (index, DropReason::Invalid);
    assert_eq!(built.dropped, [0, 1, 2, 3, 4, 6].map(invalid));
    assert!(built.skipped.is_empty());
}

#[test]
fn block_fills_to_its_gas_limit_and_no_further() {
    let mut chain = Chain::new(osaka());
    let attributes = chain.attributes();
    let big = |nonce| TxEip1559 { gas_limit: 16_000_000, ..call(nonce, user(9), 1) };
    let txs = [from(user(1), big(0)), from(user(2), big(0)), from(user(3), call(0, user(9), 1))];
    // Gas that was asked for and not used is free again for those behind.
    assert_eq!(chain.build_with(&attributes, &txs).included, [0, 1, 2]);
    chain.deploy(CONTRACT, bytes!("5b5f56"));
    let burn = |sender: u64| {
        let tx = TxEip1559 { gas_limit: 16_000_000, ..call(0, CONTRACT, 0) };
        from(user(sender), tx)
    };
    let txs = [burn(11), burn(12), from(user(13), call(0, user(9), 1))];
    let built = chain.build(&txs);
    assert_eq!((built.included, built.skipped), (vec![0, 2], vec![1]));
}

#[test]
fn base_fee_and_gas_limit_follow_the_parent() {
    let mut chain = Chain::new(osaka());
    let attributes = BlockAttributes { gas_limit: 100_000_000, ..chain.attributes() };
    let header = chain.build_with(&attributes, &[]).header;
    // An empty parent: the fee falls by an eighth; the limit rises by less than 1/1024.
    assert_eq!(header.base_fee_per_gas, Some(875_000_000));
    assert_eq!(header.gas_limit, 30_000_000 + 30_000_000 / 1024 - 1);
    let attributes = BlockAttributes { gasless: true, ..chain.attributes() };
    let poor = address!("00000000000000000000000000000000000000cc");
    let free = TxEip1559 { max_fee_per_gas: 0, max_priority_fee_per_gas: 0, ..call(0, poor, 0) };
    let built = chain.build_with(&attributes, &[from(poor, free)]);
    assert_eq!((built.header.base_fee_per_gas, built.included), (Some(0), vec![0]));
}

#[test]
fn delegation_is_used_in_the_block_that_sets_it() {
    let mut chain = Chain::new(osaka());
    chain.deploy(CONTRACT, COUNTER);
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x11)).unwrap();
    let authorization =
        Authorization { chain_id: U256::from(CHAIN_ID), address: CONTRACT, nonce: 0 };
    let signature = signer.sign_hash_sync(&authorization.signature_hash()).unwrap();
    let delegate = TxEip7702 {
        chain_id: CHAIN_ID,
        gas_limit: 200_000,
        max_fee_per_gas: 10 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: user(9),
        authorization_list: vec![authorization.into_signed(signature)],
        ..Default::default()
    };
    let txs = [from(user(1), delegate), from(user(2), call(0, signer.address(), 0))];
    let built = chain.build(&txs);
    let diff = diff_of(&built, signer.address()).unwrap();
    assert_eq!(slot(diff, 0), Some(U256::ONE));
    let code = Bytes::from([&[0xef, 0x01, 0x00][..], CONTRACT.as_slice()].concat());
    let hash = keccak256(&code);
    assert_eq!(built.diff.codes, vec![code]);
    let now = Account { nonce: 1, balance: U256::ZERO, code_hash: hash };
    assert_eq!(diff.change, AccountChange::Set(now));
}

#[test]
fn legacy_transaction_without_chain_id_runs() {
    let mut chain = Chain::new(osaka());
    let tx = TxLegacy {
        chain_id: None,
        gas_price: 10 * GWEI,
        gas_limit: 21_000,
        to: TxKind::Call(user(2)),
        ..Default::default()
    };
    assert_eq!(chain.build(&[from(user(1), tx)]).included, [0]);
}

/// What goes round the EVM in building goes through it in `execute_block`, which [`Chain::build`] asks
/// for a second opinion.
#[test]
fn transfers_around_the_evm_equal_those_through_it() {
    let seed = 0x7a5f;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut included = 0;
    for round in 0..60 {
        let spec = [osaka, cancun, shanghai][round % 3]();
        let mut chain = Chain::new(spec);
        chain.deploy(CONTRACT, COUNTER);
        chain.fund(user(100), 0);
        chain.fund(FEE_RECIPIENT, if round % 2 == 0 { 0 } else { ETHER });
        let delegated = Bytes::from([&[0xef, 0x01, 0x00][..], CONTRACT.as_slice()].concat());
        chain.deploy(user(5), delegated);
        let mut nonces = std::collections::BTreeMap::from([(user(5), 1)]);
        for _ in 0..5 {
            let txs: Vec<_> = (0..30).map(|_| random_transfer(&mut rng, &mut nonces)).collect();
            let gasless = rng.random_bool(0.2);
            let attributes = BlockAttributes { gasless, ..chain.attributes() };
            let built = chain.build_with(&attributes, &txs);
            included += built.included.len();
            for (address, nonce) in &mut nonces {
                *nonce = chain.account(*address).nonce;
            }
        }
    }
    assert!(included > 1_000, "seed {seed}: only {included} were included");
}

fn random_transfer(
    rng: &mut SmallRng,
    nonces: &mut std::collections::BTreeMap<Address, u64>,
) -> Transaction {
    let sender = [user(1), user(2), user(3), user(5), FEE_RECIPIENT][rng.random_range(0..5)];
    let receivers = [
        user(1),
        user(2),
        user(5),
        user(100),
        user(rng.random_range(200..210)),
        FEE_RECIPIENT,
        CONTRACT,
        Address::with_last_byte(4),
        HISTORY_STORAGE_ADDRESS,
        sender,
    ];
    let to = receivers[rng.random_range(0..receivers.len())];
    let values = [0, 1, ETHER / 1000, ETHER, 400 * ETHER, 999 * ETHER];
    let value = values[rng.random_range(0..values.len())];
    let nonce = nonces.entry(sender).or_default();
    let own_nonce = if rng.random_bool(0.05) { *nonce + 1 } else { *nonce };
    let tips = [0, 1, GWEI];
    let tx = TxEip1559 {
        gas_limit: [21_000, 21_000, 50_000, 20_999][rng.random_range(0..4)],
        max_priority_fee_per_gas: tips[rng.random_range(0..tips.len())],
        max_fee_per_gas: [10 * GWEI, 10 * GWEI, 10 * GWEI, 0][rng.random_range(0..4)],
        input: if rng.random_bool(0.1) { bytes!("00ff") } else { Bytes::new() },
        ..call(own_nonce, to, value)
    };
    *nonce += 1;
    if rng.random_bool(0.7) {
        return from(sender, tx);
    }
    let legacy = TxLegacy {
        chain_id: rng.random_bool(0.5).then_some(CHAIN_ID),
        nonce: tx.nonce,
        gas_price: tx.max_fee_per_gas,
        gas_limit: tx.gas_limit,
        to: tx.to,
        value: tx.value,
        input: tx.input,
    };
    from(sender, legacy)
}

/// Panics where one account is read, as a fault in the EVM would.
struct Trap(MemoryState);

const TRAPPED: Address = address!("00000000000000000000000000000000deadbeef");

impl StateReader for Trap {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        assert_ne!(address, TRAPPED, "trap");
        self.0.account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.0.storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.0.has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.0.code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        self.0.block_hash(number)
    }
}

#[test]
fn poison_is_left_out_as_if_it_had_never_run() {
    let mut chain = Chain::new(osaka());
    // Counts, then calls into the trap.
    let mut code = bytes!("5f546001015f555f5f5f5f5f73").to_vec();
    code.extend(TRAPPED.as_slice());
    code.extend(bytes!("5af100"));
    chain.deploy(CONTRACT, code);
    chain.deploy(user(50), COUNTER);
    let txs = [
        from(user(1), call(0, user(50), 0)),
        from(user(2), call(0, CONTRACT, 3)),
        from(user(2), call(1, user(50), 0)),
        from(user(3), call(0, user(50), 0)),
    ];
    let attributes = chain.attributes();
    let trap = Trap(chain.state.clone());
    let built = build_block(&chain.spec, &trap, &chain.head, &attributes, &txs).unwrap();
    assert_eq!(built.dropped, [(1, DropReason::Poison)]);
    assert_eq!((built.included.as_slice(), built.skipped.as_slice()), (&[0, 3][..], &[2][..]));
    let without = chain.build(&[txs[0].clone(), txs[3].clone()]);
    assert_eq!(built.header, without.header);
    assert_eq!(built.diff, without.diff);
}

/// A store that fails at every account but the users'.
struct Broken(MemoryState);

impl StateReader for Broken {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        if address == HISTORY_STORAGE_ADDRESS || address == CONTRACT {
            return Err(StateError::Database("gone".to_owned()));
        }
        self.0.account(address)
    }
    fn storage(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.0.storage(address, slot)
    }
    fn has_storage(&self, address: Address) -> Result<bool, StateError> {
        self.0.has_storage(address)
    }
    fn code(&self, code_hash: B256) -> Result<Bytes, StateError> {
        self.0.code(code_hash)
    }
    fn block_hash(&self, number: u64) -> Result<B256, StateError> {
        self.0.block_hash(number)
    }
}

#[test]
fn failing_store_is_an_error_wherever_it_fails() {
    for (spec, txs) in [(osaka(), vec![]), (cancun(), vec![from(user(1), call(0, CONTRACT, 0))])] {
        let chain = Chain::new(spec);
        let broken = Broken(chain.state.clone());
        let result = build_block(&chain.spec, &broken, &chain.head, &chain.attributes(), &txs);
        assert!(matches!(result, Err(ExecutionError::State(_))), "{result:?}");
    }
}

#[test]
fn attributes_that_fit_no_block_are_refused() {
    let chain = Chain::new(osaka());
    let early = BlockAttributes { timestamp: 0, ..chain.attributes() };
    let long = BlockAttributes { extra_data: vec![0; 33].into(), ..chain.attributes() };
    let build = |attributes| build_block(&chain.spec, &chain.state, &chain.head, attributes, &[]);
    assert!(matches!(build(&early), Err(ExecutionError::Timestamp { got: 0, parent: 1 })));
    assert!(matches!(build(&long), Err(ExecutionError::ExtraData { got: 33 })));
}

#[test]
fn header_that_contradicts_execution_is_named() {
    let mut chain = Chain::new(osaka());
    let before = chain.state.clone();
    let built = chain.build(&[from(user(1), call(0, user(2), 1))]);
    let check = |change: &dyn Fn(&mut alloy_consensus::Header)| {
        let mut header = built.header.clone();
        change(&mut header);
        execute_block(&chain.spec, &before, &header, &built.transactions, &[], &[])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(check(&|h| h.gas_used = 1), "block 1: gas used 1, expected 21000");
    assert!(check(&|h| h.receipts_root = KECCAK256_EMPTY).contains("receipts root 0xc5d2"));
    assert!(check(&|h| h.logs_bloom = Bloom::repeat_byte(1)).contains("logs bloom"));
    assert_eq!(check(&|h| h.blob_gas_used = None), "block 1: blob gas used None, expected Some(0)");
    assert!(check(&|h| h.requests_hash = None).contains("requests hash None"));
    assert!(check(&|h| h.gas_limit = 50_000).contains("does not fit"));
}
