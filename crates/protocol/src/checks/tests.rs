use super::*;
use crate::testing::{BLOCK_GAS, CHAIN_ID, osaka, rules, rules_of};
use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip2930, TxEip7702, crypto::SECP256K1N_HALF,
};
use alloy_eips::eip7702::Authorization;
use alloy_genesis::ChainConfig;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, b256, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;

mod blobs;

/// The first account of the `test ... junk` mnemonic.
const KEY: B256 = b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");

fn signer() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&KEY).unwrap()
}

fn sign<T: SignableTransaction<Signature>>(tx: T) -> TxEnvelope
where
    TxEnvelope: From<Signed<T>>,
{
    let signature = signer().sign_hash_sync(&tx.signature_hash()).unwrap();
    tx.into_signed(signature).into()
}

fn legacy() -> TxLegacy {
    TxLegacy {
        chain_id: Some(CHAIN_ID),
        gas_limit: 21_000,
        to: TxKind::Call(Address::ZERO),
        ..TxLegacy::default()
    }
}

fn eip1559() -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        gas_limit: 21_000,
        max_fee_per_gas: 2,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(Address::ZERO),
        ..TxEip1559::default()
    }
}

fn eip7702() -> TxEip7702 {
    let authorization = Authorization { chain_id: U256::ZERO, address: Address::ZERO, nonce: 0 };
    let signature = signer().sign_hash_sync(&authorization.signature_hash()).unwrap();
    TxEip7702 {
        chain_id: CHAIN_ID,
        gas_limit: 46_000,
        authorization_list: vec![authorization.into_signed(signature)],
        ..TxEip7702::default()
    }
}

fn verdict(tx: impl Into<TxEnvelope>, rules: &AdmissionRules) -> Result<(), PoolError> {
    decode(&tx.into().encoded_2718(), rules).map(|_| ())
}

#[track_caller]
fn refused(tx: TxEnvelope, text: &str) {
    assert_eq!(verdict(tx, &rules()).unwrap_err().to_string(), text);
}

#[track_caller]
fn garbage(raw: &[u8], text: &str) {
    assert_eq!(decode(raw, &rules()).unwrap_err().to_string(), text);
}

#[test]
fn every_type_is_decoded_and_its_sender_recovered() {
    let eip2930 = TxEip2930 { chain_id: CHAIN_ID, gas_limit: 21_000, ..TxEip2930::default() };
    let eip2930 = TxEip2930 { to: TxKind::Call(Address::ZERO), ..eip2930 };
    for tx in [sign(legacy()), sign(eip2930), sign(eip1559()), sign(eip7702())] {
        let decoded = decode(&tx.encoded_2718(), &rules()).unwrap();
        assert_eq!((decoded.inner(), decoded.signer()), (&tx, signer().address()));
    }
}

#[test]
fn bytes_that_are_no_transaction_are_refused() {
    garbage(&[], "typed transaction too short");
    garbage(&[0x02], "typed transaction too short");
    garbage(&[0x00, 0xc0], "transaction type not supported");
    garbage(&[0x05, 0xc0], "transaction type not supported");
    garbage(&[0x7f, 0xc0], "transaction type not supported");
    garbage(&[0x02, 0x80], "rlp: expected input list");
    garbage(&[0x02, 0xc1, 0x80], "rlp: value size exceeds available input length");
    garbage(&[0xc0], "rlp: value size exceeds available input length");
    garbage(&[0x80], "rlp: expected input list");
    garbage(&[0xf8, 0xff, 0x01], "rlp: value size exceeds available input length");
    garbage(
        &vec![0xc0; limits::TX_SIZE_MAX + 1],
        "oversized data: transaction size 131073, limit 131072",
    );
    let mut raw = sign(eip1559()).encoded_2718();
    raw.push(0);
    garbage(&raw, "rlp: input contains more than one value");
    raw.truncate(raw.len() - 2);
    assert!(matches!(decode(&raw, &rules()), Err(PoolError::Rlp(_))));
}

/// Every prefix and every single wrong byte is refused or is another transaction, and nothing panics.
#[test]
fn damaged_bytes_never_pass_for_the_same_transaction() {
    for tx in [sign(legacy()), sign(eip1559()), sign(eip7702())] {
        let raw = tx.encoded_2718();
        for len in 0..raw.len() {
            assert!(parse(&raw[..len], &rules()).is_err());
        }
        for at in 0..raw.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = raw.clone();
                damaged[at] ^= flip;
                if let Ok(other) = parse(&damaged, &rules()) {
                    assert_ne!(other.tx_hash(), tx.tx_hash());
                    assert_eq!(other.encoded_2718(), damaged);
                }
            }
        }
    }
}

#[test]
fn a_transaction_must_be_signed_for_this_chain() {
    refused(
        sign(TxLegacy { chain_id: None, ..legacy() }),
        "only replay-protected (EIP-155) transactions allowed over RPC",
    );
    let mut lenient = rules();
    lenient.submission.unprotected = true;
    assert_eq!(verdict(sign(TxLegacy { chain_id: None, ..legacy() }), &lenient), Ok(()));
    let text = "invalid sender: invalid chain id for signer: have 1 want 1337";
    refused(sign(TxLegacy { chain_id: Some(1), ..legacy() }), text);
    refused(sign(TxEip1559 { chain_id: 1, ..eip1559() }), text);
}

#[test]
fn a_signature_must_be_one() {
    let text = "invalid sender: invalid transaction v, r, s values";
    let with = |signature| TxEnvelope::from(eip1559().into_signed(signature));
    refused(with(Signature::new(U256::ZERO, U256::from(1), false)), text);
    refused(with(Signature::new(U256::from(1), U256::ZERO, false)), text);
    refused(with(Signature::new(U256::MAX, U256::from(1), false)), text);

    // EIP-2: the same signature with s mirrored recovers the same sender and is refused.
    let signed = sign(eip1559());
    let order = SECP256K1N_HALF * U256::from(2) + U256::from(1);
    let good = *signed.signature();
    let high = Signature::new(good.r(), order - good.s(), !good.v());
    assert_eq!(with(high).recover_signer_unchecked().unwrap(), signer().address());
    refused(with(high), text);
}

#[test]
fn gas_may_not_cost_more_than_the_node_lets_anybody_pay() {
    let tx =
        |max_fee_per_gas| sign(TxEip1559 { gas_limit: 1_000_000, max_fee_per_gas, ..eip1559() });
    let ether = 1_000_000_000_000_000_000;
    assert_eq!(verdict(tx(ether / 1_000_000), &rules()), Ok(()));
    let text = "tx fee (1.00 ether) exceeds the configured cap (1.00 ether)";
    refused(tx(ether / 1_000_000 + 1), text);
    let text = "tx fee (12.35 ether) exceeds the configured cap (1.00 ether)";
    refused(tx(12_345_678_901_234), text);
    refused(sign(TxLegacy { gas_price: ether, ..legacy() }), &text.replace("12.35", "21000.00"));
    let mut lenient = rules();
    lenient.submission.fee_cap = None;
    assert_eq!(verdict(tx(ether), &lenient), Ok(()));
}

/// Of chain 1, with a gas price of 242 bits.
const WIDE: [u8; 128] = hex!(
    "f87e809f031eea408f8e1799cb883da2927b1336521d73c2c14accfebb70d5c5ae46698252089409"
    "5e7baea6a6c7c4c2dfeb977efac326af552d87808026a098ff921201554726367d2be8c804a7ff89"
    "ccf285ebc57dff8ae4c44b9c19ac4aa01887321be575c8095f789dd4c743dfe42c1820f9231f98a9"
    "62b210e3ac2452a3"
);

#[test]
fn what_nobody_can_pay_is_refused_in_the_words_for_it() {
    let mut rules = AdmissionRules { chain_id: 1, ..rules() };
    let text = |raw: &[u8], rules: &AdmissionRules| decode(raw, rules).unwrap_err().to_string();
    let capped = text(&WIDE, &rules);
    assert!(capped.starts_with("tx fee ("), "{capped}");
    assert!(capped.ends_with(" ether) exceeds the configured cap (1.00 ether)"), "{capped}");
    rules.submission.fee_cap = None;
    let unpaid = text(&WIDE, &rules);
    assert!(unpaid.starts_with("insufficient funds for gas * price + value: tx cost "), "{unpaid}");
    let elsewhere = AdmissionRules { chain_id: 7, ..rules };
    let expected = "invalid sender: invalid chain id for signer: have 1 want 7";
    assert_eq!(text(&WIDE, &elsewhere), expected);
    let Unpayable { hash, sender, .. } = unpayable(&WIDE, &rules).unwrap().unwrap();
    assert_eq!(hash, keccak256(WIDE));
    assert_eq!(sender, address!("9da8eb227a1fe47eaf51fee029673adeae485006"));

    // Two bytes more make it wider than any number is.
    let mut wider = WIDE.to_vec();
    wider.splice(3..4, [0xa0 + 1, 1, 1]);
    wider[1] += 2;
    assert_eq!(text(&wider, &rules), "max fee per gas higher than 2^256-1");
    // What would not decode with a lesser fee either is what it was.
    let cut = &WIDE[..WIDE.len() - 1];
    assert_eq!(unpayable(cut, &rules), None);
    assert_eq!(text(cut, &rules), "rlp: value size exceeds available input length");
}

#[test]
fn gas_must_cover_what_is_due_before_anything_runs() {
    let tx = |gas_limit, input: &[u8]| {
        sign(TxEip1559 { gas_limit, input: Bytes::copy_from_slice(input), ..eip1559() })
    };
    refused(tx(20_999, &[]), "intrinsic gas too low: gas 20999, minimum needed 21000");
    refused(
        tx(21_399, &[1; 10]),
        "insufficient gas for floor data gas cost: gas 21399, minimum needed 21400",
    );
    assert_eq!(verdict(tx(21_400, &[1; 10]), &rules()), Ok(()));
    refused(
        sign(TxEip7702 { gas_limit: 45_999, ..eip7702() }),
        "intrinsic gas too low: gas 45999, minimum needed 46000",
    );
}

#[test]
fn gas_must_fit_a_transaction_and_a_block() {
    let tx = |gas_limit| sign(TxEip1559 { gas_limit, ..eip1559() });
    refused(tx(16_777_217), "transaction gas limit too high (cap: 16777216, tx: 16777217)");
    assert_eq!(verdict(tx(16_777_216), &rules()), Ok(()));

    let prague = rules_of(&ChainConfig { osaka_time: None, ..osaka() });
    assert_eq!(verdict(tx(BLOCK_GAS), &prague), Ok(()));
    assert_eq!(verdict(tx(BLOCK_GAS + 1), &prague), Err(PoolError::BlockGasLimit));
}

#[test]
fn limits_of_single_fields_hold() {
    refused(
        sign(TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 2, ..eip1559() }),
        "max priority fee per gas higher than max fee per gas",
    );
    refused(sign(TxEip1559 { nonce: u64::MAX, ..eip1559() }), "nonce has max value");
    refused(
        sign(TxEip7702 { authorization_list: Vec::new(), ..eip7702() }),
        "set code tx must have at least one authorization tuple",
    );
    let create = |len| {
        let (to, input) = (TxKind::Create, vec![0; len].into());
        sign(TxEip1559 { to, input, gas_limit: 10_000_000, ..eip1559() })
    };
    refused(create(49_153), "max initcode size exceeded: code size 49153, limit 49152");
    assert_eq!(verdict(create(49_152), &rules()), Ok(()));
    let paris = ChainConfig {
        shanghai_time: None,
        cancun_time: None,
        prague_time: None,
        osaka_time: None,
        ..osaka()
    };
    assert_eq!(verdict(create(49_153), &rules_of(&paris)), Ok(()));
}

#[test]
fn a_type_waits_for_its_fork() {
    let prague = ChainConfig { prague_time: None, osaka_time: None, ..osaka() };
    let text = |error: Result<(), PoolError>| error.unwrap_err().to_string();
    assert_eq!(
        text(verdict(sign(eip7702()), &rules_of(&prague))),
        "transaction type not supported: type 4 rejected, pool not yet in Prague"
    );
    let istanbul = ChainConfig {
        chain_id: CHAIN_ID,
        homestead_block: Some(0),
        eip150_block: Some(0),
        eip158_block: Some(0),
        byzantium_block: Some(0),
        constantinople_block: Some(0),
        istanbul_block: Some(0),
        ..ChainConfig::default()
    };
    assert_eq!(
        text(verdict(sign(eip1559()), &rules_of(&istanbul))),
        "transaction type not supported: type 2 rejected, pool not yet in London"
    );
    assert_eq!(verdict(sign(legacy()), &rules_of(&istanbul)), Ok(()));
}

#[test]
fn from_amsterdam_on_the_engine_prices_gas() {
    let amsterdam = rules_of(&ChainConfig { amsterdam_time: Some(0), ..osaka() });
    let tx = |gas_limit| sign(TxEip1559 { gas_limit, ..eip1559() });
    assert_eq!(verdict(tx(20_000_000), &amsterdam), Ok(()));
    assert_eq!(verdict(tx(20_999), &amsterdam), Ok(()));
    assert_eq!(verdict(tx(BLOCK_GAS + 1), &amsterdam), Err(PoolError::BlockGasLimit));
}
