//! Where members with a small share of a core run, and with what: the same for all that measures such.

use crate::process::blockraft_binary;
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Without a quota a lost heartbeat means a dead leader; under one it means that its share is used up.
const SETTINGS: &str = "raft-heartbeat-ms = 250\nraft-election-ms = 2500\n";

/// See the module.
#[derive(Args, Clone, Debug)]
pub(crate) struct SiteArgs {
    /// Percent of a core that the load generator has.
    #[arg(long, default_value_t = 40)]
    pub(crate) loader_quota: u64,
    /// Seconds between blocks.
    #[arg(long, default_value_t = 0.25)]
    block_time: f64,
    /// More lines for every member's `node.toml`; may be repeated.
    #[arg(long)]
    setting: Vec<String>,
    /// The `blockraft` program; the one beside this program when absent.
    #[arg(long)]
    bin: Option<PathBuf>,
    /// RPC port of the first node; Raft ports begin 100 above.
    #[arg(long, default_value_t = 21645)]
    pub(crate) port: u16,
    /// Where data directories are made, and removed after success; memory (`/dev/shm`) when there is such.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Also writes the report as JSON to this file.
    #[arg(long)]
    report: Option<PathBuf>,
}

impl SiteArgs {
    /// A new folder for everything that a measurement of that name leaves.
    pub(crate) fn make_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let memory = Path::new("/dev/shm");
        let parent = match &self.dir {
            Some(dir) => dir.clone(),
            None if memory.is_dir() => memory.to_owned(),
            None => std::env::temp_dir(),
        };
        let dir = parent.join(format!("blockraft-{name}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    pub(crate) fn binary(&self) -> anyhow::Result<PathBuf> {
        blockraft_binary(self.bin.as_deref())
    }

    /// The first lines of every `node.toml`.
    pub(crate) fn settings(&self) -> String {
        let mut text = format!("{SETTINGS}block-time = {:?}\n", self.block_time);
        self.setting.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
        text
    }

    /// Writes the report where it is wanted.
    pub(crate) fn keep(&self, report: &impl Serialize) -> anyhow::Result<()> {
        match &self.report {
            Some(path) => Ok(fs::write(path, serde_json::to_string_pretty(report)?)?),
            None => Ok(()),
        }
    }
}
