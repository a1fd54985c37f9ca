//! SIGINT and SIGTERM, and the end of a parent process.

use std::io::Read;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// Completes at the first SIGINT or SIGTERM, or, if asked, when standard input ends.
pub(crate) async fn stop_requested(exit_with_parent: bool) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = parent_gone(), if exit_with_parent => {}
    }
    Ok(())
}

/// Completes at the next SIGINT: somebody does not want to wait for a clean stop.
pub(crate) async fn interrupted_again() -> std::io::Result<()> {
    signal(SignalKind::interrupt())?.recv().await;
    Ok(())
}

/// Reads standard input on a thread of its own, which ends with the process: the runtime would wait
/// for a read of its own at shutdown, for as long as the parent keeps the pipe open.
async fn parent_gone() {
    let (gone, ended) = oneshot::channel();
    let reader = std::thread::Builder::new().name("parent-watch".to_owned()).spawn(move || {
        let mut byte = [0u8; 1];
        while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        // Nobody waits any more when a signal came first.
        let _ = gone.send(());
    });
    match reader {
        // An error means that the thread is gone, and with it the way to know.
        Ok(_) => ended.await.unwrap_or(()),
        Err(error) => {
            tracing::warn!(%error, "cannot watch for the parent's end");
            std::future::pending().await
        }
    }
}
