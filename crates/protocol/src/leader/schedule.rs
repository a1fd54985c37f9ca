//! When a block is due, and which time it carries.

use super::{Head, Now};
use blockraft_primitives::Tick;

/// Instant blocks (`interval_ms` 0) are due when there is something to run; others on a grid of ticks
/// that neither drifts with the time a block takes nor catches up after a pause.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    interval_ms: u64,
    /// When the next block of the grid is due; `None` while not leading.
    due: Option<Tick>,
    /// When a block that came to nothing is begun again.
    retry_at: Option<Tick>,
    /// Blocks come from elsewhere: none is ever due.
    off: bool,
}

impl Schedule {
    pub(super) fn new(interval_ms: u64) -> Self {
        Self { interval_ms, due: None, retry_at: None, off: false }
    }

    pub(super) fn turn_off(&mut self) {
        self.off = true;
    }

    pub(super) fn is_instant(&self) -> bool {
        self.interval_ms == 0
    }

    /// A term begins: the first block is due one interval after the last one's time, whoever made that.
    pub(super) fn start(&mut self, now: Now, head: Head) {
        if self.off {
            return;
        }
        let elapsed_ms = now.unix_ms.saturating_sub(head.timestamp.saturating_mul(1000));
        self.due = Some(now.tick.after(self.interval_ms.saturating_sub(elapsed_ms)));
        self.retry_at = None;
    }

    pub(super) fn stop(&mut self) {
        self.due = None;
        self.retry_at = None;
    }

    /// The block that was begun came to nothing: it is begun again at `at`, whatever the grid says.
    pub(super) fn retry_at(&mut self, at: Tick) {
        self.retry_at = Some(at);
    }

    /// Whether a block is to be begun at `now`; if so, moves on to the next one.
    pub(super) fn begin_block(&mut self, now: Tick, ready: bool) -> bool {
        let Some(due) = self.due else { return false };
        let begin = match self.retry_at {
            Some(at) => now >= at,
            None => now >= due && (ready || !self.is_instant()),
        };
        if begin {
            self.retry_at = None;
        }
        if begin && now >= due {
            let late_ms = now.0 - due.0;
            let grid = if late_ms < self.interval_ms { due } else { now };
            self.due = Some(grid.after(self.interval_ms));
        }
        begin
    }

    /// The tick to be woken at; `None` when nothing but an event can make a block due.
    pub(super) fn next_wake(&self) -> Option<Tick> {
        self.retry_at.or_else(|| self.due.filter(|_| !self.is_instant()))
    }

    /// Seconds. Never below the parent's; above it where blocks are a second or more apart.
    pub(super) fn timestamp(&self, now: Now, head: Head) -> u64 {
        let floor = head.timestamp + u64::from(self.interval_ms >= 1000);
        floor.max(now.unix_ms / 1000)
    }
}
