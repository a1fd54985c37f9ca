//! Blocks whose transactions depend on each other in every way that we could think of, from a seed.

use crate::{
    chain::{CHAIN_ID, Chain, ETHER, FEE_RECIPIENT, GWEI, call, from, user},
    contracts::{CHILD_CREATION_CODE, CONTRACTS, COUNTER, FACTORY, PAYER, POOL, TOKEN},
};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip4895::Withdrawal,
    eip7702::Authorization,
};
use alloy_hardforks::EthereumHardforks;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, bytes};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use blockraft_execution::BlockAttributes;
use blockraft_primitives::Transaction;
use rand::{Rng, rngs::SmallRng};
use std::collections::BTreeMap;

/// What a block is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    /// Transfers among many accounts.
    Transfers,
    /// Transfers of which most touch a few accounts (Zipf).
    Zipf,
    /// Everybody pays one, one pays everybody.
    Hubs,
    /// Senders that earlier transactions of the block fund.
    Chains,
    /// The fee recipient sends too, and its balance is looked at.
    FeeRecipient,
    /// Balances are looked at that others credit.
    Balances,
    /// One hot counter.
    Hot,
    /// One token, some holders hot.
    Token,
    /// One pool.
    Pool,
    /// Calls into contracts that others call, plain and delegated.
    Nested,
    /// Contracts are created, called, destroyed and created again.
    Creations,
    /// What fails, between what does not: reverts, gas that runs out, and transactions that may not run.
    Failing,
    /// Refunds, access lists, transient storage.
    Storage,
    /// Accounts get code (EIP-7702) and are called.
    Delegations,
    /// The history contract, BLOCKHASH, PREVRANDAO.
    History,
    /// Calls that do not meet.
    Independent,
    /// All of it.
    Everything,
}

pub(crate) const FAMILIES: [Family; 17] = [
    Family::Transfers,
    Family::Zipf,
    Family::Hubs,
    Family::Chains,
    Family::FeeRecipient,
    Family::Balances,
    Family::Hot,
    Family::Token,
    Family::Pool,
    Family::Nested,
    Family::Creations,
    Family::Failing,
    Family::Storage,
    Family::Delegations,
    Family::History,
    Family::Independent,
    Family::Everything,
];

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
                Family::Zipf => self.zipf(),
                Family::Hubs => self.hub(),
                Family::Chains => self.funded_sender(),
                Family::FeeRecipient => self.fee_recipient(),
                Family::Balances => self.one_of(&[2, 3, 13, PAYER], Self::hub),
                Family::Hot => self.calls(&[COUNTER, TOKEN, PAYER]),
                Family::Token => self.token(),
                Family::Pool => self.calls(&[POOL]),
                Family::Nested => self.calls(&[4, 5, 18]),
                Family::Creations => self.one_of(&[FACTORY, 12], Self::creation),
                Family::Failing => self.failing(),
                Family::Storage => self.calls(&[7, 8, COUNTER]),
                Family::Delegations => self.one_of(&[4, 5, 18], Self::delegation),
                Family::History => self.calls(&[9, 15, 16]),
                Family::Independent => self.calls(&[1, 8]),
                Family::Everything => self.anything(),
            }
        }
        self.transactions
    }

    fn anything(&mut self) {
        match self.rng.random_range(0..14) {
            0 => self.transfer(),
            1 => self.hub(),
            2 => self.funded_sender(),
            3 => self.delegation(),
            4 => self.creation(),
            5 => self.zipf(),
            6 => self.fee_recipient(),
            7 => self.token(),
            8 => self.failing(),
            _ => {
                let contract = self.rng.random_range(0..CONTRACTS.len());
                self.calls(&[contract]);
            }
        }
    }

    /// A call of one of the contracts, or something else as often.
    fn one_of(&mut self, contracts: &[usize], other: fn(&mut Self)) {
        if self.rng.random_bool(0.5) { self.calls(contracts) } else { other(self) }
    }

    /// One of 1 to 30, half of the time one of the first four.
    fn ranked(&mut self) -> u64 {
        let x: f64 = self.rng.random();
        30_f64.powf(x * x) as u64
    }

    fn zipf(&mut self) {
        let (sender, receiver) = (user(self.ranked()), user(self.ranked()));
        self.push(sender, call(0, receiver, 3));
    }

    fn fee_recipient(&mut self) {
        let other = self.someone();
        match self.rng.random_range(0..4) {
            0 => self.push(FEE_RECIPIENT, call(0, other, 9)),
            1 => self.push(other, call(0, FEE_RECIPIENT, 9)),
            2 => self.calls(&[3]),
            _ => self.transfer(),
        }
    }

    fn token(&mut self) {
        let (sender, holder) = (user(self.ranked()), user(self.ranked()));
        let input = Bytes::copy_from_slice(holder.into_word().as_slice());
        self.push(sender, TxEip1559 { input, ..call(0, CONTRACTS[TOKEN].0, 0) });
    }

    /// Half of these are in no block: a gap before the nonce, too little gas to begin, no funds, a tip above
    /// the fee.
    fn failing(&mut self) {
        let sender = self.someone();
        let outsider = user(self.rng.random_range(60..99));
        let counter = call(0, CONTRACTS[COUNTER].0, 0);
        match self.rng.random_range(0..8) {
            0 => {
                self.nonce(outsider);
                self.push(outsider, counter);
            }
            1 => self.push(outsider, TxEip1559 { gas_limit: 20_999, ..counter }),
            2 => self.push(user(4_000_000), counter),
            3 => self.push(outsider, call(0, user(3), 2_000 * ETHER)),
            4 => self.push(sender, TxEip1559 { gas_limit: 22_000, ..counter }),
            _ => self.calls(&[11, 14, 10]),
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
            address: CONTRACTS[COUNTER].0,
            storage_keys: vec![B256::ZERO],
        }]);
        let number = self.chain.head.number + 1;
        let spec = &self.chain.spec;
        let kinds = match () {
            () if spec.is_london_active_at_block(number) => 6,
            () if spec.is_berlin_active_at_block(number) => 2,
            () => 1,
        };
        let tx = match self.rng.random_range(0..kinds) {
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

    /// The address of a contract that the factory may have created.
    fn child(&mut self) -> Address {
        let salt = Address::with_last_byte(self.rng.random_range(0..4)).into_word();
        CONTRACTS[FACTORY].0.create2_from_code(salt, CHILD_CREATION_CODE)
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
        if !self.chain.spec.is_prague_active_at_timestamp(self.chain.head.timestamp) {
            return self.hub();
        }
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
