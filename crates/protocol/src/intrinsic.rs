//! What a transaction costs before anything runs.

use alloy_eips::{
    eip2930::AccessList,
    eip7623::{tokens_in_calldata, transaction_floor_cost},
};

/// Any transaction (Yellow Paper, G_transaction).
const TX: u64 = 21_000;
/// A creation more (EIP-2).
const CREATE: u64 = 32_000;
/// A zero byte of data.
const ZERO_BYTE: u64 = 4;
/// A byte of data that is not zero, before Istanbul.
const NONZERO_BYTE_FRONTIER: u64 = 68;
/// A byte of data that is not zero (EIP-2028).
const NONZERO_BYTE: u64 = 16;
/// 32 bytes of init code (EIP-3860).
const INIT_CODE_WORD: u64 = 2;
/// An address of the access list (EIP-2930).
const ACCESS_LIST_ADDRESS: u64 = 2_400;
/// A slot of the access list (EIP-2930).
const ACCESS_LIST_SLOT: u64 = 1_900;
/// An authorization (EIP-7702, PER_EMPTY_ACCOUNT_COST).
const AUTHORIZATION: u64 = 25_000;

/// What the cost depends on.
#[derive(Clone, Copy, Debug)]
pub struct IntrinsicInput<'a> {
    /// Call data, or init code.
    pub data: &'a [u8],
    /// Whether it creates a contract.
    pub create: bool,
    /// EIP-2930 list.
    pub access_list: Option<&'a AccessList>,
    /// EIP-7702 tuples.
    pub authorizations: u64,
}

/// Which repricings are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntrinsicRules {
    /// EIP-2: a creation costs more.
    pub homestead: bool,
    /// EIP-2028: data costs less.
    pub istanbul: bool,
    /// EIP-3860: init code costs by the word.
    pub shanghai: bool,
}

/// Gas that the transaction must bring. Nothing here can overflow: a raw transaction is at most
/// [`TX_SIZE_MAX`](blockraft_primitives::limits::TX_SIZE_MAX) bytes.
pub fn intrinsic_gas(input: IntrinsicInput<'_>, rules: IntrinsicRules) -> u64 {
    let zeros = input.data.iter().filter(|byte| **byte == 0).count() as u64;
    let nonzeros = input.data.len() as u64 - zeros;
    let nonzero_cost = if rules.istanbul { NONZERO_BYTE } else { NONZERO_BYTE_FRONTIER };
    let mut gas = TX + zeros * ZERO_BYTE + nonzeros * nonzero_cost;
    if input.create && rules.homestead {
        gas += CREATE;
    }
    if input.create && rules.shanghai {
        gas += (input.data.len() as u64).div_ceil(32) * INIT_CODE_WORD;
    }
    if let Some(list) = input.access_list {
        gas += list.0.len() as u64 * ACCESS_LIST_ADDRESS;
        gas += list.storage_keys_count() as u64 * ACCESS_LIST_SLOT;
    }
    gas + input.authorizations * AUTHORIZATION
}

/// Gas that the transaction's data costs at least, whatever it runs (EIP-7623, from Prague).
pub fn floor_gas(data: &[u8]) -> u64 {
    transaction_floor_cost(tokens_in_calldata(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_eips::eip2930::AccessListItem;
    use alloy_primitives::{Address, B256};

    const FRONTIER: IntrinsicRules =
        IntrinsicRules { homestead: false, istanbul: false, shanghai: false };
    const HOMESTEAD: IntrinsicRules = IntrinsicRules { homestead: true, ..FRONTIER };
    const ISTANBUL: IntrinsicRules = IntrinsicRules { istanbul: true, ..HOMESTEAD };
    const SHANGHAI: IntrinsicRules = IntrinsicRules { shanghai: true, ..ISTANBUL };

    fn check(data: &[u8], create: bool, rules: IntrinsicRules, expected: u64) {
        let input = IntrinsicInput { data, create, access_list: None, authorizations: 0 };
        assert_eq!(intrinsic_gas(input, rules), expected, "{data:?} {create} {rules:?}");
    }

    #[test]
    fn data_and_creation_cost_by_fork() {
        check(&[], false, FRONTIER, 21_000);
        check(&[], true, FRONTIER, 21_000);
        check(&[], true, HOMESTEAD, 53_000);
        check(&[0, 0, 1], false, FRONTIER, 21_000 + 8 + 68);
        check(&[0, 0, 1], false, ISTANBUL, 21_000 + 8 + 16);
        check(&[1; 33], true, ISTANBUL, 53_000 + 33 * 16);
        check(&[1; 33], true, SHANGHAI, 53_000 + 33 * 16 + 2 * 2);
        check(&[1; 33], false, SHANGHAI, 21_000 + 33 * 16);
    }

    #[test]
    fn lists_cost_by_item() {
        let item = |slots| AccessListItem {
            address: Address::ZERO,
            storage_keys: vec![B256::ZERO; slots],
        };
        let list = AccessList(vec![item(0), item(3)]);
        let input = IntrinsicInput {
            data: &[],
            create: false,
            access_list: Some(&list),
            authorizations: 2,
        };
        assert_eq!(intrinsic_gas(input, SHANGHAI), 21_000 + 2 * 2_400 + 3 * 1_900 + 2 * 25_000);
    }

    #[test]
    fn floor_counts_a_nonzero_byte_as_four_tokens() {
        assert_eq!(floor_gas(&[]), 21_000);
        assert_eq!(floor_gas(&[0; 10]), 21_000 + 100);
        assert_eq!(floor_gas(&[1; 10]), 21_000 + 400);
    }
}
