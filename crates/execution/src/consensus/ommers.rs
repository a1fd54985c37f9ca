//! Ommers: headers of blocks that lost, for which a proof-of-work block takes a reward.

use super::{ConsensusError, HeaderRules, check_header};
use alloy_consensus::{Header, Sealable, Sealed};
use alloy_primitives::B256;
use blockraft_primitives::ChainSpec;

/// Generations back in which an ommer's parent may lie.
pub const OMMER_DEPTH_MAX: usize = 7;

const OMMER_COUNT_MAX: usize = 2;

/// What a block must know of one before it.
#[derive(Clone, Debug)]
pub struct Ancestor {
    /// Its header.
    pub header: Sealed<Header>,
    /// Hashes of the ommers that it includes.
    pub ommers: Vec<B256>,
}

/// Whether a block may include these ommers. `ancestors` are the last [`OMMER_DEPTH_MAX`] blocks before
/// it, youngest first, the parent among them; fewer only where the chain is younger.
pub fn check_ommers(
    spec: &ChainSpec,
    header: &Header,
    ommers: &[Header],
    ancestors: &[Ancestor],
) -> Result<(), ConsensusError> {
    if ommers.len() > OMMER_COUNT_MAX {
        return Err(ConsensusError::OmmerCount { got: ommers.len() });
    }
    let mut known: Vec<B256> = ancestors
        .iter()
        .flat_map(|ancestor| ancestor.ommers.iter().copied().chain([ancestor.header.hash()]))
        .collect();
    for ommer in ommers {
        let hash = ommer.hash_slow();
        if known.contains(&hash) {
            return Err(ConsensusError::OmmerKnown { hash });
        }
        known.push(hash);
        // A sibling of this block is no ommer of it.
        let parent = ancestors
            .iter()
            .find(|ancestor| ancestor.header.hash() == ommer.parent_hash)
            .filter(|_| ommer.parent_hash != header.parent_hash)
            .ok_or(ConsensusError::OmmerUnrelated { hash })?;
        check_header(spec, HeaderRules::default(), &parent.header, ommer)
            .map_err(|error| ConsensusError::Ommer { hash, error: Box::new(error) })?;
    }
    Ok(())
}

impl Ancestor {
    /// Of a block with these ommers.
    pub fn new(header: Sealed<Header>, ommers: &[Header]) -> Self {
        Self { header, ommers: ommers.iter().map(Sealable::hash_slow).collect() }
    }
}
