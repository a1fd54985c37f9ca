//! The pool is a function of the log: nodes at the same index have the same pool, whether they got
//! there by applying entries, by restoring records after a crash, or from a snapshot.

use super::{Fact, Invariant};
use blockraft_protocol::Pool;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct PoolsEqual {
    pools: BTreeMap<u64, Fingerprint>,
}

/// All that a pool's future depends on, in few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    records: usize,
    hash: u64,
}

impl Fingerprint {
    pub(crate) fn of(pool: &Pool) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut mix =
            |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x0100_0000_01b3);
        mix(pool.next_id().0);
        mix(pool.bytes() as u64);
        for record in pool.records() {
            mix(record.id.0);
            mix(record.admitted_at);
            mix(record.replaced_at.unwrap_or_default());
            record.transaction.tx_hash().as_slice().chunks(8).for_each(|chunk| {
                mix(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
            });
        }
        for content in pool.content().values() {
            mix(content.executable.len() as u64);
            mix(content.queued.len() as u64);
        }
        let (executable, queued) = pool.status();
        mix(executable as u64);
        mix(queued as u64);
        Self { records: pool.len(), hash }
    }
}

impl Invariant for PoolsEqual {
    fn name(&self) -> &'static str {
        "pools_equal"
    }

    fn see(&mut self, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::At { node, index, pool, .. } => {
                let first = *self.pools.entry(*index).or_insert(*pool);
                if first != *pool {
                    return Err(format!(
                        "node {node} at index {index}: {pool:?}, before {first:?}"
                    ));
                }
            }
            Fact::End(end) => {
                for pair in end.nodes.windows(2) {
                    if pair[0].position == pair[1].position && pair[0].pool != pair[1].pool {
                        return Err(format!("pools differ at {:?}", pair[0].position));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
