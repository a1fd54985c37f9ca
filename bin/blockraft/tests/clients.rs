//! Real clients against a real cluster: see `tests/clients/run.sh`, which this only starts.

use std::{path::Path, process::Command};

#[test]
fn clients_work_against_any_node() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/run.sh");
    // Its output goes straight to the terminal: a skip must be seen without `--nocapture`.
    let status = Command::new("bash")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_blockraft"))
        .status()
        .expect("bash starts");
    assert!(status.success(), "client tests failed: {status}");
}
