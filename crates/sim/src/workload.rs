//! What clients send: signed transfers among few accounts, contract calls, creations, replacements,
//! nonces out of order, and transactions that stand for ones which make the executor panic.

use crate::{chain::POISON, rng::Rng};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address, hex};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use blockraft_primitives::ClusterGenesis;
use std::collections::BTreeMap;

const COUNTER: Address = address!("00000000000000000000000000000000c0c0c0c0");
const REVERTER: Address = address!("00000000000000000000000000000000deaddead");
/// Counts calls in slot 0 and per caller, keeps the last block hash in slot 1 and the counter's lowest
/// bit in slot 2 (a slot that comes and goes), and logs the count.
const COUNTER_CODE: [u8; 43] = hex!(
    "600054600101806000556000526020 6000a0 33546001013355 600143034060015560005460011660025500"
);
const REVERTER_CODE: [u8; 3] = hex!("5f5ffd");
/// The chain of the repository's own development cluster, with this file's accounts added.
const GENESIS: &str = include_str!("../../../genesis/dev.json");
const GWEI: u128 = 1_000_000_000;

/// The genesis of a run.
pub(crate) fn genesis(accounts: &[Address], block_time_ms: u64, gasless: bool) -> ClusterGenesis {
    let mut json: serde_json::Value = serde_json::from_str(GENESIS).expect("the file is JSON");
    json["config"]["blockraft"] =
        serde_json::json!({ "blockTimeMs": block_time_ms, "shards": 1, "gasless": gasless });
    let mut put = |address: Address, account| json["alloc"][address.to_string()] = account;
    for account in accounts {
        put(*account, serde_json::json!({ "balance": "0x21e19e0c9bab2400000" }));
    }
    for (address, code) in [(COUNTER, &COUNTER_CODE[..]), (REVERTER, &REVERTER_CODE[..])] {
        let code = hex::encode_prefixed(code);
        put(address, serde_json::json!({ "nonce": "0x1", "balance": "0x0", "code": code }));
    }
    ClusterGenesis::from_json(&json.to_string()).expect("the genesis is valid")
}

/// A transaction as its client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) hash: B256,
    pub(crate) raw: Bytes,
}

#[derive(Debug)]
pub(crate) struct Workload {
    chain_id: u64,
    senders: Vec<Sender>,
}

#[derive(Debug)]
struct Sender {
    key: PrivateKeySigner,
    next_nonce: u64,
    /// Fee caps of recent nonces, gwei: what a replacement has to outbid.
    fees: BTreeMap<u64, u128>,
}

impl Workload {
    pub(crate) fn new(sender_count: u64) -> Self {
        let senders = (1..=sender_count).map(|number| {
            let secret = B256::from(U256::from(0xb10c_0000 + number));
            let key = PrivateKeySigner::from_bytes(&secret).expect("a small number is a key");
            Sender { key, next_nonce: 0, fees: BTreeMap::new() }
        });
        Self { chain_id: 1337, senders: senders.collect() }
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.senders.iter().map(|sender| sender.key.address()).collect()
    }

    /// The nonces that are used up once everything is included.
    pub(crate) fn planned(&self) -> Vec<(Address, u64)> {
        self.senders.iter().map(|sender| (sender.key.address(), sender.next_nonce)).collect()
    }

    /// What one client sends now, and with it what has to follow later so that no nonce stays open.
    pub(crate) fn burst(&mut self, rng: &mut Rng) -> (Vec<Signed>, Vec<Signed>) {
        let who = rng.index(self.senders.len());
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for _ in 0..rng.within(1..=4) {
            let nonce = self.senders[who].next_nonce;
            self.senders[who].next_nonce += 1;
            let fee = 20 + u128::from(rng.below(20));
            let poison = rng.chance(25);
            now.push(self.sign(rng, who, (nonce, fee), poison));
            if poison {
                later.push(self.sign(rng, who, (nonce, fee * 2), false));
            }
        }
        if rng.chance(300) {
            rng.shuffle(&mut now);
        }
        if rng.chance(250) {
            let recent: Vec<(u64, u128)> =
                self.senders[who].fees.iter().rev().take(6).map(|(n, fee)| (*n, *fee)).collect();
            let (nonce, fee) = recent[rng.index(recent.len())];
            if fee < 1 << 20 {
                now.push(self.sign(rng, who, (nonce, fee * 2), false));
            }
        }
        // Later nonces first: the others are sent when these have been in the pool for a while.
        if now.len() > 1 && rng.chance(150) {
            later.extend(now.drain(..1));
        }
        (now, later)
    }

    /// One more transaction of every sender.
    pub(crate) fn last_round(&mut self, rng: &mut Rng) -> Vec<Signed> {
        let round = (0..self.senders.len()).map(|who| {
            let nonce = self.senders[who].next_nonce;
            self.senders[who].next_nonce += 1;
            self.sign(rng, who, (nonce, 50), false)
        });
        round.collect()
    }

    fn sign(
        &mut self,
        rng: &mut Rng,
        who: usize,
        (nonce, fee): (u64, u128),
        poison: bool,
    ) -> Signed {
        let random = |rng: &mut Rng| self.senders[rng.index(self.senders.len())].key.address();
        let (to, value, input) = match rng.below(10) {
            _ if poison => (TxKind::Call(COUNTER), 0, Bytes::copy_from_slice(&POISON)),
            0..=4 => (TxKind::Call(random(rng)), rng.below(1000), Bytes::new()),
            5..=7 => (TxKind::Call(COUNTER), 0, Bytes::new()),
            8 => (TxKind::Call(REVERTER), 1, Bytes::new()),
            _ => (TxKind::Create, 0, Bytes::from_static(&hex!("60016000f3"))),
        };
        let tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: 200_000,
            max_fee_per_gas: fee * GWEI,
            max_priority_fee_per_gas: fee * GWEI / 2,
            to,
            value: U256::from(value),
            input,
            ..TxEip1559::default()
        };
        let sender = &mut self.senders[who];
        sender.fees.insert(nonce, fee);
        let signature =
            sender.key.sign_hash_sync(&tx.signature_hash()).expect("a key in memory signs");
        let envelope = TxEnvelope::from(tx.into_signed(signature));
        Signed { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into() }
    }
}
