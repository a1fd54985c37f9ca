//! Blocks to measure with, on a state that transactions made: tokens, pools, and accounts with funds.
//!
//! The heavy call is a swap in `contracts/Pool.sol`: some 24 reads and 10 writes of storage, two tokens
//! moved, and the arithmetic of a concentrated-liquidity exchange.

use crate::predeploys::predeploys;
use alloy_consensus::{
    Header, Sealable, Sealed, SignableTransaction, Transaction as _, TxEip1559,
    transaction::Recovered,
};
use alloy_evm::EvmEnv;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, hex, keccak256};
use alloy_sol_types::{SolCall, SolValue, sol};
use anyhow::{Context, ensure};
use blockraft_execution::{BlockAttributes, BlockInput, build_block, evm_env};
use blockraft_primitives::{Account, ChainSpec, MemoryState, Receipt, Transaction, network};
use std::{collections::BTreeMap, sync::Arc};

const TOKEN_CREATION_CODE: &str = include_str!("../../contracts/Token.bin");
const POOL_CREATION_CODE: &str = include_str!("../../contracts/Pool.bin");

const CHAIN_ID: u64 = 1337;
/// Far more than any block here uses; the base fee then falls to nothing and stays there.
const GAS_LIMIT: u64 = 20_000_000_000;
/// EIP-7825.
const TX_GAS_LIMIT_MAX: u64 = 1 << 24;
const ETHER: u128 = 1_000_000_000_000_000_000;
const GWEI: u128 = 1_000_000_000;

/// Transactions of a block of each kind: enough that one run takes tens of milliseconds.
const TRANSFERS: u64 = 10_000;
const TOKEN_TRANSFERS: u64 = 4_000;
pub(super) const SWAPS: u64 = 240;

sol! {
    function mint(address to, uint256 value);
    function approve(address spender, uint256 value);
    function transfer(address to, uint256 value);
    function swap(bool zeroForOne, uint256 amount, address to);
}

/// A block and the state that it runs on.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) spec: ChainSpec,
    pub(super) header: Header,
    pub(super) state: MemoryState,
    pub(super) transactions: Vec<Transaction>,
    /// What the block comes to.
    pub(super) receipts: Vec<Receipt>,
}

impl Workload {
    pub(super) fn input(&self) -> BlockInput<'_> {
        BlockInput {
            spec: &self.spec,
            header: &self.header,
            transactions: &self.transactions,
            ommers: &[],
            withdrawals: &[],
        }
    }

    pub(super) fn env(&self) -> EvmEnv {
        evm_env(&self.spec, &self.header)
    }

    pub(super) fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Which of so many executors runs which transaction: that of the called contract, or else of the
    /// sender, by the first byte of the hashed address.
    pub(super) fn shares(&self, executors: usize) -> Vec<Vec<usize>> {
        let mut shares = vec![Vec::new(); executors];
        for (index, tx) in self.transactions.iter().enumerate() {
            let called =
                tx.to().filter(|to| self.state.accounts.get(to).is_some_and(Account::has_code));
            let anchor = keccak256(called.unwrap_or_else(|| tx.signer()));
            shares[usize::from(anchor[0]) * executors / 256].push(index);
        }
        shares
    }
}

/// The state on which all workloads run.
#[derive(Clone, Debug)]
pub(super) struct World {
    spec: ChainSpec,
    state: MemoryState,
    head: Sealed<Header>,
    nonces: BTreeMap<Address, u64>,
    tokens: [Address; 2],
    pools: Vec<Address>,
}

/// The account of a number.
fn user(number: u64) -> Address {
    Address::from_word(keccak256(number.to_be_bytes()))
}

impl World {
    /// Tokens, one pool for each swap of a block, and users who hold tokens and allow the pools to take them.
    pub(super) fn new() -> anyhow::Result<Self> {
        let header = Header {
            gas_limit: GAS_LIMIT,
            base_fee_per_gas: Some(0),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            timestamp: 1,
            ..Default::default()
        };
        let mut world = Self {
            spec: spec()?,
            state: MemoryState::default(),
            head: header.seal_slow(),
            nonces: BTreeMap::new(),
            tokens: [Address::ZERO; 2],
            pools: Vec::new(),
        };
        for (address, account) in predeploys() {
            let code = account.code.unwrap_or_default();
            let code_hash = keccak256(&code);
            world.state.codes.insert(code_hash, code);
            let account = Account { nonce: 1, balance: U256::ZERO, code_hash };
            world.state.accounts.insert(address, account);
        }
        for number in 0..2 * TRANSFERS {
            let account = Account { balance: U256::from(1_000 * ETHER), ..Account::default() };
            world.state.accounts.insert(user(number), account);
        }
        world.deploy()?;
        world.hand_out()?;
        Ok(world)
    }

    fn deploy(&mut self) -> anyhow::Result<()> {
        let deployer = user(0);
        let token = hex::decode(TOKEN_CREATION_CODE.trim()).context("Token.bin")?;
        let pool = hex::decode(POOL_CREATION_CODE.trim()).context("Pool.bin")?;
        let mut creations = Vec::new();
        self.tokens = [0, 1].map(|nonce| deployer.create(nonce));
        for _ in 0..2 {
            creations.push(self.create(deployer, token.clone().into()));
        }
        let arguments = (self.tokens[0], self.tokens[1]).abi_encode();
        let pool: Bytes = [pool, arguments].concat().into();
        for number in 0..SWAPS {
            self.pools.push(deployer.create(2 + number));
            creations.push(self.create(deployer, pool.clone()));
        }
        self.apply(&creations)
    }

    fn hand_out(&mut self) -> anyhow::Result<()> {
        let mut calls = Vec::new();
        let value = U256::from(1_000_000 * ETHER);
        let holders: Vec<Address> = (0..2 * TOKEN_TRANSFERS).map(user).collect();
        for token in self.tokens {
            for &to in holders.iter().chain(&self.pools.clone()) {
                calls.push(self.call(user(0), token, mintCall { to, value }));
            }
            for number in 0..SWAPS {
                for pool in [self.pools[number as usize], self.pools[0]] {
                    let allowed = approveCall { spender: pool, value };
                    calls.push(self.call(user(number), token, allowed));
                }
            }
        }
        calls.chunks(5_000).try_for_each(|calls| self.apply(calls))
    }

    /// Makes a block of these the head.
    fn apply(&mut self, transactions: &[Transaction]) -> anyhow::Result<()> {
        let block =
            build_block(&self.spec, &self.state, &self.head, &self.attributes(), transactions)?;
        let failed = block.receipts.iter().position(|receipt| !receipt.status.coerce_status());
        ensure!(failed.is_none(), "set-up transaction {failed:?} failed");
        ensure!(block.included.len() == transactions.len(), "set-up is not wholly included");
        self.state.apply(&block.diff);
        self.head = block.header.seal_slow();
        Ok(())
    }

    fn attributes(&self) -> BlockAttributes {
        BlockAttributes {
            timestamp: self.head.timestamp + 12,
            fee_recipient: Address::repeat_byte(0xfe),
            gas_limit: GAS_LIMIT,
            ..Default::default()
        }
    }

    fn workload(
        mut self,
        name: &'static str,
        make: impl FnOnce(&mut Self) -> Vec<Transaction>,
    ) -> anyhow::Result<Workload> {
        let transactions = make(&mut self);
        let attributes = self.attributes();
        let block = build_block(&self.spec, &self.state, &self.head, &attributes, &transactions)?;
        let failed = block.receipts.iter().position(|receipt| !receipt.status.coerce_status());
        ensure!(failed.is_none(), "{name}: transaction {failed:?} failed");
        ensure!(block.included.len() == transactions.len(), "{name}: not wholly included");
        let (header, receipts) = (block.header, block.receipts);
        Ok(Workload { name, spec: self.spec, header, state: self.state, transactions, receipts })
    }

    /// No transactions: what every block costs.
    pub(super) fn empty(self) -> anyhow::Result<Workload> {
        self.workload("empty", |_| Vec::new())
    }

    /// Plain transfers between accounts of which each occurs once.
    pub(super) fn transfers(self) -> anyhow::Result<Workload> {
        self.workload("transfer", |world| {
            let mut pay = |n| world.tx(user(n), user(TRANSFERS + n), Bytes::new(), 21_000, 1);
            (0..TRANSFERS).map(&mut pay).collect()
        })
    }

    /// One token, between holders of which each occurs once.
    pub(super) fn token_transfers(self) -> anyhow::Result<Workload> {
        self.workload("ERC-20", |world| (0..TOKEN_TRANSFERS).map(|n| world.pay_token(n)).collect())
    }

    /// Each swap by another user in another pool.
    pub(super) fn swaps(self) -> anyhow::Result<Workload> {
        self.workload("swap", |world| (0..SWAPS).map(|n| world.swap(n, n)).collect())
    }

    /// Each swap by another user, all in one pool.
    pub(super) fn hot_swaps(self) -> anyhow::Result<Workload> {
        self.workload("hot pool", |world| (0..SWAPS).map(|n| world.swap(n, 0)).collect())
    }

    /// Three of ten swap in one pool, the others pay with a token, independently.
    pub(super) fn mix(self) -> anyhow::Result<Workload> {
        self.workload("30 % hot mix", |world| {
            let (mut swaps, mut payments) = (0..SWAPS, SWAPS..TOKEN_TRANSFERS);
            let mut transactions = Vec::new();
            // Hot ones at places 0, 3 and 6 of ten.
            for place in (0_u64..).map(|n| n % 10) {
                let hot = matches!(place, 0 | 3 | 6);
                let tx = if hot {
                    swaps.next().map(|n| world.swap(n, 0))
                } else {
                    payments.next().map(|n| world.pay_token(n))
                };
                let Some(tx) = tx else { break };
                transactions.push(tx);
            }
            transactions
        })
    }

    fn pay_token(&mut self, number: u64) -> Transaction {
        let to = user(TOKEN_TRANSFERS + number);
        self.call(user(number), self.tokens[0], transferCall { to, value: U256::from(1) })
    }

    /// Directions take turns, so that one pool's price stays where it is.
    fn swap(&mut self, number: u64, pool: u64) -> Transaction {
        let to = user(number);
        let amount = U256::from(19_000 * ETHER);
        let swap = swapCall { zeroForOne: number.is_multiple_of(2), amount, to };
        self.call(to, self.pools[pool as usize], swap)
    }

    fn call(&mut self, sender: Address, to: Address, call: impl SolCall) -> Transaction {
        self.tx(sender, to, call.abi_encode().into(), 1_000_000, 0)
    }

    fn create(&mut self, sender: Address, input: Bytes) -> Transaction {
        self.sign(sender, TxKind::Create, input, TX_GAS_LIMIT_MAX, 0)
    }

    fn tx(
        &mut self,
        sender: Address,
        to: Address,
        input: Bytes,
        gas_limit: u64,
        wei: u64,
    ) -> Transaction {
        self.sign(sender, TxKind::Call(to), input, gas_limit, wei)
    }

    /// Nothing here looks at signatures: the sender is known.
    fn sign(
        &mut self,
        sender: Address,
        to: TxKind,
        input: Bytes,
        gas_limit: u64,
        wei: u64,
    ) -> Transaction {
        let nonce = self.nonces.entry(sender).or_default();
        let tx = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: *nonce,
            gas_limit,
            max_fee_per_gas: 10 * GWEI,
            max_priority_fee_per_gas: GWEI,
            to,
            value: U256::from(wei),
            input,
            ..Default::default()
        };
        *nonce += 1;
        let signed = tx.into_signed(Signature::test_signature());
        Arc::new(Recovered::new_unchecked(signed.into(), sender))
    }
}

/// Osaka from the genesis on.
fn spec() -> anyhow::Result<ChainSpec> {
    Ok(ChainSpec::new(&network("Osaka", CHAIN_ID)?)?)
}
