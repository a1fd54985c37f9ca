//! What can be done to a block before its parent is known: decoding it, recovering its senders, and holding
//! its body against its header. It is most of the work of a block of plain transfers, and runs ahead.

use super::{ImportError, RawBlock};
use alloy_consensus::{Block, Header, Sealed, TxEnvelope};
use alloy_primitives::{U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use blockraft_execution::{ConsensusError, check_body, recover};
use blockraft_primitives::{ChainSpec, Transaction};
use rayon::prelude::*;

/// A decoded block. What is wrong with it is told when its turn comes: rules about headers come first.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) header: Sealed<Header>,
    pub(super) block: Block<TxEnvelope>,
    pub(super) transactions: Result<Vec<Transaction>, ConsensusError>,
    pub(super) body: Result<(), ConsensusError>,
    /// What the file says of the branch up to this block.
    pub(super) total_difficulty: Option<U256>,
}

impl Prepared {
    /// Reads a block, and only the one encoding that a block has.
    pub(super) fn decode(spec: &ChainSpec, bytes: &[u8]) -> Result<Self, ImportError> {
        let mut rest = bytes;
        let block = Block::<TxEnvelope>::decode(&mut rest)?;
        if !rest.is_empty() {
            return Err(alloy_rlp::Error::UnexpectedLength.into());
        }
        let mut again = Vec::with_capacity(bytes.len());
        block.encode(&mut again);
        if again != bytes {
            return Err(ImportError::NotCanonical);
        }
        let number = block.header.number;
        let senders = |(index, tx): (usize, &TxEnvelope)| recover(spec, number, index, tx.clone());
        let hash = keccak256(alloy_rlp::encode(&block.header));
        Ok(Self {
            header: Sealed::new_unchecked(block.header.clone(), hash),
            transactions: first_error(block.body.transactions.par_iter().enumerate().map(senders)),
            body: check_body(spec, &block),
            block,
            total_difficulty: None,
        })
    }

    /// A block of a file.
    pub(super) fn read(spec: &ChainSpec, raw: &RawBlock) -> Result<Self, ImportError> {
        let prepared = Self::decode(spec, &raw.bytes)?;
        Ok(Self { total_difficulty: raw.total_difficulty, ..prepared })
    }
}

/// All senders, or what is wrong with the first transaction of which something is.
fn first_error(
    senders: impl IndexedParallelIterator<Item = Result<Transaction, ConsensusError>>,
) -> Result<Vec<Transaction>, ConsensusError> {
    // Collecting results in parallel keeps any error, not the first.
    let senders: Vec<_> = senders.collect();
    senders.into_iter().collect()
}

/// The number in the header of a block that does not decode as a whole.
pub(super) fn number_of_broken(mut bytes: &[u8]) -> Option<u64> {
    let list = alloy_rlp::Header::decode(&mut bytes).ok().filter(|header| header.list)?;
    let mut fields = bytes.get(..list.payload_length.min(bytes.len()))?;
    Header::decode(&mut fields).ok().map(|header| header.number)
}
