//! Blocks whose transactions depend on each other in every way that we could think of, from a seed.

use crate::chain::{CHAIN_ID, Chain, ETHER, FEE_RECIPIENT, GWEI, call, from, user};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip4895::Withdrawal,
    eip7702::Authorization,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, bytes};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use blockraft_execution::BlockAttributes;
use blockraft_primitives::Transaction;
use rand::{Rng, rngs::SmallRng};
use std::collections::BTreeMap;

/// Code, and what it does. An argument is the first word of the call's data.
const CONTRACTS: [(Address, Bytes); 17] = [
    // Adds one to slot 0: hot.
    (address!("0000000000000000000000000000000000c00001"), bytes!("5f546001015f5500")),
    // Adds one to the caller's slot: independent.
    (address!("0000000000000000000000000000000000c00002"), bytes!("3354600101335500")),
    // Keeps the balance of the argument.
    (address!("0000000000000000000000000000000000c00003"), bytes!("5f35315f5500")),
    // Keeps the balance of the fee recipient.
    (address!("0000000000000000000000000000000000c00004"), bytes!("41315f5500")),
    // Calls the argument with the value it got; keeps whether that went well.
    (address!("0000000000000000000000000000000000c00005"), bytes!("5f5f5f5f345f355af15f5500")),
    // Delegates to the argument.
    (address!("0000000000000000000000000000000000c00006"), bytes!("5f5f5f5f5f355af45f5500")),
    // CREATE2 of a contract that self-destructs when called, by the argument as salt.
    (
        address!("0000000000000000000000000000000000c00007"),
        bytes!("696133ff5f526002601ef35f525f35600a601634f55f355500"),
    ),
    // Counts in transient storage, then keeps the count.
    (address!("0000000000000000000000000000000000c00008"), bytes!("5f5c6001015f5d5f5c5f5500")),
    // Flips the caller's slot: refunds.
    (address!("0000000000000000000000000000000000c00009"), bytes!("335415335500")),
    // Keeps the history contract's answer for the parent.
    (
        address!("0000000000000000000000000000000000c0000a"),
        bytes!(
            "600143035f5260205f60205f730000f90827f1c53a10cb7a02335b1753200029355afa505f515f5500"
        ),
    ),
    // A token: moves one from the caller to the argument, and logs.
    (
        address!("0000000000000000000000000000000000c0000b"),
        bytes!("33546001900333555f35546001015f35555f5fa000"),
    ),
    // Counts, then reverts.
    (address!("0000000000000000000000000000000000c0000c"), bytes!("5f546001015f555f5ffd")),
    // Self-destructs in favour of the caller.
    (address!("0000000000000000000000000000000000c0000d"), bytes!("33ff")),
    // Keeps its own balance: reads what plain credits brought.
    (address!("0000000000000000000000000000000000c0000e"), bytes!("475f5500")),
    // Runs for ever.
    (address!("0000000000000000000000000000000000c0000f"), bytes!("5b5f56")),
    // Keeps the hash of the parent.
    (address!("0000000000000000000000000000000000c00010"), bytes!("60014303405f5500")),
    // Keeps the random value of the block.
    (address!("0000000000000000000000000000000000c00011"), bytes!("445f5500")),
];

/// What a block is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    /// Transfers among many accounts.
    Transfers,
    /// Everybody pays one, one pays everybody.
    Hubs,
    /// Senders that earlier transactions of the block fund.
    Chains,
    /// One hot counter.
    Hot,
    /// Calls that do not meet.
    Independent,
    /// All of it.
    Everything,
}

pub(crate) const FAMILIES: [Family; 6] = [
    Family::Transfers,
    Family::Hubs,
    Family::Chains,
    Family::Hot,
    Family::Independent,
    Family::Everything,
];

/// Puts the contracts on a chain.
pub(crate) fn deploy(chain: &mut Chain) {
    for (address, code) in &CONTRACTS {
        chain.deploy(*address, code.clone());
        chain.fund(*address, 1_000);
    }
    chain.fund(FEE_RECIPIENT, 10 * ETHER);
}

/// A block in the making.
pub(crate) struct Generator<'a> {
    pub(crate) rng: &'a mut SmallRng,
    chain: &'a Chain,
    nonces: BTreeMap<Address, u64>,
    transactions: Vec<Transaction>,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(rng: &'a mut SmallRng, chain: &'a Chain) -> Self {
        Self { rng, chain, nonces: BTreeMap::new(), transactions: Vec::new() }
    }

    pub(crate) fn transactions(mut self, family: Family, count: usize) -> Vec<Transaction> {
        while self.transactions.len() < count {
            match family {
                Family::Transfers => self.transfer(),
                Family::Hubs => self.hub(),
                Family::Chains => self.funded_sender(),
                Family::Hot => self.calls(&[0, 10]),
                Family::Independent => self.calls(&[1, 8]),
                Family::Everything => self.anything(),
            }
        }
        self.transactions
    }

    fn anything(&mut self) {
        match self.rng.random_range(0..10) {
            0 => self.transfer(),
            1 => self.hub(),
            2 => self.funded_sender(),
            3 => self.delegation(),
            4 => self.creation(),
            _ => self.calls(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        }
    }

    fn someone(&mut self) -> Address {
        match self.rng.random_range(0..20) {
            0 => FEE_RECIPIENT,
            1 => signer(self.rng.random_range(0..3)).address(),
            _ => user(self.rng.random_range(1..40)),
        }
    }

    fn nonce(&mut self, sender: Address) -> u64 {
        let first = self.chain.account(sender).nonce;
        let nonce = self.nonces.entry(sender).or_insert(first);
        *nonce += 1;
        *nonce - 1
    }

    fn push(&mut self, sender: Address, tx: TxEip1559) {
        let tx = TxEip1559 { nonce: self.nonce(sender), ..tx };
        let access_list = AccessList(vec![AccessListItem {
            address: CONTRACTS[0].0,
            storage_keys: vec![B256::ZERO],
        }]);
        let tx = match self.rng.random_range(0..6) {
            0 => from(
                sender,
                TxLegacy {
                    chain_id: Some(CHAIN_ID),
                    nonce: tx.nonce,
                    gas_price: tx.max_fee_per_gas,
                    gas_limit: tx.gas_limit,
                    to: tx.to,
                    value: tx.value,
                    input: tx.input,
                },
            ),
            1 => from(
                sender,
                TxEip2930 {
                    chain_id: CHAIN_ID,
                    nonce: tx.nonce,
                    gas_price: tx.max_fee_per_gas,
                    gas_limit: tx.gas_limit,
                    to: tx.to,
                    value: tx.value,
                    input: tx.input,
                    access_list,
                },
            ),
            _ => from(sender, tx),
        };
        self.transactions.push(tx);
    }

    fn transfer(&mut self) {
        let (sender, receiver) = (self.someone(), self.someone());
        let value = [0, 1, ETHER][self.rng.random_range(0..3)];
        let tip = [0, GWEI, 2 * GWEI][self.rng.random_range(0..3)];
        self.push(sender, TxEip1559 { max_priority_fee_per_gas: tip, ..call(0, receiver, value) });
    }

    fn hub(&mut self) {
        let other = self.someone();
        let hub = user(50);
        if self.rng.random_bool(0.5) {
            self.push(other, call(0, hub, 7));
        } else {
            self.push(hub, call(0, other, 7));
        }
    }

    /// A fresh account gets funds, and spends them at once.
    fn funded_sender(&mut self) {
        let fresh = user(self.rng.random_range(1_000..1_000_000));
        let funder = self.someone();
        self.push(funder, call(0, fresh, ETHER));
        let next = if self.rng.random_bool(0.5) { CONTRACTS[1].0 } else { user(51) };
        self.push(fresh, call(0, next, 5));
    }

    fn calls(&mut self, contracts: &[usize]) {
        let sender = self.someone();
        let contract = CONTRACTS[contracts[self.rng.random_range(0..contracts.len())]].0;
        let argument = match self.rng.random_range(0..4) {
            0 => self.someone(),
            1 => CONTRACTS[self.rng.random_range(0..CONTRACTS.len())].0,
            2 => self.child(),
            _ => Address::with_last_byte(self.rng.random_range(0..4)),
        };
        let contract = if self.rng.random_bool(0.05) { self.child() } else { contract };
        let value = if self.rng.random_bool(0.3) { 3 } else { 0 };
        let input = Bytes::copy_from_slice(argument.into_word().as_slice());
        let gas_limit = [60_000, 200_000, 23_000][self.rng.random_range(0..3)];
        self.push(sender, TxEip1559 { input, gas_limit, ..call(0, contract, value) });
    }

    /// The address of a contract that `CONTRACTS[6]` may have created.
    fn child(&mut self) -> Address {
        let salt = Address::with_last_byte(self.rng.random_range(0..4)).into_word();
        CONTRACTS[6].0.create2_from_code(salt, bytes!("6133ff5f526002601ef3"))
    }

    fn creation(&mut self) {
        let sender = self.someone();
        let codes = [
            // Deploys a counter.
            bytes!("675f546001015f55005f5260086018f3"),
            // Self-destructs while it is created.
            bytes!("33ff"),
            // Sets a slot and leaves no code.
            bytes!("60015f55"),
            bytes!("fe"),
        ];
        let input = codes[self.rng.random_range(0..codes.len())].clone();
        let created = sender.create(
            self.nonces.get(&sender).copied().unwrap_or_else(|| self.chain.account(sender).nonce),
        );
        let tx = TxEip1559 { to: TxKind::Create, input, ..call(0, Address::ZERO, 1) };
        self.push(sender, tx);
        let caller = self.someone();
        self.push(caller, call(0, created, 2));
    }

    fn delegation(&mut self) {
        let sender = self.someone();
        let signer = signer(self.rng.random_range(0..3));
        let known = self.nonces.get(&signer.address()).copied();
        let nonce = known.unwrap_or_else(|| self.chain.account(signer.address()).nonce);
        let authorization = Authorization {
            chain_id: U256::from(CHAIN_ID),
            address: CONTRACTS[self.rng.random_range(0..CONTRACTS.len())].0,
            nonce: nonce + u64::from(sender == signer.address()),
        };
        let signature = signer.sign_hash_sync(&authorization.signature_hash()).unwrap();
        let tx = TxEip7702 {
            chain_id: CHAIN_ID,
            nonce: self.nonce(sender),
            gas_limit: 200_000,
            max_fee_per_gas: 10 * GWEI,
            max_priority_fee_per_gas: GWEI,
            to: signer.address(),
            authorization_list: vec![authorization.into_signed(signature)],
            ..Default::default()
        };
        self.transactions.push(from(sender, tx));
        let used = self.nonces.entry(signer.address()).or_insert(nonce);
        *used += 1;
        let caller = self.someone();
        self.push(caller, call(0, signer.address(), 4));
    }
}

/// Attributes that differ in who gets the tips, what is withdrawn, and whether there is a base fee.
pub(crate) fn attributes(rng: &mut SmallRng, chain: &Chain) -> BlockAttributes {
    let recipients =
        [FEE_RECIPIENT, user(1), user(2_000_000), CONTRACTS[0].0, CONTRACTS[12].0, CONTRACTS[13].0];
    let withdrawal = |rng: &mut SmallRng| Withdrawal {
        address: [user(1), user(3_000_000), CONTRACTS[0].0][rng.random_range(0..3)],
        amount: rng.random_range(0..3),
        ..Default::default()
    };
    BlockAttributes {
        fee_recipient: recipients[rng.random_range(0..recipients.len())],
        withdrawals: (0..rng.random_range(0..4)).map(|_| withdrawal(rng)).collect(),
        gasless: rng.random_bool(0.2),
        ..chain.attributes()
    }
}

/// Keys of accounts that delegate (EIP-7702); they have funds on no chain.
fn signer(index: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(0x21 + index)).unwrap()
}
