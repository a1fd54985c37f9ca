//! TransactionTests: which bytes are a valid transaction in which fork, whose it is, and what it costs
//! before anything runs.

use crate::tests_in;
use alloy_consensus::{Header, Transaction as _, TxEnvelope};
use alloy_primitives::{Address, B256, U256, hex};
use blockraft_primitives::{ChainSpec, ClusterOptions, network};
use blockraft_protocol::{
    AdmissionRules, IntrinsicInput, IntrinsicRules, PoolError, SubmissionRules, Unpayable, decode,
    intrinsic_gas, unpayable,
};
use serde_json::Value;

const FORKS: [&str; 15] = [
    "Frontier",
    "Homestead",
    "EIP150",
    "EIP158",
    "Byzantium",
    "Constantinople",
    "ConstantinopleFix",
    "Istanbul",
    "Berlin",
    "London",
    "Paris",
    "Shanghai",
    "Cancun",
    "Prague",
    "Osaka",
];

fn level_of(fork: &str) -> usize {
    FORKS.iter().position(|known| *known == fork).unwrap_or_else(|| panic!("unknown fork {fork}"))
}

/// What a pool asks where nothing but the chain's rules counts.
fn rules(fork: &str) -> AdmissionRules {
    rules_on(1, fork)
}

/// The same on a chain with this id.
pub(crate) fn rules_on(chain_id: u64, fork: &str) -> AdmissionRules {
    let spec = ChainSpec::new(&network(fork, chain_id).unwrap()).unwrap();
    let head = Header { gas_limit: u64::MAX, ..Header::default() };
    let mut rules = AdmissionRules::at(&spec, &head, &ClusterOptions::default());
    rules.submission = SubmissionRules { fee_cap: None, unprotected: true };
    rules
}

fn intrinsic(tx: &TxEnvelope, fork: &str) -> u64 {
    let active = |name: &str| level_of(fork) >= level_of(name);
    let input = IntrinsicInput {
        data: tx.input(),
        create: tx.is_create(),
        access_list: tx.access_list(),
        authorizations: tx.authorization_count().unwrap_or(0),
    };
    let rules = IntrinsicRules {
        homestead: active("Homestead"),
        istanbul: active("Istanbul"),
        shanghai: active("Shanghai"),
    };
    intrinsic_gas(input, rules)
}

/// Whether a refusal is of the class that the suite names; many of its classes are all one fault of the
/// encoding.
fn is_of_class(error: &PoolError, exception: &str) -> bool {
    let class = exception.strip_prefix("TransactionException.").unwrap_or(exception);
    match class {
        "INTRINSIC_GAS_TOO_LOW" => matches!(error, PoolError::IntrinsicGas { .. }),
        "INITCODE_SIZE_EXCEEDED" => matches!(error, PoolError::InitCode { .. }),
        "NONCE_TOO_BIG" => *error == PoolError::NonceMax,
        "PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS_2" => *error == PoolError::TipAboveFeeCap,
        "GASPRICE_OVERFLOW" => *error == PoolError::FeeVeryHigh,
        "PRIORITY_OVERFLOW" => *error == PoolError::TipVeryHigh,
        "GASLIMIT_PRICE_PRODUCT_OVERFLOW" => *error == PoolError::Unpayable { cost: U256::MAX },
        // A legacy transaction's chain id is a part of its signature; one test breaks two rules.
        "INVALID_CHAINID" | "INVALID_SIGNATURE_VRS" | "EC_RECOVERY_FAIL" => matches!(
            error,
            PoolError::ChainId { .. }
                | PoolError::Signature
                | PoolError::Rlp(_)
                | PoolError::IntrinsicGas { .. }
        ),
        // The encoding is looked at before the fork.
        "TYPE_NOT_SUPPORTED" => matches!(
            error,
            PoolError::UnknownType | PoolError::TypeBeforeFork { .. } | PoolError::Rlp(_)
        ),
        _ => matches!(error, PoolError::Rlp(_) | PoolError::TooShort | PoolError::UnknownType),
    }
}

/// Hash, sender and intrinsic gas of a valid transaction.
fn verdict(raw: &[u8], fork: &str) -> Result<(B256, Address, u64), PoolError> {
    let rules = rules(fork);
    if let Some(judged) = unpayable(raw, &rules) {
        // No block takes it, and a gateway says why.
        let refusal = decode(raw, &rules).unwrap_err();
        let Unpayable { hash, sender, cost, narrowed } = judged?;
        assert_eq!(refusal, PoolError::Unpayable { cost });
        return Ok((hash, sender, intrinsic(&narrowed, fork)));
    }
    let tx = decode(raw, &rules)?;
    Ok((*tx.tx_hash(), tx.signer(), intrinsic(&tx, fork)))
}

fn check(raw: &[u8], fork: &str, expected: &Value) -> Result<(), String> {
    match (verdict(raw, fork), expected.get("exception").and_then(Value::as_str)) {
        (Ok(_), Some(exception)) => Err(format!("taken, expected {exception}")),
        (Err(error), Some(exception)) if is_of_class(&error, exception) => Ok(()),
        (Err(error), Some(exception)) => Err(format!("{error}, expected {exception}")),
        (Err(error), None) => Err(format!("refused: {error}")),
        (Ok((hash, sender, gas)), None) => {
            let text = |field: &str| expected[field].as_str().unwrap();
            let got = (hash, sender, U256::from(gas));
            let gas: U256 = text("intrinsicGas").parse().unwrap();
            let hash: B256 = text("hash").parse().unwrap();
            let sender: Address = text("sender").parse().unwrap();
            if got == (hash, sender, gas) { Ok(()) } else { Err(format!("{got:?}")) }
        }
    }
}

#[test]
fn the_public_transaction_tests_pass_in_every_fork_that_they_name() {
    let Some(tests) = tests_in("/TransactionTests/") else { return };
    let mut count = 0;
    let mut wrong = Vec::new();
    for (name, test) in &tests {
        let raw = hex::decode(test["txbytes"].as_str().unwrap());
        for (fork, expected) in test["result"].as_object().unwrap() {
            count += 1;
            let result = match &raw {
                Ok(raw) => check(raw, fork, expected),
                Err(_) if expected.get("exception").is_some() => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            wrong.extend(result.err().map(|e| format!("{name} in {fork}: {e}")));
        }
    }
    println!("TransactionTests: {count} verdicts in {} tests", tests.len());
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(30)]);
    assert_eq!(count, 2_665, "verdicts that were checked");
}
