//! Golden bytes: what is in `testdata/wire` is what other versions write and read. A changed file is
//! an approved change of format. `UPDATE_EXPECT=1` rewrites them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use alloy_consensus::{
    Eip658Value, Header, Signed, TxEip1559, TxEip2930, TxEip7702, TxEnvelope, TxLegacy,
    transaction::Recovered,
};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip4895::Withdrawal,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_genesis::ChainConfig;
use alloy_primitives::{
    Address, B256, Bytes, Log, LogData, Signature, TxKind, U256, address, b256, hex,
};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, AdmissionId, AdmitBatch, BlockEntry, ChainSpec,
    ClusterOptions, DropReason, DroppedTransaction, ForkchoiceEntry, LogEntry, PartitionSet,
    PayloadEntry, PoolRecord, Receipt, SlotChange, StateDiff, Transaction, encode_diff,
};
use blockraft_protocol::{
    AdmissionRules, Fence, GivenWork, NodeStatus, PoolError, PooledWork, Refusal, Request,
    Response, RootAnswer, RootUnit, SignedHash, Unit, UnitAnswer, UnitId, UnitRefusal, UnitRefused,
    UnitWork, WireError,
};
use std::{fs, path::PathBuf, sync::Arc};

const ALICE: Address = address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
const CONTRACT: Address = address!("5fbdb2315678afecb367f032d93f642f64180aa3");
const WORD: B256 = b256!("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");

#[track_caller]
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/wire")
        .join(format!("{name}.hex"));
    let actual = wrapped_hex(bytes);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs", path.display());
}

fn wrapped_hex(bytes: &[u8]) -> String {
    let lines: Vec<_> = bytes.chunks(50).map(hex::encode).collect();
    lines.join("\n") + "\n"
}

fn signed<T>(tx: T) -> Transaction
where
    TxEnvelope: From<Signed<T>>,
{
    let signature = Signature::new(U256::from_be_bytes(WORD.0), U256::from(7), true);
    let envelope = TxEnvelope::from(Signed::new_unhashed(tx, signature));
    Arc::new(Recovered::new_unchecked(envelope, ALICE))
}

fn transactions() -> Vec<Transaction> {
    let legacy = TxLegacy {
        chain_id: Some(1337),
        nonce: 0,
        gas_price: 1_000_000_000,
        gas_limit: 21_000,
        to: TxKind::Call(CONTRACT),
        value: U256::from(10).pow(U256::from(18)),
        input: Bytes::new(),
    };
    let access_list =
        AccessList(vec![AccessListItem { address: CONTRACT, storage_keys: vec![WORD] }]);
    let eip2930 = TxEip2930 {
        chain_id: 1337,
        nonce: 1,
        gas_price: 2,
        gas_limit: 30_000,
        to: TxKind::Call(CONTRACT),
        access_list,
        ..TxEip2930::default()
    };
    let eip1559 = TxEip1559 {
        chain_id: 1337,
        nonce: 2,
        gas_limit: 100_000,
        max_fee_per_gas: 3,
        max_priority_fee_per_gas: 1,
        to: TxKind::Create,
        input: Bytes::from_static(&hex!("6000600055")),
        ..TxEip1559::default()
    };
    let authorization = Authorization { chain_id: U256::ZERO, address: CONTRACT, nonce: 4 };
    let eip7702 = TxEip7702 {
        chain_id: 1337,
        nonce: 3,
        gas_limit: 50_000,
        to: ALICE,
        authorization_list: vec![SignedAuthorization::new_unchecked(
            authorization,
            1,
            U256::from(5),
            U256::from(6),
        )],
        ..TxEip7702::default()
    };
    vec![signed(legacy), signed(eip2930), signed(eip1559), signed(eip7702)]
}

fn block() -> BlockEntry {
    let header = Header {
        parent_hash: WORD,
        number: 5,
        timestamp: 1_700_000_000,
        gas_limit: 30_000_000,
        gas_used: 121_000,
        base_fee_per_gas: Some(7),
        withdrawals_root: Some(WORD),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(WORD),
        extra_data: Bytes::from_static(b"BRFT"),
        ..Header::default()
    };
    let log =
        Log { address: CONTRACT, data: LogData::new_unchecked(vec![WORD], vec![1, 2].into()) };
    let receipt = |status, cumulative_gas_used, logs| Receipt { status, cumulative_gas_used, logs };
    let accounts = vec![
        AccountDiff {
            address: Address::ZERO,
            change: AccountChange::Deleted,
            storage_wiped: true,
            storage: Vec::new(),
        },
        AccountDiff {
            address: CONTRACT,
            change: AccountChange::Unchanged,
            storage_wiped: false,
            storage: vec![
                SlotChange { slot: U256::ZERO, value: U256::from(300) },
                SlotChange { slot: U256::from(1), value: U256::ZERO },
            ],
        },
        AccountDiff {
            address: ALICE,
            change: AccountChange::Set(Account {
                nonce: 2,
                balance: U256::from(1_000_000),
                code_hash: WORD,
            }),
            storage_wiped: false,
            storage: Vec::new(),
        },
    ];
    BlockEntry {
        header,
        transactions: vec![AdmissionId(0), AdmissionId(300)],
        dropped: vec![DroppedTransaction { id: AdmissionId(2), reason: DropReason::Poison }],
        receipts: vec![
            receipt(Eip658Value::Eip658(true), 21_000, vec![log]),
            receipt(Eip658Value::Eip658(false), 121_000, Vec::new()),
        ],
        diff: StateDiff { accounts, codes: vec![Bytes::from_static(&hex!("6001"))] }.into(),
        pool_index: 77,
        subtrie_roots: Bytes::from_static(&hex!("c0")),
    }
}

/// Every variant, so that none can change its bytes unseen.
fn pool_errors() -> Vec<PoolError> {
    let n = U256::from;
    vec![
        PoolError::Oversized { size: 131_073, limit: 131_072 },
        PoolError::TooShort,
        PoolError::Rlp("expected input list".to_owned()),
        PoolError::UnknownType,
        PoolError::UnsupportedType { tx_type: 3 },
        PoolError::TypeBeforeFork { tx_type: 4, fork: "Prague".to_owned() },
        PoolError::Unprotected,
        PoolError::ChainId { have: 1, want: 1337 },
        PoolError::Signature,
        PoolError::InitCode { size: 49_153, limit: 49_152 },
        PoolError::GasCap { cap: 16_777_216, gas: 16_777_217 },
        PoolError::BlockGasLimit,
        PoolError::TipAboveFeeCap,
        PoolError::NonceMax,
        PoolError::IntrinsicGas { gas: 20_999, needed: 21_000 },
        PoolError::FloorGas { gas: 21_000, needed: 21_400 },
        PoolError::NoAuthorization,
        PoolError::AlreadyKnown,
        PoolError::NonceTooLow { next: 5, nonce: 4 },
        PoolError::NonceTooHigh { nonce: 70, gapped: 5 },
        PoolError::Funds { balance: n(1), cost: n(2) },
        PoolError::QueuedFunds { balance: n(1), queued: n(2), cost: n(3) },
        PoolError::BumpedFunds { balance: n(1), queued: n(2), bump: n(3) },
        PoolError::ReplacementUnderpriced,
        PoolError::AccountLimit { pooled: 16_384 },
        PoolError::PoolFull,
    ]
}

/// Those that came later.
fn more_pool_errors() -> Vec<PoolError> {
    let cost = U256::from(5);
    vec![PoolError::FeeVeryHigh, PoolError::TipVeryHigh, PoolError::Unpayable { cost }]
}

fn payload() -> PayloadEntry {
    let BlockEntry { header, receipts, diff, .. } = block();
    let withdrawal = Withdrawal { index: 1, validator_index: 2, address: ALICE, amount: 3 };
    let (transactions, diff) = (transactions(), Arc::unwrap_or_clone(diff));
    PayloadEntry { header, transactions, withdrawals: Some(vec![withdrawal]), receipts, diff }
}

fn forkchoice() -> ForkchoiceEntry {
    let [from, hash, safe] = [0x11, 0x22, 0x33].map(B256::repeat_byte);
    ForkchoiceEntry { from, number: 300, hash, safe, finalized: B256::ZERO }
}

/// No list of withdrawals is not an empty one.
#[test]
fn withdrawals_of_a_payload_may_be_absent() {
    for withdrawals in [None, Some(Vec::new())] {
        let entry = LogEntry::Payload(Box::new(PayloadEntry { withdrawals, ..payload() }));
        assert_eq!(LogEntry::decode(&entry.encode()), Ok(entry));
    }
}

#[test]
fn log_entries_keep_their_bytes() {
    for (name, entry) in [
        ("entry_admit", LogEntry::Admit(AdmitBatch { transactions: transactions() })),
        ("entry_admit_empty", LogEntry::Admit(AdmitBatch::default())),
        ("entry_block", LogEntry::Block(Box::new(block()))),
        ("entry_payload", LogEntry::Payload(Box::new(payload()))),
        ("entry_forkchoice", LogEntry::Forkchoice(forkchoice())),
    ] {
        let bytes = entry.encode();
        golden(name, &bytes);
        assert_eq!(LogEntry::decode(&bytes), Ok(entry), "{name}");
    }
}

#[test]
fn pool_records_keep_their_bytes() {
    for (name, replaced_at) in [("pool_record", None), ("pool_record_replaced", Some(9))] {
        let transaction = transactions().remove(0);
        let record = PoolRecord { id: AdmissionId(3), admitted_at: 8, replaced_at, transaction };
        let bytes = record.encode();
        golden(name, &bytes);
        assert_eq!(PoolRecord::decode(&bytes), Ok(record), "{name}");
    }
}

fn unit() -> Unit {
    let fence = Fence { cluster: WORD, term: 4, leader: 1, height: 501, parent: WORD, epoch: 2 };
    Unit {
        id: UnitId { fence, gather: 77, share: 3, attempt: 2 },
        work: UnitWork::Pooled(PooledWork {
            timestamp: 1_700_000_000,
            fee_recipient: CONTRACT,
            gas_limit: 30_000_000,
            pool_index: 999,
            transactions: vec![AdmissionId(5), AdmissionId(70_000)],
        }),
    }
}

fn given_unit() -> Unit {
    let header = Arc::new(block().header);
    Unit { work: UnitWork::Given(GivenWork { header, transactions: transactions() }), ..unit() }
}

fn unit_refusals() -> Vec<UnitRefusal> {
    vec![
        UnitRefusal::Cluster { expected: WORD },
        UnitRefusal::Term { known: 5 },
        UnitRefusal::Leader { known: 2 },
        UnitRefusal::Epoch { known: 3 },
        UnitRefusal::Lagging { height: 499, applied: 900 },
        UnitRefusal::Passed { height: 501 },
        UnitRefusal::Parent { got: WORD },
        UnitRefusal::Transaction { id: AdmissionId(5) },
        UnitRefusal::Busy,
        UnitRefusal::Failed,
    ]
}

fn root_unit() -> RootUnit {
    let diff = block().diff;
    let partitions = PartitionSet::from_iter([0, 7, 255]);
    RootUnit { id: unit().id, partitions, changes: encode_diff(&diff) }
}

#[test]
fn refusals_of_units_keep_their_bytes() {
    let mut all = Vec::new();
    for refusal in unit_refusals() {
        let refused = UnitRefused { echo: unit().id, executor: 3, refusal };
        let bytes = Response::NotExecuted(refused.clone()).encode();
        assert_eq!(Response::decode(&bytes), Ok(Response::NotExecuted(refused)));
        all.extend_from_slice(&bytes);
    }
    golden("response_not_executed", &all);
}

fn signed_hashes() -> Vec<SignedHash> {
    let spec = ChainSpec::new(&ChainConfig::default()).unwrap();
    let rules = AdmissionRules::at(&spec, &Header::default(), &ClusterOptions::default());
    transactions().iter().map(|tx| SignedHash::of(tx.inner(), &rules).unwrap()).collect()
}

#[test]
fn requests_keep_their_bytes() {
    for (name, request) in [
        ("request_submit", Request::Submit(AdmitBatch { transactions: transactions() })),
        ("request_status", Request::Status),
        ("request_propose", Request::Propose(LogEntry::Forkchoice(forkchoice()).encode())),
        ("request_execute", Request::Execute(unit())),
        ("request_execute_given", Request::Execute(given_unit())),
        ("request_hash", Request::Hash(root_unit())),
        ("request_recover", Request::Recover(signed_hashes())),
    ] {
        let bytes = request.encode();
        golden(name, &bytes);
        assert_eq!(Request::decode(&bytes), Ok(request), "{name}");
    }
}

#[test]
fn responses_keep_their_bytes() {
    let mut verdicts = vec![Ok(())];
    verdicts.extend(pool_errors().into_iter().map(Err));
    let more = more_pool_errors().into_iter().map(Err).collect();
    let status = NodeStatus {
        node: 2,
        term: 4,
        leader: Some(1),
        applied_index: 1000,
        head_number: 500,
        head_hash: WORD,
    };
    for (name, response) in [
        ("response_verdicts", Response::Verdicts(verdicts)),
        ("response_verdicts_of_fees", Response::Verdicts(more)),
        ("response_not_leader", Response::Refused(Refusal::NotLeader { leader: Some(3) })),
        ("response_no_leader", Response::Refused(Refusal::NotLeader { leader: None })),
        ("response_queue_full", Response::Refused(Refusal::QueueFull)),
        ("response_batch_too_large", Response::Refused(Refusal::BatchTooLarge)),
        ("response_outcome_unknown", Response::Refused(Refusal::OutcomeUnknown)),
        ("response_status", Response::Status(status)),
        ("response_proposed", Response::Proposed { accepted: true }),
        ("response_recovered", Response::Recovered(vec![Some(ALICE), None])),
        (
            "response_executed",
            Response::Executed(UnitAnswer {
                echo: unit().id,
                executor: 3,
                run_us: 1_234,
                outcomes: Bytes::from_static(&[2, 0xc0]),
            }),
        ),
        (
            "response_hashed",
            Response::Hashed(RootAnswer {
                echo: unit().id,
                owner: 3,
                run_us: 1_234,
                roots: Bytes::from_static(&hex!("c0")),
            }),
        ),
    ] {
        let bytes = response.encode();
        golden(name, &bytes);
        assert_eq!(Response::decode(&bytes), Ok(response), "{name}");
    }
}

#[test]
fn foreign_bytes_are_told_from_messages() {
    let request = |bytes: &[u8]| Request::decode(bytes).unwrap_err();
    let response = |bytes: &[u8]| Response::decode(bytes).unwrap_err();
    assert_eq!(request(&[]), WireError::TooShort);
    assert_eq!(request(&[2]), WireError::TooShort);
    assert_eq!(request(b"GET / HTTP/1.1"), WireError::Version { got: b'G' });
    assert_eq!(request(&[2, 3]), WireError::Kind { got: 3 });
    assert_eq!(request(&[2, 2, 0]), WireError::LeftOver { left: 1 });
    assert_eq!(
        request(&[2, 1, 0, 0]).to_string(),
        "malformed batch: malformed log entry: bytes left over"
    );
    // What would be committed must be readable, and another node's to propose.
    assert_eq!(
        request(&[2, 16, 0xff]).to_string(),
        "malformed batch: log entry version 255 is not supported, expected 3"
    );
    let admit = AdmitBatch { transactions: transactions() }.encode_entry();
    assert_eq!(request(&[&[2, 16][..], &admit].concat()), WireError::Entry);
    assert_eq!(response(&[2, 1]), WireError::Kind { got: 1 });
    assert_eq!(response(&[2, 4, 1, 9]), WireError::LeftOver { left: 1 });
    assert!(matches!(response(&[2, 4, 99]), WireError::Payload(_)));
    // A length of 2^63 verdicts is refused without room being made for them.
    let endless = [&[2, 3][..], &[0xff; 9], &[0x01]].concat();
    assert!(matches!(response(&endless), WireError::Payload(_)));
}

/// No prefix of a message is a message.
#[test]
fn truncated_messages_are_refused() {
    let bytes = Request::Submit(AdmitBatch { transactions: transactions() }).encode();
    for len in 0..bytes.len() {
        assert!(Request::decode(&bytes[..len]).is_err(), "{len}");
    }
    let verdicts = pool_errors().into_iter().map(Err).collect();
    let bytes = Response::Verdicts(verdicts).encode();
    for len in 0..bytes.len() {
        assert!(Response::decode(&bytes[..len]).is_err(), "{len}");
    }
    let bytes = LogEntry::Block(Box::new(block())).encode();
    for len in 0..bytes.len() {
        assert!(LogEntry::decode(&bytes[..len]).is_err(), "{len}");
    }
}
