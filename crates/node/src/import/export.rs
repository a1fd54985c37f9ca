//! Writing a chain as a file of concatenated block RLP.

use super::ImportError;
use blockraft_primitives::StateError;
use blockraft_storage::Store;
use std::{io::Write, ops::RangeInclusive};

/// Why a chain was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Blocks that the chain does not have.
    #[error("blocks {from} to {to} were asked for, the chain has 0 to {head}")]
    Range {
        /// First.
        from: u64,
        /// Last.
        to: u64,
        /// The chain's last.
        head: u64,
    },
    /// The chain cannot be read.
    #[error(transparent)]
    Chain(#[from] ImportError),
    /// The file cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

/// The blocks of the chain from one to another; to the last one when none is named.
///
/// # Errors
/// [`ExportError::Range`] when the chain does not have them all.
pub fn export_range(
    store: &Store,
    from: u64,
    to: Option<u64>,
) -> Result<RangeInclusive<u64>, ExportError> {
    let head = store.head().number;
    let to = to.unwrap_or(head);
    if from > to || to > head {
        return Err(ExportError::Range { from, to, head });
    }
    Ok(from..=to)
}

/// Writes these blocks, one after the other; never more than one is in memory. `report` is told of each.
/// Returns the bytes written.
pub fn export_chain(
    store: &Store,
    blocks: RangeInclusive<u64>,
    out: &mut impl Write,
    report: &mut dyn FnMut(),
) -> Result<u64, ExportError> {
    let mut bytes = 0;
    for number in blocks {
        let block = store.block(number).map_err(ImportError::from)?;
        let block = block.ok_or(StateError::UnknownBlock(number)).map_err(ImportError::from)?;
        let block = block.rlp();
        out.write_all(&block)?;
        bytes += block.len() as u64;
        report();
    }
    out.flush()?;
    Ok(bytes)
}
