//! The files of a data directory: who may use it, whose it is, and where things lie in it.
//!
//! ```text
//! LOCK            held by the process that has the directory open (a kernel lock: it dies with it)
//! genesis.json    the chain; written last by `init`, so a directory that has it is whole
//! identity        cluster and node, JSON
//! CURRENT         number of the generation in use; absent for 0
//! log/            Raft log
//! chain/ state-NN/                 generation 0: chain and state shards
//! generation-G/chain/ ../state-NN/ generation G, made by installing a snapshot
//! snapshots/      finished snapshots
//! trie.checkpoint what a node that stopped left of its state trie; checked before it is used
//! init.tmp/       an `init` that has not finished
//! ```

use crate::{Identity, StorageError};
use alloy_primitives::B256;
use blockraft_primitives::ClusterGenesis;
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

const GENESIS: &str = "genesis.json";
const IDENTITY: &str = "identity";
const CURRENT: &str = "CURRENT";
const INIT: &str = "init.tmp";
/// What a half-written file ends with.
pub(crate) const TEMPORARY: &str = ".tmp";

/// The lock of a data directory, held until dropped or until the process ends.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

/// The paths of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// The paths of one generation of chain and state.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    /// Counted from 0 by installed snapshots.
    pub(crate) number: u64,
    /// The directory that holds `chain` and the shards.
    pub(crate) root: PathBuf,
}

impl DirLock {
    /// Takes the lock, making the directory if need be.
    pub(crate) fn take(datadir: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(datadir).map_err(|error| StorageError::io(datadir, error))?;
        let path = datadir.join("LOCK");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| StorageError::io(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(StorageError::Locked { datadir: datadir.to_owned() })
            }
            Err(TryLockError::Error(error)) => Err(StorageError::io(&path, error)),
        }
    }
}

impl DataDir {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn trie_checkpoint(&self) -> PathBuf {
        self.root.join("trie.checkpoint")
    }

    pub(crate) fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    /// Where `init` builds.
    pub(crate) fn init(&self) -> Self {
        Self { root: self.root.join(INIT) }
    }

    pub(crate) fn generation(&self, number: u64) -> Generation {
        let root = match number {
            0 => self.root.clone(),
            _ => self.root.join(format!("generation-{number}")),
        };
        Generation { number, root }
    }

    /// The generation in use.
    pub(crate) fn current(&self) -> Result<Generation, StorageError> {
        let path = self.root.join(CURRENT);
        let number = match read_if_there(&path)? {
            None => 0,
            Some(text) => text.trim().parse().map_err(|_| {
                StorageError::corrupt(path.display().to_string(), "not a generation number")
            })?,
        };
        Ok(self.generation(number))
    }

    /// Switches to another generation: from here on a restart opens that one.
    pub(crate) fn set_current(&self, generation: u64) -> Result<(), StorageError> {
        write_file(&self.root.join(CURRENT), format!("{generation}\n").as_bytes())
    }

    /// Removes what interrupted work left behind: generations not in use, half-written files.
    pub(crate) fn remove_leftovers(&self, current: u64) -> Result<(), StorageError> {
        remove_dir(&self.root.join(INIT))?;
        for entry in list(&self.root)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let generation = match name.strip_prefix("generation-") {
                Some(number) => number.parse().ok(),
                None if name == "chain" || name.starts_with("state-") => Some(0),
                None => None,
            };
            if generation.is_some_and(|generation: u64| generation != current) {
                remove_dir(&entry)?;
            }
        }
        if self.snapshots().exists() {
            for path in list(&self.snapshots())? {
                if path.extension().is_some_and(|extension| extension == &TEMPORARY[1..]) {
                    fs::remove_file(&path).map_err(|error| StorageError::io(&path, error))?;
                }
            }
        }
        Ok(())
    }

    /// The genesis, or `None` in a directory that was never initialised.
    pub(crate) fn read_genesis(&self) -> Result<Option<ClusterGenesis>, StorageError> {
        let path = self.root.join(GENESIS);
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        ClusterGenesis::from_json(&text)
            .map(Some)
            .map_err(|source| StorageError::Genesis { path, source })
    }

    pub(crate) fn write_genesis(&self, genesis: &ClusterGenesis) -> Result<(), StorageError> {
        let path = self.root.join(GENESIS);
        let text = serde_json::to_string_pretty(&genesis.genesis)
            .map_err(|error| StorageError::io(&path, error.into()))?;
        write_file(&path, text.as_bytes())
    }

    pub(crate) fn read_identity(&self) -> Result<Identity, StorageError> {
        let path = self.root.join(IDENTITY);
        let missing =
            || StorageError::NotInitialised { datadir: self.root.clone(), missing: IDENTITY };
        let text = read_if_there(&path)?.ok_or_else(missing)?;
        serde_json::from_str(&text)
            .map_err(|error| StorageError::corrupt(path.display().to_string(), error.to_string()))
    }

    pub(crate) fn write_identity(&self, identity: &Identity) -> Result<(), StorageError> {
        let path = self.root.join(IDENTITY);
        let text = serde_json::to_string_pretty(identity)
            .map_err(|error| StorageError::io(&path, error.into()))?;
        write_file(&path, text.as_bytes())
    }

    /// Makes an empty place for `init` to build in. An `init` that was killed left its own behind,
    /// and perhaps moved some of it; chain data without that is somebody's, and is not touched.
    pub(crate) fn begin_init(&self) -> Result<Self, StorageError> {
        let built = self.init();
        if built.root.exists() {
            list(&built.root)?.iter().try_for_each(|path| remove_dir(path))?;
        } else if self.generation(0).chain().exists() || self.root.join(CURRENT).exists() {
            let problem = "the directory holds a chain but no genesis.json";
            return Err(StorageError::corrupt(self.root.display().to_string(), problem));
        } else {
            fs::create_dir(&built.root).map_err(|error| StorageError::io(&built.root, error))?;
            sync_dir(&self.root)?;
        }
        Ok(built)
    }

    /// Moves what `init` built into its place, the genesis last.
    pub(crate) fn adopt_init(&self) -> Result<(), StorageError> {
        let built = self.init();
        let genesis = built.root.join(GENESIS);
        for path in
            list(&built.root)?.into_iter().filter(|path| *path != genesis).chain([genesis.clone()])
        {
            let Some(name) = path.file_name() else { continue };
            let target = self.root.join(name);
            // A run of `init` that was killed may have moved some of it already.
            remove_dir(&target)?;
            fs::rename(&path, &target).map_err(|error| StorageError::io(&path, error))?;
            fail::fail_point!("init-moved", |_| Err(StorageError::Injected {
                point: "init-moved"
            }));
        }
        sync_dir(&self.root)?;
        remove_dir(&built.root)
    }

    /// The error for a directory without a genesis.
    pub(crate) fn not_initialised(&self) -> StorageError {
        StorageError::NotInitialised { datadir: self.root.clone(), missing: GENESIS }
    }

    /// The error for a directory of another chain.
    pub(crate) fn another_genesis(&self, got: B256, expected: B256) -> StorageError {
        StorageError::AnotherGenesis { datadir: self.root.clone(), got, expected }
    }
}

impl Generation {
    pub(crate) fn chain(&self) -> PathBuf {
        self.root.join("chain")
    }

    pub(crate) fn shard(&self, shard: usize) -> PathBuf {
        self.root.join(format!("state-{shard:02}"))
    }

    /// Deletes chain and shards. Whoever still reads them keeps what is open.
    pub(crate) fn remove(&self, shard_count: usize) -> Result<(), StorageError> {
        if self.number != 0 {
            return remove_dir(&self.root);
        }
        remove_dir(&self.chain())?;
        (0..shard_count).try_for_each(|shard| remove_dir(&self.shard(shard)))
    }
}

/// Writes a file so that, whenever the process or machine dies, there is the old one or the new one.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| StorageError::io(&temporary, error))?;
    rename(&temporary, path)
}

/// Renames a synced file and syncs the directory.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(|error| StorageError::io(to, error))?;
    sync_dir(to.parent().unwrap_or(to))
}

/// Makes creations, renames and deletions in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(|error| StorageError::io(path, error))
}

/// Removes a file or a directory with all in it; nothing there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<(), StorageError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::io(path, error)),
        _ => Ok(()),
    }
}

/// The paths in a directory, sorted.
pub(crate) fn list(path: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let read = || fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    let mut paths: Vec<PathBuf> = read().map_err(|error| StorageError::io(path, error))?;
    paths.sort();
    Ok(paths)
}

fn read_if_there(path: &Path) -> Result<Option<String>, StorageError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io(path, error)),
    }
}
