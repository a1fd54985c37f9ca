//! From openraft's metrics to [`RaftStatus`], the address book and the gauges.

use super::Failure;
use crate::{
    RaftError, RaftStatus, Spawner, Transport, metric, state_machine::StateMachine,
    types::TypeConfig,
};
use openraft::{Raft, async_runtime::watch::WatchReceiver, errors::Fatal};
use tokio::sync::watch;

/// Starts the task that publishes the status. It ends when Raft does.
pub(super) fn spawn(
    raft: &Raft<TypeConfig, StateMachine>,
    transport: Transport,
    failure: Failure,
    spawner: &Spawner,
) -> watch::Receiver<RaftStatus> {
    let mut metrics = raft.metrics();
    let first = RaftStatus::from_metrics(&metrics.borrow_watched());
    learn_addresses(&transport, &first);
    let (sender, status) = watch::channel(first);
    spawner.tasks.spawn(async move {
        loop {
            let ended = metrics.changed().await.is_err();
            let (now, stopped) = {
                let metrics = metrics.borrow_watched();
                (RaftStatus::from_metrics(&metrics), metrics.running_state.clone().err())
            };
            metric::status(&sender.borrow(), &now);
            learn_addresses(&transport, &now);
            sender.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
            match stopped {
                // Somebody asked for it.
                Some(Fatal::Stopped) => return,
                Some(fatal) => return failure.report(RaftError::Stopped(fatal.to_string())),
                None if ended => return,
                None => {}
            }
        }
    });
    status
}

fn learn_addresses(transport: &Transport, status: &RaftStatus) {
    for member in status.members.iter().filter(|member| member.id != status.id) {
        transport.set_address(member.id, &member.member.raft_addr);
    }
}
