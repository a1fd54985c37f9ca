//! Which member works for which accounts.
//!
//! A partition is the first byte of `keccak256(address)`: one subtrie of the state trie. The map says who
//! runs what is anchored there. It decides where work is done and nothing else, so it is not replicated:
//! the leader of a term draws it up, and every unit of work names its epoch (decision 0014).

use alloy_primitives::{Address, keccak256};
use blockraft_primitives::NodeId;
use std::collections::BTreeMap;

/// Partitions of the accounts.
pub const PARTITION_COUNT: usize = 256;

/// How far the busiest member may be above the mean before partitions move, percent of the mean.
const IMBALANCE_PERCENT_MAX: u64 = 125;
/// How far the busiest member may still be above the mean afterwards, if it can be helped.
const BALANCED_PERCENT: u64 = 105;

/// All accounts whose hashed address begins with this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u8);

impl PartitionId {
    /// The partition that holds an account.
    pub fn of(address: Address) -> Self {
        Self(keccak256(address)[0])
    }
}

/// The owner of every partition, as one leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    epoch: u64,
    /// By partition; [`PARTITION_COUNT`] of them.
    owners: Vec<NodeId>,
}

impl PartitionMap {
    /// The first map of a term: neighbouring partitions in equal parts. `members` is not empty.
    pub fn even(members: &[NodeId]) -> Self {
        let members = sorted(members);
        let owner = |partition: usize| members[partition * members.len() / PARTITION_COUNT];
        Self { epoch: 1, owners: (0..PARTITION_COUNT).map(owner).collect() }
    }

    /// Counts up from 1 in each term.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who works for a partition.
    pub fn owner(&self, partition: PartitionId) -> NodeId {
        self.owners[usize::from(partition.0)]
    }

    /// The partitions of one member, ascending.
    pub fn owned_by(&self, node: NodeId) -> Vec<PartitionId> {
        let owned = self.owners.iter().enumerate().filter(|(_, owner)| **owner == node);
        owned.map(|(partition, _)| PartitionId(partition as u8)).collect()
    }

    /// The next map, if this one is out of balance under `costs` (one a partition, in any unit) or names
    /// who is no member any more. What need not move stays where its state is warm.
    pub fn rebalanced(&self, costs: &[u64], members: &[NodeId]) -> Option<Self> {
        let members = sorted(members);
        if members.is_empty() {
            return None;
        }
        // An idle partition counts a little, or a new member would never be given any of them.
        let idle = costs.iter().sum::<u64>() / PARTITION_COUNT as u64 / 16 + 1;
        let cost = |partition: usize| costs.get(partition).copied().unwrap_or_default() + idle;
        let mut owners = self.owners.clone();
        let mut loads: BTreeMap<NodeId, u64> = members.iter().map(|node| (*node, 0)).collect();
        for (partition, owner) in owners.iter().enumerate() {
            if let Some(load) = loads.get_mut(owner) {
                *load += cost(partition);
            }
        }
        for (partition, owner) in owners.iter_mut().enumerate() {
            if !loads.contains_key(owner) {
                *owner = least(&loads);
                *loads.entry(*owner).or_default() += cost(partition);
            }
        }
        let mean = loads.values().sum::<u64>() / members.len() as u64;
        let mut percent = IMBALANCE_PERCENT_MAX;
        for _ in 0..PARTITION_COUNT {
            let (from, to) = (most(&loads), least(&loads));
            if loads[&from] * 100 <= mean * percent {
                break;
            }
            percent = BALANCED_PERCENT;
            let gap = loads[&from] - loads[&to];
            let movable = (0..PARTITION_COUNT)
                .filter(|partition| owners[*partition] == from && cost(*partition) * 2 <= gap)
                .max_by_key(|partition| (cost(*partition), std::cmp::Reverse(*partition)));
            let Some(partition) = movable else { break };
            owners[partition] = to;
            *loads.entry(from).or_default() -= cost(partition);
            *loads.entry(to).or_default() += cost(partition);
        }
        (owners != self.owners).then_some(Self { epoch: self.epoch + 1, owners })
    }
}

fn sorted(members: &[NodeId]) -> Vec<NodeId> {
    let mut members = members.to_vec();
    members.sort_unstable();
    members.dedup();
    members
}

/// The member with the least load; of equal ones the lowest id.
fn least(loads: &BTreeMap<NodeId, u64>) -> NodeId {
    let least = loads.iter().min_by_key(|(node, load)| (**load, **node));
    *least.expect("there are members").0
}

fn most(loads: &BTreeMap<NodeId, u64>) -> NodeId {
    let most = loads.iter().max_by_key(|(node, load)| (**load, std::cmp::Reverse(**node)));
    *most.expect("there are members").0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(map: &PartitionMap, members: &[NodeId]) -> Vec<usize> {
        members.iter().map(|node| map.owned_by(*node).len()).collect()
    }

    #[test]
    fn a_partition_is_the_first_byte_of_the_hashed_address() {
        let address = Address::repeat_byte(0x11);
        assert_eq!(PartitionId::of(address).0, keccak256(address).0[0]);
    }

    #[test]
    fn the_first_map_is_even() {
        assert_eq!(counts(&PartitionMap::even(&[7]), &[7]), [256]);
        assert_eq!(counts(&PartitionMap::even(&[3, 1, 2]), &[1, 2, 3]), [86, 85, 85]);
        let map = PartitionMap::even(&[2, 1]);
        assert_eq!((map.owner(PartitionId(0)), map.owner(PartitionId(255))), (1, 2));
    }

    #[test]
    fn a_balanced_map_stays() {
        let map = PartitionMap::even(&[1, 2, 3]);
        assert_eq!(map.rebalanced(&[10; 256], &[1, 2, 3]), None);
    }

    #[test]
    fn partitions_of_who_left_move_and_the_others_stay() {
        let map = PartitionMap::even(&[1, 2, 3]);
        let next = map.rebalanced(&[10; 256], &[1, 3]).unwrap();
        assert_eq!(next.epoch(), 2);
        assert_eq!(counts(&next, &[1, 2, 3]), [128, 0, 128]);
        let kept = map.owned_by(1);
        assert!(kept.iter().all(|partition| next.owner(*partition) == 1));
    }

    #[test]
    fn who_joins_is_given_work() {
        let next = PartitionMap::even(&[1, 2]).rebalanced(&[10; 256], &[1, 2, 3]).unwrap();
        assert!(counts(&next, &[3])[0] > 50, "{:?}", counts(&next, &[1, 2, 3]));
    }

    #[test]
    fn one_hot_partition_keeps_its_owner_and_the_rest_goes_elsewhere() {
        let mut costs = [10; 256];
        costs[0] = 10_000;
        let next = PartitionMap::even(&[1, 2]).rebalanced(&costs, &[1, 2]).unwrap();
        assert_eq!(next.owner(PartitionId(0)), 1);
        assert!(counts(&next, &[1])[0] < 30, "{:?}", counts(&next, &[1, 2]));
    }

    proptest! {
        #[test]
        fn rebalancing_is_deterministic_never_raises_the_peak_and_settles(
            costs in prop::collection::vec(0..10_000u64, PARTITION_COUNT),
            members in prop::collection::btree_set(1..9u64, 1..6),
        ) {
            let members: Vec<NodeId> = members.into_iter().collect();
            let mut map = PartitionMap::even(&members);
            let peak = |map: &PartitionMap| {
                let of = |node: &NodeId| -> u64 {
                    map.owned_by(*node).iter().map(|p| costs[usize::from(p.0)]).sum()
                };
                members.iter().map(of).max().unwrap()
            };
            let first = peak(&map);
            let idle = costs.iter().sum::<u64>() / 256 / 16 + 1;
            for _ in 0..3 {
                let next = map.rebalanced(&costs, &members);
                prop_assert_eq!(&next, &map.rebalanced(&costs, &members));
                let Some(next) = next else { break };
                prop_assert_eq!(next.epoch(), map.epoch() + 1);
                map = next;
            }
            prop_assert!(peak(&map) <= first + idle * 256);
            let last = map.rebalanced(&costs, &members);
            prop_assert!(last.is_none_or(|last| peak(&last) <= peak(&map) + idle * 256));
        }
    }
}
