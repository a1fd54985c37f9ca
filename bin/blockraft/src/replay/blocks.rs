//! Finding blocks and reading them: `block.json` and `pre_state.json` in one folder; codes and hashes of
//! earlier blocks there or in the folders above.

use super::pre_state::{PreAccount, PreState};
use alloy_consensus::Header;
use alloy_hardforks::ethereum::mainnet::MAINNET_SPURIOUS_DRAGON_BLOCK;
use alloy_primitives::{Address, B256, Bytes};
use alloy_rpc_types_eth::Block;
use anyhow::{Context, bail, ensure};
use blockraft_primitives::{Transaction, transactions_root};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const BLOCK: &str = "block.json";
const PRE_STATE: &str = "pre_state.json";
const CODES: &str = "bytecodes.json";
/// Beginning of the names of files with hashes of earlier blocks.
const HASHES: &str = "block_hashes";

/// A block, and what it runs on.
#[derive(Debug)]
pub(super) struct PreparedBlock {
    pub(super) header: Header,
    pub(super) transactions: Vec<Transaction>,
    pub(super) withdrawals: Vec<alloy_eips::eip4895::Withdrawal>,
    pub(super) state: PreState,
}

/// Every folder with a block among these and below them, in the order of their names, numbers by value.
pub(super) fn find(dirs: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for dir in dirs {
        let before = folders.len();
        collect(dir, &mut folders).with_context(|| dir.display().to_string())?;
        ensure!(folders.len() > before, "there is no {BLOCK} in {} or below", dir.display());
    }
    Ok(folders)
}

fn collect(dir: &Path, folders: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    ensure!(fs::metadata(dir)?.is_dir(), "not a folder");
    let entries: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    if entries.iter().any(|entry| entry.ends_with(BLOCK) || entry.ends_with(PRE_STATE)) {
        folders.push(dir.to_owned());
    }
    let mut below: Vec<PathBuf> = entries.into_iter().filter(|entry| entry.is_dir()).collect();
    below.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.parse::<u64>().unwrap_or(u64::MAX), name)
    });
    below.iter().try_for_each(|dir| collect(dir, folders))
}

/// Files that several blocks share, read once.
#[derive(Debug, Default)]
pub(super) struct Library {
    codes: BTreeMap<PathBuf, Arc<BTreeMap<B256, Bytes>>>,
}

impl Library {
    /// Reads the block of a folder.
    pub(super) fn load(&mut self, folder: &Path) -> anyhow::Result<PreparedBlock> {
        let block: Block = read(&folder.join(BLOCK))?;
        let accounts: BTreeMap<Address, PreAccount> = read(&folder.join(PRE_STATE))?;
        let header = block.header.inner;
        let is_whole = block.transactions.is_full() || block.transactions.is_empty();
        ensure!(is_whole, "{BLOCK} has hashes in place of transactions");
        let transactions: Vec<Transaction> =
            block.transactions.into_transactions().map(|tx| Arc::new(tx.inner)).collect();
        let root = transactions_root(&transactions);
        let expected = header.transactions_root;
        ensure!(
            root == expected,
            "transactionsRoot: the header has {expected}, the transactions give {root}"
        );
        let codes = self.codes_above(folder)?;
        let state = PreState::new(
            accounts,
            hashes_above(folder, header.number)?,
            header.number < MAINNET_SPURIOUS_DRAGON_BLOCK,
            |hash| codes.iter().find_map(|codes| codes.get(hash)).cloned(),
        )?;
        let withdrawals = block.withdrawals.unwrap_or_default().into_inner();
        Ok(PreparedBlock { header, transactions, withdrawals, state })
    }

    /// Code files from the folder up.
    fn codes_above(&mut self, folder: &Path) -> anyhow::Result<Vec<Arc<BTreeMap<B256, Bytes>>>> {
        let mut found = Vec::new();
        for path in files_above(folder, |name| name == CODES)? {
            if let Some(codes) = self.codes.get(&path) {
                found.push(Arc::clone(codes));
                continue;
            }
            let codes: Arc<BTreeMap<B256, Bytes>> = Arc::new(read(&path)?);
            self.codes.insert(path, Arc::clone(&codes));
            found.push(codes);
        }
        Ok(found)
    }
}

fn hashes_above(folder: &Path, block: u64) -> anyhow::Result<BTreeMap<u64, B256>> {
    let mut hashes = BTreeMap::new();
    for path in files_above(folder, |name| name.starts_with(HASHES))? {
        let of_file = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => {
                let file = read(&path)?;
                listed_hashes(file, block).with_context(|| path.display().to_string())?
            }
            Some("bincode") => {
                let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                packed_hashes(&bytes).with_context(|| format!("{}: cut off", path.display()))?
            }
            _ => continue,
        };
        // What lies nearer comes first.
        of_file.into_iter().for_each(|(number, hash)| {
            hashes.entry(number).or_insert(hash);
        });
    }
    Ok(hashes)
}

/// Numbers to hashes, or such maps by the number of the block that asks.
fn listed_hashes(
    mut file: BTreeMap<u64, Value>,
    block: u64,
) -> anyhow::Result<BTreeMap<u64, B256>> {
    if file.values().any(Value::is_object) {
        let of_block = file.remove(&block).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        return Ok(serde_json::from_value(of_block)?);
    }
    let hash = |(number, hash)| Ok((number, serde_json::from_value(hash)?));
    file.into_iter().map(hash).collect()
}

/// A map of numbers to hashes as bincode 2 writes it: a count, then number, length and bytes of each.
fn packed_hashes(mut bytes: &[u8]) -> Option<BTreeMap<u64, B256>> {
    let count = packed_integer(&mut bytes)?;
    let mut hashes = BTreeMap::new();
    for _ in 0..count {
        let number = packed_integer(&mut bytes)?;
        let length = packed_integer(&mut bytes)?;
        let (hash, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
        hashes.insert(number, B256::try_from(hash).ok()?);
        bytes = rest;
    }
    Some(hashes)
}

/// A byte, or a mark and 2, 4 or 8 bytes, little-endian.
fn packed_integer(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let length = match first {
        251 => 2,
        252 => 4,
        253 => 8,
        254.. => return None,
        small => {
            *bytes = rest;
            return Some(u64::from(*small));
        }
    };
    let (number, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Files with fitting names in the folder and in those above it, the nearest first.
fn files_above(folder: &Path, fits: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for dir in folder.ancestors() {
        // A folder above that may not be listed holds nothing for us.
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let names = entries.flatten().map(|entry| entry.path());
        let mut fitting: Vec<PathBuf> = names
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&fits))
            .filter(|path| path.is_file())
            .collect();
        fitting.sort();
        files.extend(fitting);
    }
    Ok(files)
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => bail!("{}: {error}", path.display()),
    };
    serde_json::from_slice(&text).with_context(|| format!("{} does not parse", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_hashes_are_of_the_block_or_of_all() {
        let hash = B256::repeat_byte(9);
        let parse = |text: &str| serde_json::from_str(text).unwrap();
        let by_block = format!(r#"{{"5": {{"4": "{hash}"}}, "7": {{}}}}"#);
        let of_all = format!(r#"{{"4": "{hash}"}}"#);
        let expected = BTreeMap::from([(4, hash)]);
        assert_eq!(listed_hashes(parse(&by_block), 5).unwrap(), expected);
        assert_eq!(listed_hashes(parse(&by_block), 6).unwrap(), BTreeMap::new());
        assert_eq!(listed_hashes(parse(&of_all), 6).unwrap(), expected);
        assert!(listed_hashes(parse(r#"{"4": 7}"#), 6).is_err());
    }

    #[test]
    fn packed_hashes_are_read_to_the_last_byte() {
        let mut bytes = vec![2, 7, 32];
        bytes.extend([0x11; 32]);
        bytes.extend([252, 0x14, 0x95, 0x25, 0x00, 32]);
        bytes.extend([0x22; 32]);
        let hashes = packed_hashes(&bytes).unwrap();
        let expected = [(7, B256::repeat_byte(0x11)), (0x259514, B256::repeat_byte(0x22))];
        assert_eq!(hashes, BTreeMap::from(expected));
        for end in 0..bytes.len() {
            assert_eq!(packed_hashes(&bytes[..end]), None, "cut at {end}");
        }
    }
}
