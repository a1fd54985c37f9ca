//! Groups of transactions that will likely meet, and their way onto lanes.

use super::{Lane, OWNER_SLACK_PERCENT};
use alloy_primitives::map::HashMap;
use blockraft_primitives::NodeId;

/// A transaction as placement sees it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) cost_ns: u64,
    /// What it is predicted to write, the sender's account first: that one orders its nonces.
    pub(super) spots: Vec<u64>,
    /// Who works for its anchor.
    pub(super) owner: NodeId,
}

/// Where everything goes.
#[derive(Debug)]
pub(super) struct Placement {
    /// By item.
    pub(super) lane_of: Vec<usize>,
    /// When the last lane but the leader's is through.
    pub(super) finish_ns: u64,
    /// What the leader has to do.
    pub(super) leader_ns: u64,
}

/// Places all items. The first lane is the leader's, and busy for `leader_base_ns` with other things.
pub(super) fn place(items: &[Item], lanes: &[Lane], leader_base_ns: u64) -> Placement {
    let total: u64 = items.iter().map(|item| item.cost_ns).sum();
    let fair = total / lanes.len() as u64;
    let groups = group(items, fair / 2);
    let mut loads: Vec<Load> = lanes.iter().map(|lane| Load::new(*lane)).collect();
    loads[0].busy_ns += leader_base_ns;
    let slack = fair * OWNER_SLACK_PERCENT / 100;
    let mut lane_of = vec![0; items.len()];
    for group in &groups {
        let ends: Vec<u64> = loads.iter().map(|load| load.end_with(group.cost_ns)).collect();
        let soonest = (0..lanes.len()).min_by_key(|lane| (ends[*lane], *lane)).unwrap_or(0);
        let owner = lanes.iter().position(|lane| lane.node == group.owner);
        let owner = owner.filter(|lane| ends[*lane] <= ends[soonest] + slack);
        let lane = owner.unwrap_or(soonest);
        loads[lane].busy_ns = ends[lane];
        loads[lane].used = true;
        for member in &group.members {
            lane_of[*member] = lane;
        }
    }
    let finish_ns = loads[1..].iter().filter(|load| load.used).map(|load| load.busy_ns).max();
    Placement { lane_of, finish_ns: finish_ns.unwrap_or(0), leader_ns: loads[0].busy_ns }
}

struct Load {
    lane: Lane,
    busy_ns: u64,
    used: bool,
}

impl Load {
    fn new(lane: Lane) -> Self {
        Self { lane, busy_ns: 0, used: false }
    }

    fn end_with(&self, cost_ns: u64) -> u64 {
        let overhead = if self.used { 0 } else { self.lane.overhead_ns };
        self.busy_ns + overhead + cost_ns.saturating_mul(self.lane.slowness_permille) / 1000
    }
}

/// What must be run after the others because it reads what another lane wrote before it.
pub(super) fn stale_cost(items: &[Item], lane_of: &[usize]) -> u64 {
    let mut writer: HashMap<u64, usize> = HashMap::default();
    let mut cost = 0;
    for (item, lane) in items.iter().zip(lane_of) {
        let mut stale = false;
        for spot in &item.spots {
            stale |= writer.insert(*spot, *lane).is_some_and(|before| before != *lane);
        }
        if stale {
            cost += item.cost_ns;
        }
    }
    cost
}

/// Items that are run by one lane.
#[derive(Debug)]
struct Group {
    cost_ns: u64,
    owner: NodeId,
    /// Ascending.
    members: Vec<usize>,
}

/// Groups, the dearest first. Spots that carry more than `bound` of work tie all who touch them together,
/// as do senders: apart they would only wait for each other. Other spots tie until the group has reached
/// the bound: chains of chance meetings would otherwise tie everything together, and what is cut there is
/// little.
fn group(items: &[Item], bound: u64) -> Vec<Group> {
    let mut heat: HashMap<u64, u64> = HashMap::default();
    for item in items {
        for spot in &item.spots {
            *heat.entry(*spot).or_default() += item.cost_ns;
        }
    }
    let mut sets = Sets::new(items);
    let mut last: HashMap<u64, usize> = HashMap::default();
    for (index, item) in items.iter().enumerate() {
        for (at, spot) in item.spots.iter().enumerate() {
            if let Some(before) = last.insert(*spot, index) {
                let tied = at == 0 || heat.get(spot).is_some_and(|heat| *heat > bound);
                sets.join(before, index, if tied { u64::MAX } else { bound });
            }
        }
    }
    let mut groups = sets.into_groups(items);
    groups.sort_by_key(|group| (std::cmp::Reverse(group.cost_ns), group.members[0]));
    groups
}

/// Disjoint sets with their weights.
struct Sets {
    parent: Vec<usize>,
    cost_ns: Vec<u64>,
}

impl Sets {
    fn new(items: &[Item]) -> Self {
        Self {
            parent: (0..items.len()).collect(),
            cost_ns: items.iter().map(|item| item.cost_ns).collect(),
        }
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    /// Joins two sets unless together they weigh more than `bound`. The lower index names the set.
    fn join(&mut self, a: usize, b: usize, bound: u64) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b || self.cost_ns[a].saturating_add(self.cost_ns[b]) > bound {
            return;
        }
        let (low, high) = (a.min(b), a.max(b));
        self.parent[high] = low;
        self.cost_ns[low] += self.cost_ns[high];
    }

    fn into_groups(mut self, items: &[Item]) -> Vec<Group> {
        let mut at: Vec<Option<usize>> = vec![None; items.len()];
        let mut groups: Vec<Group> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let root = self.root(index);
            let group = *at[root].get_or_insert_with(|| {
                groups.push(Group { cost_ns: 0, owner: item.owner, members: Vec::new() });
                groups.len() - 1
            });
            groups[group].cost_ns += item.cost_ns;
            groups[group].members.push(index);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(cost_ns: u64, spots: &[u64]) -> Item {
        Item { cost_ns, spots: spots.to_vec(), owner: 1 }
    }

    fn lanes(count: u64) -> Vec<Lane> {
        (1..=count)
            .map(|node| Lane { node, slowness_permille: 1000, overhead_ns: (node - 1).min(1) * 10 })
            .collect()
    }

    #[test]
    fn what_meets_in_one_spot_stays_together() {
        // Spot 9 carries a third of the work.
        let mut items: Vec<Item> = (0..60).map(|i| item(100, &[i])).collect();
        items.extend((0..30).map(|i| item(100, &[100 + i, 9_000])));
        let placed = place(&items, &lanes(3), 0);
        assert_eq!(stale_cost(&items, &placed.lane_of), 0);
        let hot: Vec<usize> = placed.lane_of[60..].to_vec();
        assert!(hot.iter().all(|lane| *lane == hot[0]), "{hot:?}");
        let lane = |lane| placed.lane_of.iter().filter(|l| **l == lane).count();
        assert_eq!(lane(0) + lane(1) + lane(2), 90);
        assert!((30..=38).contains(&lane(hot[0])), "{}", lane(hot[0]));
    }

    #[test]
    fn a_sender_is_never_torn_apart() {
        let items: Vec<Item> = (0..40).map(|i| item(100, &[i % 2])).collect();
        let placed = place(&items, &lanes(4), 0);
        for i in 2..40 {
            assert_eq!(placed.lane_of[i], placed.lane_of[i % 2]);
        }
        assert_ne!(placed.lane_of[0], placed.lane_of[1]);
    }

    #[test]
    fn chance_meetings_do_not_tie_everything_together() {
        // A chain: each meets the next one only.
        let items: Vec<Item> = (0..900).map(|i| item(100, &[10_000 + i, i, i + 1])).collect();
        let placed = place(&items, &lanes(3), 0);
        let work = |lane| placed.lane_of.iter().filter(|l| **l == lane).count();
        for lane in 0..3 {
            assert!((250..=350).contains(&work(lane)), "{} on lane {lane}", work(lane));
        }
        assert!(stale_cost(&items, &placed.lane_of) <= 900 * 100 / 20);
    }

    #[test]
    fn a_slow_lane_is_given_less_and_a_busy_leader_too() {
        let items: Vec<Item> = (0..300).map(|i| item(100, &[i])).collect();
        let mut lanes = lanes(3);
        lanes[2].slowness_permille = 20_000;
        let placed = place(&items, &lanes, 0);
        let work = |placed: &Placement, lane| placed.lane_of.iter().filter(|l| **l == lane).count();
        assert!(work(&placed, 2) < 15, "{}", work(&placed, 2));
        let placed = place(&items, &lanes, 30_000);
        assert!(work(&placed, 1) > 265, "{}", work(&placed, 1));
    }

    #[test]
    fn equal_items_go_to_the_owner_of_their_anchor() {
        let mut items: Vec<Item> = (0..200).map(|i| item(100, &[i])).collect();
        for (index, item) in items.iter_mut().enumerate() {
            item.owner = 1 + (index as u64 % 2);
        }
        let placed = place(&items, &lanes(2), 0);
        let at_owner = items
            .iter()
            .zip(&placed.lane_of)
            .filter(|(item, lane)| item.owner == 1 + **lane as u64);
        assert!(at_owner.count() > 190);
    }
}
