//! Blocks of which several members hash parts: everybody comes to the from-scratch root, whatever is lost on
//! the way, and who has another state finds out.

use super::{World, order_on, verify};
use crate::{
    chain::{Chain, Outcome, shared_root::Dealt},
    error::NodeError,
};
use alloy_primitives::{B256, Bytes, U256};
use blockraft_primitives::{
    Account, AccountChange, AccountDiff, Applied, BlockEntry, LogEntry, PartitionSet, StateDiff,
    encode_diff,
};
use blockraft_protocol::{Fence, RootUnit, UnitId, UnitRefusal};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::path::Path;

const FORKS: [(&str, u64); 3] = [("shanghai", 0), ("cancun", 0), ("prague", 0)];

/// A leader, which is the world, and members that hash for it.
struct Cluster {
    world: World,
    others: Vec<Chain>,
    rng: SmallRng,
    /// Log entries so far.
    entries: u64,
}

fn owned(member: u8, of: u8) -> PartitionSet {
    (0..=u8::MAX).filter(|partition| partition % of == member).collect()
}

impl Cluster {
    fn new(path: &Path, forks: &[(&str, u64)], seed: u64, others: usize) -> Self {
        println!("seed {seed}");
        let world = World::new(&path.join("leader"), forks, seed);
        let other = |n: usize| World::new(&path.join(format!("member{n}")), forks, seed).chain;
        let others = (0..others).map(other).collect();
        Self { world, others, rng: SmallRng::seed_from_u64(seed), entries: 0 }
    }

    fn unit(&self, dealt: &Dealt<'_>, partitions: PartitionSet) -> RootUnit {
        let head = self.world.chain.store.head();
        let fence = Fence {
            cluster: B256::ZERO,
            term: 1,
            leader: 1,
            height: head.number + 1,
            parent: head.hash(),
            epoch: 1,
        };
        let id = UnitId { fence, gather: 0, share: 0, attempt: 1 };
        RootUnit { id, partitions, changes: encode_diff(&dealt.within(&partitions)) }
    }

    /// The next block, with its hashing shared out; answers are lost and spoilt now and then.
    fn build_shared(&mut self) -> BlockEntry {
        let proposal = self.world.build();
        let hash = proposal.block.header.hash();
        self.world.chain.abandon(hash).unwrap();
        let LogEntry::Block(entry) = LogEntry::decode(&proposal.entry).unwrap() else {
            unreachable!("a Block entry")
        };
        let mut entry = *entry;
        let order = order_on(&self.world.chain, &[], 1);
        let of = self.others.len() as u8 + 1;
        let dealt = Dealt::new(&entry.diff);
        let mut answers = Vec::new();
        for (member, chain) in (1..).zip(&self.others) {
            let partitions = owned(member, of);
            let unit = self.unit(&dealt, partitions);
            match self.rng.random_range(0..8) {
                // It did not get there.
                0 => {}
                // The answer did not.
                1 => drop(chain.hash_unit(&unit).unwrap()),
                2 => answers.push((partitions, Bytes::from_static(b"spoilt"))),
                _ => answers.push((partitions, chain.hash_unit(&unit).unwrap())),
            }
        }
        let chain = &self.world.chain;
        let mut trie = chain.take_trie_out(&order.unapplied, order.parent).unwrap();
        let own = owned(0, of);
        let rooted = chain.take_parts(&mut trie, &dealt, &own, |_, _| answers).unwrap();
        assert_eq!(rooted.root, entry.header.state_root, "block {}", entry.header.number);
        entry.subtrie_roots = rooted.encoded_roots();
        trie.keep(hash, rooted.written(entry.diff.clone()));
        entry
    }

    fn apply(&mut self, entry: &BlockEntry) {
        let bytes = entry.encode_entry();
        self.world.apply_block(&bytes);
        self.entries = self.world.index;
        for chain in &self.others {
            assert!(matches!(
                apply(chain, self.entries, &bytes),
                Ok(Outcome::Block { accepted: true })
            ));
        }
    }

    fn admit(&mut self) {
        let entry = self.world.admit_some();
        self.entries = self.world.index;
        self.others.iter().for_each(|chain| drop(apply(chain, self.entries, &entry).unwrap()));
    }

    fn chains(&self) -> impl Iterator<Item = &Chain> {
        std::iter::once(&self.world.chain).chain(&self.others)
    }
}

fn apply(chain: &Chain, index: u64, entry: &[u8]) -> Result<Outcome, NodeError> {
    let position = blockraft_primitives::LogPosition { term: 1, leader: 1, index };
    chain.apply(Applied { position: Some(position), ..chain.store.applied() }, entry)
}

fn run(forks: &[(&str, u64)], seed: u64, others: usize, blocks: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), forks, seed, others);
    for _ in 0..blocks {
        cluster.admit();
        let shared = cluster.rng.random_range(0..5) > 0;
        let entry = match shared {
            true => cluster.build_shared(),
            false => {
                let entry = cluster.world.build().entry;
                let LogEntry::Block(entry) = LogEntry::decode(&entry).unwrap() else {
                    unreachable!("a Block entry")
                };
                *entry
            }
        };
        if cluster.rng.random_range(0..6) == 0 {
            // It is lost; owners may have written for it. The next one is another.
            cluster.world.chain.abandon(entry.header.hash_slow()).unwrap();
            continue;
        }
        cluster.apply(&entry);
        let (who, what) = (cluster.rng.random_range(0..=others), cluster.rng.random_range(0..8));
        let chain = cluster.chains().nth(who).unwrap();
        let head = chain.store.head();
        let address = cluster.world.keys[0].address();
        match what {
            0 => verify(&chain.prove(head.number, address, &[]).unwrap(), address, head.state_root),
            1 => {
                let (number, hash, roots) = chain.subtrie_roots().unwrap();
                assert_eq!((number, hash), (head.number, head.hash()));
                assert_eq!(blockraft_trie::assemble_root(&roots).unwrap(), head.state_root);
            }
            2 => drop(chain.store.persist().unwrap()),
            _ => {}
        }
    }
    for chain in cluster.chains() {
        assert_eq!(chain.store.head(), cluster.world.chain.store.head());
        chain.store.persist().unwrap();
        let mut at_head = chain.trie.lock();
        chain.take_back(&mut at_head).unwrap();
        assert_eq!(at_head.trie().unwrap().root(), chain.store.head().state_root);
    }
}

#[test]
fn blocks_hashed_by_three_members_have_the_root_of_a_from_scratch_trie() {
    run(&FORKS, 21, 2, 150);
}

#[test]
fn blocks_hashed_by_five_members_have_the_root_of_a_from_scratch_trie() {
    run(&FORKS, 22, 4, 80);
}

#[test]
fn self_destructs_and_wipes_go_to_their_owners() {
    run(&[("shanghai", 0)], 23, 2, 150);
}

#[test]
fn a_unit_on_another_parent_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), &FORKS, 24, 1);
    cluster.admit();
    let entry = cluster.build_shared();
    let dealt = Dealt::new(&entry.diff);
    let mut unit = cluster.unit(&dealt, owned(1, 2));
    unit.id.fence.parent = B256::repeat_byte(9);
    let got = cluster.world.chain.store.head().hash();
    assert_eq!(cluster.others[0].hash_unit(&unit), Err(UnitRefusal::Parent { got }));
    cluster.apply(&entry);
}

/// Changes the trie of a member behind its back, in one partition.
fn corrupt(chain: &Chain, partition: impl Fn(u8) -> bool) {
    let address =
        (0..).map(|n: u64| alloy_primitives::Address::left_padding_from(&n.to_be_bytes()));
    let hit =
        |address: &alloy_primitives::Address| partition(alloy_primitives::keccak256(address)[0]);
    let address = address.into_iter().find(hit).unwrap();
    let account = Account { nonce: 1, balance: U256::from(77), ..Account::default() };
    let change = AccountChange::Set(account);
    let accounts = vec![AccountDiff { address, change, storage_wiped: false, storage: Vec::new() }];
    let diff = StateDiff { accounts, codes: Vec::new() };
    chain.trie.lock().trie().unwrap().push(&diff).unwrap();
}

#[test]
fn a_member_whose_own_subtrie_differs_stops_before_the_block_is_visible() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), &FORKS, 25, 2);
    // All three own their parts.
    for _ in 0..6 {
        cluster.admit();
        let entry = cluster.build_shared();
        cluster.apply(&entry);
    }
    let victim = cluster.others.remove(0);
    let before = victim.store.head();
    let kept = victim.trie.lock().fresh();
    assert!(kept != PartitionSet::ALL && !kept.is_empty());
    corrupt(&victim, |partition| kept.contains(partition));
    // This one is not asked: it writes what it owns when the block comes.
    let entry = cluster.build_shared();
    cluster.apply(&entry);
    let error = apply(&victim, cluster.entries, &entry.encode_entry()).unwrap_err();
    assert!(
        matches!(error, NodeError::WrongSubtrie { number, partition }
        if number == before.number + 1 && kept.contains(partition)),
        "{error}"
    );
    assert_eq!(victim.store.head(), before);
    // It ends over it, and has kept what it fell out over.
    assert_eq!(*victim.divergence().borrow(), Some(error.to_string()));
    let path = dir.path().join(format!("member0/evidence/entry-{}.txt", cluster.entries));
    let evidence = std::fs::read_to_string(path).unwrap();
    assert!(evidence.starts_with(&error.to_string()), "{evidence}");
    assert!(evidence.contains(&alloy_primitives::hex::encode(entry.encode_entry())));
}

#[test]
fn a_member_whose_other_subtries_differ_stops_when_it_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), &FORKS, 26, 2);
    for _ in 0..6 {
        cluster.admit();
        let entry = cluster.build_shared();
        cluster.apply(&entry);
    }
    let victim = &cluster.others[0];
    let kept = victim.trie.lock().fresh();
    corrupt(victim, |partition| !kept.contains(partition));
    let address = cluster.world.keys[0].address();
    let error = victim.prove(victim.store.head().number, address, &[]).unwrap_err();
    assert!(
        matches!(error, NodeError::WrongSubtrie { partition, .. }
        if !kept.contains(partition)),
        "{error}"
    );
    // Nothing is answered from it any more.
    let again = victim.prove(victim.store.head().number, address, &[]).unwrap_err();
    assert!(matches!(again, NodeError::TrieLost), "{again}");
}

#[test]
fn roots_of_an_entry_that_do_not_give_the_headers_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(dir.path(), &FORKS, 27, 2);
    cluster.admit();
    let mut entry = cluster.build_shared();
    let mut swapped = entry.subtrie_roots.to_vec();
    let last = swapped.len() - 1;
    swapped[last] ^= 1;
    entry.subtrie_roots = swapped.into();
    // Each hashes everything itself, and finds that the header is right.
    cluster.apply(&entry);
    assert!(cluster.others.iter().all(|chain| chain.trie.lock().fresh() == PartitionSet::ALL));
}
