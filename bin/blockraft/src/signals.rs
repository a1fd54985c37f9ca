//! SIGINT and SIGTERM, and the end of a parent process.

use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
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

async fn parent_gone() {
    let mut stdin = tokio::io::stdin();
    let mut byte = [0u8; 1];
    while matches!(stdin.read(&mut byte).await, Ok(n) if n > 0) {}
}
