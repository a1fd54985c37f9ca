//! `blockraft-bench genesis`: writes the files of `genesis/`, which are committed and must equal it.

use crate::{accounts, output::Format, predeploys::predeploys};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, U256};
use alloy_signer_local::PrivateKeySigner;
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, fmt::Write, path::PathBuf};

/// Chain id of every genesis file here (geth's and reth's for development).
pub(crate) const CHAIN_ID: u64 = 1337;
/// Gas limit of development chains: room for a large contract test (EIP-7825 caps one transaction
/// at 2^24 = 16.8 million, so this holds six of the largest) and for 4,761 transfers a block.
const GAS_LIMIT_DEV: u64 = 100_000_000;
/// Gas limit of the stress chain: 47,619 transfers, so that gas never is what limits a block.
const GAS_LIMIT_STRESS: u64 = 1_000_000_000;
/// Wei in 10,000 ETH.
const BALANCE: u128 = 10_000 * 1_000_000_000_000_000_000;

/// Writes the genesis files.
#[derive(Args, Debug)]
pub(crate) struct GenesisArgs {
    /// Folder for dev.json, devnet-3.json and stress-10k.json.
    #[arg(long, default_value = "genesis")]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct Written {
    files: Vec<PathBuf>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.iter().try_for_each(|file| writeln!(f, "wrote {}", file.display()))
    }
}

/// Runs the command.
pub(crate) fn run(args: &GenesisArgs, format: Format) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.out)?;
    let mut written = Written { files: Vec::new() };
    for (name, text) in files() {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written.files.push(path);
    }
    format.result(&written);
    Ok(())
}

/// Name and text of each genesis file.
pub(crate) fn files() -> [(&'static str, String); 3] {
    let dev = accounts::dev_accounts(accounts::DEV_ACCOUNT_COUNT);
    let stress = accounts::stress_accounts(accounts::STRESS_ACCOUNT_COUNT);
    let everyone: Vec<_> = dev.iter().chain(&stress).cloned().collect();
    [
        ("dev.json", genesis_text(GAS_LIMIT_DEV, 0, &dev)),
        ("devnet-3.json", genesis_text(GAS_LIMIT_DEV, 250, &dev)),
        ("stress-10k.json", genesis_text(GAS_LIMIT_STRESS, 0, &everyone)),
    ]
}

fn genesis_text(gas_limit: u64, block_time_ms: u64, funded: &[PrivateKeySigner]) -> String {
    let mut alloc: BTreeMap<Address, GenesisAccount> = predeploys().into_iter().collect();
    for signer in funded {
        let account = GenesisAccount { balance: U256::from(BALANCE), ..Default::default() };
        alloc.insert(signer.address(), account);
    }
    let mut text = HEAD
        .replace("$GAS_LIMIT", &format!("{gas_limit:#x}"))
        .replace("$BLOCK_TIME_MS", &block_time_ms.to_string());
    // One account a line: a diff names what changed.
    for (index, (address, account)) in alloc.iter().enumerate() {
        let account = serde_json::to_string(account).expect("accounts print");
        let comma = if index + 1 < alloc.len() { "," } else { "" };
        writeln!(text, "    \"{address:#x}\": {account}{comma}").expect("a string grows");
    }
    text.push_str("  }\n}\n");
    text
}

/// All but the accounts, as text, so that keys stay in the order in which people read them.
const HEAD: &str = r#"{
  "config": {
    "chainId": 1337,
    "homesteadBlock": 0,
    "eip150Block": 0,
    "eip155Block": 0,
    "eip158Block": 0,
    "byzantiumBlock": 0,
    "constantinopleBlock": 0,
    "petersburgBlock": 0,
    "istanbulBlock": 0,
    "muirGlacierBlock": 0,
    "berlinBlock": 0,
    "londonBlock": 0,
    "arrowGlacierBlock": 0,
    "grayGlacierBlock": 0,
    "mergeNetsplitBlock": 0,
    "terminalTotalDifficulty": 0,
    "terminalTotalDifficultyPassed": true,
    "shanghaiTime": 0,
    "cancunTime": 0,
    "pragueTime": 0,
    "osakaTime": 0,
    "blobSchedule": {
      "cancun": { "target": 3, "max": 6, "baseFeeUpdateFraction": 3338477 },
      "prague": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5007716 },
      "osaka": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5007716 }
    },
    "blockraft": { "blockTimeMs": $BLOCK_TIME_MS, "shards": 4 }
  },
  "nonce": "0x0",
  "timestamp": "0x0",
  "extraData": "0x",
  "gasLimit": "$GAS_LIMIT",
  "difficulty": "0x0",
  "mixHash": "0x0000000000000000000000000000000000000000000000000000000000000000",
  "coinbase": "0x0000000000000000000000000000000000000000",
  "alloc": {
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_hardforks::{EthereumHardfork, EthereumHardforks};
    use blockraft_primitives::ClusterGenesis;

    #[test]
    fn committed_files_are_what_the_command_writes() {
        for (name, text) in files() {
            let path = format!("{}/../genesis/{name}", env!("CARGO_MANIFEST_DIR"));
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "{name} differs: run `cargo run --release -p blockraft-bench -- genesis`"
            );
        }
    }

    #[test]
    fn files_are_genesis_files_with_osaka_from_the_start() {
        for ((name, text), block_time_ms) in files().into_iter().zip([0, 250, 0]) {
            let genesis = ClusterGenesis::from_json(&text).expect(name);
            assert_eq!(genesis.spec.chain_id, CHAIN_ID, "{name}");
            assert_eq!(genesis.options.block_time_ms, block_time_ms, "{name}");
            assert!(genesis.spec.is_osaka_active_at_timestamp(0), "{name}");
            assert!(
                genesis.spec.ethereum_fork_activation(EthereumHardfork::Paris).active_at_block(0)
            );
            assert_eq!(genesis.spec.blob_params(0).map(|blobs| blobs.max_blob_count), Some(9));
        }
    }

    #[test]
    fn stress_funds_the_accounts_that_workloads_sign_for() {
        let [_, _, (_, text)] = files();
        let genesis = ClusterGenesis::from_json(&text).unwrap().genesis;
        let senders =
            accounts::senders(accounts::DEV_ACCOUNT_COUNT + accounts::STRESS_ACCOUNT_COUNT);
        assert!(senders.iter().all(|s| genesis.alloc[&s.address()].balance == U256::from(BALANCE)));
    }
}
