//! A store with blocks that change what a bench asks for, without roots.

use alloy_consensus::{Eip658Value, Header, Sealable, Sealed};
use alloy_primitives::{Address, B256, Log};
use blockraft_primitives::{
    AdmissionId, Applied, ClusterGenesis, CommittedBlock, LogPosition, Receipt, SealedBlock,
    StateDiff, Transaction,
};
use blockraft_storage::{AppliedStep, Identity, Store, StoreOptions, init};
use std::{path::Path, sync::Arc};

/// See the module.
pub(super) struct BenchChain {
    pub(super) store: Store,
    head: Sealed<Header>,
}

impl BenchChain {
    /// An empty chain that keeps all of its history.
    pub(super) fn new(datadir: &Path) -> anyhow::Result<Self> {
        let json = r#"{"config": {"chainId": 1337, "blockraft": {"shards": 4}},
            "difficulty": "0x0", "gasLimit": "0x1c9c380", "alloc": {}}"#;
        let genesis = ClusterGenesis::from_json(json)?;
        init(datadir, &genesis, &Identity { cluster_id: genesis.hash(), node_id: 1 })?;
        let options = StoreOptions { history_blocks: u64::MAX, ..StoreOptions::default() };
        let store = Store::open_with(datadir, options)?;
        let head = store.head();
        Ok(Self { store, head })
    }

    /// Adds a block without transactions, in memory.
    pub(super) fn apply(&mut self, diff: StateDiff, logs: Vec<Log>) {
        let receipt = Receipt { status: Eip658Value::success(), cumulative_gas_used: 21_000, logs };
        self.apply_block(diff, Vec::new(), vec![receipt]);
    }

    /// Adds a block, in memory.
    pub(super) fn apply_block(
        &mut self,
        diff: StateDiff,
        transactions: Vec<Transaction>,
        receipts: Vec<Receipt>,
    ) {
        let number = self.head.number + 1;
        let header = Header { number, parent_hash: self.head.hash(), ..Header::default() };
        let block = SealedBlock {
            header: header.seal_slow(),
            transactions,
            receipts,
            ommers: Vec::new(),
            withdrawals: None,
        };
        self.head = block.header.clone();
        let position = Some(LogPosition { term: 1, leader: 1, index: number });
        self.store.apply(AppliedStep {
            applied: Applied { position, membership: Vec::new(), next_admission: AdmissionId(0) },
            block: Some(CommittedBlock { block: Arc::new(block), diff: Arc::new(diff) }),
            pool: Vec::new(),
        });
    }
}

/// The account of a number.
pub(super) fn address(n: usize) -> Address {
    Address::left_padding_from(&(n as u64).to_be_bytes())
}

/// A topic of a number.
pub(super) fn topic(n: usize) -> B256 {
    B256::left_padding_from(&(n as u64).to_be_bytes())
}
