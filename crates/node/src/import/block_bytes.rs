//! Blocks as bytes.

use super::ImportError;
use alloy_consensus::{Block, TxEnvelope};
use alloy_rlp::{Decodable, Encodable};

/// Reads a block, and only the one encoding that a block has.
pub(super) fn decode(bytes: &[u8]) -> Result<Block<TxEnvelope>, ImportError> {
    let mut rest = bytes;
    let block = Block::<TxEnvelope>::decode(&mut rest)?;
    if !rest.is_empty() {
        return Err(alloy_rlp::Error::UnexpectedLength.into());
    }
    let mut again = Vec::with_capacity(bytes.len());
    block.encode(&mut again);
    if again == bytes { Ok(block) } else { Err(ImportError::NotCanonical) }
}
