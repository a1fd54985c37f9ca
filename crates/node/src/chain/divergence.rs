//! What a node does that finds its state to be another than the chain's: it says so, keeps the evidence, and
//! ends, so that it neither serves nor leads nor works for others until it is healed.

use super::Chain;
use crate::error::NodeError;
use alloy_primitives::hex;
use tokio::sync::watch;

/// A log entry that a node came to differ over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause<'a> {
    pub(super) index: u64,
    pub(super) bytes: &'a [u8],
}

impl Chain {
    /// What this node found out about itself, once it has.
    pub(crate) fn divergence(&self) -> watch::Receiver<Option<String>> {
        self.diverged.subscribe()
    }

    /// Looks whether an error says that this node's state is wrong; the first such is kept.
    pub(super) fn look_into(&self, error: &NodeError, cause: Option<Cause<'_>>) {
        if !error.is_wrong_state() || self.diverged.borrow().is_some() {
            return;
        }
        let head = self.store.head();
        let mut text = format!(
            "{error}\nhead {} {}\nstate root {}\n",
            head.number,
            head.hash(),
            head.state_root
        );
        let mut name = format!("block-{}.txt", head.number);
        if let Some(Cause { index, bytes }) = cause {
            text.push_str(&format!("log entry {index} {}\n", hex::encode_prefixed(bytes)));
            name = format!("entry-{index}.txt");
        }
        let kept = self.store.keep_evidence(&name, &text);
        let place = kept.map(|path| path.map_or_else(String::new, |p| p.display().to_string()));
        let evidence = place.unwrap_or_else(|error| format!("not kept: {error}"));
        tracing::error!(%error, head = head.number, evidence, "THIS NODE'S STATE IS NOT THE CHAIN'S: it ends");
        metrics::gauge!("blockraft_state_damaged").set(1.0);
        self.diverged.send_replace(Some(error.to_string()));
    }
}
