//! The trie of a block that still runs: what has become final of the block is written into it meanwhile.
//!
//! Chunks are written by threads of the pool that have nothing to run, one chunk at a time and in order, so
//! execution never waits for the trie. What is left at the end is written before the root is taken.

use super::{BuildOrder, Chain, head_trie::TrieOut};
use crate::error::NodeError;
use blockraft_primitives::StateDiff;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// See the module.
pub(super) struct Streamed<'a> {
    chain: &'a Chain,
    order: &'a BuildOrder,
    state: Mutex<State<'a>>,
}

#[derive(Default)]
struct State<'a> {
    waiting: VecDeque<StateDiff>,
    /// Somebody writes. It may come to run other work of its pool meanwhile, so nobody waits for it.
    busy: bool,
    /// Taken out when the first chunk is written.
    trie: Option<TrieOut<'a>>,
    /// All that was written.
    written: StateDiff,
    failed: Option<NodeError>,
}

impl<'a> Streamed<'a> {
    pub(super) fn new(chain: &'a Chain, order: &'a BuildOrder) -> Self {
        Self { chain, order, state: Mutex::default() }
    }

    /// Takes a chunk; [`Self::write`] must follow, on any thread.
    pub(super) fn add(&self, chunk: StateDiff) {
        self.state.lock().waiting.push_back(chunk);
    }

    /// Writes what is there, unless somebody is at it, who will then see it.
    pub(super) fn write(&self) {
        loop {
            let (mut trie, chunk) = {
                let mut state = self.state.lock();
                if state.busy || state.failed.is_some() {
                    return;
                }
                let Some(chunk) = state.waiting.pop_front() else { return };
                state.busy = true;
                (state.trie.take(), chunk)
            };
            let written = self.write_chunk(&mut trie, &chunk);
            let mut state = self.state.lock();
            state.busy = false;
            state.trie = trie;
            state.written.accounts.extend(chunk.accounts);
            state.failed = written.err();
        }
    }

    fn write_chunk(
        &self,
        trie: &mut Option<TrieOut<'a>>,
        chunk: &StateDiff,
    ) -> Result<(), NodeError> {
        let trie = match trie {
            Some(trie) => trie,
            None => {
                let out = self.chain.take_trie_out(&self.order.unapplied, self.order.parent)?;
                trie.insert(out)
            }
        };
        trie.push(chunk)
    }

    /// The trie with all chunks in it, once nobody writes any more; `None` where there was none.
    pub(super) fn finish(self) -> Result<Option<TrieOut<'a>>, NodeError> {
        let State { trie, waiting, failed, .. } = self.state.into_inner();
        match failed {
            Some(error) => Err(error),
            None => {
                assert!(waiting.is_empty(), "who adds a chunk has it written");
                Ok(trie)
            }
        }
    }

    /// The block has come to nothing: what was written of it will be taken back.
    pub(super) fn abandon(self) {
        let State { trie, written, failed, .. } = self.state.into_inner();
        if let (Some(trie), None) = (trie, failed) {
            trie.keep_void(written);
        }
    }
}
