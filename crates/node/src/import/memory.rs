//! A tree of blocks in memory: what the public blockchain tests run on.

use super::{
    ImportError,
    prepare::Prepared,
    rules::{ChainRules, Tip},
    shares::Workers,
    verify::verify,
};
use alloy_consensus::{Header, Sealed};
use alloy_primitives::{B256, map::B256Map};
use blockraft_primitives::{ClusterGenesis, MemoryState};
use blockraft_trie::StateTrie;

/// Blocks, each with its state, from one genesis on. Side branches are kept; the head is that of the best
/// branch, see `ChainRules::prefers`.
#[derive(Debug)]
pub struct MemoryChain {
    rules: ChainRules,
    blocks: B256Map<Entry>,
    head: B256,
    workers: Workers,
}

#[derive(Debug)]
struct Entry {
    tip: Tip,
    state: MemoryState,
    trie: StateTrie,
}

impl MemoryChain {
    /// A chain of nothing but its block 0.
    ///
    /// # Errors
    /// The trie of the allocation does not have the genesis header's root.
    pub fn new(genesis: &ClusterGenesis, workers: Workers) -> Result<Self, ImportError> {
        let rules = ChainRules::new(genesis)?;
        let allocation = genesis.state();
        let mut state = MemoryState::default();
        state.apply(&allocation);
        state.block_hashes.insert(0, genesis.hash());
        let mut trie = StateTrie::new();
        trie.update(&allocation);
        let (got, expected) = (genesis.header.state_root, trie.root());
        if got != expected {
            return Err(ImportError::StateRoot { got, expected });
        }
        let entry = Entry { tip: rules.genesis(genesis.header.clone()), state, trie };
        let head = genesis.hash();
        Ok(Self { rules, blocks: B256Map::from_iter([(head, entry)]), head, workers })
    }

    /// Checks, executes and keeps a block; a refused one leaves no trace. Returns its hash.
    pub fn import(&mut self, bytes: &[u8]) -> Result<B256, ImportError> {
        let mut block = Prepared::decode(self.rules.spec(), bytes)?;
        let parent = self.blocks.get(&block.header.parent_hash);
        let parent =
            parent.ok_or(ImportError::UnknownParent { parent: block.header.parent_hash })?;
        let mut trie = parent.trie.clone();
        let (tip, state) = (&parent.tip, &parent.state);
        let verified = verify(&self.rules, tip, &mut block, state, &mut trie, self.workers)?;
        let mut state = parent.state.clone();
        state.apply(&verified.executed.diff);
        let (number, hash) = (verified.header.number, verified.header.hash());
        state.block_hashes.insert(number, hash);
        let tip = self.rules.extend(&parent.tip, verified.header, &block.block.body.ommers);
        if self.rules.prefers(&tip, &self.blocks[&self.head].tip) {
            self.head = hash;
        }
        self.blocks.insert(hash, Entry { tip, state, trie });
        Ok(hash)
    }

    /// The last block of the best branch.
    pub fn head(&self) -> &Sealed<Header> {
        &self.blocks[&self.head].tip.header
    }

    /// The state after it.
    pub fn state(&self) -> &MemoryState {
        &self.blocks[&self.head].state
    }
}
