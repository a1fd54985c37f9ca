//! Control groups that hold each process to its share of a core, and their removal, whatever happens.
//!
//! Version 1 (a `cpu` hierarchy) and version 2 (one hierarchy with the `cpu` controller). A short period makes a
//! small share behave like a slow processor and not like one that stands still for most of each tenth of a second.

use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Length of the period over which a share is counted, microseconds.
const PERIOD_US: u64 = 10_000;
/// The kernel takes no smaller share of a period, microseconds: the period of a tiny share is longer.
const QUOTA_US_MIN: u64 = 1_000;
/// All groups are made below one whose name begins so, followed by this process's id.
const NAME: &str = "blockraft-scale-";
/// How long a group may stay busy after its last process has ended.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// Which interface the system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The groups of one run. Dropping them moves this process back and removes them.
#[derive(Debug)]
pub(crate) struct Groups {
    version: Version,
    /// Holds the others.
    top: PathBuf,
    /// Where this process came from.
    home: PathBuf,
    made: Vec<PathBuf>,
}

/// One group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    version: Version,
    path: PathBuf,
}

impl Groups {
    /// Finds the system's `cpu` controller, removes what a killed run has left there, and makes the group that
    /// holds the others.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
        let (version, root) = controller(&mounts).context(
            "this system has no cpu cgroup controller: give --quota 0 to run without quotas",
        )?;
        remove_leftovers(&root);
        let top = root.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir(&top).with_context(|| {
            format!(
                "cannot make the cgroup {}: quotas need root; give --quota 0 to run without them",
                top.display()
            )
        })?;
        let groups = Self { version, home: own_group(version, &root), top, made: Vec::new() };
        if version == Version::Two {
            for parent in [root.as_path(), &groups.top] {
                fs::write(parent.join("cgroup.subtree_control"), "+cpu")
                    .with_context(|| format!("no cpu controller below {}", parent.display()))?;
            }
        }
        Ok(groups)
    }

    /// A new group without a limit.
    pub(crate) fn make(&mut self, name: &str) -> anyhow::Result<Group> {
        let path = self.top.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        self.made.push(path.clone());
        Ok(Group { version: self.version, path })
    }

    /// Moves this process into a group.
    pub(crate) fn enter(&self, group: &Group) -> anyhow::Result<()> {
        join(&group.path)
    }

    /// Moves this process back to where it was.
    pub(crate) fn leave(&self) -> anyhow::Result<()> {
        join(&self.home)
    }

    /// Removes a group whose processes have ended.
    pub(crate) fn remove(&mut self, group: &Group) -> anyhow::Result<()> {
        self.made.retain(|path| *path != group.path);
        remove(&group.path)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // Nothing more can be done about any of these; the next run removes what is left.
        let _ = self.leave();
        for path in &self.made {
            let _ = remove(path);
        }
        let _ = remove(&self.top);
    }
}

impl Group {
    /// The file that a process writes its id to when it enters.
    pub(crate) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Percent of one core from now on; `None` for as much as there is.
    pub(crate) fn limit(&self, percent: Option<u64>) -> anyhow::Result<()> {
        let (period, quota) = period_and_quota(percent);
        match self.version {
            Version::One => {
                self.write("cpu.cfs_period_us", &period.to_string())?;
                let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                self.write("cpu.cfs_quota_us", &quota)
            }
            Version::Two => {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                self.write("cpu.max", &format!("{quota} {period}"))
            }
        }
    }

    /// Periods in which the group wanted more than its share.
    pub(crate) fn throttled(&self) -> anyhow::Result<u64> {
        let path = self.path.join("cpu.stat");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        throttled(&text).with_context(|| format!("{} has no nr_throttled", path.display()))
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    }
}

fn period_and_quota(percent: Option<u64>) -> (u64, Option<u64>) {
    let Some(percent) = percent else { return (PERIOD_US, None) };
    let period = PERIOD_US.max(QUOTA_US_MIN * 100 / percent.max(1));
    (period, Some((period * percent / 100).max(QUOTA_US_MIN)))
}

fn join(group: &Path) -> anyhow::Result<()> {
    let path = group.join("cgroup.procs");
    fs::write(&path, std::process::id().to_string())
        .with_context(|| format!("cannot enter {}", group.display()))
}

/// A process that was just killed keeps its group busy for a moment.
fn remove(path: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + REMOVE_WITHIN;
    loop {
        match fs::remove_dir(path) {
            Err(_) if Instant::now() < until && path.exists() => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) if path.exists() => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => return Ok(()),
        }
    }
}

/// Groups of runs that were killed: nothing runs in them, and their process is gone.
fn remove_leftovers(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(NAME)) else { continue };
        if Path::new("/proc").join(pid).exists() {
            continue;
        }
        let children = fs::read_dir(entry.path()).into_iter().flatten().flatten();
        for child in children.filter(|child| child.path().is_dir()) {
            // Left for an operator to look at when something still runs in it.
            let _ = fs::remove_dir(child.path());
        }
        let _ = fs::remove_dir(entry.path());
    }
}

/// The first `cpu` hierarchy of version 1, or else the hierarchy of version 2 if it can limit CPU.
fn controller(mounts: &str) -> Option<(Version, PathBuf)> {
    let fields = || mounts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let one = fields().find(|mount| {
        matches!(mount[..], [_, _, "cgroup", options, ..] if options.split(',').any(|o| o == "cpu"))
    });
    let two = || fields().find(|mount| matches!(mount[..], [_, _, "cgroup2", ..]));
    one.map(|mount| (Version::One, mount[1].into()))
        .or_else(|| two().map(|mount| (Version::Two, mount[1].into())))
}

fn own_group(version: Version, root: &Path) -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    root.join(own_path(version, &text).unwrap_or("").trim_start_matches('/'))
}

/// This process's place in the hierarchy, from `/proc/self/cgroup`.
fn own_path(version: Version, text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match version {
            Version::One => controllers.split(',').any(|name| name == "cpu"),
            Version::Two => controllers.is_empty(),
        };
        is_it.then_some(path)
    })
}

fn throttled(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_of_either_version_is_found() {
        let both = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                    cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = controller(both);
        assert_eq!(found, Some((Version::One, "/sys/fs/cgroup/cpu,cpuacct".into())));
        let found = controller("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
        assert_eq!(found, Some((Version::Two, "/sys/fs/cgroup".into())));
        assert_eq!(controller("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn the_period_of_a_tiny_share_is_longer() {
        assert_eq!(period_and_quota(None), (10_000, None));
        assert_eq!(period_and_quota(Some(20)), (10_000, Some(2_000)));
        assert_eq!(period_and_quota(Some(300)), (10_000, Some(30_000)));
        assert_eq!(period_and_quota(Some(1)), (100_000, Some(1_000)));
    }

    #[test]
    fn own_place_and_throttling_are_read() {
        let text = "5:cpuset:/\n4:cpu,cpuacct:/a/b\n0::/c\n";
        assert_eq!(own_path(Version::One, text), Some("/a/b"));
        assert_eq!(own_path(Version::Two, text), Some("/c"));
        assert_eq!(throttled("nr_periods 10\nnr_throttled 7\nthrottled_time 5\n"), Some(7));
        assert_eq!(throttled(""), None);
    }
}
