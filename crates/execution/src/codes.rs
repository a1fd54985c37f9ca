//! Codes that are ready to run, kept from block to block: to find a code's jump destinations takes longer than a
//! call of it, and most blocks call what the ones before them called.

use crate::database::{DatabaseError, bytecode};
use alloy_primitives::{B256, map::B256Map};
use blockraft_primitives::{StateReader, limits::CODE_CACHE_BYTES_MAX};
use revm::state::Bytecode;
use std::sync::{Arc, RwLock};

/// Codes by their hash, of any block and any state; all clones are one. Holds
/// [`CODE_CACHE_BYTES_MAX`] at most: what was not asked for for long gives way.
#[derive(Clone, Debug, Default)]
pub struct CodeCache(Arc<RwLock<Generations>>);

/// When the young ones fill half of the room, they become the old ones, and those go.
#[derive(Debug, Default)]
struct Generations {
    young: B256Map<Bytecode>,
    old: B256Map<Bytecode>,
    young_bytes: usize,
}

/// What an entry takes beside its code: a jump table and two maps' shares are less.
const ENTRY_BYTES: usize = 512;

impl CodeCache {
    fn get(&self, code_hash: &B256) -> Option<Bytecode> {
        let code = {
            let generations = self.0.read().expect(UNPOISONED);
            if let Some(code) = generations.young.get(code_hash) {
                return Some(code.clone());
            }
            generations.old.get(code_hash)?.clone()
        };
        self.put(*code_hash, code.clone());
        Some(code)
    }

    fn put(&self, code_hash: B256, code: Bytecode) {
        let bytes = code.len() + ENTRY_BYTES;
        let mut generations = self.0.write().expect(UNPOISONED);
        if generations.young.insert(code_hash, code).is_none() {
            generations.young_bytes += bytes;
        }
        if generations.young_bytes > CODE_CACHE_BYTES_MAX / 2 {
            let young = std::mem::take(&mut generations.young);
            *generations = Generations { old: young, ..Generations::default() };
        }
    }
}

/// Code by its hash, ready to run: from a cache, if there is one, or else from the state.
pub(crate) fn code_of<S: StateReader>(
    cache: Option<&CodeCache>,
    reader: &S,
    code_hash: B256,
) -> Result<Bytecode, DatabaseError> {
    if let Some(code) = cache.and_then(|cache| cache.get(&code_hash)) {
        return Ok(code);
    }
    let code = bytecode(reader.code(code_hash)?);
    // A state may answer with nothing for what it does not have.
    if let Some(cache) = cache.filter(|_| !code.is_empty()) {
        cache.put(code_hash, code.clone());
    }
    Ok(code)
}

const UNPOISONED: &str = "nothing panics under this lock";

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::Bytes;
    use blockraft_primitives::MemoryState;

    fn hash(number: usize) -> B256 {
        B256::left_padding_from(&number.to_be_bytes())
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_gives_way() {
        const CODE_LEN: usize = 24_576;
        let cache = CodeCache::default();
        let mut state = MemoryState::default();
        let count = 2 * CODE_CACHE_BYTES_MAX / CODE_LEN;
        let codes = [1_u8, 2, 3].map(|byte| Bytes::from(vec![byte; CODE_LEN]));
        for number in 0..count {
            state.codes.insert(hash(number), codes[number % 3].clone());
        }
        for number in 0..count {
            for wanted in [0, number] {
                let code = code_of(Some(&cache), &state, hash(wanted)).unwrap();
                assert_eq!(code.original_bytes(), state.codes[&hash(wanted)]);
            }
            let generations = cache.0.read().unwrap();
            let held = generations.young.len() + generations.old.len();
            assert!(held * CODE_LEN <= CODE_CACHE_BYTES_MAX, "{held} are held");
        }
        state.codes.clear();
        let known = |number| !code_of(Some(&cache), &state, hash(number)).unwrap().is_empty();
        assert_eq!([0, 1, count - 1].map(known), [true, false, true]);
    }
}
