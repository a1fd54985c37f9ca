//! What goes wrong, and when: drawn from the seed, until the peace that every run ends with.

use crate::{network::Network, node::Node, rng::Rng};
use blockraft_primitives::NodeId;

/// One fault.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The processes of these nodes die, and start again later.
    Crash { nodes: Vec<NodeId>, down_ms: u64 },
    /// These nodes are cut off from the others.
    Partition { nodes: Vec<NodeId> },
    /// One direction between a node and all others is cut.
    OneWay { node: NodeId, outbound: bool },
    /// Some packets are lost.
    Loss { permille: u64 },
    /// The network is whole again.
    Heal,
    /// The process stops and goes on later, as at a SIGSTOP or a long page fault.
    Pause { node: NodeId, ms: u64 },
    /// The wall clock jumps.
    ClockJump { node: NodeId, ms: i64 },
}

impl Fault {
    pub(crate) fn draw(rng: &mut Rng, nodes: &[Node]) -> Self {
        let leader = nodes.iter().find(|node| node.running && node.raft.is_leader());
        let any = rng.below(nodes.len() as u64);
        // Faults of the leader are the interesting ones.
        let node = leader.filter(|_| rng.chance(600)).map_or(any, |leader| leader.id);
        match rng.below(100) {
            0..=24 => Self::Crash { nodes: vec![node], down_ms: rng.within(20..=1500) },
            25..=29 => {
                let nodes = (0..nodes.len() as u64).collect();
                Self::Crash { nodes, down_ms: rng.within(20..=400) }
            }
            30..=41 => {
                let mut cut: Vec<NodeId> = (0..nodes.len() as u64).collect();
                rng.shuffle(&mut cut);
                cut.truncate(1 + rng.index(nodes.len() - 1));
                Self::Partition { nodes: cut }
            }
            42..=59 => Self::OneWay { node, outbound: rng.chance(300) },
            60..=66 => Self::Loss { permille: rng.within(20..=300) },
            67..=81 => Self::Heal,
            82..=92 => Self::Pause { node, ms: rng.within(20..=1200) },
            _ => Self::ClockJump { node, ms: rng.within(0..=40_000) as i64 - 20_000 },
        }
    }
}

/// Applies what concerns the network alone.
pub(crate) fn cut(network: &mut Network, fault: &Fault, members: u64) {
    let mut both = |a: NodeId, b: NodeId| {
        network.cut(a, b);
        network.cut(b, a);
    };
    match fault {
        Fault::Partition { nodes } => {
            let others = (0..members).filter(|node| !nodes.contains(node));
            others.for_each(|other| nodes.iter().for_each(|node| both(*node, other)));
        }
        Fault::OneWay { node, outbound } => {
            for other in (0..members).filter(|other| other != node) {
                let (from, to) = if *outbound { (*node, other) } else { (other, *node) };
                network.cut(from, to);
            }
        }
        Fault::Loss { permille } => network.loss_permille = *permille,
        Fault::Heal => network.heal(),
        Fault::Crash { .. } | Fault::Pause { .. } | Fault::ClockJump { .. } => {}
    }
}
