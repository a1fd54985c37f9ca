//! Contracts that a genesis file carries because no transaction can, or should have to, create them.

use alloy_consensus::{Transaction, TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::{Decodable2718, eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, Bytes, U256, hex};

/// A transaction that was signed once, without a chain id, so that it creates one contract at one
/// address on any chain. Its signature recovers to a sender nobody has the key of, which proves the
/// code: one changed byte gives another sender and so another address.
struct KeylessDeployment {
    /// The signed transaction, hex.
    raw: &'static str,
    /// Bytes of constructor before the code that it returns.
    constructor_len: usize,
}

const CREATE2_DEPLOYER: KeylessDeployment =
    KeylessDeployment { raw: include_str!("../assets/create2-deployer.tx"), constructor_len: 14 };
const MULTICALL3: KeylessDeployment =
    KeylessDeployment { raw: include_str!("../assets/multicall3.tx"), constructor_len: 32 };

/// Length of the EIP-7251 contract, bytes, as its deployment transaction returns it. alloy's
/// constant has two zero bytes more at its end, which are on no chain.
const EIP7251_CODE_LEN: usize = 0x19e;

impl KeylessDeployment {
    /// The address that the transaction creates and the code that it leaves there.
    fn contract(&self) -> (Address, Bytes) {
        let raw = hex::decode(self.raw.trim()).expect("the committed file is hex");
        let tx = TxEnvelope::decode_2718(&mut raw.as_slice()).expect("the committed file is a tx");
        let sender = tx.recover_signer().expect("the committed transaction is signed");
        (sender.create(0), tx.input().slice(self.constructor_len..))
    }
}

/// Every predeployed contract. Nonce 1 is what creation leaves (EIP-161).
pub(crate) fn predeploys() -> Vec<(Address, GenesisAccount)> {
    let contracts = [
        (eip4788::BEACON_ROOTS_ADDRESS, eip4788::BEACON_ROOTS_CODE.clone()),
        (eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone()),
        // Queues start without storage, as in geth's development genesis. On mainnet slot 0 held
        // 2^256 - 1 from deployment to the fork's first block, so that nobody could queue before
        // the fork: here the fork is at block 0 and the fee can be read from the start.
        (
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone(),
        ),
        (
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE.slice(..EIP7251_CODE_LEN),
        ),
        CREATE2_DEPLOYER.contract(),
        MULTICALL3.contract(),
    ];
    contracts
        .into_iter()
        .map(|(address, code)| {
            (
                address,
                GenesisAccount {
                    nonce: Some(1),
                    balance: U256::ZERO,
                    code: Some(code),
                    ..Default::default()
                },
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{B256, TxKind, address, b256, keccak256};
    use alloy_sol_types::{SolCall, SolValue, sol};
    use revm::{
        Context, ExecuteEvm, MainBuilder, MainContext, SystemCallEvm,
        context::{TxEnv, result::ExecutionResult},
        database::{CacheDB, EmptyDB},
        state::{AccountInfo, Bytecode},
    };

    sol! {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Result3 { bool success; bytes returnData; }
        function aggregate3(Call3[] calls) returns (Result3[] returnData);
        function getChainId() returns (uint256 chainid);
        function getBlockNumber() returns (uint256 blockNumber);
    }

    const MULTICALL3_ADDRESS: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
    const CREATE2_ADDRESS: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
    const CALLER: Address = Address::repeat_byte(0xca);

    fn database() -> CacheDB<EmptyDB> {
        let mut db = CacheDB::new(EmptyDB::default());
        for (address, account) in predeploys() {
            let code = Bytecode::new_raw(account.code.expect("predeploys have code"));
            db.insert_account_info(
                address,
                AccountInfo {
                    nonce: 1,
                    code_hash: code.hash_slow(),
                    code: Some(code),
                    ..Default::default()
                },
            );
        }
        db
    }

    fn call(to: Address, data: Vec<u8>) -> ExecutionResult {
        let mut evm = Context::mainnet()
            .with_db(database())
            .modify_cfg_chained(|cfg| {
                cfg.chain_id = 1337;
                cfg.tx_chain_id_check = false;
            })
            .modify_block_chained(|block| block.number = U256::from(7))
            .build_mainnet();
        let tx = TxEnv {
            caller: CALLER,
            kind: TxKind::Call(to),
            data: data.into(),
            gas_limit: 1_000_000,
            ..Default::default()
        };
        evm.transact(tx).expect("the call is valid").result
    }

    #[test]
    fn keyless_deployments_recover_to_the_well_known_addresses() {
        let addresses = [CREATE2_DEPLOYER.contract().0, MULTICALL3.contract().0];
        assert_eq!(addresses, [CREATE2_ADDRESS, MULTICALL3_ADDRESS]);
    }

    #[test]
    fn create2_deployer_has_its_known_code_hash() {
        assert_eq!(
            keccak256(CREATE2_DEPLOYER.contract().1),
            b256!("2fa86add0aed31f33a762c9d88e807c475bd51d0f52bd0955754b2608f7e4989"),
        );
    }

    #[test]
    fn create2_deployer_creates_where_the_salt_says() {
        let salt = B256::repeat_byte(5);
        let init_code = hex!("600160005260206000f3");
        let result = call(CREATE2_ADDRESS, [salt.as_slice(), &init_code].concat());
        let expected = CREATE2_ADDRESS.create2(salt, keccak256(init_code));
        assert_eq!(result.output(), Some(&expected.to_vec().into()));
    }

    #[test]
    fn multicall3_answers_chain_id() {
        let result = call(MULTICALL3_ADDRESS, getChainIdCall {}.abi_encode());
        assert_eq!(result.output(), Some(&U256::from(1337).abi_encode().into()));
    }

    #[test]
    fn multicall3_aggregates() {
        let calls = [getChainIdCall {}.abi_encode(), getBlockNumberCall {}.abi_encode()];
        let calls = calls.map(|data| Call3 {
            target: MULTICALL3_ADDRESS,
            allowFailure: false,
            callData: data.into(),
        });
        let result =
            call(MULTICALL3_ADDRESS, aggregate3Call { calls: calls.to_vec() }.abi_encode());
        let output = result.output().expect("aggregate3 returns");
        let values = aggregate3Call::abi_decode_returns(output).expect("an array of results");
        let values: Vec<_> =
            values.iter().map(|one| (one.success, U256::from_be_slice(&one.returnData))).collect();
        assert_eq!(values, [(true, U256::from(1337)), (true, U256::from(7))]);
    }

    #[test]
    fn request_queues_answer_the_system_call_and_a_fee_query() {
        for address in [
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
        ] {
            let mut evm = Context::mainnet().with_db(database()).build_mainnet();
            let result = evm.system_call(address, Bytes::new()).expect("the call is valid").result;
            assert!(result.is_success(), "{address}: {result:?}");
            assert_eq!(result.output(), Some(&Bytes::new()), "{address}: no requests are queued");
            let fee = call(address, Vec::new());
            assert_eq!(fee.output(), Some(&U256::from(1).abi_encode().into()), "{address}");
        }
    }

    #[test]
    fn history_contracts_accept_the_system_call() {
        for address in [eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS] {
            let mut evm = Context::mainnet().with_db(database()).build_mainnet();
            let input = Bytes::from(B256::repeat_byte(9));
            let result = evm.system_call(address, input).expect("the call is valid").result;
            assert!(result.is_success(), "{address}: {result:?}");
        }
    }
}
