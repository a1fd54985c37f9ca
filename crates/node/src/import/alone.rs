//! Single transactions: what the public state tests run.

use super::ImportError;
use alloy_consensus::{Header, TxEnvelope};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::B256;
use blockraft_execution::{execute_transaction, execute_transaction_shared, recover};
use blockraft_primitives::{ChainSpec, Receipt, StateReader};
use blockraft_trie::StateTrie;

/// Decodes, checks and runs one transaction in the block that `header` describes, without what blocks do
/// beside their transactions; with several executors by the engine, which takes the outcome of one of them.
/// Returns its receipt and the root after it; `trie` is of `state`, and holds the changes afterwards.
pub fn execute_alone<S: StateReader>(
    spec: &ChainSpec,
    header: &Header,
    mut tx: &[u8],
    state: S,
    trie: &mut StateTrie,
    executors: usize,
) -> Result<(Receipt, B256), ImportError> {
    let decoded = TxEnvelope::decode_2718(&mut tx)?;
    if !tx.is_empty() {
        return Err(alloy_rlp::Error::UnexpectedLength.into());
    }
    let tx = recover(spec, header.number, 0, decoded)?;
    let run = if executors > 1 { execute_transaction_shared } else { execute_transaction };
    let (receipt, diff) = run(spec, state, header, &tx)?;
    trie.update(&diff);
    Ok((receipt, trie.root()))
}
