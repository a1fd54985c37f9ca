//! The task that reads the state on disk again and again while the node runs, slowly, and holds every
//! subtree against the state trie, whose root every header confirmed.
//!
//! A round is of one block: the roots of the trie's 256 subtries are noted, and each is computed anew from
//! the flat state as it was after that block, however far the chain has gone meanwhile. So no
//! reader stays open for longer than one partition takes. A node whose state is found wrong is not ready any
//! more and does not lead; where nobody else could, it stops.

use crate::{chain::Chain, clock::Stopwatch, error::NodeError, past_trie};
use alloy_primitives::B256;
use blockraft_primitives::StateError;
use blockraft_raft::{RaftNode, Spawner};
use blockraft_trie::SubtrieRoot;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};

/// How fast it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Pause after a partition, as a multiple of the time that reading it took.
    pub(crate) rest: u32,
    /// Shortest pause after a partition.
    pub(crate) pause: Duration,
    /// Pause before a round.
    pub(crate) round_pause: Duration,
}

impl Default for Pace {
    /// One twentieth of a core at most.
    fn default() -> Self {
        let [pause, round_pause] = [Duration::from_millis(20), Duration::from_secs(10)];
        Self { rest: 19, pause, round_pause }
    }
}

/// How often it looks whether the block is on disk by now.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// How often at most: a block that was proposed may never be applied.
const RETRIES_MAX: usize = 200;
/// Pause between two attempts to hand leadership over.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Scrub {
    pub(crate) chain: Arc<Chain>,
    pub(crate) raft: RaftNode,
    pub(crate) spawner: Spawner,
    pub(crate) pace: Pace,
    /// What is wrong, for everybody who asks whether this node is well.
    pub(crate) fault: watch::Sender<Option<String>>,
    /// Ends the node.
    pub(crate) failed: oneshot::Sender<NodeError>,
}

/// What a round is held against.
#[derive(Debug)]
struct Round {
    block: RoundBlock,
    roots: Vec<SubtrieRoot>,
}

/// The block of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundBlock {
    number: u64,
    hash: B256,
}

impl Scrub {
    /// Runs until the node stops.
    pub(crate) async fn run(self) {
        let stop = self.spawner.stop.clone();
        // Stopped or done: either way it ends.
        let _ = stop.run_until_cancelled(self.watch_over_state()).await;
    }

    async fn watch_over_state(self) {
        metrics::gauge!("blockraft_state_damaged").set(0.0);
        loop {
            sleep(self.pace.round_pause).await;
            let checked = match self.begin().await {
                Ok(Some(round)) => self.check(&round).await,
                // The block did not come, or the trie is not there: the node sees to that itself.
                Ok(None) | Err(_) => Ok(None),
            };
            match checked {
                Ok(None) => {}
                Ok(Some(damage)) => return self.refuse(damage).await,
                Err(NodeError::State(StateError::Pruned { .. } | StateError::UnknownBlock(_))) => {
                    tracing::debug!("scrub: the block of this round is out of reach by now");
                }
                // A state that cannot be read is no better than one that reads wrong.
                Err(error) => return self.refuse(format!("cannot be read: {error}")).await,
            }
        }
    }

    async fn begin(&self) -> Result<Option<Round>, NodeError> {
        let chain = self.chain.clone();
        let noting = self.spawner.tasks.spawn_blocking(move || chain.subtrie_roots()).await;
        let (number, hash, roots) =
            noting.unwrap_or(Err(NodeError::TaskEnded("noting of the roots")))?;
        for _ in 0..RETRIES_MAX {
            if self.chain.store.persisted_head() >= number {
                return Ok(Some(Round { block: RoundBlock { number, hash }, roots }));
            }
            sleep(RETRY_PAUSE).await;
        }
        Ok(None)
    }

    /// What is wrong with the state on disk, if anything is.
    async fn check(&self, round: &Round) -> Result<Option<String>, NodeError> {
        for (prefix, expected) in (0..=u8::MAX).zip(&round.roots) {
            let (chain, block, expected) = (self.chain.clone(), round.block, expected.clone());
            let reading = move || {
                let stopwatch = Stopwatch::start();
                let damage = check_partition(&chain, prefix, block, &expected)?;
                Ok((damage, stopwatch.elapsed()))
            };
            let read = self.spawner.tasks.spawn_blocking(reading).await;
            let (damage, took) =
                read.unwrap_or(Err(NodeError::TaskEnded("reading of a partition")))?;
            if damage.is_some() {
                return Ok(damage);
            }
            metrics::gauge!("blockraft_scrub_partitions").set(f64::from(prefix) + 1.0);
            sleep(self.pace.pause.max(took * self.pace.rest)).await;
        }
        metrics::counter!("blockraft_scrub_rounds_total").increment(1);
        tracing::debug!(block = round.block.number, "the state on disk is the chain's");
        Ok(None)
    }

    /// This node does not lead any more, and says why.
    async fn refuse(self, damage: String) {
        metrics::gauge!("blockraft_state_damaged").set(1.0);
        tracing::error!(
            %damage,
            "THE STATE ON DISK IS DAMAGED: this node will not lead; stop it and run `blockraft db repair`"
        );
        self.fault.send_replace(Some(format!("the state on disk is damaged: {damage}")));
        let mut status = self.raft.status();
        loop {
            let now = status.borrow_and_update().clone();
            if now.is_leader() {
                if !now.members.iter().any(|member| member.voter && member.id != now.id) {
                    // The node may be stopping already.
                    let _ = self.failed.send(NodeError::StateDamaged(damage));
                    return;
                }
                match self.raft.transfer_leadership(None).await {
                    Ok(to) => tracing::warn!(to, "leadership handed over: the state is damaged"),
                    Err(error) => tracing::warn!(%error, "leadership was not handed over"),
                }
                sleep(HAND_OVER_PAUSE).await;
            } else if status.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Computes the root of a partition from the state on disk as of a block. `None` when it is `expected`, or
/// when the chain has no such block (any more).
pub(crate) fn check_partition(
    chain: &Chain,
    prefix: u8,
    block: RoundBlock,
    expected: &SubtrieRoot,
) -> Result<Option<String>, NodeError> {
    let store = &chain.store;
    let problem = match past_trie::subtrie(store, prefix, block.number) {
        Ok(built) if built.root() == *expected => return Ok(None),
        Ok(_) => format!("its hash is not the one of block {}", block.number),
        Err(NodeError::State(error @ StateError::Corrupt { .. })) => error.to_string(),
        Err(error) => return Err(error),
    };
    if store.header(block.number)?.is_none_or(|now| now.hash() != block.hash) {
        return Ok(None);
    }
    let records = store.damaged_records(prefix);
    let place = format!("shard {}, partition {prefix:#04x}", store.shard_of(prefix));
    Ok(Some(match records.first() {
        Some(record) => format!("{record} ({place}: {problem})"),
        None => format!("{place}: {problem}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::tests::World;
    use alloy_primitives::keccak256;
    use std::{
        fs,
        io::{Seek, SeekFrom, Write},
    };

    #[test]
    fn a_bit_flipped_under_a_running_node_is_found_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let forks = [("shanghai", 0), ("cancun", 0), ("prague", 0)];
        let mut world = World::new(&path, &forks, 23);
        let grow = |world: &mut World| {
            world.admit_some();
            let entry = world.build().entry;
            world.apply_block(&entry);
        };
        for _ in 0..5 {
            grow(&mut world);
        }
        let begin = |world: &World| {
            let (number, hash, roots) = world.chain.subtrie_roots().unwrap();
            Round { block: RoundBlock { number, hash }, roots }
        };
        let round = begin(&world);
        // The chain goes on: the round is of the block at which it began.
        for _ in 0..3 {
            grow(&mut world);
        }
        world.chain.store.persist().unwrap();
        let damaged = |world: &World, Round { block, roots }: &Round| -> Vec<String> {
            let check =
                |(prefix, root)| check_partition(&world.chain, prefix, *block, root).unwrap();
            (0..=u8::MAX).zip(roots).filter_map(check).collect()
        };
        assert_eq!(damaged(&world, &round), Vec::<String>::new());

        // A round reads what changed after its block from the history: the next one finds this.
        let round = begin(&world);
        let address = world.keys[2].address();
        let hashed = keccak256(address);
        let shard = usize::from(hashed[0]) * 4 / 256;
        let file = path.join(format!("state-{shard:02}/mdbx.dat"));
        let bytes = fs::read(&file).unwrap();
        let record = [hashed.as_slice(), address.as_slice()].concat();
        let mut open = fs::File::options().write(true).open(&file).unwrap();
        for (place, _) in bytes.windows(record.len()).enumerate().filter(|(_, w)| *w == record) {
            // Of the address beside the key: nothing but the record itself tells; and of the balance.
            for place in [place + 32, place + 32 + 31] {
                open.seek(SeekFrom::Start(place as u64)).unwrap();
                open.write_all(&[bytes[place] ^ 1]).unwrap();
            }
        }
        let found = damaged(&world, &round);
        assert_eq!(found.len(), 1, "{found:?}");
        for word in [
            format!("shard {shard}, partition {:#04x}", hashed[0]),
            "table accounts".to_owned(),
            format!("key {hashed}"),
        ] {
            assert!(found[0].contains(&word), "{found:?}");
        }
    }
}
