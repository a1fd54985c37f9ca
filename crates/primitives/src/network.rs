//! Networks by the names that Ethereum's public tests give them.

use alloy_genesis::ChainConfig;
use alloy_primitives::U256;

/// In the order in which forks build on each other; some have two names.
const FORKS: [&[&str]; 23] = [
    &["Frontier"],
    &["Homestead"],
    &["EIP150", "TangerineWhistle"],
    &["EIP158", "SpuriousDragon"],
    &["Byzantium"],
    &["Constantinople"],
    &["ConstantinopleFix", "Petersburg"],
    &["Istanbul"],
    &["MuirGlacier", "EIP2384"],
    &["Berlin"],
    &["London"],
    &["ArrowGlacier"],
    &["GrayGlacier"],
    &["Paris", "Merge"],
    &["Shanghai"],
    &["Cancun"],
    &["Prague"],
    &["Osaka"],
    &["BPO1"],
    &["BPO2"],
    &["BPO3"],
    &["BPO4"],
    &["BPO5"],
];

/// Where the second fork of a transition begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    Block(u64),
    Time(u64),
    TotalDifficulty(U256),
}

/// No network has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {0}")]
pub struct UnknownNetwork(String);

/// The rules of a network: a fork that is active from the genesis on (`Cancun`), or two and where the
/// second begins (`CancunToPragueAtTime15k`, `BerlinToLondonAt5`, `ArrowGlacierToParisAtDiffC0000`).
///
/// # Errors
/// [`UnknownNetwork`] where the name is neither.
pub fn network(name: &str, chain_id: u64) -> Result<ChainConfig, UnknownNetwork> {
    named(name, chain_id).ok_or_else(|| UnknownNetwork(name.to_owned()))
}

fn named(name: &str, chain_id: u64) -> Option<ChainConfig> {
    let (from, to) = match name.split_once("To") {
        Some((from, rest)) => (from, Some(transition(rest)?)),
        None => (name, None),
    };
    let mut chain = ChainConfig { chain_id, ..ChainConfig::default() };
    let from = rank(from)?;
    for fork in 0..=from {
        activate(&mut chain, fork, Start::Block(0));
    }
    match to {
        Some(("Dao", Start::Block(block))) => {
            chain.dao_fork_block = Some(block);
            chain.dao_fork_support = true;
        }
        Some((to, start)) => {
            for fork in from + 1..=rank(to)? {
                activate(&mut chain, fork, start);
            }
        }
        None => {}
    }
    Some(chain)
}

fn rank(name: &str) -> Option<usize> {
    FORKS.iter().position(|names| names.contains(&name))
}

fn transition(text: &str) -> Option<(&str, Start)> {
    let (to, at) = text.split_once("At")?;
    let start = if let Some(time) = at.strip_prefix("Time").and_then(|t| t.strip_suffix('k')) {
        Start::Time(time.parse::<u64>().ok()?.checked_mul(1000)?)
    } else if let Some(difficulty) = at.strip_prefix("Diff") {
        Start::TotalDifficulty(U256::from_str_radix(difficulty, 16).ok()?)
    } else {
        Start::Block(at.parse().ok()?)
    };
    Some((to, start))
}

fn activate(chain: &mut ChainConfig, fork: usize, start: Start) {
    let block = match start {
        Start::Block(block) => Some(block),
        Start::Time(_) | Start::TotalDifficulty(_) => None,
    };
    let time = match start {
        Start::Time(time) => Some(time),
        Start::Block(block) => Some(block),
        Start::TotalDifficulty(_) => None,
    };
    match FORKS[fork][0] {
        "Homestead" => chain.homestead_block = block,
        "EIP150" => chain.eip150_block = block,
        "EIP158" => {
            chain.eip155_block = block;
            chain.eip158_block = block;
        }
        "Byzantium" => chain.byzantium_block = block,
        // Without Petersburg: a config that does not name it has it from Constantinople on.
        "Constantinople" => {
            chain.constantinople_block = block;
            chain.petersburg_block = Some(u64::MAX);
        }
        "ConstantinopleFix" => chain.petersburg_block = block,
        "Istanbul" => chain.istanbul_block = block,
        "MuirGlacier" => chain.muir_glacier_block = block,
        "Berlin" => chain.berlin_block = block,
        "London" => chain.london_block = block,
        "ArrowGlacier" => chain.arrow_glacier_block = block,
        "GrayGlacier" => chain.gray_glacier_block = block,
        "Paris" => {
            chain.terminal_total_difficulty = Some(match start {
                Start::TotalDifficulty(difficulty) => difficulty,
                Start::Block(_) | Start::Time(_) => U256::ZERO,
            });
        }
        "Shanghai" => chain.shanghai_time = time,
        "Cancun" => chain.cancun_time = time,
        "Prague" => chain.prague_time = time,
        "Osaka" => chain.osaka_time = time,
        "BPO1" => chain.bpo1_time = time,
        "BPO2" => chain.bpo2_time = time,
        "BPO3" => chain.bpo3_time = time,
        "BPO4" => chain.bpo4_time = time,
        "BPO5" => chain.bpo5_time = time,
        first => debug_assert_eq!(first, "Frontier", "a fork without a field of its own"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChainSpec;
    use alloy_hardforks::{EthereumHardfork as Fork, EthereumHardforks, ForkCondition};

    fn spec(name: &str) -> ChainSpec {
        ChainSpec::new(&network(name, 1).unwrap()).unwrap()
    }

    #[test]
    fn a_network_has_its_fork_and_those_before_it() {
        let order = [
            ("Frontier", Fork::Frontier),
            ("Homestead", Fork::Homestead),
            ("EIP150", Fork::Tangerine),
            ("EIP158", Fork::SpuriousDragon),
            ("Byzantium", Fork::Byzantium),
            ("Constantinople", Fork::Constantinople),
            ("ConstantinopleFix", Fork::Petersburg),
            ("Istanbul", Fork::Istanbul),
            ("Berlin", Fork::Berlin),
            ("London", Fork::London),
            ("Merge", Fork::Paris),
            ("Shanghai", Fork::Shanghai),
            ("Cancun", Fork::Cancun),
            ("Prague", Fork::Prague),
            ("Osaka", Fork::Osaka),
            ("BPO1", Fork::Bpo1),
            ("BPO5", Fork::Bpo5),
        ];
        for (level, (name, _)) in order.iter().enumerate() {
            let spec = spec(name);
            for (rank, (_, fork)) in order.iter().enumerate() {
                let condition = spec.ethereum_fork_activation(*fork);
                let active = condition.active_at_block(0) || condition.active_at_timestamp(0);
                assert_eq!(active, rank <= level, "{fork} in {name}");
            }
        }
    }

    #[test]
    fn a_transition_begins_where_its_name_says() {
        let at = |name: &str, fork| spec(name).ethereum_fork_activation(fork);
        let block = ForkCondition::Block;
        assert_eq!(at("FrontierToHomesteadAt5", Fork::Homestead), block(5));
        assert_eq!(at("HomesteadToDaoAt5", Fork::Dao), block(5));
        assert_eq!(at("ByzantiumToConstantinopleAt5", Fork::Constantinople), block(5));
        assert_eq!(at("ByzantiumToConstantinopleAt5", Fork::Petersburg), block(u64::MAX));
        assert_eq!(at("ByzantiumToConstantinopleFixAt5", Fork::Petersburg), block(5));
        let time = ForkCondition::Timestamp(15_000);
        assert_eq!(at("ParisToShanghaiAtTime15k", Fork::Shanghai), time);
        assert_eq!(at("BPO2ToBPO3AtTime15k", Fork::Bpo3), time);
        let merge = network("ArrowGlacierToParisAtDiffC0000", 1).unwrap();
        assert_eq!(merge.terminal_total_difficulty, Some(U256::from(0xC0000)));
    }

    #[test]
    fn an_unknown_network_is_named() {
        for name in ["Atlantis", "LondonToAtlantisAt5", "LondonToParisAtDawn", "LondonTo"] {
            let error = network(name, 1).unwrap_err();
            assert_eq!(error.to_string(), format!("unknown network {name}"));
        }
    }
}
