//! The node's clocks, read here and passed on as arguments.
#![expect(clippy::disallowed_methods, reason = "this is the place where clocks are read")]

use blockraft_primitives::Tick;
use blockraft_protocol::{Micros, Now};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Ticks since it was made, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both clocks now. A wall clock before 1970 reads as 1970.
    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            tick: Tick(self.started.elapsed().as_millis() as u64),
            unix_ms: unix.as_millis() as u64,
        }
    }

    /// Microseconds since it was made.
    pub(crate) fn micros(&self) -> Micros {
        Micros(self.started.elapsed().as_micros() as u64)
    }

    /// When that many microseconds have passed.
    pub(crate) fn instant_at(&self, at: Micros) -> std::time::Instant {
        (self.started + Duration::from_micros(at.0)).into_std()
    }

    /// When a tick comes.
    pub(crate) fn instant(&self, tick: Tick) -> Instant {
        self.started + Duration::from_millis(tick.0)
    }
}

/// Microseconds since a little before it was made, so that none is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MicroClock {
    started: std::time::Instant,
    started_unix_micros: u64,
}

impl MicroClock {
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: std::time::Instant::now(), started_unix_micros: unix.as_micros() as u64 }
    }

    pub(crate) fn now(&self) -> u64 {
        1 + self.started.elapsed().as_micros() as u64
    }

    /// A time of this clock in microseconds since 1970.
    pub(crate) fn unix_micros(&self, at: u64) -> u64 {
        self.started_unix_micros + at
    }
}

/// The wall clock now: seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long something took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Nanoseconds since the start.
    pub(crate) fn elapsed_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Records the time since the start as a stage of the pipeline.
    pub(crate) fn record_stage(self, stage: &'static str) {
        metrics::histogram!("blockraft_pipeline_stage_duration_seconds", "stage" => stage)
            .record(self.0.elapsed().as_secs_f64());
    }
}
