//! `blockraft-bench gen`: a workload from a seed. Same arguments, same bytes.

use crate::{
    accounts,
    genesis::CHAIN_ID,
    output::Format,
    workload::{Phase, SignedTx, Workload},
};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::{SolCall, sol};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use rayon::prelude::*;
use serde::Serialize;
use std::{fmt, path::PathBuf};

sol! {
    function mint(address to, uint256 value);
    function transfer(address to, uint256 value) returns (bool);
}

/// Creation code of `contracts/Token.sol`.
const TOKEN_CREATION_CODE: &str = include_str!("../contracts/Token.bin");
/// Deploying the token takes 387,000 gas or so.
const DEPLOY_GAS: u64 = 600_000;
/// A mint writes two slots, of which the first may be new.
const MINT_GAS: u64 = 100_000;
/// A transfer to a holder that had nothing takes 51,000 gas or so.
const TOKEN_TRANSFER_GAS: u64 = 65_000;
const TRANSFER_GAS: u64 = 21_000;
/// Creation code of a contract that hashes 64 bytes as often as the first word of its input says, adds what
/// comes out to four slots that follow the second word, and logs it.
const MIXER_CREATION_CODE: [u8; 101] = hex!(
    "605c8060095f395ff3"
    "6020355f52"
    "5f355b801560 1b57 60405f20602052 60019003 600756 5b"
    "602035600001805460205101905560203560010180546020510190556020356002018054602051019055"
    "6020356003018054602051019055"
    "600160206020a100"
);
/// Hashes of a heavy call: about 0.18 ms, as a swap of Uniswap V3 takes.
const HEAVY_HASHES: u64 = 450;
/// What a heavy call takes, and a little more.
const HEAVY_GAS: u64 = 250_000;
/// Contracts that heavy calls are spread over.
const MIXER_COUNT: u64 = 64;
/// 100 gwei: stays above the base fee however full the blocks of a run are.
const MAX_FEE_PER_GAS: u128 = 100_000_000_000;
/// 1 gwei.
const PRIORITY_FEE_PER_GAS: u128 = 1_000_000_000;

/// What the transactions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// 1 wei each to an address that was never seen before.
    Transfer,
    /// One token unit each to a holder that had none; setup deploys the token and mints.
    Erc20,
    /// Calls as heavy as a swap, in contracts and slots that no two senders share.
    Heavy,
    /// The same calls, all into the same slots of one contract.
    Hot,
}

impl Kind {
    /// Whether executing one takes longer than recovering its sender.
    pub(crate) fn is_heavy(self) -> bool {
        matches!(self, Self::Heavy | Self::Hot)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Transfer => "transfer",
            Self::Erc20 => "erc20",
            Self::Heavy => "heavy",
            Self::Hot => "hot",
        })
    }
}

/// Signs a workload and writes it to a file.
#[derive(Args, Clone, Debug)]
pub(crate) struct GenArgs {
    /// What the transactions do.
    #[arg(long, value_enum, default_value = "transfer")]
    pub(crate) workload: Kind,
    /// Transactions, those of the setup not counted.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) count: u64,
    /// Senders: the 20 of the mnemonic, then those that stress-10k.json funds.
    #[arg(long, default_value_t = 20)]
    pub(crate) accounts: usize,
    /// Decides the recipients.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// EIP-155 chain id.
    #[arg(long, default_value_t = CHAIN_ID)]
    pub(crate) chain_id: u64,
    /// Nonce of every sender's first transaction.
    #[arg(long, default_value_t = 0)]
    pub(crate) nonce: u64,
    /// The file to write, NDJSON.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    file: PathBuf,
    setup: usize,
    measured: usize,
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, setup, measured } = self;
        write!(f, "wrote {}: {measured} transactions, {setup} for setup", file.display())
    }
}

/// Runs the command.
pub(crate) fn run(args: &GenArgs, format: Format) -> anyhow::Result<()> {
    let workload = generate(args)?;
    workload.write(&args.out)?;
    format.result(&Generated {
        file: args.out.clone(),
        setup: workload.setup.len(),
        measured: workload.measured.len(),
    });
    Ok(())
}

/// Signs the workload on all cores.
pub(crate) fn generate(args: &GenArgs) -> anyhow::Result<Workload> {
    ensure!(args.accounts > 0, "--accounts must be at least 1");
    let available = accounts::DEV_ACCOUNT_COUNT + accounts::STRESS_ACCOUNT_COUNT;
    ensure!(args.accounts <= available, "--accounts: genesis files fund {available} accounts");
    let senders = accounts::senders(args.accounts);
    let calls = match args.workload {
        Kind::Transfer => transfer_calls(args),
        Kind::Erc20 => token_calls(args, &senders),
        Kind::Heavy | Kind::Hot => mixer_calls(args, &senders),
    };
    let mut nonces = vec![args.nonce; senders.len()];
    let numbered: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let nonce = nonces[call.sender];
            nonces[call.sender] += 1;
            (call, nonce)
        })
        .collect();
    let lines = numbered
        .into_par_iter()
        .map(|(call, nonce)| sign(&senders[call.sender], args.chain_id, nonce, call))
        .collect();
    Workload::new(lines)
}

/// A transaction before it has a nonce.
struct Call {
    sender: usize,
    to: TxKind,
    value: U256,
    input: Bytes,
    gas_limit: u64,
    phase: Option<Phase>,
}

fn transfer_calls(args: &GenArgs) -> Vec<Call> {
    let call = |index: u64| Call {
        sender: (index % args.accounts as u64) as usize,
        to: TxKind::Call(recipient(args.seed, index)),
        value: U256::from(1),
        input: Bytes::new(),
        gas_limit: TRANSFER_GAS,
        phase: None,
    };
    (0..args.count).map(call).collect()
}

/// The first sender deploys and mints: its nonces put the token before the coins.
fn token_calls(args: &GenArgs, senders: &[PrivateKeySigner]) -> Vec<Call> {
    let token = senders[0].address().create(args.nonce);
    let setup = |to, input: Vec<u8>, gas_limit| Call {
        sender: 0,
        to,
        value: U256::ZERO,
        input: input.into(),
        gas_limit,
        phase: Some(Phase::Setup),
    };
    let creation = hex::decode(TOKEN_CREATION_CODE.trim()).expect("the committed file is hex");
    let mut calls = vec![setup(TxKind::Create, creation, DEPLOY_GAS)];
    calls.extend(senders.iter().map(|sender| {
        let input = mintCall { to: sender.address(), value: U256::from(args.count) }.abi_encode();
        setup(TxKind::Call(token), input, MINT_GAS)
    }));
    calls.extend((0..args.count).map(|index| {
        let to = recipient(args.seed, index);
        Call {
            sender: (index % senders.len() as u64) as usize,
            to: TxKind::Call(token),
            value: U256::ZERO,
            input: transferCall { to, value: U256::from(1) }.abi_encode().into(),
            gas_limit: TOKEN_TRANSFER_GAS,
            phase: None,
        }
    }));
    calls
}

/// The first sender deploys the contracts. Each sender has one of them, and slots of its own there.
fn mixer_calls(args: &GenArgs, senders: &[PrivateKeySigner]) -> Vec<Call> {
    let deployer = senders[0].address();
    let deploy = |_| Call {
        sender: 0,
        to: TxKind::Create,
        value: U256::ZERO,
        input: MIXER_CREATION_CODE.into(),
        gas_limit: DEPLOY_GAS,
        phase: Some(Phase::Setup),
    };
    let mut calls: Vec<Call> = (0..MIXER_COUNT).map(deploy).collect();
    calls.extend((0..args.count).map(|index| {
        let sender = index % senders.len() as u64;
        let owner = if args.workload == Kind::Hot { 0 } else { sender };
        let slots = keccak256(owner.to_be_bytes());
        let input = [U256::from(HEAVY_HASHES).to_be_bytes::<32>(), slots.0].concat();
        Call {
            sender: sender as usize,
            to: TxKind::Call(deployer.create(args.nonce + owner % MIXER_COUNT)),
            value: U256::ZERO,
            input: input.into(),
            gas_limit: HEAVY_GAS,
            phase: None,
        }
    }));
    calls
}

/// An address of which nobody has the key.
fn recipient(seed: u64, index: u64) -> Address {
    let preimage = [b"blockraft recipient", &seed.to_be_bytes()[..], &index.to_be_bytes()].concat();
    Address::from_word(keccak256(preimage))
}

/// Signatures are RFC 6979: the same key and transaction give the same bytes.
fn sign(signer: &PrivateKeySigner, chain_id: u64, nonce: u64, call: Call) -> SignedTx {
    let tx = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: call.gas_limit,
        max_fee_per_gas: MAX_FEE_PER_GAS,
        max_priority_fee_per_gas: PRIORITY_FEE_PER_GAS,
        to: call.to,
        value: call.value,
        access_list: Default::default(),
        input: call.input,
    };
    let signature = signer.sign_hash_sync(&tx.signature_hash()).expect("a local key signs");
    let envelope = TxEnvelope::from(tx.into_signed(signature));
    SignedTx {
        raw: hex::encode_prefixed(envelope.encoded_2718()),
        hash: *envelope.tx_hash(),
        from: signer.address(),
        nonce,
        phase: call.phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_consensus::{Transaction, transaction::SignerRecoverable};
    use alloy_eips::Decodable2718;
    use std::collections::BTreeSet;

    fn args(workload: Kind, count: u64, accounts: usize) -> GenArgs {
        let out = PathBuf::new();
        GenArgs { workload, count, accounts, seed: 7, chain_id: 1337, nonce: 0, out }
    }

    fn decode(tx: &SignedTx) -> TxEnvelope {
        let raw = hex::decode(&tx.raw).unwrap();
        TxEnvelope::decode_2718(&mut raw.as_slice()).unwrap()
    }

    #[test]
    fn same_arguments_give_the_same_workload() {
        let args = args(Kind::Erc20, 50, 3);
        assert_eq!(generate(&args).unwrap(), generate(&args).unwrap());
        let other = GenArgs { seed: 8, ..args.clone() };
        assert_ne!(generate(&args).unwrap().measured, generate(&other).unwrap().measured);
    }

    #[test]
    fn transfers_are_signed_by_their_senders_and_go_to_new_addresses() {
        let workload = generate(&args(Kind::Transfer, 100, 25)).unwrap();
        assert_eq!((workload.setup.len(), workload.measured.len()), (0, 100));
        let mut recipients = BTreeSet::new();
        for line in &workload.measured {
            let tx = decode(line);
            assert_eq!(tx.recover_signer().unwrap(), line.from);
            assert_eq!((*tx.tx_hash(), tx.nonce()), (line.hash, line.nonce));
            assert_eq!((tx.chain_id(), tx.gas_limit()), (Some(1337), 21_000));
            assert!(recipients.insert(tx.to()), "{tx:?}");
        }
        let senders: BTreeSet<_> = workload.measured.iter().map(|tx| tx.from).collect();
        assert_eq!(senders.len(), 25);
    }

    #[test]
    fn token_setup_deploys_then_mints_to_every_sender() {
        let workload = generate(&args(Kind::Erc20, 10, 4)).unwrap();
        let setup: Vec<_> = workload.setup.iter().map(decode).collect();
        let token = workload.setup[0].from.create(0);
        let targets: Vec<_> = setup.iter().map(|tx| tx.to()).collect();
        assert_eq!(targets, [None, Some(token), Some(token), Some(token), Some(token)]);
        assert!(workload.measured.iter().all(|tx| decode(tx).to() == Some(token)));
        assert_eq!(workload.measured[0].nonce, 5);
    }

    #[test]
    fn calls_execute_with_status_one_within_their_gas() {
        for kind in [Kind::Erc20, Kind::Heavy, Kind::Hot] {
            executes(kind);
        }
    }

    fn executes(kind: Kind) {
        use revm::{
            Context, ExecuteCommitEvm, MainBuilder, MainContext,
            context::TxEnv,
            database::{CacheDB, EmptyDB},
            state::AccountInfo,
        };
        let workload = generate(&args(kind, 8, 4)).unwrap();
        let mut db = CacheDB::new(EmptyDB::default());
        for signer in accounts::senders(4) {
            db.insert_account_info(
                signer.address(),
                AccountInfo { balance: U256::from(u128::MAX), ..Default::default() },
            );
        }
        let mut evm = Context::mainnet()
            .with_db(db)
            .modify_cfg_chained(|cfg| cfg.chain_id = 1337)
            .build_mainnet();
        for line in workload.lines() {
            let tx = decode(line);
            let env = TxEnv {
                tx_type: 2,
                caller: line.from,
                gas_limit: tx.gas_limit(),
                gas_price: tx.max_fee_per_gas(),
                gas_priority_fee: tx.max_priority_fee_per_gas(),
                kind: tx.kind(),
                value: tx.value(),
                data: tx.input().clone(),
                nonce: tx.nonce(),
                chain_id: tx.chain_id(),
                ..Default::default()
            };
            let result = evm.transact_commit(env).unwrap();
            assert!(result.is_success(), "{line:?}: {result:?}");
            let logs = usize::from(tx.to().is_some());
            assert_eq!(result.logs().len(), logs, "every call emits Transfer: {result:?}");
        }
    }
}
