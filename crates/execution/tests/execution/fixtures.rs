//! The public suites' blockchain tests.

use alloy_consensus::{Block, TxEnvelope, transaction::SignerRecoverable};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::Decodable;
use blockraft_primitives::{Account, ChainSpec, MemoryState, Transaction, network};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
};

/// A blockchain test as the public suites write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockchainTest {
    /// Name of the fork, or of a transition between two.
    pub(crate) network: String,
    /// Chain id and blob parameters, where the suite gives them.
    #[serde(default)]
    pub(crate) config: serde_json::Value,
    /// Hash and state root of the genesis block.
    pub(crate) genesis_block_header: GenesisHeader,
    /// State of the genesis block.
    pub(crate) pre: BTreeMap<Address, PreAccount>,
    /// In the order of import; invalid ones among them.
    pub(crate) blocks: Vec<TestBlock>,
}

/// The parts of the genesis header that a test needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GenesisHeader {
    /// Block hash.
    pub(crate) hash: B256,
    /// Root of `pre`.
    pub(crate) state_root: B256,
}

/// An account of a test's state.
#[derive(Debug, Deserialize)]
pub(crate) struct PreAccount {
    nonce: U256,
    balance: U256,
    code: Bytes,
    storage: BTreeMap<U256, U256>,
}

/// A block of a test.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TestBlock {
    /// The whole block.
    pub(crate) rlp: Bytes,
    /// Set where the block is invalid.
    pub(crate) expect_exception: Option<String>,
}

/// Streams the tests of a packed suite; `None`, loudly, where the fixtures are not on this machine.
pub(crate) fn tests_of(
    pack: &str,
) -> Option<impl Iterator<Item = (String, BlockchainTest)> + Send + use<>> {
    Some(json_of::<BTreeMap<String, BlockchainTest>>(pack, "*.json")?.flatten())
}

/// Streams those JSON files of a pack whose names fit, in the order of the pack.
pub(crate) fn json_of<T: DeserializeOwned + Send + 'static>(
    pack: &str,
    names: &str,
) -> Option<impl Iterator<Item = T> + Send + use<T>> {
    let folder = std::env::var_os("BLOCKRAFT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let file = folder.join(pack);
    if !file.exists() {
        eprintln!("fixtures not found, skipped: {}", file.display());
        return None;
    }
    let (suffix, (sender, files)) = (names.trim_start_matches('*').to_owned(), sync_channel(64));
    std::thread::Builder::new()
        .name("unpack".to_owned())
        .spawn(move || unpack(&file, &suffix, &sender))
        .expect("a thread for unpacking");
    Some(files.into_iter())
}

/// Sends every file whose name fits, until nobody takes them any more. `names` has at most one `*`
/// within, which stands for anything.
fn unpack<T: DeserializeOwned>(pack: &Path, names: &str, files: &SyncSender<T>) {
    let stream = zstd::Decoder::new(File::open(pack).expect("the pack opens")).expect("zstd");
    let (within, ending) = names.split_once('*').unwrap_or(("", names));
    for entry in tar::Archive::new(stream).entries().expect("a tar archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        if !path.ends_with(ending) || !path.contains(within) {
            continue;
        }
        let mut text = Vec::new();
        entry.read_to_end(&mut text).expect("a whole entry");
        if files.send(serde_json::from_slice(&text).expect("a file of the suite")).is_err() {
            return;
        }
    }
}

impl BlockchainTest {
    /// The rules of the test's network.
    pub(crate) fn spec(&self) -> ChainSpec {
        let mut config = network(&self.network, 1).unwrap();
        let schedule = self.config.get("blobSchedule");
        if let Some(schedule) = schedule.and_then(|s| s.as_object()) {
            for (fork, params) in schedule {
                let field = |name: &str| -> u64 {
                    let value: U256 = serde_json::from_value(params[name].clone()).unwrap();
                    value.to()
                };
                let params = serde_json::json!({
                    "target": field("target"),
                    "max": field("max"),
                    "baseFeeUpdateFraction": field("baseFeeUpdateFraction"),
                });
                let params = serde_json::from_value(params).unwrap();
                config.blob_schedule.insert(fork.to_lowercase(), params);
            }
        }
        ChainSpec::new(&config).expect("the suites' forks are in order")
    }

    /// The genesis state.
    pub(crate) fn state(&self) -> MemoryState {
        let mut state = MemoryState::default();
        for (address, pre) in &self.pre {
            let code_hash =
                if pre.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&pre.code) };
            state.codes.insert(code_hash, pre.code.clone());
            let account = Account { nonce: pre.nonce.to(), balance: pre.balance, code_hash };
            state.accounts.insert(*address, account);
            let slots = pre.storage.iter().filter(|(_, value)| !value.is_zero());
            if slots.clone().count() > 0 {
                state.storage.insert(*address, slots.map(|(k, v)| (*k, *v)).collect());
            }
        }
        state.block_hashes.insert(0, self.genesis_block_header.hash);
        state
    }
}

impl TestBlock {
    /// The block with its senders; `None` where it is no block at all.
    pub(crate) fn decode(&self) -> Option<(Block<TxEnvelope>, Vec<Transaction>)> {
        let block = Block::<TxEnvelope>::decode(&mut self.rlp.as_ref()).ok()?;
        let transactions = block
            .body
            .transactions
            .iter()
            .map(|tx| tx.clone().try_into_recovered().ok().map(Arc::new))
            .collect::<Option<_>>()?;
        Some((block, transactions))
    }
}
