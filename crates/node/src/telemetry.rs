//! The process's metrics registry.

use crate::error::NodeError;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// Bounds of every `_seconds` histogram: 0.1 ms to 10 s.
const SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the registry, once a process; nodes of one process (tests) share it.
pub(crate) fn install() -> Result<PrometheusHandle, NodeError> {
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .map_err(|error| NodeError::Metrics(error.to_string()))?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    // Another node of this process may have been quicker: then its registry serves both.
    if metrics::set_global_recorder(recorder).is_ok() {
        let _ = HANDLE.set(handle.clone());
    }
    metrics::gauge!("blockraft_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(HANDLE.get().cloned().unwrap_or(handle))
}
