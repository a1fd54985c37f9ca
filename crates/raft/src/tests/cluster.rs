//! Whole clusters over loopback: elect, replicate, lose a leader, catch up, hand over.

use super::harness::{TestNode, applied, cluster, config, item, leader};
use crate::{ApplyResponse, ProposeError, RaftConfig, Role};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::atomic::Ordering};

/// Proposes `range` from one node, all on their way at once, and checks the answers.
async fn propose_all(node: &TestNode, range: std::ops::Range<u64>) {
    let mut proposals = Vec::new();
    for n in range.clone() {
        proposals.push(node.raft.propose_ff(item(n)).await.unwrap());
    }
    for (n, proposal) in range.zip(proposals) {
        assert_eq!(proposal.await, Ok(ApplyResponse::Admit(item(n))));
    }
}

fn items(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(item).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn single_member_leads_alone_and_survives_a_restart() {
    let mut nodes = cluster(1, config()).await;
    assert_eq!(leader(&nodes).await, 1);
    propose_all(&nodes[&1], 0..100).await;

    let node = nodes.remove(&1).unwrap().crash().await.restart().await;
    nodes.insert(1, node);
    assert_eq!(leader(&nodes).await, 1);
    assert_eq!(nodes[&1].application.items(), items(0..100));
    // Forming the cluster again changes nothing.
    let members = BTreeMap::from([(1, nodes[&1].member())]);
    nodes[&1].raft.initialize(members).await.unwrap();
    propose_all(&nodes[&1], 100..110).await;
    assert_eq!(nodes[&1].application.items(), items(0..110));
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_dies_and_comes_back_and_all_members_are_equal() {
    let mut nodes = cluster(3, config()).await;
    let first = leader(&nodes).await;
    propose_all(&nodes[&first], 0..1000).await;

    let dead = nodes.remove(&first).unwrap().crash().await;
    let second = leader(&nodes).await;
    assert_ne!(second, first);
    propose_all(&nodes[&second], 1000..1500).await;

    let node = dead.restart().await;
    nodes.insert(node.id, node);
    let last = nodes[&second].raft.barrier().await.unwrap();
    applied(&nodes, last).await;
    for node in nodes.values() {
        assert_eq!(node.application.items(), items(0..1500), "node {}", node.id);
    }
    let states: Vec<_> = nodes.values().map(|node| node.application.state()).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "applied markers differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_restart_and_nothing_acknowledged_is_lost() {
    let mut nodes = cluster(3, config()).await;
    let first = leader(&nodes).await;
    propose_all(&nodes[&first], 0..300).await;
    let mut crashed = Vec::new();
    while let Some((_, node)) = nodes.pop_first() {
        crashed.push(node.crash().await);
    }
    for crashed in crashed {
        let node = crashed.restart().await;
        nodes.insert(node.id, node);
    }
    let again = leader(&nodes).await;
    let last = nodes[&again].raft.barrier().await.unwrap();
    applied(&nodes, last).await;
    for node in nodes.values() {
        assert_eq!(node.application.items(), items(0..300), "node {}", node.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_refuses_proposals_and_names_the_leader() {
    let nodes = cluster(3, config()).await;
    let leader = leader(&nodes).await;
    let follower = nodes.values().find(|node| node.id != leader).unwrap();
    let refused = follower.raft.propose(item(0)).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(leader) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_entries_are_replicated_within_the_byte_limit() {
    let nodes = cluster(3, config()).await;
    let leader = leader(&nodes).await;
    let large = Bytes::from(vec![7; 3 * 1024 * 1024]);
    let mut proposals = Vec::new();
    for _ in 0..8 {
        proposals.push(nodes[&leader].raft.propose_ff(large.clone()).await.unwrap());
    }
    for proposal in proposals {
        assert_eq!(proposal.await, Ok(ApplyResponse::Admit(large.clone())));
    }
    let last = nodes[&leader].raft.barrier().await.unwrap();
    applied(&nodes, last).await;
    for node in nodes.values() {
        assert_eq!(node.application.items().len(), 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request() {
    let nodes = cluster(3, config()).await;
    let first = leader(&nodes).await;
    propose_all(&nodes[&first], 0..50).await;
    let target = nodes.keys().copied().find(|id| *id != first).unwrap();
    assert_eq!(nodes[&first].raft.transfer_leadership(Some(target)).await, Ok(target));
    assert_eq!(leader(&nodes).await, target);
    propose_all(&nodes[&target], 50..60).await;

    let chosen = nodes[&target].raft.transfer_leadership(None).await.unwrap();
    assert_ne!(chosen, target);
    assert_eq!(leader(&nodes).await, chosen);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_member_catches_up_by_snapshot_and_takes_the_place_of_a_lost_one() {
    let config = RaftConfig { log_entries_kept: 10, ..config() };
    let mut nodes = cluster(3, config.clone()).await;
    let leader_id = leader(&nodes).await;
    propose_all(&nodes[&leader_id], 0..600).await;

    // The disk of a follower is lost, and with it its identity.
    let lost = nodes.keys().copied().find(|id| *id != leader_id).unwrap();
    drop(nodes.remove(&lost).unwrap().crash().await);
    let lead = &nodes[&leader_id];
    lead.raft.snapshot().await.unwrap();
    lead.until(|status| status.purged_index >= Some(500)).await;

    let fresh = TestNode::start(4, config).await;
    let lead = &nodes[&leader_id];
    lead.raft.add_learner(4, fresh.member()).await.unwrap();
    let caught_up = fresh.until(|status| status.applied_index >= Some(600)).await;
    assert_eq!(caught_up.role, Role::Learner);
    assert_eq!(fresh.application.installed.load(Ordering::Relaxed), 1);
    lead.raft.promote(4).await.unwrap();
    lead.raft.remove(lost).await.unwrap();
    nodes.insert(4, fresh);

    let lead = &nodes[&leader_id];
    propose_all(lead, 600..650).await;
    let last = lead.raft.barrier().await.unwrap();
    applied(&nodes, last).await;
    for node in nodes.values() {
        assert_eq!(node.application.items(), items(0..650), "node {}", node.id);
        let members = node.raft.status().borrow().members.clone();
        let voters: Vec<u64> = members.iter().filter(|m| m.voter).map(|m| m.id).collect();
        assert_eq!(voters, nodes.keys().copied().collect::<Vec<_>>(), "node {}", node.id);
    }

    // A snapshot that was received is a start like any other.
    let node = nodes.remove(&4).unwrap().crash().await.restart().await;
    node.until(|status| status.applied_index >= Some(last)).await;
    assert_eq!(node.application.items(), items(0..650));
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_state_machine_ends_the_node_and_the_others_go_on() {
    let mut nodes = cluster(3, config()).await;
    let first = leader(&nodes).await;
    propose_all(&nodes[&first], 0..10).await;
    let node = nodes.remove(&first).unwrap();
    node.application.broken.store(true, Ordering::Relaxed);
    let outcome = node.raft.propose(item(10)).await;
    assert!(matches!(outcome, Err(ProposeError::Unknown | ProposeError::Fatal)), "{outcome:?}");
    let failure = node.raft.failed().await;
    assert_eq!(failure.to_string(), "state machine failed while it was to apply");
    let second = leader(&nodes).await;
    assert_ne!(second, first);
    propose_all(&nodes[&second], 11..20).await;
}
