//! Prints what persisting and reading the state costs: `cargo run --release -p blockraft-storage
//! --example state_rates [DIRECTORY]`. Beside it, plain sorted upserts of the same keys into one MDBX
//! table of the same size.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement reads the clock and prints"
)]

use alloy_consensus::{Header, Sealable};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, AdmissionId, Applied, ClusterGenesis, CommittedBlock,
    LogPosition, SealedBlock, StateDiff, StateReader,
};
use blockraft_storage::{AppliedStep, Identity, Store, StoreOptions, init};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use signet_libmdbx::{
    DatabaseFlags, Environment, EnvironmentFlags, Geometry, Mode, SyncMode, WriteFlags,
};
use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

type Anything = Box<dyn std::error::Error>;

const ACCOUNTS: u64 = 1_000_000;
const BATCH_KEYS: u64 = 50_000;
const BATCH_BLOCKS: u64 = 50;
const ROUNDS: u64 = 5;
const READS: u64 = 100_000;

fn main() -> Result<(), Anything> {
    let parent = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let datadir = parent.join(format!("blockraft-state-rates-{}", std::process::id()));
    measure(&datadir)?;
    std::fs::remove_dir_all(&datadir)?;
    Ok(())
}

fn address(number: u64) -> Address {
    Address::from_word(keccak256(number.to_be_bytes()))
}

fn account(nonce: u64) -> Account {
    Account { nonce, balance: U256::from(1u64 << 60), code_hash: KECCAK256_EMPTY }
}

fn diff(accounts: impl Iterator<Item = u64>, nonce: u64) -> StateDiff {
    let addresses: BTreeSet<Address> = accounts.map(address).collect();
    let change = AccountChange::Set(account(nonce));
    let accounts = addresses
        .into_iter()
        .map(|address| AccountDiff { address, change, storage_wiped: false, storage: vec![] })
        .collect();
    StateDiff { accounts, codes: vec![] }
}

fn apply(store: &Store, diff: StateDiff) {
    let head = store.head();
    let header = Header { number: head.number + 1, parent_hash: head.hash(), ..Default::default() };
    let block = SealedBlock {
        header: header.seal_slow(),
        transactions: vec![],
        receipts: vec![],
        ommers: vec![],
        withdrawals: None,
    };
    let index = block.number();
    store.apply(AppliedStep {
        applied: Applied {
            position: Some(LogPosition { term: 1, leader: 1, index }),
            membership: vec![],
            next_admission: AdmissionId(0),
        },
        block: Some(CommittedBlock { block: Arc::new(block), diff: Arc::new(diff) }),
        pool: vec![],
    });
}

fn measure(datadir: &Path) -> Result<(), Anything> {
    let genesis = ClusterGenesis::from_json(
        r#"{"config": {"chainId": 1}, "difficulty": "0x0", "gasLimit": "0x1", "alloc": {}}"#,
    )?;
    init(datadir, &genesis, &Identity { cluster_id: B256::ZERO, node_id: 1 })?;
    let store = Store::open_with(datadir, StoreOptions::default())?;
    for first in (0..ACCOUNTS).step_by(100_000) {
        apply(&store, diff(first..first + 100_000, 1));
        store.persist()?;
    }
    let plain = Plain::open(&datadir.join("plain"))?;
    plain.upsert(0..ACCOUNTS, 1)?;

    let mut rng = SmallRng::seed_from_u64(1);
    for round in 0..ROUNDS {
        let keys: Vec<u64> = (0..BATCH_KEYS).map(|_| rng.random_range(0..ACCOUNTS)).collect();
        let start = Instant::now();
        for block in keys.chunks((BATCH_KEYS / BATCH_BLOCKS) as usize) {
            apply(&store, diff(block.iter().copied(), round + 2));
        }
        let applied = start.elapsed();
        let start = Instant::now();
        let persisted = store.persist()?;
        let ours = start.elapsed();
        let start = Instant::now();
        plain.upsert(keys.into_iter(), round + 2)?;
        let theirs = start.elapsed();
        println!(
            "{} keys in {} blocks: apply {:.2} us a key, persist {:.2} us a key, plain upserts {:.2} us: {:.2}x",
            persisted.keys,
            persisted.blocks,
            micros(applied, persisted.keys as u64),
            micros(ours, persisted.keys as u64),
            micros(theirs, persisted.keys as u64),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
    let head = store.head().number;
    for (name, oldest) in [("the head", head), ("any block", 10)] {
        let start = Instant::now();
        for _ in 0..READS {
            let view = store.view(rng.random_range(oldest..=head))?;
            view.account(address(rng.random_range(0..ACCOUNTS)))?;
        }
        println!("an account at {name}: {:.2} us", micros(start.elapsed(), READS));
    }
    let start = Instant::now();
    let mut count = 0;
    for partition in 0..=255 {
        store.for_each_account(partition, &mut |_, _, _| count += 1)?;
    }
    println!("a walk over {count} accounts: {:.2} us each", micros(start.elapsed(), count));
    let start = Instant::now();
    let snapshot = store.write_snapshot()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("a snapshot of {} MB: {seconds:.1} s", snapshot.bytes >> 20);
    let start = Instant::now();
    store.install_snapshot(&snapshot.path)?;
    println!("its installation: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn micros(time: std::time::Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// One MDBX table of hashed address to account, synced after each batch.
struct Plain {
    environment: Environment,
}

impl Plain {
    fn open(path: &Path) -> Result<Self, Anything> {
        std::fs::create_dir_all(path)?;
        let environment = Environment::builder()
            .set_geometry(Geometry { size: Some(0..64 << 30), ..Default::default() })
            .set_flags(EnvironmentFlags {
                mode: Mode::ReadWrite { sync_mode: SyncMode::SafeNoSync },
                no_rdahead: true,
                ..Default::default()
            })
            .open(path)?;
        Ok(Self { environment })
    }

    fn upsert(&self, accounts: impl Iterator<Item = u64>, nonce: u64) -> Result<(), Anything> {
        let mut keys: Vec<B256> = accounts.map(|number| keccak256(address(number))).collect();
        keys.sort_unstable();
        let value = [[nonce as u8; 30], [7; 30]].concat();
        let tx = self.environment.begin_rw_unsync()?;
        let table = tx.create_db(None, DatabaseFlags::empty())?;
        for key in keys {
            tx.put(table, key, &value, WriteFlags::UPSERT)?;
        }
        tx.commit()?;
        self.environment.sync(true)?;
        Ok(())
    }
}
