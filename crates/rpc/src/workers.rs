//! Blocking work, off the async threads: MDBX reads and EVM runs enter here and nowhere else.

use crate::errors::{INTERNAL, RpcError, RpcResult, UNAVAILABLE};
use blockraft_primitives::limits::{RPC_EVM_TIMEOUT_MS, RPC_READ_TIMEOUT_MS};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::Semaphore};

/// Two bounded sets of threads, so that calls that run long cannot starve plain reads.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    runtime: Handle,
    reads: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

/// Tells a running call that nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Whether the time is up or the client is gone.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Cancels when the waiting side is dropped, whatever the reason.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Workers {
    pub(crate) fn new(runtime: Handle, read_count: usize, call_count: usize) -> Self {
        Self {
            runtime,
            reads: Arc::new(Semaphore::new(read_count.max(1))),
            calls: Arc::new(Semaphore::new(call_count.max(1))),
        }
    }

    /// Runs a read that is short, whatever is asked for.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> RpcResult<T> + Send + 'static,
    ) -> RpcResult<T> {
        self.long_read(|_| work()).await
    }

    /// Runs a read that may take long and looks at its [`Cancel`]. It takes a database snapshot for each
    /// block, so that none is kept long.
    pub(crate) async fn long_read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> RpcResult<T> + Send + 'static,
    ) -> RpcResult<T> {
        self.within(RPC_READ_TIMEOUT_MS, &self.reads, work, read_timed_out).await
    }

    /// Runs something that may take long and looks at its [`Cancel`]; answers geth's text when the time
    /// that a call may take is over.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cancel) -> RpcResult<T> + Send + 'static,
    ) -> RpcResult<T> {
        self.within(RPC_EVM_TIMEOUT_MS, &self.calls, work, timed_out).await
    }

    async fn within<T: Send + 'static>(
        &self,
        timeout_ms: u64,
        permits: &Arc<Semaphore>,
        work: impl FnOnce(&Cancel) -> RpcResult<T> + Send + 'static,
        timed_out: fn() -> RpcError,
    ) -> RpcResult<T> {
        let cancel = Cancel::default();
        let _guard = CancelOnDrop(cancel.clone());
        let run = self.run(permits, move || work(&cancel));
        match tokio::time::timeout(Duration::from_millis(timeout_ms), run).await {
            Ok(result) => result,
            Err(_) => Err(timed_out()),
        }
    }

    /// The permit goes with the work: a caller that stops waiting does not free the thread.
    async fn run<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> RpcResult<T> + Send + 'static,
    ) -> RpcResult<T> {
        let gone = || RpcError::new(INTERNAL, "the node is shutting down");
        let permit = permits.clone().acquire_owned().await.map_err(|_| gone())?;
        let task = self.runtime.spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a method panicked");
                Err(RpcError::new(INTERNAL, "method handler crashed"))
            }
            Err(_) => Err(gone()),
        }
    }
}

/// geth's code and text for a request that took too long.
pub(crate) fn read_timed_out() -> RpcError {
    RpcError::new(UNAVAILABLE, "request timed out")
}

/// geth's text.
pub(crate) fn timed_out() -> RpcError {
    let seconds = RPC_EVM_TIMEOUT_MS / 1000;
    RpcError::server(format!("execution aborted (timeout = {seconds}s)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_call_is_told_when_nobody_waits() {
        let workers = Workers::new(Handle::current(), 1, 1);
        let (stopped, heard) = oneshot::channel();
        let mut call = Box::pin(workers.call(move |cancel| {
            while !cancel.is_set() {
                std::hint::spin_loop();
            }
            let _nobody_listens = stopped.send(());
            Ok(())
        }));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        heard.await.expect("the work ends");
        // And its thread is free again.
        assert!(workers.call(|_| Ok(7)).await.is_ok_and(|answer| answer == 7));
    }

    #[tokio::test]
    async fn a_read_that_takes_too_long_is_answered_and_ends() {
        let workers = Workers::new(Handle::current(), 1, 1);
        let (stopped, heard) = oneshot::channel();
        let work = move |cancel: &Cancel| {
            while !cancel.is_set() {
                std::hint::spin_loop();
            }
            let _nobody_listens = stopped.send(());
            Ok(())
        };
        let read = workers.within(5, &workers.reads, work, read_timed_out).await;
        let error = jsonrpsee::types::ErrorObjectOwned::from(read.expect_err("timed out"));
        assert_eq!((error.code(), error.message()), (-32002, "request timed out"));
        heard.await.expect("the work ends");
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let workers = Workers::new(Handle::current(), 1, 1);
        let broken = workers.read(|| -> RpcResult<()> { panic!("as asked for by the test") }).await;
        let error = jsonrpsee::types::ErrorObjectOwned::from(broken.expect_err("panicked"));
        assert_eq!((error.code(), error.message()), (INTERNAL, "method handler crashed"));
        assert!(workers.read(|| Ok(())).await.is_ok());
    }
}
