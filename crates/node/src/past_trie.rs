//! Proofs of blocks far behind the head: the subtries are built anew from the flat state and the history,
//! beside the head's trie, on threads of their own. Making blocks does not wait for it.

use crate::error::NodeError;
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, U256, keccak256};
use blockraft_primitives::limits::PROOF_BLOCK_CACHE_COUNT_MAX;
use blockraft_storage::Store;
use blockraft_trie::{AccountProof, BuiltSubtrie, StateTrie, SubtrieBuilder, SubtrieRoot};
use parking_lot::Mutex;
use rayon::prelude::*;
use std::{collections::VecDeque, sync::Arc};

/// The roots of all subtries at some blocks that were asked for lately. One block is built at a time:
/// whoever asks for another waits.
#[derive(Debug, Default)]
pub(crate) struct PastTries {
    built: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// Half of the cores, so that the other half is left for the head.
    pool: Option<Arc<rayon::ThreadPool>>,
    /// By block hash, newest last.
    roots: VecDeque<(B256, Arc<Vec<SubtrieRoot>>)>,
}

impl PastTries {
    /// Proves an account and some of its slots at a block that is on disk.
    pub(crate) fn prove(
        &self,
        store: &Store,
        block: &Sealed<Header>,
        address: Address,
        slots: &[U256],
    ) -> Result<AccountProof, NodeError> {
        let (pool, roots) = self.roots(store, block)?;
        let prefix = StateTrie::subtrie_of_proof(&roots, &keccak256(address));
        let built = pool.install(|| subtrie(store, prefix, block.number))?;
        let mut trie = StateTrie::of_one_subtrie(built, &roots);
        let got = trie.root();
        if got != block.state_root {
            let (number, expected) = (block.number, block.state_root);
            return Err(NodeError::WrongRoot { number, got, expected });
        }
        Ok(trie.prove(address, slots)?)
    }

    fn roots(
        &self,
        store: &Store,
        block: &Sealed<Header>,
    ) -> Result<(Arc<rayon::ThreadPool>, Arc<Vec<SubtrieRoot>>), NodeError> {
        let mut past = self.built.lock();
        let pool = match &past.pool {
            Some(pool) => pool.clone(),
            None => {
                let threads = rayon::current_num_threads().div_ceil(2);
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(|index| format!("past-trie-{index}"))
                    .build()
                    .map_err(|error| NodeError::Thread(std::io::Error::other(error)))?;
                past.pool.insert(Arc::new(pool)).clone()
            }
        };
        if let Some((_, roots)) = past.roots.iter().find(|(hash, _)| *hash == block.hash()) {
            return Ok((pool, roots.clone()));
        }
        let roots = pool.install(|| {
            let root = |prefix| subtrie(store, prefix, block.number).map(|built| built.root());
            (0..=u8::MAX).into_par_iter().map(root).collect::<Result<Vec<_>, _>>()
        })?;
        let roots = Arc::new(roots);
        past.roots.push_back((block.hash(), roots.clone()));
        if past.roots.len() > PROOF_BLOCK_CACHE_COUNT_MAX {
            past.roots.pop_front();
        }
        Ok((pool, roots))
    }
}

/// A partition built from the flat state as it was after a block that is on disk.
pub(crate) fn subtrie(store: &Store, prefix: u8, number: u64) -> Result<BuiltSubtrie, NodeError> {
    let mut builder = SubtrieBuilder::new(prefix);
    let mut refused = None;
    store.for_each_account_at(prefix, number, &mut |hashed_address, account, storage| {
        if refused.is_none() {
            refused = builder.add_account(hashed_address, &account, storage).err();
        }
    })?;
    refused.map_or_else(|| Ok(builder.finish()), |error| Err(error.into()))
}
