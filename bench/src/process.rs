//! Programs under test, as child processes.

use crate::{http::Endpoint, rpc::Client};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a program may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a program may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A running program. Killed when dropped: a bench leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output is appended to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot open {}", log.display()))?;
        // A pipe to its input that ends with this process: `--exit-with-parent` watches it.
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("cannot start {program:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A signal by its name, without `SIG`.
    pub(crate) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(&pid).status()?;
        ensure!(sent.success(), "cannot send SIG{name} to {pid}");
        Ok(())
    }

    /// SIGKILL: the program can do nothing about it. Returns when it is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then waits for the end; SIGKILL when that takes too long.
    pub(crate) fn terminate(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(&pid).status()?;
        ensure!(asked.success(), "cannot send SIGTERM to {pid}");
        // A program that waits for the end of its input must not wait for this one to end.
        drop(self.child.stdin.take());
        let until = Instant::now() + END_WITHIN;
        while Instant::now() < until {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "process {pid} goes on {END_WITHIN:?} after SIGTERM; its log is {}",
            self.log.display()
        )
    }

    /// Waits until it answers a call. Errors when it ends first or takes too long.
    pub(crate) async fn wait_until_it_answers(
        &mut self,
        endpoint: &Endpoint,
        method: &str,
    ) -> anyhow::Result<()> {
        let mut client = Client::new(endpoint.clone());
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once ({status}); its log is {}", self.log.display());
            }
            match client.call::<Value>(method, json!([])).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => {
                    return Err(error.context(format!("its log is {}", self.log.display())));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that a process has started: the nodes of a devnet.
pub(crate) fn child_processes(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        children.extend(text.split_ascii_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(children)
}

/// The `blockraft` program: as told, or the one beside this program.
pub(crate) fn blockraft_binary(told: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match told {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("blockraft"),
    };
    ensure!(
        path.is_file(),
        "there is no {}: build it (`cargo build --release`) or name it with --bin",
        path.display()
    );
    Ok(path)
}

/// A new folder for data and logs, beneath the system's temporary folder.
pub(crate) fn scratch_dir(purpose: &str) -> anyhow::Result<PathBuf> {
    let name = format!("blockraft-{purpose}-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Errors when somebody listens on a port already: the bench would then measure another program.
pub(crate) fn ensure_free(port: u16) -> anyhow::Result<()> {
    std::net::TcpListener::bind(("127.0.0.1", port))
        .map(drop)
        .with_context(|| format!("port {port} is in use: choose another with --port"))
}
